"""What a builder remembers spares uploads, and is believed only as far as the store bears it out."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.manifest import read_manifest
from shipway.release.build import build
from shipway.release.memory import Memory
from shipway.release.scan import scan
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "flow"
    folder.mkdir()
    (folder / "flow.py").write_bytes(b"flow" * 100)
    (folder / "big.bin").write_bytes(b"0" * 300_000)
    return folder


@pytest.fixture
def store(tmp_path: Path) -> CountingStore:
    return CountingStore(FolderStore(tmp_path / "store"))


@pytest.fixture
def memory(tmp_path: Path, store: CountingStore) -> Memory:
    return Memory(tmp_path / "state", store.address)


def test_a_build_that_was_never_applied_is_not_sent_again(folder: Path, store: CountingStore, memory: Memory) -> None:
    first = build(scan(folder), store, memory=memory)
    before = store.requests
    again = build(scan(folder), store, memory=memory)
    assert (again.version, again.uploaded_bytes) == (first.version, 0)
    assert store.requests - before == 1


def test_a_change_on_top_of_it_sends_the_change(folder: Path, store: CountingStore, memory: Memory) -> None:
    build(scan(folder), store, memory=memory)
    (folder / "more.py").write_bytes(b"more")
    second = build(scan(folder), store, memory=memory)
    assert 0 < second.uploaded_bytes < 3_000
    assert len(read_manifest(store, second.version).entries) == 3


def test_a_store_that_was_emptied_gets_everything(
    folder: Path, store: CountingStore, memory: Memory, tmp_path: Path
) -> None:
    build(scan(folder), store, memory=memory)
    for info in list(store.list("code/")):
        store.delete(info.key)
    again = build(scan(folder), store, memory=memory)
    assert again.uploaded_bytes > 300_000
    assert read_manifest(store, again.version).entries == again.entries


def test_memory_that_cannot_be_read_costs_uploads_only(folder: Path, store: CountingStore, tmp_path: Path) -> None:
    memory = Memory(tmp_path / "state", store.address)
    first = build(scan(folder), store, memory=memory)
    [where] = (tmp_path / "state" / "builds").iterdir()
    (where / "arrived").write_bytes(b"\xff\xfe")
    (where / str(first.version)).write_bytes(b"\xff")
    (where / "7.nonsense").write_text("")
    (folder / "flow.py").write_bytes(b"changed")
    again = build(scan(folder), store, memory=memory)
    assert read_manifest(store, again.version).entries == again.entries


def test_progress_tells_bytes_and_files(folder: Path, store: CountingStore, memory: Memory) -> None:
    for n in range(30):
        (folder / f"module_{n}.py").write_text(f"x = {n}\n")
    told: list[tuple[int, int, int, int]] = []
    release = build(scan(folder), store, memory=memory, progress=lambda *counts: told.append(counts))
    assert len(told) == 2  # a pack and a blob
    assert told[-1] == (release.size, release.size, 32, 32)
    assert {counts[2] for counts in told} in ({1, 32}, {31, 32})
    assert sum(info.size for info in store.list("code/")) == release.uploaded_bytes
