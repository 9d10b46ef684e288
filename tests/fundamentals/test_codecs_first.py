"""Read this first: a codec turns a value into one file and back, and nothing is pickled behind your back."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import polars
import pytest

from shipway.codec import codec_for, codec_named, encode
from shipway.errors import CodecError


def test_a_value_becomes_a_file_and_comes_back(tmp_path: Path) -> None:
    metrics = {"rmse": 42.18, "months": ["2013-01", "2013-02"]}

    encoded = encode(metrics, tmp_path / "metrics")

    assert (encoded.codec, encoded.suffix) == ("json", ".json")
    assert codec_named("json").read(tmp_path / "metrics") == metrics


def test_a_table_is_parquet_and_its_rows_are_counted(tmp_path: Path) -> None:
    frame = polars.DataFrame({"carrier": ["UA", "AA"], "delay": [11.0, -4.0]})

    encoded = encode(frame, tmp_path / "delays")

    assert (encoded.codec, encoded.suffix, encoded.rows) == ("polars", ".parquet", 2)
    assert codec_named("polars").read(tmp_path / "delays").equals(frame)


def test_json_is_for_people_too(tmp_path: Path) -> None:
    @dataclass
    class Check:
        name: str
        day: date

    encode({"check": Check("vent à 1 048 mph", date(2013, 2, 12))}, tmp_path / "check")

    text = (tmp_path / "check").read_text(encoding="utf-8")
    assert text == '{\n  "check": {\n    "name": "vent à 1 048 mph",\n    "day": "2013-02-12"\n  }\n}\n'


def test_what_cannot_come_back_is_refused_and_its_place_is_named(tmp_path: Path) -> None:
    with pytest.raises(CodecError, match=r"metrics\.rmse\[3\] is nan"):
        encode({"metrics": {"rmse": [1.0, 2.0, 3.0, float("nan")]}}, tmp_path / "metrics")

    assert not (tmp_path / "metrics").exists()


def test_what_is_unknown_is_refused_with_what_is_known() -> None:
    with pytest.raises(CodecError, match=r"no codec for a set; known are .*polars DataFrame.*register"):
        codec_for({1, 2})


def test_pickle_only_when_asked_for_by_name(tmp_path: Path) -> None:
    encoded = encode({1, 2}, tmp_path / "set", "pickle")

    assert encoded.suffix == ".pkl"
    assert codec_named("pickle").read(tmp_path / "set") == {1, 2}


def test_codecs_import_no_library_before_it_is_needed() -> None:
    heavy = {"polars", "pandas", "pyarrow", "numpy", "matplotlib", "lightgbm"}
    code = "import sys, shipway.codec as c; c.codec_for({}); print(*{m.partition('.')[0] for m in sys.modules})"

    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()

    assert not heavy & set(loaded)
