"""Values written short: `2013-02..2013-12`, `1..10/3`, `a,b,c`, in the order they are written in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, time
from functools import partial

from shipway.errors import ParameterError

MAX_VALUES = 10_000
"""How many values there may be in all: what is more is a slip of the hand far more often than it is meant."""

HINT = "write 2013-02..2013-12, 2013-01-01..2013-12-31/7d, 2013-01-01T00..2013-01-01T23 or 1..10"

_RANGE = re.compile(r"(?P<first>[^/,]+?)\.\.(?P<last>[^/,]+)(?:/(?P<step>[^/,]*))?")
_MONTH = re.compile(r"(\d{4})-(\d{2})", re.ASCII)
_DAY = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)
_HOUR = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}(?P<minutes>:\d{2})?", re.ASCII)
_NUMBER = re.compile(r"-?\d{1,18}", re.ASCII)


@dataclass(frozen=True, slots=True)
class _Point:
    """An end of a range.

    Attributes:
        kind: `months`, `days`, `hours`, `hours and minutes` or `numbers`; both ends have the same.
        place: how many months, days, minutes or ones it lies after the first there is.
        write: writes a place as text.
    """

    kind: str
    place: int
    write: Callable[[int], str]


_STEPS = {
    "months": {"": 1, "mo": 1, "y": 12},
    "days": {"": 1, "d": 1, "w": 7},
    "hours": {"": 60, "h": 60, "d": 1440},
    "hours and minutes": {"": 60, "min": 1, "h": 60, "d": 1440},
    "numbers": {"": 1},
}
"""What a step may be counted in, by kind of range, and how many places that is."""


def expand(text: str) -> list[str]:
    """Return the values that a text stands for, each once: those of a list, with its ranges written out.

    Both ends belong to a range, the last one where the steps meet it. Times are those of a calendar: no zone is thought
    of, so no hour is left out or met twice.

    Raises:
        ParameterError: a range is reversed, of two kinds or not one at all, a value is empty, or there are too many.
    """
    values: dict[str, None] = {}
    for item in text.split(","):
        if not item.strip():
            raise ParameterError(f"{text[:80]!r} holds an empty value")
        for value in _item(item.strip()):
            values[value] = None
        check_count(len(values))
    return list(values)


def check_count(count: int) -> None:
    """Refuse more than `MAX_VALUES`.

    Raises:
        ParameterError: there are more.
    """
    if count > MAX_VALUES:
        raise ParameterError(f"these are {count:,} values, at most {MAX_VALUES:,} can be", hint="take it in parts")


def _item(item: str) -> Iterator[str]:
    match = _RANGE.fullmatch(item)
    if match is None:
        # A path may hold two points; anything else that does was meant as a range.
        if ".." in item and "/" not in item:
            raise ParameterError(f"{item!r} is not a range", hint=HINT)
        yield item
        return
    first, last = _point(match["first"], item), _point(match["last"], item)
    if first.kind != last.kind:
        raise ParameterError(f"{item!r} goes from {first.kind} to {last.kind}", hint="both ends must be of one kind")
    step = _step(match["step"], first.kind, item)
    if last.place < first.place:
        raise ParameterError(f"{item!r} goes backwards", hint=f"write {match['last']}..{match['first']}")
    check_count((last.place - first.place) // step + 1)
    for place in range(first.place, last.place + 1, step):
        yield first.write(place)


def _point(text: str, item: str) -> _Point:
    try:
        if match := _MONTH.fullmatch(text):
            day = date(int(match[1]), int(match[2]), 1)
            return _Point("months", day.year * 12 + day.month - 1, _write_month)
        if _DAY.fullmatch(text):
            return _Point("days", date.fromisoformat(text).toordinal(), lambda place: str(date.fromordinal(place)))
        if match := _HOUR.fullmatch(text):
            moment = datetime.fromisoformat(text)
            place = (moment.toordinal() * 24 + moment.hour) * 60 + moment.minute
            if match["minutes"]:
                return _Point("hours and minutes", place, partial(_write_hour, "minutes"))
            return _Point("hours", place, partial(_write_hour, "hours"))
    except ValueError as error:
        raise ParameterError(f"{item!r} is not a range: there is no {text} ({error})") from None
    if _NUMBER.fullmatch(text):
        # 08..12 is written with as many digits all the way, as a shell does.
        digits = len(text) if re.match(r"-?0\d", text) else 0
        return _Point("numbers", int(text), lambda place: f"{place:0{digits}d}")
    raise ParameterError(f"{item!r} is not a range", hint=HINT)


def _step(text: str | None, kind: str, item: str) -> int:
    units = _STEPS[kind]
    if text is None:
        return units[""]
    match = re.fullmatch(r"(\d{1,9})([a-z]*)", text)
    if match is None or match[2] not in units or int(match[1]) == 0:
        allowed = ", ".join(f"/2{unit}" for unit in units)
        raise ParameterError(f"{item!r} has no step of {kind} after the /", hint=f"write for example {allowed}")
    return int(match[1]) * units[match[2]]


def _write_month(place: int) -> str:
    return f"{place // 12:04d}-{place % 12 + 1:02d}"


def _write_hour(precision: str, place: int) -> str:
    day, minute = divmod(place, 1440)
    return f"{date.fromordinal(day)}T{time(minute // 60, minute % 60).isoformat(precision)}"
