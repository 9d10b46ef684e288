"""`shipway down`: stop the local stack."""

from __future__ import annotations

import click

from shipway.cli.output import epilog, say
from shipway.settings import Settings


@click.command(name="down", epilog=epilog(("shipway down",), (8,)))
def command() -> None:
    """Stop the local stack: worker first, then server, then store.

    The worker may finish what it is doing for 30 s. What a killed supervisor left running is stopped too. Data, logs
    and secrets stay in .shipway.
    """
    from shipway.stack.manager import stop

    say("The stack has stopped." if stop(Settings.load(), say) else "No stack is running.")
