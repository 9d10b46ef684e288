"""`shipway releases`: list a deployment's releases, and pin them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from shipway.cli.output import epilog, json_option, print_json, print_table
from shipway.errors import UsageError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.prefect.rollback import History

EXAMPLES = [
    "shipway releases main/daily",
    "shipway releases main/daily --json",
    "shipway releases main/daily --pin 484fbabe07c9",
]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 7, 9]))
@click.argument("deployment", metavar="FLOW/NAME")
@click.option("--pin", metavar="RELEASE", help="Keep a release in the history however old it gets.")
@click.option("--unpin", metavar="RELEASE", help="Keep it only as long as any other.")
@json_option
def command(deployment: str, pin: str | None, unpin: str | None, as_json: bool) -> None:
    """List a deployment's releases, the newest move first; `*` marks the current one.

    One that is pinned is kept by `shipway gc`. A release is named by the first digits of its id.
    """
    from shipway.prefect.rollback import read_history

    if pin and unpin:
        raise UsageError("--pin and --unpin exclude each other")
    settings = Settings.load()
    history = read_history(settings, deployment)
    if wanted := pin or unpin:
        _pin(history, deployment, wanted, pinned=bool(pin))
        history = read_history(settings, deployment)
    moves = history.pointer.moves
    current = history.index
    if as_json:
        print_json(
            [
                {"release": str(move.version), "at": move.at, "current": index == current, "pinned": move.pinned}
                for index, move in enumerate(moves)
            ]
        )
        return
    print_table(
        ("", "RELEASE", "SINCE", "ENTRYPOINT", ""),
        [
            ("*" if i == current else "", m.version.short, m.at, m.entrypoint, "pinned" if m.pinned else "")
            for i, m in enumerate(moves)
        ],
    )


def _pin(history: History, deployment: str, release: str, *, pinned: bool) -> None:
    from shipway.deployment.history import pin
    from shipway.prefect.rollback import choose

    flow, _, name = deployment.partition("/")
    pin(history.store, flow, name, choose(history, release).version, pinned=pinned)
