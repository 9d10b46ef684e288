"""Laws of values written short."""

from __future__ import annotations

from datetime import date, datetime, time, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.deployment.ranges import MAX_VALUES, expand
from shipway.errors import ParameterError

DAYS = st.dates(date(1, 1, 1), date(9900, 12, 31))
"""Days with room for all the others of a test behind them."""

COUNTS = st.integers(1, 400)
STEPS = st.integers(1, 50)


@given(DAYS, COUNTS, STEPS)
def test_days_are_those_of_the_calendar(first: date, count: int, step: int) -> None:
    days = [first + timedelta(days=number * step) for number in range(count)]
    assert expand(f"{first}..{days[-1]}/{step}") == [str(day) for day in days]


@given(DAYS, st.integers(0, 3000))
def test_months_are_those_that_days_lie_in(first: date, more: int) -> None:
    last = first + timedelta(days=more)
    months = list(dict.fromkeys(day[:7] for day in expand(f"{first}..{last}")))
    assert expand(f"{str(first)[:7]}..{str(last)[:7]}") == months


@given(DAYS, st.integers(0, 23), COUNTS, STEPS)
def test_hours_follow_each_other(day: date, hour: int, count: int, step: int) -> None:
    first = datetime.combine(day, time(hour))
    hours = [first + timedelta(hours=number * step) for number in range(count)]
    found = expand(f"{first.isoformat(timespec='hours')}..{hours[-1].isoformat(timespec='hours')}/{step}h")
    assert [datetime.fromisoformat(hour) for hour in found] == hours
    found = expand(f"{first.isoformat(timespec='minutes')}..{hours[-1].isoformat(timespec='minutes')}/{step}h")
    assert [datetime.fromisoformat(hour) for hour in found] == hours


@given(st.integers(-(10**9), 10**9), st.integers(0, 500), STEPS)
def test_numbers_are_those_of_range(first: int, more: int, step: int) -> None:
    assert expand(f"{first}..{first + more}/{step}") == [str(n) for n in range(first, first + more + 1, step)]


@given(st.integers(-(10**9), 10**9), st.integers(1, 10**9))
def test_a_range_backwards_is_refused_with_the_other_way_round(first: int, less: int) -> None:
    with pytest.raises(ParameterError, match=f"{first - less}\\.\\.{first}"):
        expand(f"{first}..{first - less}")


@given(st.integers(-(10**9), 10**9), st.integers(MAX_VALUES, 10**15))
def test_too_many_are_refused_before_they_are_made(first: int, more: int) -> None:
    with pytest.raises(ParameterError, match=f"{more + 1:,} values"):
        expand(f"{first}..{first + more}")


@given(st.lists(st.from_regex(r"[a-z0-9]{1,8}", fullmatch=True), min_size=1, max_size=30))
def test_a_list_keeps_its_order_and_drops_what_it_has(values: list[str]) -> None:
    assert expand(",".join(values)) == list(dict.fromkeys(values))


@given(st.text(max_size=40))
def test_any_text_is_expanded_or_refused(text: str) -> None:
    try:
        values = expand(text)
    except ParameterError:
        return
    assert 1 <= len(values) <= MAX_VALUES
    assert all(values)
