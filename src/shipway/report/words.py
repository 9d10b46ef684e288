"""Numbers, times and sizes as people read them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

MINUS = "\N{MINUS SIGN}"


def number(value: float, decimals: int | None = None) -> str:
    """Write a number with about four digits that count, whole ones whole, from 10,000 on grouped by thousands.

    Args:
        value: the number.
        decimals: how many decimal places it is to have, for one among others in a column.
    """
    if not math.isfinite(value):
        return str(value)
    amount = abs(value)
    if decimals is None and (isinstance(value, int) or (value == int(value) and amount < 1e15)):
        return _signed(_grouped(amount, 0), value)
    if amount >= 1e15 or (decimals is None and amount < 1e-4):
        digits, _, power = f"{amount:.2e}".partition("e")
        return _signed(f"{digits} × 10^{int(power)}".replace("-", MINUS), value)
    if decimals is None:
        # A small share keeps three digits that count: 0.00123.
        decimals = _decimals(amount) if amount >= 0.1 else 2 - math.floor(math.log10(amount))
        decimals = _needed([amount], decimals)
    text = _grouped(amount, decimals)
    return _signed(text, value) if text.strip("0.") else text


def places(values: Sequence[float]) -> int | None:
    """Return how many decimal places suit all numbers of a column, or None where each is better written by itself."""
    finite = [abs(item) for item in values if math.isfinite(item)]
    if not finite or all(item == int(item) for item in finite):
        return None
    decimals = _decimals(max(finite))
    smallest = min((item for item in finite if item), default=1.0)
    return _needed(finite, decimals) if smallest >= 10.0**-decimals else None


def value(item: Any, decimals: int | None = None) -> str:
    """Write what stands in a table or among facts."""
    if item is None:
        return "–"
    if isinstance(item, bool):
        return "yes" if item else "no"
    return number(item, decimals) if isinstance(item, int | float) else str(item)


def _decimals(largest: float) -> int:
    return 1 if largest >= 1000 else 2 if largest >= 1 else 4


def _needed(amounts: Sequence[float], decimals: int) -> int:
    """Return how many decimal places say as much as `decimals` do, two at least: no 0.3100."""
    while decimals > 2 and all(f"{amount:.{decimals}f}".endswith("0") for amount in amounts):
        decimals -= 1
    return decimals


def _grouped(amount: float, decimals: int) -> str:
    return f"{amount:,.{decimals}f}" if amount >= 10_000 else f"{amount:.{decimals}f}"


def percent(share: float) -> str:
    """Write a share, with its sign."""
    text = f"{abs(share) * 100:.2f}"
    sign = "" if not float(text) else "+" if share > 0 else MINUS
    return f"{sign}{text} %"


def size(count: int) -> str:
    """Write a number of bytes, in powers of 1,000."""
    amount = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.1f} TB"


def duration(seconds: float | None) -> str:
    """Write how long something took: `0.42 s`, `12.3 s`, `2 min 5 s`, `3 h 12 min`."""
    if seconds is None:
        return "–"
    if seconds < 60:
        return f"{seconds:.2f} s" if seconds < 10 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min"


def when(time: str | None) -> str:
    """Write a point in time in UTC, to the second: a page is read anywhere."""
    moment = parsed(time)
    return f"{moment.day} {moment:%B %Y, %H:%M:%S} UTC" if moment else "–"


def parsed(time: str | None) -> datetime | None:
    """Return a time of the server's or of a record's in UTC, or None where it is none."""
    try:
        moment = datetime.fromisoformat(time or "")
    except ValueError:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).astimezone(UTC)


def short(release: str | None) -> str:
    """Write a release's short id."""
    return (release or "").rpartition(".")[2][:12] or "none"


def plural(count: int, one: str, several: str = "") -> str:
    """Write how many of something there are."""
    return f"{count:,} {one if count == 1 else several or one + 's'}"


def _signed(text: str, value: float) -> str:
    return f"{MINUS}{text}" if value < 0 else text
