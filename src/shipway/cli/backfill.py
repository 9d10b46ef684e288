"""`shipway backfill`: one run for each value of a parameter."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from shipway.cli.output import echo, epilog, json_option, print_json, print_table, say
from shipway.errors import RunCancelledError, RunCrashedError, RunFailedError
from shipway.settings import Settings
from shipway.terminal import visible

if TYPE_CHECKING:
    from rich.table import Table

    from shipway.prefect.backfill import Row

STATES = {"COMPLETED": "green", "RUNNING": "blue", "FAILED": "red", "CRASHED": "red", "CANCELLED": "yellow"}
ACTIONS = {"create": "run", "again": "run again", "join": "wait for", "skip": "nothing to do"}
GO_ON = "the same command goes on where this one stopped"


@click.command(
    epilog=epilog(
        [
            "shipway backfill main/flights -p month=2013-02..2013-12",
            "shipway backfill main/flights -p month=2013-02..2013-12 --dry-run",
            "shipway backfill main/flights -p month=2013-02..2013-12 -p history=12 --parallel 3",
            "shipway backfill main/daily -p day=2013-01-01..2013-12-31/7d -p origin=EWR,JFK,LGA --keep-going",
        ],
        [1, 3, 4, 5, 10, 11],
    )
    + "\n\nThe status is that of the first run, in order, that did not complete."
    + " With --dry-run, exit status 2 says that there is something to do."
)
@click.argument("deployment", metavar="FLOW/NAME")
@click.option(
    "-p",
    "--param",
    "parameters",
    multiple=True,
    required=True,
    metavar="KEY=VALUES",
    help="Values of a parameter: one, a list A,B,C, or a range FROM..TO[/STEP] of months, days, hours or whole "
    "numbers, both ends included. Repeatable: every combination, the last one varying fastest.",
)
@click.option(
    "--parallel",
    type=click.IntRange(1, 100),
    default=1,
    show_default=True,
    metavar="N",
    help="So many at once. They begin in order, and look at the champion one after the other.",
)
@click.option("--keep-going", is_flag=True, help="Go on with the next value after a run that did not complete.")
@click.option("--again", is_flag=True, help="Run values that have completed once more, as when their data has changed.")
@click.option("--dry-run", is_flag=True, help="Show what would be done for each value, do nothing.")
@json_option
def command(
    deployment: str,
    parameters: tuple[str, ...],
    parallel: int,
    keep_going: bool,
    again: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Run a deployment once for each of many values: the months of a year, the parts of a data set.

    A value whose run has completed with the current release and the same parameters is left alone, one whose run goes
    on is waited for, one whose run did not complete is run again. So the same command goes on where one was stopped or
    killed, and has nothing to do when all is done. After a new release all values are run anew, with that.

    A run begins when the one before it has completed. After one that has not, none is begun any more.
    """
    from shipway.deployment.backfill import plan, wanted_runs
    from shipway.prefect.api import Api
    from shipway.prefect.backfill import Row, allowed_at_once, drive, existing_runs

    api = Api(Settings.load())
    found = api.deployment(deployment)
    wanted = wanted_runs(deployment, found, parameters)
    steps = plan(wanted, existing_runs(api, wanted), again=again)
    rows = [Row(step, step.run if step.action in ("join", "skip") else None) for step in steps]
    idle = all(step.action == "skip" for step in steps)
    if dry_run:
        if as_json:
            print_json(_facts(api.ui_url, deployment, found, rows))
        else:
            print_table(("VALUE", "WHAT WOULD BE DONE", "LAST RUN"), [_planned(row) for row in rows])
        return 0 if idle else 2
    if not idle:
        limit = allowed_at_once(api, found) if parallel > 1 else None
        if limit and limit[0] < parallel:
            say(f"{limit[0]} at once, not {parallel}: {limit[1]} allows no more")
            parallel = limit[0]
        try:
            with _progress(rows, quiet=as_json) as tell:
                drive(api, found, rows, parallel=parallel, keep_going=keep_going, tell=tell)
        except KeyboardInterrupt:
            say(f"Runs that have been created go on; {GO_ON}." if not again else "Runs that have been created go on.")
            raise
    if as_json:
        print_json(_facts(api.ui_url, deployment, found, rows))
    else:
        echo(_summary(deployment, rows))
    _raise_for_the_first(rows)
    return 0


def _planned(row: Row) -> tuple[str, str, str]:
    last = row.step.run
    return row.step.wanted.name, ACTIONS[row.step.action], f"{last['name']}, {last['state_name']}" if last else ""


def _facts(ui_url: str, name: str, deployment: dict[str, Any], rows: Sequence[Row]) -> dict[str, Any]:
    return {
        "deployment": name,
        "release": deployment.get("version"),
        "values": [
            {
                "value": row.step.wanted.name,
                "parameters": dict(row.step.wanted.parameters),
                "action": row.step.action,
                "state": row.state or None,
                "run": row.run["name"] if row.run else None,
                "id": row.run["id"] if row.run else None,
                "seconds": None if row.seconds is None else round(row.seconds, 3),
                "page": f"{ui_url}/runs/flow-run/{row.run['id']}" if row.run else None,
            }
            for row in rows
        ],
    }


def _summary(deployment: str, rows: Sequence[Row]) -> str:
    """Say in a line how many values are in which state."""
    skipped = sum(row.step.action == "skip" for row in rows)
    if skipped == len(rows):
        return f"Nothing to do: all {len(rows)} values of {deployment} have completed before"
    counts = Counter(row.state or "not begun" for row in rows if row.step.action != "skip")
    words = [f"{count} {state}" for state, count in counts.items()]
    return f"{deployment}: {', '.join(words + ([f'{skipped} completed before'] if skipped else []))}"


def _raise_for_the_first(rows: Sequence[Row]) -> None:
    """Raise for the first run, in order, that has ended without completing."""
    errors = {"CRASHED": RunCrashedError, "CANCELLED": RunCancelledError}
    for row in rows:
        if row.ended and row.state_type != "COMPLETED":
            error = errors.get(row.state_type, RunFailedError)
            name = row.run["name"] if row.run else row.step.wanted.name
            raise error(f"run {name} is {row.state}", hint=f"`shipway show {name}` says why; then {GO_ON}")


@contextmanager
def _progress(rows: Sequence[Row], *, quiet: bool) -> Iterator[Callable[[Row | None], None]]:
    """Show how far the values are: a table on a terminal, a line for each news elsewhere."""
    if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" and not quiet:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        with Live(console=console, auto_refresh=False) as live:

            def show(_row: Row | None) -> None:
                live.update(_table(rows, max(3, console.height - 4)), refresh=True)

            show(None)
            yield show
        return
    width = max(len(row.step.wanted.name) for row in rows)

    def line(row: Row | None) -> None:
        if row is not None and row.state_type != "PENDING":
            seconds = f" in {row.seconds:.1f} s" if row.ended and row.seconds is not None else ""
            # Of a run that was just made its state says nothing yet.
            state = row.state if row.state != "Scheduled" else "created"
            echo(f"{row.step.wanted.name:{width}}  {state}{seconds}", fg=STATES.get(row.state_type), err=True)

    for row in rows:
        if row.step.action == "join":
            say(f"{row.step.wanted.name:{width}}  {row.state} already")
    yield line


def _table(rows: Sequence[Row], height: int) -> Table:
    """Draw the rows that fit, from a little before the first whose run has not ended."""
    from rich.table import Table
    from rich.text import Text

    first = next((number for number, row in enumerate(rows) if not row.ended), len(rows))
    start = max(0, min(first - height // 3, len(rows) - height))
    ended = sum(row.ended for row in rows)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim", title_justify="left", title_style="bold")
    table.title = f"{ended} of {len(rows)} done"
    for title in ("value", "run", "state"):
        table.add_column(title, no_wrap=True, overflow="ellipsis")
    table.add_column("seconds", no_wrap=True, justify="right")
    for row in rows[start : start + height]:
        skipped = row.step.action == "skip"
        state, style = ("completed before", "dim") if skipped else (row.state, STATES.get(row.state_type, ""))
        seconds = "" if skipped or row.seconds is None else f"{row.seconds:.0f}"
        name, run = row.step.wanted.name, row.run["id"][-8:] if row.run else ""
        table.add_row(Text(visible(name)), Text(visible(run)), Text(visible(state), style), Text(seconds))
    return table
