"""What a model must not learn from, and why: a good figure that a traveller could never have had is worth nothing."""

from __future__ import annotations

from collections.abc import Iterable

import polars as pl

AFTER = "it is known only after the flight left, hours after the question is asked"
CALENDAR = "it names a day of the one year there is, and no later month has such a day"
SEASON = "it moves with the season, so a later month lies outside what was learnt, and it gains nothing"

LEAKS = {
    "dep_time": AFTER,
    "dep_delay": AFTER,
    "arr_time": AFTER,
    "arr_delay": "it is what is asked for",
    "air_time": AFTER,
    "left": AFTER,
    "tailnum": "it is that of the aircraft which flew in the end, which may have been decided later",
    "year": CALENDAR,
    "month": CALENDAR,
    "day": CALENDAR,
    "day_of_year": CALENDAR,
    "partition": CALENDAR,
    "temp": SEASON,
    "dewp": SEASON,
    "pressure": SEASON,
}


class LeakError(Exception):
    """The model would learn from what cannot be known when it is asked."""


def refuse_leaks(names: Iterable[str]) -> None:
    """Raise `LeakError` that names each feature of `LEAKS` with the reason, if there is one."""
    found = [f"{name}: {LEAKS[name]}" for name in names if name in LEAKS]
    if found:
        raise LeakError("no feature may be " + "; nor ".join(found))


def refuse_overlap(training: pl.DataFrame, holdout: pl.DataFrame) -> None:
    """Raise `LeakError` unless every training row is of an earlier month than every row held out.

    Flights of one evening share its weather and its queues. A random split has them on both sides, and a model that
    remembers the evening looks good.
    """
    last, first = training["partition"].max(), holdout["partition"].min()
    if last >= first:
        raise LeakError(f"training goes to {last:%Y-%m}, but what is held out begins with {first:%Y-%m}")
