"""What must be true of the data before anything is trained on it, and what is worth knowing."""

from __future__ import annotations

from calendar import monthrange
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import polars as pl
from features import WIND_LIMIT_MPH
from ingest import Tables

KEY = ["year", "month", "day", "carrier", "flight", "origin", "sched_dep_time"]
REQUIRED = ["carrier", "flight", "origin", "dest", "distance", "sched_dep_time", "sched_arr_time", "time_hour"]
CANCELLED_LIMIT = 0.15  # cancelled and diverted flights have no arrival delay; 5.4 % in the worst month of 2013
QUIET_DAY = 1 / 3  # of the median day; the quietest day of 2013 has two thirds
USUAL_SIZE = 0.2  # how much larger or smaller a day of the month may be on average; 9 % at most in 2013
POSSIBLE = {
    "dep_delay": (-120, 2880),
    "arr_delay": (-180, 2880),
    "air_time": (1, 1440),
    "distance": (1, 12_000),
    "hour": (0, 23),
    "minute": (0, 59),
}


@dataclass(frozen=True)
class Check:
    """One question put to the data.

    Attributes:
        name: what the check is called.
        level: whether a failure stops the run or is only said.
        count: how many rows, days or months failed it.
        message: what that means.
        examples: some of what failed.
    """

    name: str
    level: Literal["error", "warning"]
    count: int
    message: str
    examples: list[str]

    @property
    def passed(self) -> bool:
        """Whether nothing failed."""
        return self.count == 0


class ValidationError(Exception):
    """The data failed checks that stop the run."""


def validate(tables: Tables, month: date, history: list[date]) -> list[Check]:
    """Run every check on the data of `month`, next to the months of `history` to train on; warnings last."""
    flights = tables.flights.filter(pl.col("partition") == month)
    earlier = tables.flights.filter(pl.col("partition").is_in(pl.Series(history, dtype=pl.Date)))
    none = [] if len(earlier) else [f"{month:%Y-%m}"]
    return [
        Check("history", "error", len(none), "there are no flights before the month", none),
        *_errors(flights, earlier, month),
        *_warnings(flights, earlier, tables, month),
    ]


def validate_partition(tables: Tables, month: date) -> list[Check]:
    """Run the checks that stop a run on a month that is not the one to predict, but will be trained on."""
    flights = tables.flights.filter(pl.col("partition") == month)
    return list(_errors(flights, tables.flights.filter(pl.col("partition") < month), month))


def refuse_failures(checks: Mapping[str, Sequence[Check]]) -> None:
    """Raise `ValidationError` that names each failed check of each month, if one of level error failed."""
    failed = [
        f"{month}: {check.name}: {check.message} ({check.count})"
        for month, found in checks.items()
        for check in found
        if check.level == "error" and not check.passed
    ]
    if failed:
        raise ValidationError("; ".join(failed))


def _errors(flights: pl.DataFrame, earlier: pl.DataFrame, month: date) -> Iterator[Check]:
    def error(name: str, failed: list[str], message: str, count: int | None = None) -> Check:
        return Check(name, "error", len(failed) if count is None else count, message, failed[:5])

    yield error("month is not empty", [] if len(flights) else [f"{month:%Y-%m}"], "there are no flights in the month")

    sizes = [len(frame) / _days(frame["partition"][0]) for frame in earlier.partition_by("partition")]
    usual = float(pl.Series(sizes).median() or 0)
    found = len(flights) / _days(month)
    off = sizes and len(flights) and abs(found - usual) > USUAL_SIZE * usual
    odd = [f"{month:%Y-%m}: {found:.0f}"] if off else []
    yield error("usual size", odd, f"months over {USUAL_SIZE:.0%} off the usual {usual:.0f} flights a day")

    repeated = flights.filter(flights.select(KEY).is_duplicated())
    yield error("no duplicates", _rows(repeated, KEY), "rows that name the same flight", len(repeated))

    days = dict(flights.group_by("day").len().iter_rows())
    busy = float(pl.Series(list(days.values())).median() or 0)
    scarce = [day for day in range(1, _days(month) + 1) if days.get(day, 0) < QUIET_DAY * busy]
    known = f"days with less than a third of the usual {busy:.0f} flights"
    yield error("every day is there", [f"{month:%Y-%m}-{day:02}: {days.get(day, 0)}" for day in scarce], known)

    for name in REQUIRED:
        missing = flights.filter(pl.col(name).is_null())
        yield error(f"{name} is known", _rows(missing, KEY), f"rows without {name}", len(missing))
    lost = flights.filter(pl.col("arr_delay").is_null())
    if len(lost) <= CANCELLED_LIMIT * len(flights):
        lost = lost.clear()
    known = f"flights without an arrival delay, over {CANCELLED_LIMIT:.0%}"
    yield error("arrivals are known", _rows(lost, KEY), known, len(lost))

    for name, (low, high) in POSSIBLE.items():
        wrong = flights.filter(~pl.col(name).is_between(low, high))
        yield error(f"{name} is possible", _rows(wrong, [name]), f"values outside {low} to {high}", len(wrong))


def _warnings(flights: pl.DataFrame, earlier: pl.DataFrame, tables: Tables, month: date) -> Iterator[Check]:
    def warning(name: str, failed: pl.DataFrame, columns: list[str], message: str) -> Check:
        return Check(name, "warning", len(failed), message, _rows(failed, columns))

    local = (tables.weather["year"] == month.year) & (tables.weather["month"] == month.month)
    gale = tables.weather.filter(local).filter(pl.col("wind_speed") > WIND_LIMIT_MPH)
    yield warning(
        "wind is possible",
        gale,
        ["origin", "time_hour", "wind_speed"],
        f"hours with wind over {WIND_LIMIT_MPH} mph, left out",
    )
    dry = flights.join(tables.weather, on=["origin", "time_hour"], how="anti")
    yield warning("weather is known", dry, ["origin", "time_hour"], "flights without weather at the hour of departure")
    strange = flights.filter(pl.col("tailnum").is_not_null()).join(tables.planes, on="tailnum", how="anti")
    yield warning("planes are known", strange, ["tailnum"], "flights of aircraft that are in no record")
    fresh = flights.join(earlier, on="dest", how="anti")
    yield warning("destinations were seen", fresh, ["dest"], "flights to where the training months did not go")


def _days(month: date) -> int:
    return monthrange(month.year, month.month)[1]


def _rows(frame: pl.DataFrame, columns: list[str]) -> list[str]:
    return [" ".join(map(str, row)) for row in frame.select(columns).unique(maintain_order=True).head(5).iter_rows()]
