"""The gate promotes what is better for sure, says why in numbers, and refuses what cannot be compared."""

from __future__ import annotations

import json
import math
import random
from dataclasses import replace
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import shipway
from shipway.errors import InputError, IntegrityError
from shipway.model.decision import Decision
from shipway.model.gate import MOST_BLOCKS, gate

DAYS = 20


def holdout(*, rows: int = 400, champion: float = 1.0, candidate: float = 0.9, baseline: float = 2.0) -> dict[str, Any]:
    """Return predictions whose errors are as wide as the numbers say, in blocks of a day."""
    draw = random.Random(7)  # noqa: S311 - test data
    actual = [draw.gauss(0, 10) for _ in range(rows)]

    def predicted(width: float) -> list[float]:
        return [value + width * error for value, error in zip(actual, errors, strict=True)]

    errors = [draw.gauss(0, 1) for _ in range(rows)]
    return {
        "actual": actual,
        "prediction": predicted(candidate),
        "champion": predicted(champion),
        "baseline": predicted(baseline),
        "day": [row % DAYS for row in range(rows)],
    }


def test_a_better_candidate_is_promoted_and_the_reasons_hold_the_numbers() -> None:
    decision = gate(holdout(), blocks="day", margin=0.005)

    assert (decision.promote, decision.verdict, decision.metric) == (True, "promoted", "rmse")
    assert (decision.rows, decision.blocks) == (400, DAYS)
    assert decision.gain == pytest.approx(0.1)
    assert decision.baseline_gain == pytest.approx(0.55)
    assert decision.interval == pytest.approx((0.1, 0.1))
    margin, sure, baseline = decision.reasons
    assert "10.00 % better than the champion's" in margin
    assert "at least 0.50 % is asked" in margin
    assert "95 % of 2,000 resamples of 20 blocks" in sure
    assert "all of it above 0" in sure
    assert "55.00 % better than the baseline's" in baseline


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"candidate": 0.999}, "less than the 0.50 % asked"),
        ({"candidate": 1.2}, "20.00 % worse than the champion's"),
        ({"baseline": 0.5}, "80.00 % worse than the baseline's"),
        ({"baseline": 0.9}, "not better than the baseline's"),
    ],
)
def test_each_condition_keeps_the_champion_by_itself(change: dict[str, Any], word: str) -> None:
    decision = gate(holdout(**change), blocks="day")

    assert (decision.promote, decision.verdict) == (False, "kept")
    assert any(word in reason for reason in decision.reasons), decision.reasons
    assert len(decision.reasons) == 3  # what was fulfilled is said, too


def test_a_gain_that_one_day_made_is_not_sure() -> None:
    data = holdout(candidate=1.05)
    for row, day in enumerate(data["day"]):
        if day == 3:
            data["champion"][row] += 30
    by_day, by_row = gate(data, blocks="day"), gate(data)

    assert by_day.gain == by_row.gain
    assert by_day.gain is not None
    assert by_day.gain > 0.5
    # Its rows err together: resampled one by one they look like 20 pieces of evidence.
    assert (by_day.promote, by_row.promote) == (False, True)
    assert "not all of it above 0" in by_day.reasons[1]


def test_without_a_champion_the_baseline_is_to_be_beaten() -> None:
    data = holdout()
    del data["champion"]
    decision = gate(data, blocks="day")
    assert (decision.promote, decision.gain, decision.baseline_gain) == (True, *[pytest.approx(0.55)] * 2)
    assert "55.00 % better than the baseline's" in decision.reasons[0]
    assert not gate({**data, "prediction": holdout(candidate=2.1)["prediction"]}, blocks="day").promote
    assert gate({**data, "champion": None}, blocks="day") == decision
    assert gate(holdout(), champion=None, blocks="day") == decision


def test_with_neither_it_is_the_first() -> None:
    decision = gate({"actual": [1, 2], "prediction": [1, 3]}, metric="mae")

    assert (decision.promote, decision.gain, decision.interval) == (True, None, None)
    assert "the first" in decision.reasons[0]
    assert decision.scores == {"candidate": 0.5}


def test_metrics() -> None:
    data = {"actual": [0, 1, 1, 0], "prediction": [0.2, 0.9, 0.6, 0.0], "champion": [0.5, 0.5, 0.5, 0.5]}
    squares = (0.2**2 + 0.1**2 + 0.4**2) / 4
    assert gate(data, metric="rmse").scores["candidate"] == pytest.approx(math.sqrt(squares))
    assert gate(data, metric="brier").scores["candidate"] == pytest.approx(squares)
    assert gate(data, metric="mae").scores["candidate"] == pytest.approx(0.7 / 4)
    logloss = gate(data, metric="logloss").scores
    assert logloss["candidate"] == pytest.approx(-(math.log(0.8) + math.log(0.9) + math.log(0.6)) / 4)
    assert logloss["champion"] == pytest.approx(math.log(2))

    def late(actual: float, predicted: float) -> float:
        return 2 * max(actual - predicted, 0.0)

    decision = gate(data, metric=late)
    assert decision.metric == "late"
    assert decision.scores["candidate"] == pytest.approx(0.25)
    certain = {"actual": [1, 0], "prediction": [0.0, 0.0]}
    assert gate(certain, metric="logloss").scores["candidate"] == pytest.approx(-math.log(1e-15) / 2)


def test_frames_are_as_good_as_mappings() -> None:
    data = holdout()
    assert gate(pl.DataFrame(data), blocks="day") == gate(data, blocks="day")
    pandas = pytest.importorskip("pandas")
    assert gate(pandas.DataFrame(data), blocks="day") == gate(data, blocks="day")


def test_over_a_champion_without_errors_nothing_can_be_gained() -> None:
    data = {"actual": [1.0, 2, 3], "prediction": [1.0, 2, 3.5], "champion": [1.0, 2, 3]}
    assert gate(data).gain == -1
    assert gate({**data, "prediction": data["actual"]}).gain == 0
    assert not gate({**data, "prediction": data["actual"]}, margin=0).promote


def test_many_blocks_are_put_together() -> None:
    few, many = gate(holdout(rows=MOST_BLOCKS)), gate(holdout(rows=MOST_BLOCKS * 3 + 1))
    assert few.promote
    assert many.promote
    assert many.blocks == 3 * MOST_BLOCKS + 1


@pytest.mark.parametrize(
    ("change", "options", "word"),
    [
        ({"actual": None}, {}, "no column 'actual'"),
        ({"prediction": None}, {}, "no column 'prediction'"),
        ({}, {"champion": "champoin"}, "no column 'champoin'"),
        ({}, {"baseline": "mean"}, "no column 'mean'"),
        ({}, {"blocks": "week"}, "no column 'week'"),
        ({"prediction": [1.0]}, {}, "has 1 rows"),
        ({"day": [1]}, {"blocks": "day"}, "has 1 rows"),
        ({"prediction": [math.nan] * 400}, {}, "row 0 is nan"),
        ({"champion": [1.0] * 399 + [None]}, {}, "row 399 is None"),
        ({"actual": [math.inf] * 400}, {}, "row 0 is inf"),
        ({"actual": ["1"] * 400}, {}, "row 0 is '1'"),
        ({"day": [None] * 400}, {"blocks": "day"}, "row 0 is missing"),
        ({"day": [[]] * 400}, {"blocks": "day"}, "cannot name a block"),
        ({"day": [1] * 400}, {"blocks": "day"}, "only one block"),
        ({"actual": "abc"}, {}, "no column but a str"),
        ({"actual": [1e200] * 400}, {}, "is inf"),
        ({}, {"metric": "r2"}, "no metric 'r2'"),
        ({}, {"metric": "brier"}, "of what is 0 or 1"),
        ({"actual": [1] * 400}, {"metric": "logloss"}, "no probability"),
        ({}, {"metric": lambda actual, predicted: -1.0}, "is -1.0"),
        ({}, {"margin": -0.1}, "margin"),
        ({}, {"margin": math.nan}, "margin"),
        ({}, {"level": 1.0}, "level"),
        ({}, {"samples": 38}, "too few"),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], options: dict[str, Any], word: str) -> None:
    with pytest.raises(InputError, match=word):
        gate({**holdout(), **change}, **options)


def test_no_rows_and_no_table_are_refused() -> None:
    with pytest.raises(InputError, match="no rows"):
        gate({"actual": [], "prediction": []})
    with pytest.raises(InputError, match="only one row"):
        gate({"actual": [1], "prediction": [1], "baseline": [2]})
    with pytest.raises(InputError, match="are a list"):
        gate([1, 2])
    with pytest.raises(InputError, match="LazyFrame"):
        gate(pl.LazyFrame({"actual": [1], "prediction": [1]}))


def test_as_few_samples_as_the_level_allows() -> None:
    assert gate(holdout(), samples=39).promote


def test_a_decision_comes_back_from_json() -> None:
    for data in (holdout(), {"actual": [1, 2], "prediction": [1, 3]}):
        decision = gate(data)
        assert Decision.from_json(json.loads(json.dumps(decision.to_json()))) == decision
    assert shipway.Decision is Decision


@pytest.mark.parametrize("harm", [{"interval": [1]}, {"scores": None}, {"verdict": "kept"}, {"odd": 1}, {"reasons": 3}])
def test_a_malformed_decision_is_refused(harm: dict[str, Any]) -> None:
    with pytest.raises(IntegrityError, match="malformed"):
        Decision.from_json({**gate(holdout()).to_json(), **harm})


# Laws. Errors are small whole numbers, so that ties, zeros and equal blocks are common.
ERRORS = st.integers(-6, 6)
ROWS = st.lists(
    st.tuples(st.integers(0, 9), ERRORS, ERRORS, ERRORS, st.integers(0, 3)), min_size=4, max_size=24
).filter(lambda rows: len({row[4] for row in rows}) > 1)
OPTIONS = st.fixed_dictionaries(
    {
        "metric": st.sampled_from(["rmse", "mae"]),
        "blocks": st.sampled_from(["day", None]),
        "margin": st.sampled_from([0.0, 0.005, 0.2]),
        "seed": st.integers(0, 3),
    }
)


def decide(rows: list[tuple[int, int, int, int, int]], options: dict[str, Any]) -> Decision:
    columns = {
        "actual": [actual for actual, *_ in rows],
        "prediction": [row[0] + row[1] for row in rows],
        "champion": [row[0] + row[2] for row in rows],
        "baseline": [row[0] + row[3] for row in rows],
        "day": [row[4] for row in rows],
    }
    return gate(columns, samples=200, **options)


@settings(max_examples=60, deadline=None)
@given(rows=ROWS, options=OPTIONS, where=st.data())
def test_a_candidate_that_gets_better_never_loses_by_it(
    rows: list[tuple[int, int, int, int, int]], options: dict[str, Any], where: st.DataObject
) -> None:
    better = [(row[0], where.draw(st.integers(0, abs(row[1]))), *row[2:]) for row in rows]
    before, after = decide(rows, options), decide(better, options)

    assert after.promote >= before.promote
    assert after.gain is not None
    assert before.gain is not None
    assert after.gain >= before.gain
    assert after.interval is not None
    assert before.interval is not None
    assert after.interval[0] >= before.interval[0] - 1e-12


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, options=OPTIONS, draw=st.randoms(use_true_random=False))
def test_the_order_of_rows_and_the_names_of_blocks_make_no_difference(
    rows: list[tuple[int, int, int, int, int]], options: dict[str, Any], draw: random.Random
) -> None:
    shuffled = [(*row[:4], 7 - row[4]) for row in rows]
    draw.shuffle(shuffled)
    assert decide(shuffled, options) == decide(rows, options)


@settings(max_examples=25, deadline=None)
@given(rows=ROWS, options=OPTIONS)
def test_the_same_seed_gives_the_same_decision(
    rows: list[tuple[int, int, int, int, int]], options: dict[str, Any]
) -> None:
    assert decide(rows, options) == decide(rows, options)


@settings(max_examples=40, deadline=None)
@given(rows=ROWS, options=OPTIONS)
def test_what_is_as_good_as_the_champion_is_never_promoted(
    rows: list[tuple[int, int, int, int, int]], options: dict[str, Any]
) -> None:
    same = [(row[0], row[2], *row[2:]) for row in rows]
    mirrored = [(row[0], -row[2], *row[2:]) for row in rows]
    assert not decide(same, options).promote
    assert not decide(mirrored, options).promote


def test_another_seed_draws_others() -> None:
    data = holdout()
    draw = random.Random(1)  # noqa: S311 - test data
    data["prediction"] = [value + draw.gauss(0, 1) for value in data["prediction"]]
    first, second = gate(data, blocks="day", seed=1), gate(data, blocks="day", seed=2)
    assert first.interval != second.interval
    assert replace(first, interval=None, seed=0, reasons=()) == replace(second, interval=None, seed=0, reasons=())
