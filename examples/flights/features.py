"""What is known of a flight two hours before it is due to leave.

Three sources, each cut off at that moment: the schedule, the last weather report, and what other flights had done by
then. A flight's own departure, and anything that happened after the cut-off, takes no part.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import date
from pathlib import Path

import polars as pl
from ingest import Tables, months_before

HOURS_AHEAD = 2
TAIL_DAYS = 3
"""How far a feature looks back before its month: a flight counts when it leaves, which may be two days after it was due
(`validate.POSSIBLE`), and up to eight hours before the flight that asks."""
WIND_LIMIT_MPH = 200
TARGET = "arr_delay"
CATEGORIES = ["origin", "carrier", "dest"]
SCHEDULE = ["departure_minute", "arrival_minute", "weekday", "distance", "seats", "flights_that_hour"]
WEATHER = ["wind_dir", "wind_speed", "wind_gust", "precip", "visib", "humid"]
OTHERS = [
    "origin_delay_1h",
    "city_delay_1h",
    "carrier_delay_3h",
    "carrier_city_delay_3h",
    "dest_delay_6h",
    "origin_backlog_3h",
]
FEATURES = [*CATEGORIES, *SCHEDULE, *WEATHER, *OTHERS]
IDENTITY = ["partition", "year", "month", "day", "flight", "tailnum", "hour"]


def build_features(tables: Tables) -> pl.DataFrame:
    """Return one row for each flight that arrived: who it is, its features, and its arrival delay."""
    return describe(tables).filter(pl.col(TARGET).is_not_null())


def describe(tables: Tables) -> pl.DataFrame:
    """Return one row for each scheduled flight: who it is, its features, and its arrival delay where it arrived."""
    due = pl.col("time_hour") + pl.duration(minutes="minute")
    flights = tables.flights.with_row_index("row").with_columns(
        due=due,
        left=due + pl.duration(minutes="dep_delay"),
        cutoff=due - pl.duration(hours=HOURS_AHEAD),
        city=pl.lit("New York"),
    )
    return (
        flights.pipe(_add_schedule, tables.planes)
        .pipe(_add_weather, tables.weather)
        .pipe(_add_delay, "origin_delay_1h", ["origin"], hours=1)
        .pipe(_add_delay, "city_delay_1h", ["city"], hours=1)
        .pipe(_add_delay, "carrier_delay_3h", ["origin", "carrier"], hours=3)
        .pipe(_add_delay, "carrier_city_delay_3h", ["carrier"], hours=3)
        .pipe(_add_delay, "dest_delay_6h", ["dest"], hours=6)
        .pipe(_add_backlog, "origin_backlog_3h", hours=3)
        .sort("row")
        .select(*IDENTITY, *FEATURES, TARGET)
    )


def needed(tables: Tables, month: date) -> Tables:
    """Return what the features of `month` are made of: it and the last days before it, their weather and aircraft."""
    of_month = pl.col("partition") == month
    begins = tables.flights.filter(of_month)["time_hour"].min()
    before = pl.col("time_hour") >= pl.lit(begins) - pl.duration(days=TAIL_DAYS)
    flights = tables.flights.filter(of_month | ((pl.col("partition") == months_before(month, 1)) & before))
    ends = flights["time_hour"].max()
    weather = tables.weather.filter(before & (pl.col("time_hour") <= pl.lit(ends)))
    return replace(
        tables, flights=flights, weather=weather, planes=tables.planes.join(flights, on="tailnum", how="semi")
    )


def fingerprint(tables: Tables) -> str:
    """Return twelve hex digits that tell these tables, and this file's code, from others.

    Features built once are found again by it. It is of the values, as CSV: equal tables may differ in memory.
    """
    digest = hashlib.sha256(Path(__file__).read_bytes())
    for frame in (tables.flights, tables.weather, tables.planes):
        digest.update(frame.write_csv().encode())
    return digest.hexdigest()[:12]


def split(features: pl.DataFrame, month: date) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the months before `month`, to train on, and `month`, held out."""
    return features.filter(pl.col("partition") < month), features.filter(pl.col("partition") == month)


def _add_schedule(flights: pl.DataFrame, planes: pl.DataFrame) -> pl.DataFrame:
    arrival = pl.col("sched_arr_time")
    return flights.with_columns(
        departure_minute=pl.col("hour") * 60 + pl.col("minute"),
        arrival_minute=arrival // 100 * 60 + arrival % 100,
        weekday=pl.date("year", "month", "day").dt.weekday(),
        flights_that_hour=pl.len().over("origin", "time_hour"),
    ).join(planes.select("tailnum", "seats"), on="tailnum", how="left")


def _add_weather(flights: pl.DataFrame, weather: pl.DataFrame) -> pl.DataFrame:
    # An hour's weather is observed near the end of that hour, so it is known when the hour is over.
    possible = pl.when(pl.col("wind_speed") <= WIND_LIMIT_MPH)
    known = weather.select(
        "origin",
        *WEATHER,
        known=pl.col("time_hour") + pl.duration(hours=1),
    ).with_columns(possible.then("wind_speed").alias("wind_speed"), possible.then("wind_gust").alias("wind_gust"))
    return flights.sort("cutoff").join_asof(
        known.sort("known"), left_on="cutoff", right_on="known", by="origin", tolerance="3h", check_sortedness=False
    )


def _add_delay(flights: pl.DataFrame, name: str, by: list[str], *, hours: int) -> pl.DataFrame:
    """Add the mean departure delay of the flights that left in the `hours` before the cut-off."""
    left = (
        flights.filter(pl.col("left").is_not_null())
        .sort("left", "row")
        .select(*by, "left", total=pl.col("dep_delay").cum_sum().over(by), count=pl.int_range(1, pl.len() + 1).over(by))
    )
    until = _as_of(flights, "cutoff", left, "left", by)
    since = _as_of(flights.with_columns(since=pl.col("cutoff") - pl.duration(hours=hours)), "since", left, "left", by)
    window = flights.select("row").join(until, on="row").join(since, on="row", suffix="_before")
    count = pl.col("count") - pl.col("count_before")
    delay = pl.when(count > 0).then((pl.col("total") - pl.col("total_before")) / count)
    return flights.join(window.select("row", delay.alias(name)), on="row")


def _add_backlog(flights: pl.DataFrame, name: str, *, hours: int) -> pl.DataFrame:
    """Add how many more flights were due to leave the airport in the `hours` before the cut-off than left it."""
    since = flights.with_columns(since=pl.col("cutoff") - pl.duration(hours=hours))
    backlog = flights.select("row")
    for event in ("due", "left"):
        seen = flights.filter(pl.col(event).is_not_null()).sort(event, "row")
        seen = seen.select("origin", event, count=pl.int_range(1, pl.len() + 1).over("origin"), total=0)
        for frame, moment in ((flights, "cutoff"), (since, "since")):
            counted = _as_of(frame, moment, seen, event, ["origin"]).select(
                "row", pl.col("count").alias(event + moment)
            )
            backlog = backlog.join(counted, on="row")
    behind = pl.col("duecutoff") - pl.col("duesince") - (pl.col("leftcutoff") - pl.col("leftsince"))
    return flights.join(backlog.select("row", behind.alias(name)), on="row")


def _as_of(flights: pl.DataFrame, moment: str, events: pl.DataFrame, time: str, by: list[str]) -> pl.DataFrame:
    """Return for each flight the running `total` and `count` of the events up to `moment`."""
    asked = flights.select("row", *by, moment).sort(moment)
    found = asked.join_asof(events, left_on=moment, right_on=time, by=by, check_sortedness=False)
    return found.select("row", pl.col("total").fill_null(0), pl.col("count").fill_null(0))
