"""Predict a month's schedule with the champion, flight by flight, cancelled ones included: nobody knows of them yet."""

from __future__ import annotations

from datetime import date
from typing import Any

import contest
import features
import ingest
import polars as pl
from orchestration import NEXT, OUTSIDE, say
from partitions import Shelf
from prefect import flow, task

import shipway


@task(name="champion", **OUTSIDE)
def find_champion(month: str) -> tuple[Any, date]:
    """Return the champion and the month to predict, of which it must have seen nothing."""
    champion = shipway.champion(contest.MODEL)
    last = ingest.parse_month(max(champion.facts["trained_on"]))
    asked = Shelf(flow="main").next_month() if month == NEXT else ingest.parse_month(month)
    if asked <= last:
        raise ValueError(f"month is {asked:%Y-%m}, but the champion was trained on flights up to {last:%Y-%m}")
    return champion, asked


@task(name="schedule", **OUTSIDE)
def describe_flights(month: date) -> pl.DataFrame:
    """Return each scheduled flight of the month with what is known of it two hours before departure."""
    shelf = Shelf(flow="main")
    months = ingest.months_between(ingest.months_before(month, 1), month)
    flights = {part: shelf.flights(part) for part in months}
    if flights[month].is_empty():
        raise ValueError(f"there are no flights in {month:%Y-%m} yet")
    tables = ingest.gather(flights, shelf.weather(), shelf.planes())
    described = features.describe(features.needed(tables, month))
    return described.filter(pl.col("partition") == month).drop(features.TARGET)


@flow(name="predict")
def predict(month: str = NEXT) -> dict[str, Any]:
    """Predict a month with the champion and save `predictions/batch`.

    Args:
        month: the month to predict, or `next`: the first that no run of `main` has come to an end with.
    """
    champion, asked = find_champion(month)
    schedule = describe_flights(asked)
    predicted = contest.predict(champion, schedule)
    shipway.save(
        "predictions/batch",
        schedule.select(*features.IDENTITY, *features.CATEGORIES).with_columns(prediction=predicted),
    )
    facts = {"month": f"{asked:%Y-%m}", "flights": len(schedule), "mean_delay": float(predicted.mean())}
    say(f"{facts['month']}: {len(schedule)} flights, predicted by version {champion.version}")
    return {**facts, "version": champion.version}


if __name__ == "__main__":
    predict()
