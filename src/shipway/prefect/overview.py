"""The page over everything: deployments, releases, runs and models, out of the server and the stores it names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shipway.deployment.history import Moves, read_pointer
from shipway.deployment.step import block_of
from shipway.deployment.words import describe_schedule
from shipway.errors import ShipwayError, StoreError
from shipway.prefect.api import Api
from shipway.prefect.labels import release_of
from shipway.prefect.pages import is_of, kept_page, run_url
from shipway.prefect.runs import FINAL, data_folder, list_runs
from shipway.prefect.stores import default_block, store_of
from shipway.release.retention import in_parallel
from shipway.report.collect import page_key
from shipway.report.facts import DeploymentRow, Index, ModelLine, ReleaseRow, RunRow
from shipway.report.models import read_lines
from shipway.settings import Settings
from shipway.store.base import Store

RELEASES = 10
"""Releases of a deployment that are shown, the newest."""


class Overview:
    """Collects what the index shows; a store that does not answer costs its part, which is said."""

    def __init__(self, api: Api, settings: Settings) -> None:
        self.missing: list[str] = []
        self._api = api
        self._settings = settings
        self._stores: dict[str, Store | None] = {}

    def collect(self, folder: Path, limit: int) -> Index:
        """Return what the index in `folder` shows, with the newest `limit` runs; their pages are fetched into it."""
        rows = self._api.deployments()
        deployments = tuple(map(self._deployment, rows))
        runs = list_runs(self._api, deployment=None, state=None, limit=limit)
        blocks = {row["id"]: block_of(row) for row in rows}
        linked = set(self._fetch(folder, runs, blocks))
        return Index(
            server=self._api.ui_url,
            deployments=deployments,
            runs=tuple(self._run(run, linked) for run in runs),
            models=tuple(self._models()),
            missing=tuple(dict.fromkeys(self.missing)),
        )

    def _deployment(self, row: Mapping[str, Any]) -> DeploymentRow:
        block = block_of(row) or ""
        store = self._store(block)
        moves: Moves = ()
        try:
            pointer = read_pointer(store, row["flow_name"], row["name"]) if store else None
            moves = pointer.moves if pointer else ()
        except ShipwayError as error:
            self.missing.append(f"The releases of {row['flow_name']}/{row['name']} are missing: {error.message}.")
        current = next((i for i, move in enumerate(moves) if str(move.version) == row.get("version")), 0)
        return DeploymentRow(
            name=f"{row['flow_name']}/{row['name']}",
            release=row.get("version"),
            schedules=tuple(describe_schedule(item) for item in row.get("schedules", [])),
            paused=bool(row.get("paused")),
            store=block,
            ui=f"{self._api.ui_url}/deployments/deployment/{row['id']}",
            releases=tuple(
                ReleaseRow(str(move.version), move.at, i == current, move.pinned)
                for i, move in enumerate(moves[:RELEASES])
            ),
            total=len(moves),
        )

    def _store(self, block: str) -> Store | None:
        if block not in self._stores:
            try:
                self._stores[block] = store_of(self._settings, block) if block else None
            except ShipwayError as error:
                self._stores[block] = None
                self.missing.append(f"{block} is missing: {error.message}.")
        return self._stores[block]

    def _fetch(
        self, folder: Path, runs: Iterable[Mapping[str, Any]], blocks: Mapping[str, str | None]
    ) -> Iterator[str]:
        """Yield the keys of the pages that lie in `folder`, once those that are kept in a store have been fetched."""
        wanted: list[tuple[Store, str, Mapping[str, Any]]] = []
        for run in runs:
            key = page_key(data_folder(run))
            if _is_there(local_page(folder, key), run):
                yield key
            elif run["state_type"] in FINAL:
                deployed = run.get("deployment_id")
                block = blocks.get(deployed) if deployed else default_block(self._settings)
                if store := self._store(block or ""):
                    wanted.append((store, key, run))
        yield from (key for key in in_parallel(partial(_bring, folder), wanted) if key)

    def _run(self, run: Mapping[str, Any], linked: set[str]) -> RunRow:
        key = page_key(data_folder(run))
        return RunRow(
            name=run["name"],
            deployment=run["deployment"] or run["flow_name"],
            state=run.get("state_name") or "Unknown",
            started=run.get("start_time") or run.get("expected_start_time"),
            seconds=run.get("total_run_time") if run.get("start_time") else None,
            release=release_of(run),
            page=key.removeprefix("reports/") if key in linked else "",
            ui=run_url(self._api, run["id"]),
        )

    def _models(self) -> Iterator[tuple[str, tuple[ModelLine, ...]]]:
        seen: set[str] = set()
        for store in self._stores.values():
            if store is None or store.address in seen:
                continue
            seen.add(store.address)
            try:
                yield store.address, read_lines(store)
            except StoreError as error:
                self.missing.append(f"The models in {store.address} are missing: {error.message}.")


def local_page(folder: Path, key: str) -> Path:
    """Return the file in `folder` of the page under a key."""
    return folder / key.removeprefix("reports/")


def bring(store: Store, folder: Path, keys: Iterable[str]) -> None:
    """Fetch pages that are not in `folder` yet, as far as they are kept."""
    wanted = [(store, key, None) for key in keys if not local_page(folder, key).exists()]
    for _ in in_parallel(partial(_bring, folder), wanted):
        pass


def write_page(path: Path, html: bytes) -> None:
    """Write a page, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:200]}.part")
    try:
        scratch.write_bytes(html)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)


def _is_there(path: Path, run: Mapping[str, Any]) -> bool:
    """Tell whether a file is the page of a run; of one that has ended, not a page that was made before it had."""
    try:
        return is_of(path.read_bytes(), run) if run["state_type"] in FINAL else path.exists()
    except OSError:
        return False


def _bring(folder: Path, wanted: tuple[Store, str, Mapping[str, Any] | None]) -> str | None:
    store, key, run = wanted
    try:
        html = kept_page(store, key, run)
        if html is not None:
            write_page(local_page(folder, key), html)
    except (StoreError, OSError):
        return None
    return key if html is not None else None
