"""Pages of runs that never were, with everything on them that a page can have."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from tests.unit.pages import page  # noqa: E402

from shipway.report.collect import collect_without  # noqa: E402 - found through the line above
from shipway.report.facts import (  # noqa: E402
    DeploymentRow,
    Index,
    ModelLine,
    Page,
    ReleaseRow,
    RunRow,
    ServerFacts,
    TaskFacts,
    Verdict,
)
from shipway.report.render import render, render_index  # noqa: E402

WORD = "a-rather-long-word-without-a-space-in-it"
BEGAN = "2026-01-02T03:04:05+00:00"
STATES = ("Completed", "Cached", "Failed", "Crashed", "Cancelled", "Running", "Paused", "Retrying")


def write_samples(folder: Path) -> list[Path]:
    """Write the pages into a folder and return their files."""
    everything = page(WORD)
    tasks = tuple(TaskFacts(f"{WORD}-{n}", state, "", BEGAN, n + 0.1) for n, state in enumerate(STATES))
    failed = ServerFacts(
        run_id="0197a000-0000-7000-8000-0000deadbeef",
        run_name=WORD,
        flow="main",
        state="Failed",
        kind="FAILED",
        message=f"Flow run encountered an exception: ValueError: {WORD * 9}",
        tasks=tasks,
        errors=(f"03:04:05 ERROR {WORD * 9}", "Traceback:\n  File"),
        page="http://127.0.0.1:4200/runs",
    )
    nothing = Page("r", "0197a000", "main", Verdict("Completed", ("It saved nothing.",), "good"), "Completed")
    pages = {
        "everything": render(
            replace(everything, record="https://example.org/run.json", ui="http://127.0.0.1:4200/runs")
        ),
        "many-metrics": render(replace(everything, metrics={f"{WORD}-{n}": n / 7 for n in range(30)})),
        "kept": render(replace(everything, verdict=Verdict("Kept", (WORD * 5,), "neutral"), tasks=tasks)),
        "failed": render(collect_without(failed)),
        "nothing": render(nothing),
        "index": render_index(_index()),
        "empty-index": render_index(Index("http://127.0.0.1:4200", (), (), ())),
    }
    files = []
    for name, html in pages.items():
        files.append(folder / f"{name}.html")
        files[-1].write_text(html)
    return files


def _index() -> Index:
    models = page("flights").models
    releases = tuple(ReleaseRow(f"1484.{n}{'ab' * 31}c", BEGAN, n == 0, n == 1) for n in range(3))
    ui = "http://127.0.0.1:4200"
    return Index(
        server=ui,
        deployments=(DeploymentRow("main/demo", "1484.abc", ("cron 0 6 1 * *",), True, "s3/demo", ui, releases, 9),),
        runs=tuple(
            RunRow(f"{WORD}-{n}", "main/demo", state, BEGAN, n + 0.1, "1484.abc", "x.html" if n % 2 else "", ui)
            for n, state in enumerate(STATES)
        ),
        models=(("s3://demo", (ModelLine("flights", 1, models, 7),)),),
        missing=("The store of one deployment does not answer.",),
    )
