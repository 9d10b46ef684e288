"""`shipway inspect`: show one deployment."""

from __future__ import annotations

import json

import click

from shipway.cli.output import echo, epilog, json_option, print_json
from shipway.deployment.words import describe_schedule
from shipway.settings import Settings

EXAMPLES = [
    "shipway inspect main/daily",
    "shipway inspect main/daily --json",
    "shipway inspect main/daily --diff 484fbabe07c9 1c6c9ac00000 --text",
]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 9]))
@click.argument("deployment", metavar="FLOW/NAME")
@click.option(
    "--diff", nargs=2, metavar="A B", help="Show which files differ between two releases, by their first digits."
)
@click.option("--text", is_flag=True, help="With --diff, show the lines that differ too.")
@json_option
def command(deployment: str, diff: tuple[str, str] | None, text: bool, as_json: bool) -> None:
    """Show a deployment: release, queue, parameters, schedules, store. With --diff, compare two of its releases."""
    if diff:
        _diff(deployment, *diff, text=text, as_json=as_json)
        return
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
            echo(f"{name + ':':14}{value}")


def _diff(deployment: str, old: str, new: str, *, text: bool, as_json: bool) -> None:
    from shipway.manifest import read_manifest
    from shipway.prefect.rollback import choose, read_history
    from shipway.release.diff import compare, text_lines

    history = read_history(Settings.load(), deployment)
    before, after = (read_manifest(history.store, choose(history, name).version) for name in (old, new))
    found = compare(before, after)
    if as_json:
        print_json([{"path": difference.path, "change": difference.kind} for difference in found])
        return
    colours = {"added": "green", "removed": "red", "changed": "yellow", "mode": "yellow"}
    for difference in found:
        echo(f"{difference.kind:8} {difference.path}", fg=colours[difference.kind])
        if text:
            for line in text_lines(history.store, before, after, difference):
                echo(line, fg={"+": "green", "-": "red"}.get(line[:1]))
