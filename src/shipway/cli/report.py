"""`shipway report`: the page of a run, and the one over all of them."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shipway.cli.output import echo, epilog, json_option, print_json, say
from shipway.errors import InputError, UsageError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.prefect.api import Api

EXAMPLES = [
    "shipway report brave-otter                       open its page in the browser",
    "shipway report brave-otter --output page.html    a file to pass on",
    "shipway report brave-otter --fresh               make it anew",
    "shipway report                                   deployments, releases, runs and models",
]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 9]))
@click.argument("run", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path, dir_okay=False), help="File to write the page to.")
@click.option("--fresh", is_flag=True, help="Make the page anew, with what the server knows by now.")
@click.option("--limit", type=click.IntRange(1, 200), default=50, show_default=True, help="Runs on the overview.")
@click.option("--open/--no-open", "show", default=None, help="Open it in the browser; by default on a terminal.")
@json_option
def command(run: str | None, output: Path | None, fresh: bool, limit: int, show: bool | None, as_json: bool) -> None:
    """Write the page of RUN, named by name or id, to a file and open it; without RUN an overview.

    The page is one HTML file that needs nothing else. It is kept in the store with the run's data; where none is
    kept, as of a run that goes on, it is made of what the server knows. Without --output, pages are in
    .shipway/reports.
    """
    from shipway.prefect.api import Api

    settings = Settings.load()
    api = Api(settings)
    if run is None:
        if fresh:
            raise UsageError("--fresh is for the page of a run; the overview is always made anew")
        facts = _overview(api, settings, output, limit)
    else:
        facts = _page(api, settings, run, output, fresh=fresh)
    if as_json:
        print_json(facts)
    else:
        echo(facts["path"])
        if facts.get("address"):
            say(f"Kept as {facts['address']}")
    if show or (show is None and not as_json and sys.stdout.isatty() and _has_display()):
        import webbrowser

        webbrowser.open(Path(facts["path"]).as_uri())


def _page(api: Api, settings: Settings, run: str, output: Path | None, *, fresh: bool) -> dict[str, Any]:
    from shipway.prefect.overview import bring, local_page
    from shipway.prefect.pages import find_page, neighbours
    from shipway.prefect.runs import find_run

    found = find_run(api, run)
    page = find_page(api, found, settings, fresh=fresh)
    folder = settings.state / "reports"
    if output is None:
        settings.make_state()
    path = _write(output or local_page(folder, page.key), page.html)
    if output is None and page.store:
        # Its links to the runs whose data it used lead to files beside it.
        bring(page.store, folder, neighbours(page.html))
    return {
        "run": found["name"],
        "id": found["id"],
        "state": found["state_name"],
        "path": str(path),
        "address": page.address or None,
        "made": page.made,
    }


def _overview(api: Api, settings: Settings, output: Path | None, limit: int) -> dict[str, Any]:
    from shipway.prefect.overview import Overview
    from shipway.report.render import render_index

    folder = output.parent if output else settings.make_state() / "reports"
    index = Overview(api, settings).collect(folder, limit)
    for text in index.missing:
        say(text)
    path = _write(output or folder / "index.html", render_index(index).encode())
    counts = {"deployments": len(index.deployments), "runs": len(index.runs)}
    return {"path": str(path), **counts, "models": sum(len(lines) for _, lines in index.models)}


def _write(path: Path, html: bytes) -> Path:
    from shipway.prefect.overview import write_page

    try:
        write_page(path, html)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from None
    return path.resolve()


def _has_display() -> bool:
    """Tell whether a browser could show itself; on Linux one without a display would take over the terminal."""
    return sys.platform != "linux" or bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))
