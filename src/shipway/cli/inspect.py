"""`shipway inspect`: show one deployment."""

from __future__ import annotations

import json

import click

from shipway.cli.ls import describe_schedule
from shipway.cli.output import epilog, json_option, print_json
from shipway.settings import Settings


@click.command(epilog=epilog(["shipway inspect main/daily", "shipway inspect main/daily --json"], [4, 5]))
@click.argument("deployment", metavar="FLOW/NAME")
@json_option
def command(deployment: str, as_json: bool) -> None:
    """Show a deployment: release, queue, parameters, schedules, store."""
    from shipway.deployment.step import block_of
    from shipway.prefect.api import Api

    api = Api(Settings.load())
    found = api.deployment(deployment)
    if as_json:
        print_json(found)
        return
    limit = (found.get("global_concurrency_limit") or {}).get("limit")
    lines = {
        "deployment": deployment,
        "description": (found.get("description") or "").splitlines()[0] if found.get("description") else None,
        "release": found.get("version"),
        "entrypoint": found.get("entrypoint"),
        "store": block_of(found),
        "work pool": found.get("work_pool_name"),
        "queue": found.get("work_queue_name"),
        "tags": ", ".join(found["tags"]),
        "parameters": json.dumps(found["parameters"], ensure_ascii=False),
        "schedules": "; ".join(describe_schedule(item) for item in found["schedules"]),
        "concurrency": limit,
        "paused": "yes" if found["paused"] else None,
        "page": f"{api.ui_url}/deployments/deployment/{found['id']}",
    }
    for name, value in lines.items():
        if value not in (None, ""):
            click.echo(f"{name + ':':14}{value}")
