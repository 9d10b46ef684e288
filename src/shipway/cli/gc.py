"""`shipway gc`: remove what no deployment and no run needs any more."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING

import click

from shipway.cli.output import block_option, echo, epilog, json_option, print_json, print_table, say, size
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.run.upkeep import Collected

NAMED = 5
"""Deployments unknown to the server that are named; `--json` names all."""

EXAMPLES = [
    "shipway gc --dry-run",
    "shipway gc --keep-last 5 --keep-days 7",
]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 7, 9]))
@block_option
@click.option("--dry-run", is_flag=True, help="Say what would be removed, and remove nothing.")
@click.option(
    "--keep-last",
    type=click.IntRange(min=1),
    metavar="N",
    help="Releases kept of each deployment; by default the setting.",
)
@click.option(
    "--keep-days",
    type=click.IntRange(min=0),
    metavar="DAYS",
    help="How long replaced releases, data of runs without a record and task results are kept; by default the setting.",
)
@click.option(
    "--grace",
    type=click.FloatRange(min=0),
    metavar="SECONDS",
    help="Time between the two looks at what is needed; by default 60.",
)
@json_option
def command(
    block: str | None,
    dry_run: bool,
    keep_last: int | None,
    keep_days: int | None,
    grace: float | None,
    as_json: bool,
) -> None:
    """Remove releases that no deployment and no run needs, data that belongs to no completed run, old task results.

    Needed are the last releases of every deployment, those pinned with `shipway releases --pin`, and those of runs
    that have a record or have not ended. Code younger than four weeks is never removed. It is safe while others build,
    apply and run.
    """
    from shipway.prefect.api import Api
    from shipway.prefect.live import live
    from shipway.prefect.stores import default_block, store_of
    from shipway.run.upkeep import GRACE_SECONDS, Collection, collect

    settings = Settings.load()
    store = store_of(settings, block or default_block(settings))
    began = time.monotonic()
    api = Api(settings)
    collection = Collection(
        store,
        keep_last=settings.keep_last if keep_last is None else keep_last,
        keep_days=settings.keep_days if keep_days is None else keep_days,
        live=lambda: live(api),
        dry_run=dry_run,
    )
    pause = GRACE_SECONDS if grace is None else grace
    words = {
        "listed": "Looking at what is needed",
        "found": f"Waiting {pause:g} s before the second look, for those who are at work",
        "looked again": "Removing",
    }
    done = collect(collection, grace=pause, tell=lambda step: say(words[step]) if step in words else None)
    if as_json:
        facts = {"store": store.address, "dry_run": dry_run, **asdict(done)}
        facts["missing"] = [str(version) for version in done.missing]
        print_json(facts | {"seconds": round(time.monotonic() - began, 3)})
    else:
        _show(done, dry_run=dry_run)


def _show(done: Collected, *, dry_run: bool) -> None:
    for name, count in done.trimmed.items():
        moves = "1 move" if count == 1 else f"{count} moves"
        echo(f"{moves} {'would leave' if dry_run else 'left'} the history of {name}")
    rows = [(kind, tally.objects, size(tally.bytes)) for kind, tally in done.removed.items() if tally.objects]
    if rows:
        print_table(("TO REMOVE" if dry_run else "REMOVED", "OBJECTS", "SIZE"), rows)
        freed = sum(tally.bytes for tally in done.removed.values())
        echo(f"{'Would free' if dry_run else 'Freed'} {size(freed)}.")
    else:
        was = "would be" if dry_run else "was"
        echo(f"Nothing {was} removed; code that nothing needs goes when it is four to six weeks old.")
    for version in done.missing:
        say(f"Note: release {version.short} is needed and missing; `shipway verify` says by whom")
    if done.unknown:
        more = len(done.unknown) - NAMED
        names = ", ".join(done.unknown[:NAMED]) + (f" and {more} more" if more > 0 else "")
        say(f"Note: this server has no deployment {names}; what the history in the store names is kept all the same")
