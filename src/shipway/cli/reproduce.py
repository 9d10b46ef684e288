"""`shipway reproduce`: run the same code with the same parameters and inputs again, and compare what comes out."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from shipway.cli.follow import watch_run
from shipway.cli.output import echo, epilog, json_option, print_json, print_table, say
from shipway.errors import InputError, NotFoundError, NotReproducedError, ObjectNotFoundError, UsageError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.prefect.api import Api
    from shipway.run.compare import Comparison
    from shipway.run.record import RunRecord
    from shipway.store.base import Store

EXAMPLES = [
    "shipway reproduce brave-otter",
    "shipway reproduce brave-otter --json",
    "shipway reproduce brave-otter --no-watch",
    "shipway reproduce brave-otter --with calm-heron",
]


@click.command(epilog=epilog(EXAMPLES, [1, 3, 4, 5, 6, 9, 10, 11, 12]))
@click.argument("run")
@click.option("--watch/--no-watch", default=True, help="Wait for its end and compare; by default it does.")
@click.option("--with", "other", metavar="RUN", help="Compare with this run instead of starting one.")
@json_option
def command(run: str, watch: bool, other: str | None, as_json: bool) -> None:
    """Run the release of RUN again, with its parameters and its inputs, and compare what is saved, digest by digest.

    What has been saved since RUN is not looked at. No model is registered, and no champion moves. Where something
    differs it is named, together with what may explain it, and the exit status is 12.
    """
    from shipway.prefect.api import Api

    if other and not watch:
        raise UsageError("--with and --no-watch do not go together")
    settings = Settings.load()
    api = Api(settings)
    store, folder, before = _record(api, run, settings)
    if other is None:
        created = _start(api, store, folder, before)
        page = f"{api.ui_url}/runs/flow-run/{created['id']}"
        if not watch:
            if as_json:
                print_json({"id": created["id"], "name": created["name"], "page": page})
            else:
                echo(f"Created run {created['name']}: {page}")
                say(f"Compare when it has ended: shipway reproduce {run} --with {created['name']}")
            return
        say(f"Run {created['name']} repeats {before.run_name}: {page}")
        watch_run(api, created["id"], settings=settings)
        other = created["id"]
    _, _, after = _record(api, other, settings)
    _tell(before, after, as_json)


def _tell(before: RunRecord, after: RunRecord, as_json: bool) -> None:
    from shipway.run.compare import compare

    found = compare(before, after)
    if as_json:
        runs = {"run": after.run_name, "id": after.run_id, "of": before.run_name, "identical": not found.differences}
        print_json({**runs, **asdict(found)})
    else:
        _show(found)
    if found.differences:
        count = len(found.differences)
        raise NotReproducedError(
            f"run {after.run_name} saved {'1 thing' if count == 1 else f'{count} things'} not as {before.run_name} did",
            hint="docs/howto/trace-and-reproduce.md says what to look for",
        )
    if not as_json:
        echo(f"Identical: {len(found.same)} saved by {after.run_name} as by {before.run_name}.")


def _show(found: Comparison) -> None:
    rows = [
        (item.problem, item.name, (item.before or "")[:12], (item.after or "")[:12], _rows(item.rows))
        for item in found.differences
    ]
    if rows:
        print_table(("PROBLEM", "NAME", "BEFORE", "AGAIN", "ROWS"), rows)
        echo(f"Identical: {len(found.same)}")
        for reason in found.reasons or (
            "Code, parameters, inputs and environment are the same: the flow itself varies",
        ):
            echo(f"{reason}.")


def _rows(rows: tuple[int | None, int | None]) -> str:
    if rows == (None, None):
        return ""
    return str(rows[0]) if rows[0] == rows[1] else " -> ".join("none" if row is None else str(row) for row in rows)


def _record(api: Api, wanted: str, settings: Settings) -> tuple[Store, str, RunRecord]:
    from shipway.prefect.runs import data_folder, find_run, store_block
    from shipway.prefect.stores import store_of
    from shipway.run.record import find_run_data

    run = find_run(api, wanted)
    block = store_block(api, run, settings)
    store = store_of(settings, block) if block else None
    found = find_run_data(store, data_folder(run)) if store else None
    if store is None or found is None:
        raise NotFoundError(
            f"run {run['name']} has no record", hint=f"it is {run['state_name']}; a run has one once it completed"
        )
    return store, *found


def _start(api: Api, store: Store, folder: str, before: RunRecord) -> dict[str, Any]:
    """Create the run that repeats another one.

    Raises:
        InputError: it cannot be repeated, as it ran without a release or a deployment.
        NotFoundError: its deployment or its release is gone.
    """
    from shipway.manifest import Version, read_manifest
    from shipway.prefect.labels import RELEASE, REPRODUCES
    from shipway.prefect.runs import create_run

    if before.release is None or before.deployment is None:
        raise InputError(
            f"run {before.run_name} cannot be repeated: it ran as a script on somebody's machine, not from a release",
            hint="deploy its flow, and run that",
        )
    try:
        deployment = api.deployment(before.deployment)
    except NotFoundError:
        raise NotFoundError(
            f"run {before.run_name} cannot be repeated: its deployment {before.deployment} is gone",
            hint="apply its deployment file again",
        ) from None
    version = Version.parse(before.release)
    try:
        read_manifest(store, version)
    except ObjectNotFoundError:
        raise NotFoundError(
            f"run {before.run_name} cannot be repeated: its release {version.short} is gone from {store.address}",
            hint="put the objects under code/ back from a backup, or from older versions that the bucket keeps",
        ) from None
    labels = {RELEASE: before.release, REPRODUCES: folder}
    return create_run(api, deployment, before.parameters, name=f"{before.run_name}-again", labels=labels)
