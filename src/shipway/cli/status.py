"""`shipway status`: what of the local stack runs."""

from __future__ import annotations

from typing import Any

import click

from shipway.cli.output import echo, epilog, json_option, print_json, print_table, say
from shipway.settings import Settings
from shipway.stack import StackFacts, facts


@click.command(name="status", epilog=epilog(("shipway status", "shipway status --json | jq -r .api_url"), (8,)))
@json_option
def command(as_json: bool) -> int:
    """Show what of the local stack runs, and where.

    Every process is looked at: what was killed is shown as dead. The exit status is 0 when everything is ready, else 8.
    """
    stack = facts(Settings.load())
    document = _document(stack)
    if as_json:
        print_json(document)
    elif stack is None:
        say("No stack is running; start one with `shipway up`.")
    else:
        _print(document)
    return 0 if document["ready"] else 8


def _document(stack: StackFacts | None) -> dict[str, Any]:
    """Describe the stack as it is now, not as it was last written down."""
    if stack is None:
        return {"running": False, "ready": False, "services": []}
    document = stack.public()
    for row, service in zip(document["services"], stack.services, strict=True):
        row["state"] = service.true_state
    running = stack.running
    document["running"] = running
    document["state"] = stack.state if running else "dead"
    document["ready"] = (
        running and stack.state == "ready" and all(row["state"] == "ready" for row in document["services"])
    )
    return document


def _print(document: dict[str, Any]) -> None:
    supervisor = {
        "name": "supervisor",
        "state": "ready" if document["running"] else "dead",
        "pid": document["supervisor"]["pid"],
    }
    rows = [supervisor, *document["services"]]
    keys = ("name", "state", "pid", "port", "restarts")
    print_table([key.upper() for key in keys], [[row.get(key) for key in keys] for row in rows])
    store = document["store"]
    echo(f"\nPrefect UI   {document['ui_url']}")
    echo(f"Prefect API  {document['api_url']}{' (asks for a password)' if document['auth'] else ''}")
    echo(f"Store        {store.get('path') or store['endpoint_url'] + ', bucket ' + store['bucket']}")
    if not document["running"]:
        say(
            "The supervisor was killed, so nothing restarts what dies. "
            "`shipway up` starts anew, `shipway down` stops the rest."
        )
