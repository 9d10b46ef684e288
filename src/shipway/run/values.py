"""A value as plain JSON and files of codecs, which comes back equal or is refused; nothing in it can run code.

What JSON has no word for is written as an object with one key that says what it is: `{"tuple": [...]}`.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

from shipway.codec import codec_for, decode
from shipway.codec.base import Codec, type_name
from shipway.codec.objects import BYTES, FILE, PICKLE, SVG
from shipway.codec.plain import JSON
from shipway.errors import CodecError, IntegrityError

_OTHERWISE = {JSON.name, FILE.name, SVG.name, BYTES.name, PICKLE.name}
"""Codecs whose values come back as something else, or that run code, or that are not needed here."""

_LISTED: Mapping[str, Callable[[Any], Any]] = {"tuple": tuple, "set": set, "frozenset": frozenset}
_CONTAINERS = (list, dict, *_LISTED.values())

_LESS = {"LazyFrame", "RecordBatch"}
"""Types that come back as another one."""

_UNCHANGEABLE = {"polars", "arrow"}
"""Codecs of values that a shallow copy protects from what is done to the original: they need not be written at once."""


@dataclass(slots=True)
class Part:
    """What goes into a file of its own.

    Attributes:
        codec: who writes it.
        path: the file to be.
        value: what is still to be written, or None when it is.
    """

    codec: Codec
    path: Path
    value: Any

    def write(self) -> Path:
        """Write the file unless that is done, and return it.

        Raises:
            CodecError: the value would not come back equal.
        """
        if self.value is not None:
            value, self.value = self.value, None
            self.codec.write(value, self.path)
            _check(self.codec, value, self.path)
        return self.path


def take_apart(value: Any, new_file: Callable[[], Path]) -> tuple[Any, list[Part]]:
    """Return a value as JSON, and what of it goes into files.

    The caller may change the value afterwards; what is written later is protected from that.

    Args:
        value: what to take apart.
        new_file: makes an empty file for a part.

    Raises:
        CodecError: part of the value would not come back equal.
    """
    parts: list[Part] = []

    def part(inner: Any, codec: Codec) -> int:
        later = codec.name in _UNCHANGEABLE
        parts.append(Part(codec, new_file(), inner.clone() if codec.name == "polars" else inner))
        if not later:
            parts[-1].write()
        return len(parts) - 1

    try:
        return _down(value, part, ()), parts
    except RecursionError:
        raise CodecError("the value is nested too deeply") from None


def put_together(tree: Any, files: Sequence[tuple[str, Path]]) -> Any:
    """Return the value that `take_apart` took apart.

    Args:
        tree: its JSON.
        files: name of the codec and the file of each part.

    Raises:
        IntegrityError: it is malformed.
        CodecError: a codec is not known here.
    """
    try:
        return _up(tree, files)
    except (TypeError, ValueError, KeyError, IndexError, AttributeError, ArithmeticError, RecursionError) as error:
        raise IntegrityError(f"it holds no value: {error}") from None


def _down(value: Any, part: Callable[[Any, Codec], int], above: tuple[int, ...]) -> Any:
    """Write down `value`, found inside the containers `above`."""
    kind = type(value)
    if kind in _PLAIN:
        return _PLAIN[kind](value)
    if kind not in _CONTAINERS:
        return _leaf(value, part)
    if id(value) in above:
        raise CodecError("the value contains itself")
    inside = (*above, id(value))
    if kind is not dict:
        items = [_down(item, part, inside) for item in value]
        return items if kind is list else {kind.__name__: items}
    if all(type(key) is str for key in value):
        return {"dict": {key: _down(item, part, inside) for key, item in value.items()}}
    return {"items": [[_down(key, part, inside), _down(item, part, inside)] for key, item in value.items()]}


def _leaf(value: Any, part: Callable[[Any, Codec], int]) -> Any:
    """Write down what has a library's type."""
    kind = type(value)
    library = kind.__module__.partition(".")[0]
    if library == "numpy" and getattr(value, "shape", None) == () and kind.__name__ != "ndarray":
        if value.dtype.kind in "OV":
            raise _loses(value)
        return {"numpy": [value.dtype.str, base64.b64encode(value.tobytes()).decode()]}
    if library == "polars" and kind.__name__ == "Series":
        frame = value.to_frame()
        return {"series": part(frame, codec_for(frame))}
    try:
        codec = codec_for(value)
    except CodecError:
        raise CodecError(f"there is no codec for a {type_name(value)}") from None
    if codec.name in _OTHERWISE or kind.__name__ in _LESS:
        raise _loses(value)
    number = part(value, codec)
    # The text of a booster has the trees up to the best one, and does not say that it was the best.
    return {"booster": [number, value.best_iteration]} if codec.name == "lightgbm" else {"part": number}


def _loses(value: Any) -> CodecError:
    return CodecError(f"a {type_name(value)} does not come back as it is")


def _whole(number: int) -> int:
    try:
        str(number)
    except ValueError:
        raise CodecError("a whole number has more digits than Python reads back") from None
    return number


def _moment(moment: datetime) -> dict[str, Any]:
    zone = moment.tzinfo
    if zone is None or type(zone) is timezone:
        named = None if zone is None else zone.tzname(None)
        if zone in (None, UTC) or named == timezone(zone.utcoffset(None)).tzname(None):
            return {"datetime": [moment.isoformat(), None, moment.fold]}
    elif type(zone) is ZoneInfo and zone.key:
        return {"datetime": [moment.replace(tzinfo=None).isoformat(), zone.key, moment.fold]}
    raise CodecError("a datetime has a time zone that does not come back as it is")


def _time(moment: time) -> dict[str, Any]:
    if moment.tzinfo:
        raise CodecError("a time with a time zone does not come back as it is")
    return {"time": [moment.isoformat(), moment.fold]}


_PLAIN: Mapping[type, Callable[[Any], Any]] = {
    type(None): lambda value: value,
    bool: lambda value: value,
    str: lambda value: value,
    int: _whole,
    float: lambda value: value if math.isfinite(value) else {"float": str(value)},
    complex: lambda value: {"complex": [repr(value.real), repr(value.imag)]},
    bytes: lambda value: {"bytes": base64.b64encode(value).decode()},
    datetime: _moment,
    date: lambda value: {"date": value.isoformat()},
    time: _time,
    timedelta: lambda value: {"timedelta": [value.days, value.seconds, value.microseconds]},
    Decimal: lambda value: {"Decimal": str(value)},
    UUID: lambda value: {"UUID": str(value)},
}


def _up(tree: Any, files: Sequence[tuple[str, Path]]) -> Any:
    if isinstance(tree, list):
        return [_up(item, files) for item in tree]
    if not isinstance(tree, dict):
        return tree
    [(word, inner)] = tree.items()
    if word in _WORDS:
        return _WORDS[word](inner)
    if word in _LISTED:
        return _LISTED[word](_up(item, files) for item in inner)
    if word == "dict":
        return {key: _up(item, files) for key, item in inner.items()}
    return {_up(key, files): _up(item, files) for key, item in inner} if word == "items" else _file(word, inner, files)


def _file(word: str, inner: Any, files: Sequence[tuple[str, Path]]) -> Any:
    if word == "part":
        return _read(files[inner])
    if word == "series":
        return _read(files[inner]).to_series()
    if word != "booster":
        raise ValueError(f"{word!r} says nothing")
    booster = _read(files[inner[0]])
    booster.best_iteration = inner[1]
    return booster


def _read(file: tuple[str, Path]) -> Any:
    name, path = file
    # Whoever can write to the store could have written the name of a codec that runs code.
    if name in _OTHERWISE:
        raise IntegrityError(f"codec {name} is not one of those that task results are kept with")
    return decode(name, path, "a part of it")


def _read_moment(inner: Any) -> datetime:
    moment = datetime.fromisoformat(inner[0]).replace(fold=inner[2])
    try:
        return moment.replace(tzinfo=ZoneInfo(inner[1])) if inner[1] else moment
    except OSError as error:  # a name that is not one of a file
        raise ValueError(f"there is no such time zone: {error.strerror}") from None


def _read_numpy(inner: Any) -> Any:
    import numpy

    dtype = numpy.dtype(inner[0])
    if dtype.hasobject:
        raise ValueError("Python objects are not read from bytes")
    return numpy.frombuffer(base64.b64decode(inner[1]), dtype)[0]


_WORDS: Mapping[str, Callable[[Any], Any]] = {
    "float": float,
    "complex": lambda inner: complex(float(inner[0]), float(inner[1])),
    "bytes": base64.b64decode,
    "datetime": _read_moment,
    "date": date.fromisoformat,
    "time": lambda inner: time.fromisoformat(inner[0]).replace(fold=inner[1]),
    "timedelta": lambda inner: timedelta(*inner),
    "Decimal": Decimal,
    "UUID": UUID,
    "numpy": _read_numpy,
}


def _check(codec: Codec, value: Any, path: Path) -> None:
    """Compare with what was written, where a format is known to lose something.

    Raises:
        CodecError: it would not come back equal.
    """
    if codec.name == "polars":
        import polars

        # Of a table that is the footer alone.
        same = polars.read_parquet_schema(path) == dict(value.schema)
    elif codec.name == "pandas":
        back = codec.read(path)
        same = (
            back.equals(value)
            and back.dtypes.equals(value.dtypes)
            and type(back.index) is type(value.index)
            and list(back.index.names) == list(value.index.names)
            and back.columns.equals(value.columns)
            and back.columns.names == value.columns.names
            and back.attrs == value.attrs
        )
    else:
        return
    if not same:
        raise _loses(value)
