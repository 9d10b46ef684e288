"""What the flights example says of its data and its errors, on tables small enough to check by hand."""

from __future__ import annotations

import importlib
import math
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"


@pytest.fixture(scope="module")
def diagnose() -> Iterator[Any]:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FLIGHTS))
        yield importlib.import_module("diagnose")
        sys.modules.pop("diagnose", None)


def test_psi_is_the_sum_over_the_bins(diagnose: Any) -> None:
    before = pl.Series(["a"] * 6 + ["b"] * 4)
    after = pl.Series(["a"] * 2 + ["b"] * 7 + ["c"])
    shares = [(0.2, 0.6), (0.7, 0.4), (0.1, diagnose.SMALLEST)]  # nothing is missing on either side
    expected = sum((p - q) * math.log(p / q) for p, q in shares)

    assert diagnose.psi(before, after) == pytest.approx(expected)


def test_psi_of_what_did_not_move_is_nothing_and_of_what_did_is_much(diagnose: Any) -> None:
    numbers = pl.Series(range(1000))

    assert diagnose.psi(numbers, numbers) == 0
    assert diagnose.psi(numbers, numbers + 100) > diagnose.MOVED
    assert diagnose.psi(numbers, numbers + 500) > diagnose.SHIFTED
    assert diagnose.psi(numbers, pl.Series([None] * 500 + list(range(500)), dtype=pl.Int64)) > diagnose.SHIFTED
    assert diagnose.psi(pl.Series([7.0] * 50), pl.Series([7.0] * 9)) == 0


values = st.lists(st.none() | st.floats(-1e6, 1e6) | st.integers(-5, 5).map(float), min_size=1, max_size=60)


@given(before=values, after=values)
def test_psi_is_finite_and_never_below_zero(
    diagnose: Any, before: list[float | None], after: list[float | None]
) -> None:
    found = diagnose.psi(pl.Series(before, dtype=pl.Float64), pl.Series(after, dtype=pl.Float64))

    assert math.isfinite(found)
    assert found >= 0


def test_drift_names_what_moved_first_and_what_is_missing(diagnose: Any) -> None:
    training = pl.DataFrame({"same": list(range(100)), "moved": list(range(100))})
    holdout = pl.DataFrame({"same": list(range(100)), "moved": [None] * 50 + [200] * 50})

    moved, same = diagnose.drift(training, holdout, ["same", "moved"]).to_dicts()

    assert (moved["feature"], moved["reading"], moved["missing_holdout_percent"]) == ("moved", "shifted", 50)
    assert (same["feature"], same["psi"], same["reading"]) == ("same", 0, "steady")


def predictions(carriers: dict[str, tuple[int, float]]) -> pl.DataFrame:
    """Return flights by carrier: how many, and by how much each was overestimated; the baseline is off by 10."""
    rows = [
        {"day": 1, "hour": hour % 24, "carrier": carrier, "flight": number, "origin": "EWR", "dest": "SFO"}
        | {"actual": 5.0, "prediction": 5.0 + off, "baseline": 15.0}
        for carrier, (count, off) in carriers.items()
        for number, hour in enumerate(range(count))
    ]
    return pl.DataFrame(rows)


def test_slices_are_worst_first_and_small_ones_are_left_out(diagnose: Any) -> None:
    found = diagnose.slices(predictions({"AA": (40, 3), "UA": (40, -20), "HA": (29, 90)}))
    carriers = found.filter(pl.col("slice") == "carrier").to_dicts()

    assert [row["value"] for row in carriers] == ["UA", "AA"]
    assert carriers[0] == {
        "slice": "carrier",
        "value": "UA",
        "flights": 40,
        "rmse_prediction": 20,
        "rmse_baseline": 10,
        "bias": -20,
        "change_percent": 100,
    }
    assert found["rmse_prediction"].is_sorted(descending=True)


def test_every_hour_is_in_one_band(diagnose: Any) -> None:
    many = predictions({"AA": (24 * 30, 1)})
    bands = diagnose.slices(many).filter(pl.col("slice") == "hours")

    assert dict(bands.select("value", "flights").iter_rows()) == {
        "night, 0 to 5": 6 * 30,
        "morning, 6 to 9": 4 * 30,
        "noon, 10 to 13": 4 * 30,
        "afternoon, 14 to 17": 4 * 30,
        "evening, 18 to 23": 6 * 30,
    }


def test_the_worst_errors_in_either_direction(diagnose: Any) -> None:
    worst = diagnose.worst(predictions({"AA": (30, 3), "UA": (2, -20), "B6": (1, 50)}), 3)

    assert list(zip(worst["carrier"], worst["error"], strict=True)) == [("B6", 50), ("UA", -20), ("UA", -20)]


def test_categories_that_training_did_not_know(diagnose: Any) -> None:
    holdout = pl.DataFrame({"carrier": ["AA", "AA", "XX"], "dest": ["SFO", "ABC", "ABC"]})

    found = diagnose.new_categories(holdout, {"carrier": ["AA"], "dest": ["SFO"]})

    assert found.rows() == [("dest", "ABC", 2), ("carrier", "XX", 1)]


def test_flights_that_took_no_part_by_reason(diagnose: Any) -> None:
    months = [date(2013, month, 1) for month in (1, 2, 2, 2, 2)]
    flights = pl.DataFrame(
        {"partition": months, "dep_delay": [None, None, 5, 5, 5], "arr_delay": [None, None, None, 1, 2]}
    )

    cancelled, diverted = diagnose.dropped(flights, date(2013, 2, 1), [date(2013, 1, 1)]).to_dicts()

    assert (cancelled["training"], cancelled["holdout"], cancelled["holdout_percent"]) == (1, 1, 25)
    assert (diverted["training"], diverted["holdout"]) == (0, 1)
