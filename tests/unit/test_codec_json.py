"""Plain values as JSON: what comes back equal, what comes back as text, what is refused and where."""

from __future__ import annotations

import json
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Any, NamedTuple
from uuid import UUID

import numpy
import pandas
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.codec import codec_for, codec_named, encode
from shipway.errors import CodecError

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"))
)
KEYS = st.text(st.characters(codec="utf-8"))
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner) | st.dictionaries(KEYS, inner), max_leaves=20)


class Colour(Enum):
    RED = 1


class Level(IntEnum):
    HIGH = 3


class Mode(StrEnum):
    FAST = "fast"


class Point(NamedTuple):
    x: int
    y: int


@dataclass
class Inner:
    values: tuple[float, ...]


@dataclass(frozen=True)
class Outer:
    name: str
    inner: Inner


def written(value: Any) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "value")
        assert encode(value, path).codec == "json"
        return path.read_bytes()


@given(VALUES)
def test_plain_values_come_back_equal_and_of_the_same_types(value: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "value")
        encode(value, path)
        back = codec_named("json").read(path)

    assert back == value
    assert repr(back) == repr(value)  # tells -0.0 from 0.0, True from 1, 1.0 from 1, and the order of keys


@given(VALUES)
def test_the_same_value_has_the_same_bytes(value: Any) -> None:
    assert written(value) == written(value)


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_a_numpy_number_is_the_number_it_holds(value: float) -> None:
    assert json.loads(written([numpy.float64(value)])) == [value]


@pytest.mark.parametrize(
    ("value", "becomes"),
    [
        ((1, 2), [1, 2]),
        (Point(1, 2), [1, 2]),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (MappingProxyType({"a": 1}), {"a": 1}),
        (Outer("n", Inner((1.5,))), {"name": "n", "inner": {"values": [1.5]}}),
        (numpy.int64(3), 3),
        (numpy.float32(0.5), 0.5),
        (numpy.bool_(True), True),
        (numpy.str_("text"), "text"),
        (numpy.datetime64("2013-02-12T10:00:00.000000000"), "2013-02-12T10:00:00.000000000"),
        (datetime(2013, 2, 12, 10, tzinfo=UTC), "2013-02-12T10:00:00+00:00"),
        (pandas.Timestamp("2013-02-12"), "2013-02-12T00:00:00"),
        (date(2013, 2, 12), "2013-02-12"),
        (time(10, 30), "10:30:00"),
        ([PurePosixPath("a/b")], ["a/b"]),
        ([Path("a/b")], [str(Path("a/b"))]),
        (UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Colour.RED, "RED"),
        (Level.HIGH, "HIGH"),
        (Mode.FAST, "fast"),
    ],
)
def test_what_json_has_no_word_for_comes_back_as_what_stands_in_the_file(value: Any, becomes: Any) -> None:
    back = json.loads(written(value))

    assert back == becomes
    assert type(back) is type(becomes)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"metrics": {"rmse": [1, 2, 3, float("nan")]}}, r"^metrics\.rmse\[3\] is nan"),
        ({"a": float("inf")}, r"^a is inf"),
        (float("-inf"), r"^the value is -inf"),
        ([numpy.float32("nan")], r"^\[0\] is nan"),
        ([Decimal("NaN")], r"^\[0\] is NaN"),
        ([Decimal("-Infinity")], r"^\[0\] is -Infinity"),
        ([pandas.NaT], r"^\[0\] is NaT"),
        ([numpy.datetime64("NaT")], r"^\[0\] is NaT"),
        ({"months": {1: "a"}}, r"^months has the key 1, which is not text"),
        ({None: 1}, r"^the value has the key None"),
        ({Level.HIGH: 1}, r"^the value has the key <Level.HIGH: 3>"),
        ({"a b": {"c": {1}}}, r"^a b\.c is a set|^\['a b'\]\.c is a set"),
        ([[], [object()]], r"^\[1\]\[0\] is a object"),
        ({"x": numpy.array([1])}, r"^x is a numpy\.ndarray"),
        ({"x": b"bytes"}, r"^x is a bytes"),
        ({"x": 1j}, r"^x is a complex"),
        ({"x": Inner}, r"^x is a type"),
        ({"x": numpy.longdouble(1)}, r"^x is a numpy\.longdouble"),
        ({"x": "\ud800"}, r"^x is the text '\\ud800', which is not valid Unicode"),
        ({"\ud800": 1}, r"^the value has the key"),
        ([10**5000], r"^\[0\] is a whole number of more digits"),
    ],
)
def test_what_would_not_come_back_is_refused_with_its_place(value: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=said) as refused:
        encode(value, tmp_path / "value")

    assert refused.value.hint
    assert not (tmp_path / "value").exists()


def test_a_value_inside_itself_is_refused(tmp_path: Path) -> None:
    loop: dict[str, Any] = {"a": []}
    loop["a"].append(loop)

    with pytest.raises(CodecError, match=r"^a\[0\] contains itself"):
        encode(loop, tmp_path / "value")


def test_the_same_value_twice_side_by_side_is_no_loop(tmp_path: Path) -> None:
    shared = [1]

    assert json.loads(written({"a": shared, "b": shared})) == {"a": [1], "b": [1]}


def test_too_deep_a_value_is_refused(tmp_path: Path) -> None:
    deep: list[Any] = []
    for _ in range(5000):
        deep = [deep]

    with pytest.raises(CodecError, match="nested too deeply"):
        encode(deep, tmp_path / "value")


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", {}, [], (), Inner(()), numpy.float64(1), date(2013, 1, 1)])
def test_plain_values_need_no_name_of_a_codec(value: Any) -> None:
    assert codec_for(value).name == "json"
