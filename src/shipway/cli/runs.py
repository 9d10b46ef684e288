"""`shipway runs`: list runs."""

from __future__ import annotations

from datetime import datetime

import click

from shipway.cli.output import epilog, json_option, print_json, print_table, say
from shipway.prefect.labels import release_of
from shipway.settings import Settings


@click.command(
    epilog=epilog(["shipway runs", "shipway runs main/daily --state failed --limit 50", "shipway runs --json"], [4, 5])
)
@click.argument("deployment", metavar="[FLOW/NAME]", required=False)
@click.option(
    "--state",
    type=click.Choice(["scheduled", "pending", "running", "completed", "failed", "crashed", "cancelled", "paused"]),
    help="Only runs in this state.",
)
@click.option("--limit", type=click.IntRange(1, 200), default=20, show_default=True, help="How many, the newest first.")
@json_option
def command(deployment: str | None, state: str | None, limit: int, as_json: bool) -> None:
    """List runs, the newest first; those of schedules that are not due yet with --state scheduled only."""
    from shipway.prefect.api import Api
    from shipway.prefect.runs import list_runs

    rows = list_runs(Api(Settings.load()), deployment=deployment, state=state, limit=limit)
    if as_json:
        keys = (
            "name",
            "id",
            "flow_name",
            "deployment",
            "state_name",
            "start_time",
            "end_time",
            "total_run_time",
            "parameters",
        )
        print_json([{key: row.get(key) for key in keys} | {"release": release_of(row)} for row in rows])
    elif not rows:
        say("There are no such runs.")
    else:
        headers = ("RUN", "DEPLOYMENT", "STATE", "STARTED", "SECONDS", "RELEASE")
        print_table(
            headers,
            [(r["name"], r["deployment"] or r["flow_name"], r["state_name"], *_times(r), _short(r)) for r in rows],
        )


def _times(row: dict[str, object]) -> tuple[str, str]:
    start = row.get("start_time")
    if not isinstance(start, str):
        due = row.get("expected_start_time")
        return f"due {_local(due)}" if isinstance(due, str) else "", ""
    return _local(start), f"{row['total_run_time']:.1f}"


def _local(time: str) -> str:
    return datetime.fromisoformat(time).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def _short(row: dict[str, object]) -> str:
    return str(release_of(row) or "").partition(".")[2][:12]
