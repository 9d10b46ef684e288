"""`shipway verify`: read everything that is in use, and say what is missing or damaged."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from shipway.cli.output import block_option, echo, epilog, json_option, print_json, print_table, progress, say, size
from shipway.errors import IntegrityError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.release.verify import Finding

SHOWN = 3
"""Files named of one damaged object; `--json` names all."""


@click.command(
    epilog=epilog(["shipway verify", "shipway verify -sb s3/prod", "shipway verify --json"], [3, 4, 5, 6, 9])
)
@block_option
@json_option
def command(block: str | None, as_json: bool) -> None:
    """Read every release, run record, artifact, model, kept result and page, and compare it with its digest.

    Nothing is changed. What is missing or damaged is listed with those who need it.
    """
    from shipway.prefect.stores import default_block, store_of
    from shipway.run.verify import verify

    settings = Settings.load()
    store = store_of(settings, block or default_block(settings))
    with progress("Read and compared") as note:
        report = verify(store, note)
    if as_json:
        print_json({"store": store.address, **asdict(report)})
    else:
        echo(
            f"{store.address}: {_count(report.deployments, 'deployment')}, {_count(report.releases, 'release')}, "
            f"{_count(report.runs, 'run')} with {_count(report.artifacts, 'artifact')}, "
            f"{f'{report.models} versions of models, ' if report.models else ''}"
            f"{_count(report.pages, 'page') + ', ' if report.pages else ''}{size(report.bytes)}"
        )
        if report.findings:
            print_table(("PROBLEM", "OF", "LOST", "NEEDED BY", "OBJECT"), [_row(item) for item in report.findings])
    if report.findings:
        count = len(report.findings)
        raise IntegrityError(
            f"{_count(count, 'thing')} {'is' if count == 1 else 'are'} missing or damaged in {store.address}",
            hint="docs/howto/reclaim-space.md says how to mend that",
        )
    if not as_json:
        echo("All is well." if report.deployments + report.runs else "This store holds no deployment and no run.")
    if not block and not report.deployments:
        say("Note: a deployment's store is the block that its file names; -sb TYPE/NAME chooses that one.")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _row(item: Finding) -> tuple[str, str, str, str, str]:
    name = item.name.partition(".")[2][:12] if item.kind == "release" else item.name
    lost = ", ".join(item.paths[:SHOWN]) or item.reason or "all of it"
    more = len(item.paths) - SHOWN
    return (
        item.problem,
        f"{item.kind} {name}",
        f"{lost} and {more} more" if more > 0 else lost,
        ", ".join(item.users),
        item.key,
    )
