"""`shipway why`: what something was made of, down to raw inputs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from shipway.cli.output import block_option, echo, epilog, json_option, print_json, print_table, say
from shipway.errors import InputError, NotFoundError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.run.lineage import Lineage, Target
    from shipway.run.record import RunRecord
    from shipway.store.base import Store

SHOWN = 12
"""Digits of a digest, and files of a release, that the tree shows; `--json` has all."""

EXAMPLES = [
    "shipway why arrival-delay",
    "shipway why arrival-delay@7",
    "shipway why brave-otter:metrics --raw",
    "shipway why s3://bucket/runs/main/2026-11-27/brave-otter-90ab12cd/1/metrics.json",
    "shipway why brave-otter --json",
]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 9]))
@click.argument("what")
@click.option("--raw", is_flag=True, help="The raw inputs only.")
@block_option
@json_option
def command(what: str, raw: bool, block: str | None, as_json: bool) -> None:
    """Show what WHAT was made of: run, code, lock files, environment, files read, inputs, and their runs in turn.

    WHAT is a model (its champion is meant) or MODEL@VERSION, RUN:ARTIFACT, a RUN by name or id, or the address of an
    object in the store. At the end stand the raw inputs with their digests: data files of releases, artifacts named
    `raw/...`, and what comes from runs that loaded nothing. With --json it is a list of OpenLineage events, one for
    each run; with --raw --json, the raw inputs.
    """
    from shipway.run.lineage import trace

    store, target = _find(what, block)
    lineage = trace(store, target)
    if as_json and raw:
        print_json([asdict(item) for item in lineage.raw()])
    elif as_json:
        from shipway.run.openlineage import events

        print_json(events(store, lineage))
    else:
        if not raw:
            for line in _Tree(lineage).lines():
                echo(line)
            echo()
        _show_raw(lineage)
    if lineage.cut:
        say(f"Note: {lineage.cut} more runs were not looked at, nor what they were made of.")


def _find(what: str, block: str | None) -> tuple[Store, Target]:
    from shipway.prefect.stores import default_block, is_local_default, store_of
    from shipway.run.lineage import find_key, find_model

    settings = Settings.load()
    if "://" in what:
        store = store_of(settings, block or default_block(settings))
        start = f"{store.address}/"
        if not what.startswith(start):
            raise InputError(f"{what} does not lie in {store.address}", hint="name its store with -sb TYPE/NAME")
        return store, find_key(store, what.removeprefix(start))
    # A run may be in the store of its deployment where there is no default one to look for models in.
    named = block or default_block(settings)
    if ":" not in what and not (block is None and is_local_default(settings, named)):
        store = store_of(settings, named)
        if found := find_model(store, what):
            return store, found
    return _find_run(what, block, settings)


def _find_run(what: str, block: str | None, settings: Settings) -> tuple[Store, Target]:
    from shipway.prefect.api import Api
    from shipway.prefect.runs import data_folder, find_run, store_block
    from shipway.prefect.stores import store_of
    from shipway.run.lineage import Target
    from shipway.run.record import find_run_data

    api = Api(settings)
    name, colon, artifact = what.partition(":")
    try:
        run = find_run(api, name)
    except NotFoundError:
        if colon:
            raise
        raise NotFoundError(
            f"there is no model and no run {what!r}", hint="`shipway models` and `shipway runs` list them"
        ) from None
    block = block or store_block(api, run, settings)
    store = store_of(settings, block) if block else None
    found = find_run_data(store, data_folder(run)) if store else None
    if store is None or found is None:
        raise NotFoundError(
            f"run {run['name']} has no record", hint=f"it is {run['state_name']}; a run has one once it completed"
        )
    folder, record = found
    if not colon:
        return store, Target("run", record.run_name, folder)
    saved = record.artifact(artifact)
    return store, Target("artifact", saved.name, folder, saved.key)


class _Tree:
    """A lineage as lines of text; what comes up again is referred to."""

    def __init__(self, lineage: Lineage) -> None:
        self.lineage = lineage
        self.seen: set[str] = set()

    def lines(self) -> Iterator[str]:
        target = self.lineage.target
        record = self.lineage.runs[target.folder]
        if target.kind != "run":
            saved = () if isinstance(record, str) else record.artifacts
            digest = next((artifact.sha256[:SHOWN] for artifact in saved if artifact.key == target.key), "not saved")
            facts = f" version {target.facts['version']}" if target.facts else ""
            champion = ", champion" if target.facts.get("champion") else ""
            yield f"{target.kind} {target.name}{facts}{champion}  {digest}"
            yield f"└─ {self.title(target.folder)}"
            yield from self.below(target.folder, "   ")
        else:
            yield self.title(target.folder)
            yield from self.below(target.folder, "")

    def title(self, folder: str) -> str:
        record = self.lineage.runs.get(folder)
        if record is None or isinstance(record, str):
            return f"{folder}  {record or 'not looked at'}"
        again = "  (see above)" if folder in self.seen else ""
        repeats = f"  repeats {record.reproduces.rpartition('/')[2]}" if record.reproduces else ""
        return f"run {record.run_name}  {record.deployment or record.flow}  {record.timings['ended']}{repeats}{again}"

    def below(self, folder: str, indent: str) -> Iterator[str]:
        from shipway.run.lineage import inputs_of
        from shipway.run.references import run_of

        record = self.lineage.runs.get(folder)
        if record is None or isinstance(record, str) or folder in self.seen:
            return
        self.seen.add(folder)
        inputs: dict[str, list[Mapping[str, str]]] = {}
        for item in inputs_of(record):
            inputs.setdefault(run_of(item["key"]), []).append(item)
        facts = list(self.facts(record))
        for place, fact in enumerate(facts, 1):
            yield f"{indent}{'└' if place == len(facts) and not inputs else '├'}─ {fact}"
        for place, (maker, items) in enumerate(inputs.items(), 1):
            last = place == len(inputs)
            inner = f"{indent}{' ' if last else '│'}  "
            yield f"{indent}{'└' if last else '├'}─ from {self.title(maker)}"
            for item in items:
                problem = self.lineage.problem(item)
                told = f"  {problem}" if problem else ""
                yield f"{inner}│  {item.get('kind', 'artifact')} {item['name']}  {item['sha256'][:SHOWN]}{told}"
            yield from self.below(maker, inner)

    def facts(self, record: RunRecord) -> Iterator[str]:
        from shipway.run.lineage import environment_digest

        if record.parameters:
            yield f"parameters  {json.dumps(dict(record.parameters), ensure_ascii=False)}"
        if record.release:
            locks = self.lineage.locks.get(record.release, {})
            code = f"code  release {record.release.partition('.')[2][:SHOWN]}"
            if isinstance(locks, str):
                yield f"{code}  {locks}"
            else:
                yield code
                yield f"lock files  {_files(locks) or 'none in the release'}"
        packages = len(record.environment.get("packages", {}))
        yield (
            f"environment  {environment_digest(record)[:SHOWN]}  Python {record.environment.get('python')}, "
            f"{record.environment.get('platform')}, {packages} packages"
        )
        if record.release:
            read = _files({item["path"]: item["sha256"] for item in record.reads})
            gap = f"  (there may be more: {record.reads_gap})" if record.reads_gap else ""
            yield f"read  {read or 'no file of the release'}{gap}"


def _files(digests: Mapping[str, str]) -> str:
    told = [f"{path} {sha256[:SHOWN]}" for path, sha256 in digests.items()]
    more = f" and {len(told) - SHOWN} more" if len(told) > SHOWN else ""
    return f"{', '.join(told[:SHOWN])}{more}"


def _show_raw(lineage: Lineage) -> None:
    found = lineage.raw()
    if not found:
        echo("Raw inputs: none are known; the runs loaded nothing and read no data file of their releases.")
        return
    print_table(("RAW INPUT", "SHA256", "FROM"), [(item.name, item.sha256, item.source) for item in found])
