"""Pages of runs: what the server knows for them, when they are made, and where they are kept."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from shipway.digest import is_sealed_page, seal_page
from shipway.errors import NotFoundError, ObjectNotFoundError, StoreError
from shipway.prefect.api import Api
from shipway.prefect.labels import release_of
from shipway.prefect.runs import FINAL, LEVELS, data_folder, find_run, store_block
from shipway.prefect.stores import store_of
from shipway.report.facts import Page, Said, ServerFacts, StateFacts, TaskFacts
from shipway.run.record import RunRecord, find_record
from shipway.settings import Settings
from shipway.store.base import Store

MAX_TASKS = 1000
MAX_STATES = 20
ERROR_LINES = 12
LOG_LINES = 30
MAX_LINE = 8000

_LINK = re.compile(rb'href="\.\./\.\./(\w[\w.=-]*/\d{4}-\d\d-\d\d/\w[\w.=-]*\.html)"')

_END = re.compile(rb'<meta name="attempt" content="(\d+)">\s*<meta name="state" content="([A-Z]+)">')
_log = logging.getLogger("shipway")


def store_page(api: Api, record: RunRecord, store: Store, tasks: Iterable[TaskFacts]) -> tuple[str, str]:
    """Make the page of a run that has completed, and keep it beside the run's data.

    The data is committed and the run has completed by now, so whatever goes wrong here is a warning: the page is made
    when somebody asks for it.

    Args:
        api: the server that the run is known to.
        record: the run's record.
        store: where its data lies.
        tasks: its task runs.

    Returns:
        The verdict, and the page's address; the latter is empty where there is no page.
    """
    from shipway.report.collect import collect, folder_of, page_key
    from shipway.report.render import render

    verdict = "Completed"
    try:
        server = ServerFacts(
            record.run_id,
            record.run_name,
            record.flow,
            "Completed",
            "COMPLETED",
            page=run_url(api, record.run_id),
            tasks=tuple(tasks),
        )
        page = collect(record, store, server)
        verdict = _words(page)
        key = page_key(folder_of(record))
        store.put(key, seal_page(render(page).encode()))
        return verdict, store.url(key)
    except Exception as error:  # noqa: BLE001 - see above
        _log.warning("the run's page was not made, `shipway report %s` makes it: %s", record.run_name, error)
    return verdict, ""


def store_failed_page(
    api: Api, run_id: str, store: Store, said: Said, tasks: Iterable[TaskFacts], error: Iterable[str]
) -> tuple[str, str] | None:
    """Make the page of a run that has failed, and keep it: it is what one looks at then.

    Args:
        api: the server that the run is known to.
        run_id: the run.
        store: where its data would lie.
        said: what its flow had said for the page.
        tasks: its task runs.
        error: lines that tell of the error, where its log has not arrived at the server.

    Returns:
        The verdict, and the page's address; None where the run has not failed in the end, or there is no page.
    """
    from shipway.report.collect import collect_without, page_key
    from shipway.report.render import render

    try:
        run = find_run(api, run_id)
        if run["state_type"] != "FAILED":
            return None
        server = server_facts(api, run)
        page = collect_without(replace(server, tasks=tuple(tasks), errors=server.errors or tuple(error)), said)
        key = page_key(data_folder(run))
        store.put(key, seal_page(render(page).encode()))
        return _words(page), store.url(key)
    except Exception as problem:  # noqa: BLE001 - the run has failed already, and is to tell of that
        _log.warning("the run's page was not kept: %s", problem)
    return None


@dataclass(frozen=True, slots=True)
class FoundPage:
    """The page of a run.

    Attributes:
        html: it.
        key: of it, below `reports/` of a store.
        address: where it is kept, or "" where it is not: the run has no data, or goes on.
        store: where its data lies, or None.
        made: whether it was made just now.
    """

    html: bytes
    key: str
    address: str
    store: Store | None
    made: bool


def find_page(api: Api, run: Mapping[str, Any], settings: Settings, *, fresh: bool) -> FoundPage:
    """Return the page of a run that `find_run` has found, made now where it is not kept or is to be made anew.

    A run that has committed its data gets the page that was made when it completed, or one is made and kept; one that
    failed, crashed or was cancelled, the page that was made then. That of any other run tells what the server knows,
    and is not kept.

    Raises:
        StoreError: the store of a run that has completed does not answer.
    """
    from shipway.report.collect import page_key

    key = page_key(data_folder(run))
    completed = run["state_type"] == "COMPLETED"
    store, record = None, None
    try:
        block = store_block(api, run, settings)
        store = store_of(settings, block) if block else None
        if store and run["state_type"] in FINAL and not fresh:
            kept = kept_page(store, key, run)
            if kept:
                return FoundPage(kept, key, store.url(key), store, made=False)
        record = find_record(store, data_folder(run)) if store and run["state_type"] in FINAL else None
    except (StoreError, NotFoundError):
        # There is nothing to be missed in it of a run that did not complete.
        if completed:
            raise
    from shipway.report.render import render

    html = seal_page(render(_collect(api, run, store, record, eager=True)).encode())
    address = ""
    if completed and store and record:
        store.put(key, html)
        address = store.url(key)
    return FoundPage(html, key, address, store, made=True)


def store_ended_page(api: Api, run_id: str, settings: Settings) -> tuple[str, str, Mapping[str, Any]] | None:
    """Make the page of a run that was ended and could say nothing itself, and keep it.

    Returns:
        The verdict, the page's address, and the run; None where it did not crash and was not cancelled in the end, it
        has its page, or has no store.

    Raises:
        ShipwayError: the server or the store failed.
    """
    from shipway.report.collect import page_key
    from shipway.report.render import render

    run = find_run(api, run_id)
    block = store_block(api, run, settings)
    if run["state_type"] not in ("CRASHED", "CANCELLED") or block is None:
        return None
    store, key = store_of(settings, block), page_key(data_folder(run))
    if kept_page(store, key, run):
        return None
    page = _collect(api, run, store, find_record(store, data_folder(run)), eager=False)
    store.put(key, seal_page(render(page).encode()))
    return _words(page), store.url(key), run


def _collect(api: Api, run: Mapping[str, Any], store: Store | None, record: RunRecord | None, *, eager: bool) -> Page:
    from shipway.report.collect import collect, collect_without

    server = server_facts(api, run)
    return collect(record, store, server, eager=eager) if store and record else collect_without(server)


def _words(page: Page) -> str:
    return " ".join((page.verdict.word, *page.verdict.reasons[:1]))


def neighbours(html: bytes) -> list[str]:
    """Return the keys of the pages that a page links."""
    return [f"reports/{found.decode()}" for found in dict.fromkeys(_LINK.findall(html))]


def kept_page(store: Store, key: str, run: Mapping[str, Any] | None = None) -> bytes | None:
    """Return a page as it was kept; None where there is none, or not as it was written: it can be made again.

    Args:
        store: where it is kept.
        key: of it.
        run: the run as it ended; a page of how an attempt before it ended is none of it.
    """
    try:
        html = store.read(key)
    except ObjectNotFoundError:
        return None
    return html if is_sealed_page(html) and (run is None or is_of(html, run)) else None


def is_of(page: bytes, run: Mapping[str, Any]) -> bool:
    """Tell whether a page is of a run as it ended, and not of how it, or an attempt before, was meanwhile."""
    found = _END.search(page)
    if found is None or found[2].decode() != run["state_type"]:
        return False
    return found[2] == b"COMPLETED" or int(found[1]) == max(run.get("run_count") or 0, 1)


def run_url(api: Api, run_id: str) -> str:
    """Return the address of a run in the UI."""
    return f"{api.ui_url}/runs/flow-run/{run_id}"


def server_facts(api: Api, run: Mapping[str, Any]) -> ServerFacts:
    """Return what the server knows of a run that `find_run` has found."""
    deployment = api.find(f"/deployments/{run['deployment_id']}") if run.get("deployment_id") else None
    state = run.get("state") or {}
    ended = run["state_type"] in ("CRASHED", "CANCELLED")
    failed = run["state_type"] == "FAILED"
    return ServerFacts(
        run_id=run["id"],
        run_name=run["name"],
        flow=run["flow_name"],
        state=run.get("state_name") or "Unknown",
        kind=run.get("state_type") or "",
        deployment=f"{run['flow_name']}/{deployment['name']}" if deployment else None,
        message=state.get("message") or "",
        release=release_of(run),
        parameters=run.get("parameters") or {},
        scheduled=run.get("expected_start_time"),
        # Prefect has one that never began start in the moment that it ends.
        started=run.get("start_time") if run.get("run_count") else None,
        seconds=run.get("total_run_time") or 0.0,
        attempts=max(run.get("run_count") or 0, 1),
        page=run_url(api, run["id"]),
        tasks=task_facts(api, run["id"]),
        states=_states(api, run["id"]) if ended or failed else (),
        errors=_log_lines(api, run["id"], ERROR_LINES, level=40) if failed else (),
        log=_log_lines(api, run["id"], LOG_LINES) if ended else (),
    )


def _states(api: Api, run_id: str) -> tuple[StateFacts, ...]:
    rows = sorted(api.request("GET", f"/flow_run_states/?flow_run_id={run_id}"), key=lambda row: row["timestamp"])
    return tuple(
        StateFacts(row["name"], row["timestamp"], (row.get("message") or "")[:1000]) for row in rows[-MAX_STATES:]
    )


def task_facts(api: Api, run_id: str) -> tuple[TaskFacts, ...]:
    """Return the task runs of a run, in the order in which they began."""
    body = {"task_runs": {"flow_run_id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"}
    rows: list[dict[str, Any]] = []
    for row in api.pages("/task_runs/filter", body):
        rows.append(row)
        if len(rows) == MAX_TASKS:
            break
    return tuple(map(_task, sorted(rows, key=lambda row: (row.get("start_time") or "9", row["name"]))))


def _task(row: Mapping[str, Any]) -> TaskFacts:
    return TaskFacts(
        name=row["name"],
        state=row.get("state_name") or "Unknown",
        kind=row.get("state_type") or "",
        started=row.get("start_time"),
        seconds=row.get("total_run_time") or 0.0,
        message=((row.get("state") or {}).get("message") or "")[:1000],
        attempts=max(row.get("run_count") or 0, 1),
    )


def _log_lines(api: Api, run_id: str, count: int, level: int = 0) -> tuple[str, ...]:
    """Return the last lines of a run's log from a level on."""
    body = {
        "logs": {"flow_run_id": {"any_": [run_id]}, "level": {"ge_": level}},
        "sort": "TIMESTAMP_DESC",
        "limit": count,
    }
    rows: Iterable[dict[str, Any]] = api.request("POST", "/logs/filter", body)
    lines = [
        f"{row['timestamp'][11:19]} {LEVELS.get(row['level'] // 10 * 10, 'ERROR')} {row['message']}"[:MAX_LINE]
        for row in rows
    ]
    return tuple(reversed(lines))
