"""`shipway promote`: make a version of a model champion."""

from __future__ import annotations

import click

from shipway.cli.output import block_option, echo, epilog, person
from shipway.settings import Settings


@click.command(
    epilog=epilog(
        [
            "shipway promote arrival-delay 7",
            'shipway promote arrival-delay 7 --reason "checked by hand on July"',
        ],
        [3, 4, 5, 6, 7, 9],
    )
)
@click.argument("name")
@click.argument("version", type=click.IntRange(min=1))
@click.option("--reason", metavar="TEXT", default="", help="Why; it stands in the model's history.")
@click.option("--force", is_flag=True, help="Also a version that was never loaded again and checked.")
@block_option
def command(name: str, version: int, reason: str, force: bool, block: str | None) -> None:
    """Make VERSION of the model NAME its champion, whatever its gate said; who did so stands in the model's history.

    What was saved of the model is read and compared with its digest first. Runs that look for the champion from now on
    get this one.
    """
    from shipway.model.promotion import promote
    from shipway.prefect.stores import default_block, store_of

    settings = Settings.load()
    store = store_of(settings, block or default_block(settings))
    by = f"{person()}, shipway promote"
    before = promote(store, name, version, by=by, reason=reason or "promoted by hand", force=force)
    if before == version:
        echo(f"Version {version} of {name} is champion already")
    else:
        was = f" (was {before})" if before is not None else ""
        echo(f"Version {version} of {name} is champion{was}")
