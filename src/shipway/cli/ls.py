"""`shipway ls`: list deployments."""

from __future__ import annotations

from typing import Any

import click

from shipway.cli.output import epilog, json_option, print_json, print_table, say
from shipway.deployment.words import describe_schedule
from shipway.settings import Settings


@click.command(epilog=epilog(["shipway ls", "shipway ls --json"], [5]))
@json_option
def command(as_json: bool) -> None:
    """List deployments with their release, queue, schedules and tags."""
    from shipway.prefect.api import Api

    rows = Api(Settings.load()).deployments()
    facts = [_facts(row) for row in rows]
    if as_json:
        print_json(facts)
    elif not facts:
        say("There is no deployment yet; make one with `shipway deploy ./FILE.py:FLOW -n NAME`.")
    else:
        headers = ("DEPLOYMENT", "RELEASE", "QUEUE", "SCHEDULES", "TAGS")
        print_table(
            headers,
            [
                (f["deployment"], _short(f["release"]), f["queue"], "; ".join(f["schedules"]), ", ".join(f["tags"]))
                for f in facts
            ],
        )


def _facts(row: dict[str, Any]) -> dict[str, Any]:
    return {
        "deployment": f"{row['flow_name']}/{row['name']}",
        "id": row["id"],
        "release": row.get("version"),
        "work_pool": row.get("work_pool_name"),
        "queue": row.get("work_queue_name"),
        "tags": row["tags"],
        "paused": row["paused"],
        "schedules": [describe_schedule(item) for item in row.get("schedules", [])],
        "entrypoint": row.get("entrypoint"),
    }


def _short(release: str | None) -> str:
    _, dot, digest = (release or "").partition(".")
    return digest[:12] if dot else release or ""
