"""`shipway mlflow sync`: repair the mirror in MLflow."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING

import click

from shipway.cli.output import block_option, echo, epilog, json_option, print_json, print_table, say
from shipway.errors import MlflowError, NotFoundError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.mlflow.sync import Line

EVERY = 100
"""Runs after which a line tells how far it is, where there is no terminal."""


@click.group()
def command() -> None:
    """Mirror runs in MLflow."""


@command.command(
    epilog=epilog(
        ["shipway mlflow sync", "shipway mlflow sync main --since 2026-11-01 --dry-run", "shipway mlflow sync --json"],
        [3, 4, 5, 6, 13],
    )
)
@click.argument("flow", required=False)
@click.option(
    "--since",
    type=click.DateTime(["%Y-%m-%d"]),
    metavar="YYYY-MM-DD",
    help="Only runs that were due on this day (UTC) or later.",
)
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@block_option
@json_option
def sync(flow: str | None, since: datetime | None, dry_run: bool, block: str | None, as_json: bool) -> None:
    """Add the completed runs of FLOW, or of all flows, that MLflow lacks, and complete what it has half of.

    The server is named by MLFLOW_TRACKING_URI, and credentials by MLFLOW_TRACKING_USERNAME and
    MLFLOW_TRACKING_PASSWORD, or MLFLOW_TRACKING_TOKEN. Done again, it finds nothing to do. A run that was deleted in
    MLflow stays deleted.
    """
    from shipway.mlflow.server import Server
    from shipway.mlflow.sync import FAILED
    from shipway.mlflow.sync import sync as lines
    from shipway.prefect.stores import default_block, store_of

    settings = Settings.load()
    server = Server.from_environment()
    store = store_of(settings, block or default_block(settings))
    done: list[Line] = []
    day = since.date() if since else None
    try:
        with _progress() as note:
            for line in lines(server, store, flow=flow, since=day, dry_run=dry_run, progress=note):
                done.append(line)
    finally:
        # Also when MLflow went away: what was done until then is done.
        if as_json:
            rows = [asdict(line) for line in done]
            print_json({"mlflow": server.address, "store": store.address, "dry_run": dry_run, "runs": rows})
        else:
            _print(done, dry_run=dry_run)
    if flow and not done and not since:
        raise NotFoundError(f"{store.address} has no run of {flow!r}", hint="`shipway runs` lists runs")
    if not as_json:
        _sum_up(done, server.address, dry_run=dry_run)
    if failed := sum(line.what == FAILED for line in done):
        raise MlflowError(f"{failed} of {len(done)} runs could not be mirrored", hint="the list says why")


def _print(done: list[Line], *, dry_run: bool) -> None:
    from shipway.mlflow.mirror import DELETED, THERE

    rows = [
        (
            f"{line.flow}/{line.run}" if line.run else line.folder,
            f"to be {line.what}" if dry_run else line.what,
            line.detail,
        )
        for line in done
        if line.what not in (THERE, DELETED)
    ]
    if rows:
        print_table(("RUN", "WHAT", ""), rows)


def _sum_up(done: list[Line], address: str, *, dry_run: bool) -> None:
    counts = Counter(line.what for line in done)
    told = {
        "added": "to add" if dry_run else "added",
        "completed": "to complete" if dry_run else "completed",
        "there": "there already",
        "deleted": "deleted in MLflow, left so",
        "failed": "failed",
    }
    parts = [f"{counts[what]} {words}" for what, words in told.items() if counts[what]]
    echo(f"{address}: {', '.join(parts) or 'no runs to mirror'}.")


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """Show runs done of runs in all: a bar on a terminal, a line now and then elsewhere."""
    if not sys.stderr.isatty():

        def note(done: int, total: int) -> None:
            if done % EVERY == 0:
                say(f"{done} of {total} runs")

        yield note
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("Runs", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
