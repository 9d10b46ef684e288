#!/usr/bin/env python
"""Replay the flights example's year on a stack of its own, check what must hold of it, and write its figures down.

The months of 2013 are run one after the other, as if each had just ended: `make replay`. Then the year is asked for
again, which must change nothing; one month is run again and reproduced, which must give the same bytes. The tables of
docs/explanation/flights.md are written anew, and the figures compared, month by month, with what is known of them
(flights_figures.toml).
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "flights"
PAGE = ROOT / "docs" / "explanation" / "flights.md"
LOCK = "requirements.lock"
sys.path[:0] = [str(ROOT), str(ROOT / "scripts"), str(EXAMPLE)]
# Read when LightGBM is loaded: threads that spin while they wait take the processor from each other.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

from benchmarks.stack import Project, running_stack  # noqa: E402

from flights_figures import differences, leak_differences  # noqa: E402 - found through the lines above
from shipway.digest import sha256_file  # noqa: E402
from shipway.prefect.stores import store_of  # noqa: E402
from shipway.run.record import RunRecord, read_record, record_keys  # noqa: E402
from shipway.settings import Settings  # noqa: E402
from shipway.store.base import Store  # noqa: E402

if TYPE_CHECKING:
    import polars as pl

MONTHS = [f"2013-{month:02}" for month in range(2, 13)]
MEANS = ("rmse_change_percent", "r2", "auc_late", "baseline_auc_late")
LEAKS = {
    "honest": "what the example trains",
    "air_time": "and it knows the time in the air",
    "dep_time": "and it knows when the flight left",
    "random_split": "trained on flights of all months, drawn at random",
}
DEPLOYMENT = "main/flights"
AGAIN = "2013-06"
"""The month that is run a second time at the end of the year."""
LIMIT = 3600.0
"""Seconds for a year. On two cores that twelve others wanted as well it took ten minutes."""
VERDICT = "report/verdict"
"""The one thing that a month run again says otherwise: that a later month's model is champion by then."""


@dataclass(frozen=True)
class Month:
    """What a month came to.

    Attributes:
        record: its run.
        champion: RMSE of the champion that it met, or None.
        verdict: what became of its model.
    """

    record: RunRecord
    champion: float | None
    verdict: str

    @property
    def metrics(self) -> dict[str, float]:
        """Its run's, and whether its model became champion."""
        return {**self.record.metrics, "promoted": float(self.verdict == "promoted")}

    @property
    def seconds(self) -> float:
        """How long its flow function took."""
        times = self.record.timings
        return (datetime.fromisoformat(times["ended"]) - datetime.fromisoformat(times["started"])).total_seconds()


def main() -> None:
    """Replay the year, write its figures down, and those of the leaks."""
    began = time.monotonic()
    with running_stack() as project:
        for path in (*EXAMPLE.glob("*.py"), EXAMPLE / LOCK):
            shutil.copy(path, project.folder)
        project.shipway("deploy", "./orchestration.py:main", "-n", "flights", "-t", "flights")
        before = time.monotonic()
        year, store = run_year(project)
        # A time means little without what else the processors had to do.
        cost = f"{time.monotonic() - before:.0f} s on {os.cpu_count()} cores, at a load of {os.getloadavg()[1]:.0f}"
        print(f"The year took {cost}")
        sizes = [size for size, _ in objects(store).values()]
        cost += f", and left {len(sizes):,} objects of {sum(sizes) / 1e6:.0f} MB in the store"
        check_year_again(project, store)
        check_month_again(project, store, year[AGAIN].record)
        check_reproduced(project, year[AGAIN].record)
        check_lineage(project, year)
    took = time.monotonic() - began
    print(f"All in all {took:.0f} s")
    write(PAGE, "months", f"{months_table(year)}\n\nThe year took {cost}.")
    leaks = look_at_leaks()
    write(PAGE, "leaks", leaks_table(leaks))
    # Last, so that the figures can be looked at where they are others.
    wrong = differences({name: month.metrics for name, month in year.items()})
    wrong += leak_differences({name: r2 for name, (_, r2) in leaks.items()})
    hold(not wrong, f"the figures are not those that are known: {'; '.join(wrong)}")
    print("Every month's figures are within their tolerance, and so are the leaks'")


def run_year(project: Project) -> tuple[dict[str, Month], Store]:
    """Run all months, and return what each came to, and the store."""
    backfill(project)
    environment = project.environment | {"PREFECT_API_URL": project.api_url}
    store = store_of(Settings.load(project.folder, environment), "s3/stack")
    year = {}
    for record in records(store):
        month = str(record.parameters["month"])
        scores, verdict = (saved(store, record, name) for name in (f"scores/{month}", VERDICT))
        year[month] = Month(record, scores["champion"], verdict["word"])
    hold(sorted(year) == MONTHS, f"there are records of {', '.join(sorted(year))}")
    return {month: year[month] for month in MONTHS}, store


def backfill(project: Project) -> None:
    """Run every month that has not been run."""
    project.shipway("backfill", DEPLOYMENT, "-p", f"month={MONTHS[0]}..{MONTHS[-1]}", limit=LIMIT)


def check_year_again(project: Project, store: Store) -> None:
    """Ask for the year again: there must be nothing to do."""
    before = objects(store)
    backfill(project)
    hold(objects(store) == before, "the year again has changed what is in the store")
    print("The year again: not a byte more in the store")


def check_month_again(project: Project, store: Store, first: RunRecord) -> None:
    """Run a month again: what it saves must have the same bytes, and what it does not save must be read."""
    facts = json.loads(project.shipway("run", DEPLOYMENT, "-p", f"month={AGAIN}", "--watch", "--json"))
    again = next(record for record in records(store) if record.run_id == facts["id"])
    digests = {artifact.name: artifact.sha256 for artifact in first.artifacts}
    now = {artifact.name: artifact.sha256 for artifact in again.artifacts}
    other = [name for name, sha256 in now.items() if digests.get(name) != sha256]
    hold(other == [VERDICT], f"{AGAIN} again has saved other bytes: {', '.join(other)}")
    read = {item["name"]: item["sha256"] for item in again.inputs}
    missing = digests.keys() - now.keys()
    hold(all(read.get(name) == digests[name] for name in missing), f"{AGAIN} again has not read {', '.join(missing)}")
    hold(not again.models, f"{AGAIN} again has registered a model, though that of a later month is champion")
    print(f"{AGAIN} again: {len(now) - 1} artifacts of the same bytes, {len(missing)} read from its first run")


def check_reproduced(project: Project, first: RunRecord) -> None:
    """Have a month reproduced: the command fails where anything it saves differs."""
    project.shipway("reproduce", first.run_id)
    print(f"{AGAIN} reproduced: all of its {len(first.artifacts)} artifacts have the same bytes")


def check_lineage(project: Project, year: Mapping[str, Month]) -> None:
    """Ask what the champion was made of: the flights of each month up to its own must be named with their digests.

    Then December's is made champion by hand, which was made of all twelve months.
    """
    champion = max(number for number, month in enumerate(year.values(), 1) if month.verdict == "promoted")
    saved = {artifact.name: artifact.sha256 for month in year.values() for artifact in month.record.artifacts}
    for number in (champion, len(MONTHS)):
        if number != champion:
            project.shipway("promote", "flights", str(number), "--reason", "to ask what it was made of")
        raw = json.loads(project.shipway("why", "flights", "--raw", "--json"))
        named = {item["name"]: item["sha256"] for item in raw}
        asked = {f"raw/flights-2013-{month:02}" for month in range(1, number + 2)} | {"raw/weather", "raw/planes"}
        made_of = ", ".join(sorted(named)) or "nothing"
        hold(asked <= named.keys(), f"the champion, version {number}, was made of {made_of}")
        hold(all(named[name] == saved[name] for name in asked), "a raw input has another digest than what was saved")
        lock, _ = sha256_file(EXAMPLE / LOCK)
        hold(f"{LOCK} {lock[:12]}" in project.shipway("why", "flights"), f"`why` does not name {LOCK}")
        print(f"Champion {number} leads to {len(asked)} raw inputs with the digests that they were saved with")


def months_table(year: dict[str, Month]) -> str:
    """Return the figures of each month, and their means."""
    means = {name: mean(month.record.metrics[name] for month in year.values()) for name in MEANS}
    rows = [
        (
            name,
            f"{month.record.metrics['rmse']:.2f}",
            f"{month.champion:.2f}" if month.champion else "",
            f"{month.record.metrics['baseline_rmse']:.2f}",
            *rates(month.record.metrics),
            month.verdict,
            f"{month.seconds:.1f}",
        )
        for name, month in year.items()
    ]
    rows.append(("mean", "", "", "", *rates(means), "", f"{mean(month.seconds for month in year.values()):.1f}"))
    heads = (
        "month",
        "RMSE",
        "champion's",
        "baseline's",
        "change",
        "R2",
        "AUC late > 15 min (baseline)",
        "verdict",
        "s",
    )
    return table(heads, rows)


def rates(metrics: Mapping[str, float]) -> tuple[str, str, str]:
    """Return what can be compared from month to month."""
    auc, baseline = (f"{metrics[name]:.3f}".removeprefix("0") for name in ("auc_late", "baseline_auc_late"))
    return f"{metrics['rmse_change_percent']:+.1f} %", f"{metrics['r2']:.3f}".removeprefix("0"), f"{auc} ({baseline})"


def look_at_leaks() -> dict[str, tuple[float, float]]:
    """Return RMSE and R2 of December's model if it knew what it cannot know, past all that refuses it."""
    import features
    import ingest
    import polars as pl

    december = ingest.parse_month(MONTHS[-1])
    partitions = {month: ingest.read_flights(month) for month in ingest.months_between(ingest.FIRST_MONTH, december)}
    tables = ingest.gather(partitions, ingest.read_weather(), ingest.read_planes())
    arrived = tables.flights.filter(pl.col(features.TARGET).is_not_null())
    frame = pl.concat([features.build_features(tables), arrived.select("air_time", "dep_time")], how="horizontal")
    training, holdout = features.split(frame, december)
    mixed = frame.sample(fraction=1, shuffle=True, seed=1)
    return {
        "honest": look(training, holdout),
        "air_time": look(training, holdout, "air_time"),
        "dep_time": look(training, holdout, "dep_time"),
        "random_split": look(mixed.tail(len(training)), mixed.head(len(holdout))),
    }


def leaks_table(found: Mapping[str, tuple[float, float]]) -> str:
    """Return these figures as a table."""
    rows = [(LEAKS[name], f"{rmse:.2f}", f"{r2:.3f}".removeprefix("0")) for name, (rmse, r2) in found.items()]
    return table(("December", "RMSE", "R2"), rows)


def look(training: pl.DataFrame, holdout: pl.DataFrame, *more: str) -> tuple[float, float]:
    """Return RMSE and R2 of a model with more features than the example allows."""
    import features
    import train

    known = train.categories(training)
    model = train.train(training, known, [*features.FEATURES, *more])
    actual = holdout[features.TARGET].to_numpy()
    squared = ((actual - train.predict(model, holdout, known).to_numpy()) ** 2).mean()
    return float(squared**0.5), float(1 - squared / actual.var())


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(page: Path, name: str, text: str) -> None:
    """Put text between the markers of that name."""
    begin, end = f"<!-- {name}: written by scripts/replay_flights.py -->", f"<!-- {name}: end -->"
    before, rest = page.read_text(encoding="utf-8").split(begin)
    page.write_text(f"{before}{begin}\n\n{text}\n\n{end}{rest.split(end)[1]}", encoding="utf-8")


def records(store: Store) -> list[RunRecord]:
    """Return the records of the flow's runs, newest first."""
    return [read_record(store, key) for key, _, _ in record_keys(store, "main")]


def objects(store: Store) -> dict[str, tuple[int, str]]:
    """Return size and ETag of everything in the store."""
    return {info.key: (info.size, info.etag) for info in store.list("")}


def saved(store: Store, record: RunRecord, name: str) -> Any:
    """Return a JSON artifact of a run."""
    return json.loads(store.read(record.artifact(name).key))


def hold(true: bool, otherwise: str) -> None:
    """End the script with status 1 and what does not hold, unless it does."""
    if not true:
        raise SystemExit(f"replay_flights: {otherwise}")


if __name__ == "__main__":
    main()
