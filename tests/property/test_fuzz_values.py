"""Saved values and results of tasks that somebody else has written over: errors of ours, or a value."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy
import pandas
import polars
import pyarrow
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.property.fuzzing import budget, damaged, documents, encoded, nearly, only, values

from shipway.artifact import Artifact
from shipway.codec import codec_for, codec_named
from shipway.digest import seal_text, sha256_bytes
from shipway.errors import IntegrityError, ShipwayError
from shipway.report.previews import previews
from shipway.run.data import read_artifact
from shipway.run.effects import Effects
from shipway.run.fetch import download
from shipway.run.results import Kept, object_key, read_kept
from shipway.run.values import put_together
from shipway.store.folder import FolderStore

KEY = "runs/f/2024-01-01/r-00000000/1/value"


@pytest.fixture(scope="module")
def store() -> Iterator[FolderStore]:
    with tempfile.TemporaryDirectory() as folder:
        yield FolderStore(Path(folder))


def written(value: Any) -> tuple[str, bytes]:
    """Return the name of the codec for a value, and what it writes."""
    codec = codec_for(value)
    with tempfile.NamedTemporaryFile() as file:
        codec.write(value, Path(file.name))
        return codec.name, Path(file.name).read_bytes()


def header(shape: str) -> bytes:
    """Return an array file that says it had that shape."""
    file = io.BytesIO()
    numpy.save(file, numpy.zeros(4))
    return file.getvalue().replace(b"(4,), }".ljust(len(shape) + 3), f"{shape}, }}".encode())


MADE = [
    written(value)
    for value in (
        {"a": [1, "x", None], "b": {"c": 1.5}},
        pandas.DataFrame({"a": [1, 2], "b": ["x", "y"]}),
        pyarrow.table({"a": [1, 2]}),
        numpy.arange(5.0),
    )
]
"""What polars and LightGBM read is left out: some bytes end the process; see the page on security."""


def load(store: FolderStore, codec: str, data: bytes) -> object:
    """Load bytes that lie in a store as what a codec is said to have written."""
    artifact = Artifact("value", f"{KEY}{codec_named(codec).suffix}", sha256_bytes(data), len(data), codec)
    store.put(artifact.key, data)
    return only(ShipwayError, lambda: read_artifact(store, artifact, {"value": artifact}))


@pytest.mark.parametrize(("codec", "good"), MADE, ids=[codec for codec, _ in MADE])
@pytest.mark.filterwarnings("ignore")
def test_saved_value(store: FolderStore, codec: str, good: bytes) -> None:
    assert load(store, codec, good) is not None

    @budget
    @given(st.one_of(damaged(good), damaged(good), st.binary(max_size=40)))
    def check(data: bytes) -> None:
        load(store, codec, data)

    check()


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("codec", "data"),
    [
        ("json", b"[" * 100_000),
        ("json", b"9" * 5000),
        ("json", b"\xff\xfe"),
        ("svg", b"\xff"),
        ("numpy", header("(1000000000000000,)")),
        ("numpy", header("(99999999999999999999999999,)")),
        ("numpy", b"\x93NUMPY\x01\x00"),
        ("numpy", b"PK\x03\x04"),
        ("polars", b"PAR1PAR1"),
        ("arrow", b"PAR1\xff\xff\xff\x7fPAR1"),
        ("pandas", b""),
    ],
)
def test_saved_value_that_is_none(store: FolderStore, codec: str, data: bytes) -> None:
    artifact = Artifact("value", KEY, sha256_bytes(data), len(data), codec)
    store.put(KEY, data)
    with pytest.raises(IntegrityError, match=f"value in file://.* is not what codec {codec} writes: "):
        read_artifact(store, artifact, {"value": artifact})


@pytest.mark.parametrize(("at", "byte"), [(4, 255), (96, 0), (529, 0)])
def test_table_at_which_polars_fails_in_its_own_ways(store: FolderStore, at: int, byte: int) -> None:
    """It raises errors of several kinds, and at the second of these panics, which is no Exception."""
    codec, good = written(polars.DataFrame({"a": [1, 2, 3], "b": ["x", "y", None]}))
    data = good[:at] + bytes([byte]) + good[at + 1 :]
    artifact = Artifact("value", f"{KEY}.parquet", sha256_bytes(data), len(data), codec)
    store.put(artifact.key, data)
    with pytest.raises(IntegrityError, match="is not what codec polars writes"):
        read_artifact(store, artifact, {"value": artifact})
    assert previews(store, [artifact], (), eager=True) == ()


TREE: dict[str, Any] = {
    "tuple": [
        {"dict": {"a": {"float": "nan"}, "b": {"complex": ["1.0", "2.0"]}, "c": {"bytes": "AAAA"}}},
        {"items": [[1, {"date": "2024-01-01"}], [{"tuple": [1]}, {"time": ["10:00:00", 0]}]]},
        {"datetime": ["2024-01-01T00:00:00", "Europe/Berlin", 0]},
        {"timedelta": [1, 2, 3]},
        {"Decimal": "1.5"},
        {"UUID": "0190d000-0000-7000-8000-00000000000a"},
        {"numpy": ["<f8", "AAAAAAAAAAA="]},
        {"part": 0},
        {"series": 1},
        {"set": [1, 2]},
    ]
}


@budget
@given(nearly(TREE) | values)
@example({"datetime": ["2024-01-01", "../../etc/passwd", 0]})
@example({"datetime": ["2024-01-01", "x" * 5000, 0]})
@example({"datetime": ["2024-01-01", "Europe", 0]})
@example({"numpy": ["O", "AAAAAAAAAAA="]})
@example({"timedelta": [10**400]})
@example({"Decimal": "1e999999999999999999999"})
@example({"set": [{"dict": {}}]})
@example({"part": -3})
def test_value_of_a_task(tree: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, value in enumerate(({"a": 1}, polars.DataFrame({"a": [1]}))):
            files.append((codec_for(value).name, Path(folder, str(number))))
            codec_for(value).write(value, files[-1][1])
        only(ShipwayError, lambda: put_together(tree, [("json", files[0][1]), files[1]]))


DATA = b"{}\n"
PART = {"codec": "json", "sha256": sha256_bytes(DATA), "bytes": len(DATA), "suffix": ".json"}
SAVED = {"name": "x", "key": f"{KEY}.json", "sha256": sha256_bytes(DATA), "bytes": 3, "codec": "json"}
NOTES = [{"metrics": {"a": 1.5}}, {"input": {"kind": "artifact", "name": "x", "run": "r", "key": "k", "asked": ""}}]
RESULT = {
    "version": 2, "task": "t", "expires": "2024-01-01T00:00:00+00:00", "value": {"part": 0}, "parts": [PART],
    "effects": {"artifacts": [SAVED], "notes": NOTES},
}  # fmt: skip


def sealed(document: Any) -> bytes:
    """Seal as whoever writes to the bucket can: the seal is a checksum, not a signature."""
    return seal_text((json.dumps(document, indent=1) + "\n").encode())


@budget
@given(nearly(RESULT).map(sealed) | documents(RESULT))
@example(sealed({**RESULT, "parts": [{**PART, "bytes": "x"}]}))
@example(sealed({**RESULT, "parts": [{**PART, "suffix": "/../../../../x"}]}))
@example(sealed({**RESULT, "parts": [{**PART, "suffix": "x" * 300}]}))
@example(sealed({**RESULT, "parts": [{**PART, "codec": ["json"]}]}))
@example(sealed({**RESULT, "effects": {"artifacts": [], "notes": [{"metrics": {"a": "b"}}]}}))
@example(sealed({**RESULT, "effects": {"artifacts": [], "notes": [{"input": {"name": "x"}}]}}))
@example(sealed({**RESULT, "expires": 7}))
@example(sealed("[" * 100_000).replace(b'"', b""))
def test_result_of_a_task(store: FolderStore, data: bytes) -> None:
    key = object_key("a")
    store.put(key, data)
    store.put(f"{key.removesuffix('.json')}/{PART['sha256']}.json", DATA)
    kept = only(ShipwayError, lambda: read_kept(store, key))
    if not isinstance(kept, Kept):
        return
    with tempfile.TemporaryDirectory() as folder:
        for part in kept.parts:
            only(ShipwayError, partial(download, store, part, Path(folder) / part.sha256))
    # What a run that takes it over makes of it.
    metrics: dict[str, float] = {}
    for note in kept.effects.notes:
        metrics |= note.get("metrics", {})
        assert tuple(note.get("input", {"name": ""}).values())
    assert sum(metrics.values()) is not None
    assert kept.expires is None or kept.expires.strip() is not None


def test_what_is_right_is_taken(store: FolderStore) -> None:
    key = object_key("a")
    store.put(key, sealed(RESULT))
    kept = read_kept(store, key)
    assert kept.effects == Effects.from_json(RESULT["effects"])  # type: ignore[arg-type]
    assert [part.bytes for part in kept.parts] == [len(DATA)]
    assert encoded(kept.tree) == encoded(RESULT["value"])
