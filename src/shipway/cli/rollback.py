"""`shipway rollback`: make an earlier release of a deployment, or an earlier champion of a model, current again."""

from __future__ import annotations

import click

from shipway.cli.output import block_option, echo, epilog, person
from shipway.errors import UsageError
from shipway.settings import Settings

EXAMPLES = [
    "shipway rollback main/daily",
    "shipway rollback main/daily 484fbabe07c9",
    "shipway rollback --model arrival-delay",
    "shipway rollback --model arrival-delay 5",
]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 7, 9]))
@click.argument("deployment", metavar="FLOW/NAME", required=False)
@click.argument("release", required=False)
@click.option("--model", metavar="NAME", help="Go back to an earlier champion of this model instead.")
@click.option("--reason", metavar="TEXT", help="Why; it stands in the model's history.")
@block_option
def command(
    deployment: str | None, release: str | None, model: str | None, reason: str | None, block: str | None
) -> None:
    """Make an earlier release of a deployment current: the one before, or RELEASE, by its first digits.

    New runs execute it. Runs that were created before keep the release they were created with, and parameters,
    schedules and queue stay as they are.

    With --model NAME [VERSION], make the champion before, or VERSION, champion again. Nothing is trained anew: what was
    saved of it is compared with its digest, and one move is added to the model's history.
    """
    if model is not None:
        if release is not None:
            raise UsageError("--model takes one VERSION at most")
        _model(model, deployment, reason or "rolled back", block)
        return
    if deployment is None:
        raise UsageError("a deployment FLOW/NAME, or --model NAME, is missing")
    if reason is not None or block is not None:
        raise UsageError("--reason and --storage-block go with --model")
    _deployment(deployment, release)


def _deployment(deployment: str, release: str | None) -> None:
    from shipway.prefect.rollback import choose, read_history, roll_back

    settings = Settings.load()
    history = read_history(settings, deployment)
    target = choose(history, release)
    if target.version == history.current == history.pointer.current:
        echo(f"{deployment} is at release {target.version.short} already")
        return
    before = history.current.short
    roll_back(settings, history, target, deployment)
    echo(f"{deployment} is back at release {target.version.short} of {target.at} (was {before})")


def _model(name: str, version: str | None, reason: str, block: str | None) -> None:
    from shipway.model.promotion import roll_back
    from shipway.prefect.stores import default_block, store_of

    if version is not None and not version.isdecimal():
        raise UsageError(f"{version!r} is no version of a model", hint="versions are numbers, such as 5")
    settings = Settings.load()
    store = store_of(settings, block or default_block(settings))
    wanted = int(version) if version is not None else None
    now, before = roll_back(store, name, wanted, by=f"{person()}, shipway rollback", reason=reason)
    if now == before:
        echo(f"Version {now} of {name} is champion already")
    else:
        echo(f"Version {now} of {name} is champion again (was {before})")
