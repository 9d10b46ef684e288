"""Plain values as JSON that people can read: indented, UTF-8, keys in the order they were given."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import date, time
from decimal import Decimal
from enum import Enum
from pathlib import Path, PurePath
from typing import Any
from uuid import UUID

from shipway.codec.base import BuiltIn, type_name
from shipway.errors import CodecError

_PLAIN = (type(None), bool, int, float, str, list, tuple, Mapping, date, time, Decimal, Enum, UUID, PurePath)


def _accepts(value: object) -> bool:
    return isinstance(value, _PLAIN) or _is_dataclass(value) or _is_numpy_scalar(value)


def _write(value: Any, path: Path) -> None:
    try:
        text = json.dumps(_plain(value, "", ()), indent=2, ensure_ascii=False, allow_nan=False)
    except RecursionError:
        raise CodecError("the value is nested too deeply for JSON", hint="save its parts") from None
    path.write_text(text + "\n", encoding="utf-8", newline="\n")


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _plain(value: Any, place: str, above: tuple[int, ...]) -> Any:
    """Turn `value`, found at `place` inside the containers `above`, into what JSON has words for."""
    if id(value) in above:
        raise _refuse(place, "contains itself", "save its parts")
    inside = (*above, id(value))
    if isinstance(value, list | tuple):
        return [_plain(item, f"{place}[{index}]", inside) for index, item in enumerate(value)]
    if _is_dataclass(value):
        value = {f.name: getattr(value, f.name) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return dict(_pair(key, item, place, inside) for key, item in value.items())
    plain = _scalar(value, place)
    if problem := _problem(value) or _problem(plain):
        raise _refuse(place, problem, "replace it, by None for instance")
    return plain


def _pair(key: object, item: Any, place: str, above: tuple[int, ...]) -> tuple[str, Any]:
    if not isinstance(key, str) or isinstance(key, Enum) or _problem(key):
        raise _refuse(place, f"has the key {key!r:.60}, which is not text", "turn its keys into text")
    dotted = f"{place}.{key}" if place else key
    return str.__str__(key), _plain(item, dotted if key.isidentifier() else f"{place}[{key!r:.60}]", above)


def _scalar(value: Any, place: str) -> float | str | None:
    if (moment := _moment(value)) is not None:
        return moment
    if _is_numpy_scalar(value):
        value = value.item()
    match value:
        case None | bool():
            return value
        case Enum():
            return str.__str__(value.value) if isinstance(value.value, str) else value.name
        case int() | float():
            return int(value) if isinstance(value, int) else float(value)
        case str() | Decimal() | UUID() | PurePath():
            return str.__str__(value) if isinstance(value, str) else str(value)
    raise _refuse(
        place, f"is a {type_name(value)}, which JSON has no word for", "make it numbers, text or lists of such"
    )


def _moment(value: Any) -> str | None:
    """Return a date or time as ISO 8601, and None for anything else."""
    if isinstance(value, date | time):
        return value.isoformat()
    # The item of a datetime64 would be a bare number of nanoseconds.
    return str(value) if _is_numpy_scalar(value) and value.dtype.kind == "M" else None


def _problem(value: Any) -> str | None:
    """Say what keeps a scalar from coming back as it is."""
    finite = value.is_finite() if isinstance(value, Decimal) else not isinstance(value, float) or math.isfinite(value)
    if not finite or _moment(value) == "NaT":
        return f"is {value}, which JSON has no word for"
    try:
        str(value).encode()
    except UnicodeEncodeError:
        return f"is the text {value!r:.60}, which is not valid Unicode"
    except ValueError:
        return "is a whole number of more digits than Python reads back"
    return None


def _is_dataclass(value: object) -> bool:
    return dataclasses.is_dataclass(value) and not isinstance(value, type)


def _is_numpy_scalar(value: object) -> bool:
    return type(value).__module__ == "numpy" and hasattr(value, "item") and getattr(value, "shape", None) == ()


def _refuse(place: str, what: str, hint: str) -> CodecError:
    return CodecError(f"{place or 'the value'} {what}", hint=hint)


JSON = BuiltIn(
    name="json",
    suffix=".json",
    takes="dict, list, tuple, text, number, None, date or dataclass of such",
    accepts=_accepts,
    write=_write,
    read=_read,
)
"""Plain values as JSON.

Numbers, text, lists and dictionaries come back equal. What JSON has no word for comes back as what stands in the file:
tuples as lists, dataclasses as dictionaries, numpy scalars as numbers, dates and times as ISO 8601 text, paths, UUIDs
and decimals as text, an enumeration's member as its value when that is text, else as its name. NaN, infinity, keys that
are not text and values of other types are refused, and their place is named.
"""
