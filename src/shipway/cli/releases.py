"""`shipway releases`: list a deployment's releases."""

from __future__ import annotations

import click

from shipway.cli.output import epilog, json_option, print_json, print_table
from shipway.settings import Settings


@click.command(epilog=epilog(["shipway releases main/daily", "shipway releases main/daily --json"], [4, 5, 6, 9]))
@click.argument("deployment", metavar="FLOW/NAME")
@json_option
def command(deployment: str, as_json: bool) -> None:
    """List a deployment's releases, the newest move first; the current one is marked."""
    from shipway.prefect.rollback import read_history

    moves = read_history(Settings.load(), deployment).pointer.moves
    if as_json:
        print_json([{"release": str(m.version), "at": m.at, "current": m is moves[0]} for m in moves])
        return
    print_table(
        ("", "RELEASE", "SINCE", "ENTRYPOINT"),
        [("*" if m is moves[0] else "", m.version.short, m.at, m.entrypoint) for m in moves],
    )
