"""`shipway rollback`: make an earlier release current again."""

from __future__ import annotations

import click

from shipway.cli.output import epilog
from shipway.settings import Settings


@click.command(
    epilog=epilog(["shipway rollback main/daily", "shipway rollback main/daily 484fbabe07c9"], [3, 4, 5, 6, 7, 9])
)
@click.argument("deployment", metavar="FLOW/NAME")
@click.argument("release", required=False)
def command(deployment: str, release: str | None) -> None:
    """Make an earlier release of a deployment current: the one before, or RELEASE, by its first digits.

    New runs execute it. Runs that were created before keep the release they were created with, and parameters,
    schedules and queue stay as they are.
    """
    from shipway.prefect.rollback import choose, read_history, roll_back

    settings = Settings.load()
    history = read_history(settings, deployment)
    target = choose(history, release)
    if target.version == history.current == history.pointer.current:
        click.echo(f"{deployment} is at release {target.version.short} already")
        return
    before = history.current.short
    roll_back(settings, history, target, deployment)
    click.echo(f"{deployment} is back at release {target.version.short} of {target.at} (was {before})")
