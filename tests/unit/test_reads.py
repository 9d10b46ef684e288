"""Which files of its release a run has read, whoever read them."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shipway.digest import sha256_bytes
from shipway.manifest import Version
from shipway.release.build import build
from shipway.release.cache import Cache
from shipway.release.scan import scan
from shipway.run import reads
from shipway.run.capture import snapshot
from shipway.run.workspace import open_workspace
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore

linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells of other programs")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "work"
    (made / "data/deep").mkdir(parents=True)
    for name in ("flow.py", "a.csv", "b.csv", "data/a.csv", "data/deep/ä b.csv"):
        (made / name).write_text("x,y\n1,2\n")
    return made


@contextmanager
def watched(folder: Path) -> Iterator[Callable[[], set[str]]]:
    """Watch a folder; what is yielded returns what was read."""
    begun = reads.watch(folder, snapshot(folder))

    def found() -> set[str]:
        paths, gap = begun.found()
        assert gap is None or sys.platform != "linux"
        return paths

    yield found
    begun.close()


def test_what_is_opened_and_read_is_known(folder: Path) -> None:
    with watched(folder) as found:
        assert found() == set()
        (folder / "a.csv").read_text()
        assert found() == {"a.csv"}
        (folder / "data/deep/ä b.csv").read_bytes()
        (folder / "b.csv").stat()
        list(folder.rglob("*"))
        assert found() == {"a.csv", "data/deep/ä b.csv"}


def test_what_a_run_makes_itself_is_no_file_of_the_release(folder: Path) -> None:
    with watched(folder) as found:
        (folder / "new.csv").write_text("1")
        (folder / "new.csv").read_text()
        assert found() == set()


def test_a_file_that_is_read_and_then_changed_was_read(folder: Path) -> None:
    with watched(folder) as found:
        (folder / "a.csv").read_text()
        (folder / "a.csv").write_text("other")
        assert found() == {"a.csv"}


def test_a_file_that_is_changed_and_then_read_is_the_runs_own(folder: Path) -> None:
    with watched(folder) as found:
        (folder / "a.csv").write_text("other")
        (folder / "a.csv").read_text()
        (folder / "new").write_text("1")
        (folder / "new").replace(folder / "b.csv")
        (folder / "b.csv").read_text()
        assert found() == set()


@linux
def test_a_file_that_is_still_open_or_mapped_was_read(folder: Path) -> None:
    with watched(folder) as found:
        with (folder / "a.csv").open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        with (folder / "b.csv").open("r+b") as file:
            file.read()
            assert found() == {"a.csv", "b.csv"}
        assert found() == {"a.csv", "b.csv"}
        mapped.close()


@linux
def test_libraries_that_are_not_python_are_seen(folder: Path) -> None:
    polars = pytest.importorskip("polars")
    with watched(folder) as found:
        assert polars.read_csv(folder / "data/a.csv").height == 1
        assert found() == {"data/a.csv"}
        polars.scan_csv(folder / "a.csv").collect()
        assert found() == {"data/a.csv", "a.csv"}


@linux
def test_arrow_is_seen(folder: Path) -> None:
    csv = pytest.importorskip("pyarrow.csv")
    with watched(folder) as found:
        assert csv.read_csv(str(folder / "b.csv")).num_rows == 1
        assert found() == {"b.csv"}


@linux
def test_a_child_process_is_seen(folder: Path) -> None:
    with watched(folder) as found:
        subprocess.run(["cat", "data/a.csv"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
        assert found() == {"data/a.csv"}


@linux
def test_more_than_the_kernel_keeps_in_mind_is_noticed(folder: Path) -> None:
    most = int(Path("/proc/sys/fs/inotify/max_queued_events").read_text())
    begun = reads.watch(folder, snapshot(folder))
    names = [os.fspath(folder / name) for name in ("a.csv", "b.csv")]
    for number in range(most):
        os.close(os.open(names[number % 2], os.O_RDONLY))
    paths, gap = begun.found()
    assert paths == {"a.csv", "b.csv"}
    assert gap is not None
    assert "max_queued_events" in gap
    begun.close()


@linux
def test_a_folder_that_cannot_be_watched_is_noticed(folder: Path) -> None:
    before = snapshot(folder)
    (folder / "data/deep/ä b.csv").unlink()
    (folder / "data/deep").rmdir()
    begun = reads.watch(folder, before)
    (folder / "a.csv").read_text()
    paths, gap = begun.found()
    assert paths == {"a.csv"}
    assert gap is not None
    assert "data/deep" in gap
    begun.close()


def test_without_the_kernel_python_tells(folder: Path) -> None:
    begun = reads._Python(folder, snapshot(folder))
    (folder / "a.csv").read_text()
    (folder / "b.csv").write_text("other")
    (folder / "b.csv").read_text()
    paths, gap = begun.found()
    begun.close()
    (folder / "data/a.csv").read_text()
    assert paths == {"a.csv"} == begun.found()[0]
    assert gap is not None


def test_a_workspace_knows_the_digests_in_the_release(folder: Path, tmp_path: Path) -> None:
    plain = FolderStore(tmp_path / "store")
    version = build(scan(folder), plain).version
    cache = Cache.open(tmp_path / "cache", 1 << 40)
    (tmp_path / "runs").mkdir()
    for known in (cache, None):
        workspace = open_workspace(plain, version, parent=tmp_path / "runs", block="", cache=known).watched()
        original = (workspace.folder / "a.csv").read_bytes()
        (workspace.folder / "a.csv").write_text("other")
        counted = CountingStore(plain)
        assert workspace.read(counted, known) == ([{"path": "a.csv", "sha256": sha256_bytes(original)}], None)
        assert counted.requests == (0 if known else 1)
        workspace.remove()


def test_a_release_that_is_gone_leaves_a_gap(folder: Path, tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    version = build(scan(folder), store).version
    (tmp_path / "runs").mkdir()
    workspace = open_workspace(store, version, parent=tmp_path / "runs", block="").watched()
    found, gap = workspace.read(FolderStore(tmp_path / "empty"))
    assert found == []
    assert gap is not None
    assert "missing" in gap
    assert Version.parse(str(version)) == version
    workspace.remove()
