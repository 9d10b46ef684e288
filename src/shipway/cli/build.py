"""`shipway build`: make a release of a flow's folder, and its deployment file."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from shipway.cli.output import echo, epilog, json_option, print_json, progress, say, size
from shipway.settings import Settings

EXAMPLES = [
    "shipway build ./orchestration.py:main -n daily",
    "shipway build ./orchestration.py:main -n daily -sb s3/flights -t gpu --cron '0 6 * * *' --timezone Europe/Berlin",
    "shipway build ./orchestration.py:main -n daily -p month=2013-02 -p history=12",
]


def build_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the argument and options that `build` and `deploy` share."""
    for option in reversed(
        [
            click.argument("entrypoint", metavar="./FILE.py:FLOW"),
            click.option("-n", "--name", required=True, help="Name of the deployment."),
            click.option(
                "-sb",
                "--storage-block",
                "block",
                metavar="TYPE/NAME",
                help="Block of the store; by default the stack's own.",
            ),
            click.option(
                "-t",
                "--tag",
                "tags",
                multiple=True,
                help="Tag of the deployment; the first also names its queue. Repeatable.",
            ),
            click.option("-q", "--work-queue", "queue", help="Queue, where it is not the first tag."),
            click.option("--pool", help="Work pool; by default the setting work_pool."),
            click.option(
                "-p",
                "--param",
                "parameters",
                multiple=True,
                metavar="KEY=VALUE",
                help="Parameter, as JSON or text. Repeatable.",
            ),
            click.option("--cron", help="Schedule: a cron expression of five fields."),
            click.option("--interval", help="Schedule: time between runs, such as 90, 15m, 1h30m or 2d."),
            click.option("--rrule", help="Schedule: an iCalendar recurrence rule."),
            click.option("--timezone", help="Time zone of the schedule, such as Europe/Berlin; by default UTC."),
            click.option("--description", help="Text for the UI; by default the flow's docstring."),
            click.option("--fresh", is_flag=True, help="Import the flow file even if nothing changed since it was."),
            json_option,
        ]
    ):
        function = option(function)
    return function


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 9]))
@build_options
def command(entrypoint: str, as_json: bool, **options: Any) -> None:
    """Make a release of the current folder and write FLOW-deployment.yaml and FLOW-manifest.json.

    The flow file is imported to read the flow's name and parameters; its `if __name__ == "__main__"` part does not run.
    What that found is remembered until a file, a module or the environment changes. Only content that the store lacks
    is uploaded.

    In what --json prints, `requests` counts what was asked of the store: reads, writes, and looks whether something is
    there; a file sent in parts and whatever had to be sent again count once. `seconds` is the time from the command's
    first look at the folder until the files are written, the import of the flow included.
    """
    built, path = run_build(entrypoint, **options)
    if as_json:
        print_json(built)
        return
    echo(f"Wrote {path.name}. Read it, edit it, then: shipway apply {path.name}")


@contextmanager
def _no_collection() -> Iterator[None]:
    """Leave garbage uncollected: what a build makes of thousands of files it keeps, and a search of that finds none."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def run_build(entrypoint: str, **options: Any) -> tuple[dict[str, Any], Path]:
    """Build with the options of `build_options`; return the facts and the deployment file."""
    from shipway.prefect.build import BuildOrder, build_deployment

    began = time.monotonic()
    settings = Settings.load()
    say(f"Reading {entrypoint}")
    with _no_collection(), progress("Uploading code") as note:
        built = build_deployment(
            settings, BuildOrder(entrypoint=entrypoint, folder=Path.cwd(), **options), progress=note
        )
    release = built.release
    count = len(release.entries)
    for path in built.scan.big:
        say(f"Note: {path} is over 20 MB; data belongs in the store; an ignore file leaves it out of releases.")
    if built.scan.skipped:
        shown = ", ".join(built.scan.skipped[:6])
        more = len(built.scan.skipped) - 6
        say(f"Left out: {shown}{f' and {more} more' if more > 0 else ''}")
    say(
        f"Release {release.version.short} of {built.spec.full_name}: {count} files, {size(release.size)}, "
        f"{size(release.uploaded_bytes)} uploaded to {built.address}"
    )
    facts = {
        "deployment": built.spec.full_name,
        "release": str(release.version),
        "files": count,
        "bytes": release.size,
        "uploaded_bytes": release.uploaded_bytes,
        "requests": built.requests,
        "seconds": round(time.monotonic() - began, 3),
        "deployment_file": str(built.file),
        "store": built.spec.store,
    }
    return facts, built.file
