"""What a run saved comes back checked: in parts where it is large, a few at a time where it is small."""

from __future__ import annotations

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from shipway.artifact import Artifact
from shipway.codec import codec_for
from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.run.ahead import MOST, SMALL
from shipway.run.data import read_artifact
from shipway.run.fetch import PART, download
from shipway.store.folder import FolderStore

RUN = "runs/main/2026-01-01/00-00-00-one-0000beef"


class Counting(FolderStore):
    """A store that counts how often each object is read."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.reads: Counter[str] = Counter()

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.reads[key] += 1
        return super().read(key, start=start, length=length)


@pytest.fixture
def store(tmp_path: Path) -> Counting:
    return Counting(tmp_path / "store")


def saved(store: FolderStore, count: int, run: str = RUN) -> dict[str, Artifact]:
    """Save numbers under `n-0`, `n-1` and so on."""
    found = {}
    for number in range(count):
        data = str(number).encode()
        name, key = f"n-{number}", f"{run}/1/n-{number}.json"
        store.put(key, data)
        found[name] = Artifact(name, key, sha256_bytes(data), len(data), codec_for(number).name)
    return found


def test_each_of_many_is_read_once_and_few_are_waited_for(store: Counting) -> None:
    artifacts = saved(store, 300)
    waits = 0
    for number, artifact in enumerate(artifacts.values()):
        before = store.reads.total()
        assert read_artifact(store, artifact, artifacts) == number
        waits += store.reads.total() > before
    assert set(store.reads.values()) == {1}
    assert waits <= 12


def test_who_wants_little_reads_little(store: Counting) -> None:
    artifacts = saved(store, 300)
    read_artifact(store, artifacts["n-7"], artifacts)
    assert store.reads.total() == 1
    for _ in range(50):
        read_artifact(store, artifacts["n-7"], artifacts)
        read_artifact(store, artifacts["n-9"], artifacts)
    assert len(store.reads) <= 4


def test_what_is_held_is_bounded(store: Counting) -> None:
    """Every second one is wanted: the others must not pile up."""
    artifacts = saved(store, 3 * MOST)
    wanted = list(artifacts)[::2]
    for name in wanted:
        read_artifact(store, artifacts[name], artifacts)
    assert len(store.reads) <= len(wanted) + MOST


def test_a_damaged_or_missing_neighbour_fails_nobody_else(store: Counting) -> None:
    artifacts = saved(store, 60)
    store.put(artifacts["n-20"].key, b"99")
    store.delete(artifacts["n-30"].key)
    failed = {}
    for name, artifact in artifacts.items():
        try:
            assert f"n-{read_artifact(store, artifact, artifacts)}" == name
        except (IntegrityError, ObjectNotFoundError) as error:
            failed[name] = type(error)
    assert failed == {"n-20": IntegrityError, "n-30": ObjectNotFoundError}


def test_threads_load_from_two_runs(store: Counting) -> None:
    one, other = saved(store, 60), saved(store, 60, RUN.replace("beef", "cafe"))

    def load(number: int) -> bool:
        return all(read_artifact(store, each[f"n-{number}"], each) == number for each in (one, other))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(load, range(60)))


def test_nothing_large_is_read_ahead(store: Counting) -> None:
    artifacts = saved(store, 40)
    large = bytes(SMALL + 1)
    key = f"{RUN}/1/large"
    store.put(key, large)
    everything = {"large": Artifact("large", key, sha256_bytes(large), len(large), "bytes")} | artifacts
    for artifact in artifacts.values():
        read_artifact(store, artifact, everything)
    assert store.reads[key] == 0


@pytest.mark.parametrize("size", [0, 1, PART - 1, PART, PART + 1, 3 * PART + 5])
def test_a_large_object_comes_in_parts(store: Counting, tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    store.put("large", data)
    artifact = Artifact("large", "large", sha256_bytes(data), size, "bytes")
    assert download(store, artifact, tmp_path / "file").read_bytes() == data


@pytest.mark.parametrize("harm", ["longer", "shorter", "much shorter", "flipped"])
@pytest.mark.parametrize("size", [100, 2 * PART + 100])
def test_damage_is_found_and_nothing_left(store: Counting, tmp_path: Path, size: int, harm: str) -> None:
    data = os.urandom(size)
    broken = bytearray(data)
    broken[size // 2] ^= 1
    harmed = {"longer": data + b"x", "shorter": data[:-1], "much shorter": data[: size // 3], "flipped": bytes(broken)}
    store.put("large", harmed[harm])
    artifact = Artifact("large", "large", sha256_bytes(data), size, "bytes")
    with pytest.raises(IntegrityError, match="large is damaged"):
        download(store, artifact, tmp_path / "there" / "file")
    assert list((tmp_path / "there").iterdir()) == []


@pytest.mark.parametrize("kind", ["polars", "numpy"])
@pytest.mark.parametrize("harm", ["none", "longer", "shorter", "head", "middle", "end"])
def test_what_is_read_while_it_is_checked_is_handed_out_only_when_right(
    store: Counting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, harm: str
) -> None:
    monkeypatch.setattr("shipway.run.data.LARGE", SMALL)
    numbers = np.random.default_rng(1).random(20_000)
    value = pl.DataFrame({"a": numbers}) if kind == "polars" else numbers
    codec = codec_for(value)
    codec.write(value, tmp_path / "file")
    data = (tmp_path / "file").read_bytes()
    assert len(data) > SMALL
    at = {"head": 2, "middle": len(data) // 2, "end": -6}.get(harm, 0)
    flipped = bytearray(data)
    flipped[at] ^= 4
    stored = {"none": data, "longer": data + b"x", "shorter": data[:-1]}.get(harm, bytes(flipped))
    store.put(f"{RUN}/1/value", stored)
    artifact = Artifact("value", f"{RUN}/1/value", sha256_bytes(data), len(data), codec.name)
    if harm == "none":
        found = read_artifact(store, artifact, {})
        assert np.array_equal(found["a"].to_numpy() if kind == "polars" else found, numbers)
        return
    with pytest.raises(IntegrityError, match="value is damaged"):
        read_artifact(store, artifact, {})
