"""What the fields of a deployment may be; each check returns the value or raises ValueError with the reason."""

from __future__ import annotations

import re
from zoneinfo import ZoneInfo

from shipway.errors import IntegrityError
from shipway.manifest import Version

MAX_NAME = 255

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FORBIDDEN = set('/%&<>"\\')


def check_name(name: str) -> str:
    """Return `name` if a flow, deployment or queue may have it (Prefect's rule: none of `/ % & < > "`).

    Raises:
        ValueError: it may not.
    """
    if not name.strip() or name != name.strip():
        raise ValueError("a name may not be empty, or begin or end with a space")
    if len(name) > MAX_NAME:
        raise ValueError(f"a name may have at most {MAX_NAME} characters, this one has {len(name)}")
    if bad := sorted(set(name) & _FORBIDDEN | {char for char in name if ord(char) < 32 or ord(char) == 127}):
        raise ValueError(f"{name!r} may not hold {' '.join(map(repr, bad))}")
    return name


def parse_interval(value: object) -> float:
    """Turn `90` (seconds), `15m`, `1h30m` or `2d` into seconds.

    Raises:
        ValueError: it is none of these, or under a second.
    """
    if isinstance(value, str) and re.fullmatch(r"\s*(\d+\s*[smhdw]\s*)+", value):
        parts = re.findall(r"(\d+)\s*([smhdw])", value)
        seconds = float(sum(int(count) * _UNITS[unit] for count, unit in parts))
    elif re.fullmatch(r"\d+(\.\d+)?", str(value)):
        seconds = float(str(value))
    else:
        raise ValueError(f"{value!r} is not an interval; write 90 (seconds), 15m, 1h30m or 2d")
    if seconds < 1:
        raise ValueError("an interval is at least one second")
    return seconds


def check_cron(text: str) -> str:
    """Return a cron expression of five fields, or raise ValueError."""
    from croniter import croniter

    if len(text.split()) != 5 or not croniter.is_valid(text):
        raise ValueError(f"{text!r} is not a cron expression of five fields")
    return text


def check_rrule(text: str) -> str:
    """Return an iCalendar recurrence rule, or raise ValueError."""
    from dateutil.rrule import rrulestr

    try:
        rrulestr(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{text!r} is not a recurrence rule: {error}") from None
    return text


def check_timezone(text: str) -> str:
    """Return the IANA name of a time zone, or raise ValueError."""
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"{text!r} is not a time zone; use an IANA name such as Europe/Berlin") from None
    return text


def check_block(text: str) -> str:
    """Return the name of a block, or raise ValueError."""
    if not re.fullmatch(r"[a-z0-9-]+/[^/]+", text):
        raise ValueError(f"{text!r} does not name a storage block; write TYPE/NAME, such as s3/NAME")
    return text


def check_release(text: str) -> str:
    """Return `<epoch>.<release-id>`, or raise ValueError."""
    try:
        return str(Version.parse(text))
    except IntegrityError as error:
        raise ValueError(str(error)) from None


def check_entrypoint(text: str) -> str:
    """Return `FILE.py:FUNCTION`, or raise ValueError."""
    if not re.fullmatch(r"[^:\s][^:]*\.py:[A-Za-z_][A-Za-z0-9_.]*", text):
        raise ValueError(f"{text!r} does not name a flow; write FILE.py:FUNCTION")
    return text


def check_limit(number: int) -> int:
    """Return a concurrency limit, or raise ValueError."""
    if number < 1:
        raise ValueError("a concurrency limit is at least 1")
    return number
