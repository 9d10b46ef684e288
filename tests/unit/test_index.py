"""A file is read again whenever it may have changed, whatever the clocks say, and only then."""

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from shipway.digest import sha256_bytes, sha256_file
from shipway.release.index import RACY_SECONDS, Index
from shipway.release.scan import scan

YEAR = 365 * 86_400


class Folder:
    """A folder with one file, and an index of it that says when it was written."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.file = root / "project/flow.py"
        self.file.parent.mkdir()
        self.file.write_text("x = 1")
        self.state = root / "state"
        self.reads = 0
        monkeypatch.setattr("shipway.release.scan.sha256_file", self._hash)

    def _hash(self, path: Path) -> tuple[str, int]:
        self.reads += 1
        return sha256_file(path)

    def scan(self, *, clock: float = 0) -> int:
        """Scan with a clock that is off by some seconds; return how often the file was read."""
        self.reads = 0
        index = Index.open(self.state, self.file.parent)
        index.began_ns += int(clock * 1e9)
        (entry,) = scan(self.file.parent, index).entries
        assert entry.sha256 == sha256_bytes(self.file.read_bytes())
        index.save()
        return self.reads

    def settled(self) -> None:
        """Have an index that trusts the file: one written long after it."""
        self.scan(clock=2 * RACY_SECONDS)
        assert self.scan(clock=2 * RACY_SECONDS) == 0

    @property
    def index(self) -> Path:
        (path,) = (self.state / "index").iterdir()
        return path


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folder:
    return Folder(tmp_path, monkeypatch)


def test_what_has_not_changed_is_not_read(folder: Folder) -> None:
    assert folder.scan() == 1
    folder.settled()


def test_what_was_written_just_before_the_index_is_read(folder: Folder) -> None:
    for _ in range(3):
        folder.file.write_text("x = 2")
        assert folder.scan() == 1
        assert folder.scan() == 1


def hide(file: Path) -> None:
    """Change the content alone: same size, same modification time."""
    before = file.stat()
    file.write_text("x = 3")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace(file: Path) -> None:
    other = file.with_name("other")
    other.write_text("x = 4")
    other.replace(file)


def write_in_the_past(file: Path) -> None:
    file.write_text("x = 5")
    os.utime(file, (1, 1))


def write_in_the_future(file: Path) -> None:
    file.write_text("x = 6")
    os.utime(file, (4e9, 4e9))


def make_executable(file: Path) -> None:
    file.chmod(0o755)


@pytest.mark.parametrize("change", [hide, replace, write_in_the_past, write_in_the_future, make_executable])
@pytest.mark.parametrize("clock", [0.0, 2 * RACY_SECONDS, YEAR])
def test_a_change_is_seen_whatever_the_clocks_say(folder: Folder, change: Callable[[Path], None], clock: float) -> None:
    """An index from a year ahead is what a clock that was set back leaves behind."""
    folder.scan(clock=clock)
    change(folder.file)
    assert folder.scan() == 1


def test_files_from_the_future_are_read_each_time(folder: Folder) -> None:
    """Nobody can tell when such a file was written last."""
    write_in_the_future(folder.file)
    for _ in range(2):
        assert folder.scan(clock=YEAR) == 1


def test_after_the_clock_was_set_back_files_are_trusted_again(folder: Folder) -> None:
    folder.scan(clock=YEAR)
    assert folder.scan(clock=2 * RACY_SECONDS) == 0
    assert folder.scan() == 0


def spoil(index: Path, key: str, value: object) -> None:
    document = json.loads(index.read_text())
    document[key] = value
    index.write_text(json.dumps(document))


@pytest.mark.parametrize(
    "harm",
    [
        lambda index: index.write_bytes(b""),
        lambda index: index.write_bytes(index.read_bytes()[:-5]),
        lambda index: index.write_bytes(b"[" * 100_000),
        lambda index: index.write_bytes(b"[]"),
        lambda index: index.write_bytes(b"\xff"),
        lambda index: spoil(index, "version", 2),
        lambda index: spoil(index, "files", {"flow.py": [1, 2, 3]}),
        lambda index: spoil(index, "files", []),
        lambda index: spoil(index, "files", {"flow.py": [5, 0, 0, 0, 0, "0"]}),
        lambda index: spoil(index, "files", {"flow.py": [float("inf"), 0, 0, 0, 0, "0" * 64]}),
        lambda index: spoil(index, "written_ns", None),
        Path.unlink,
    ],
)
def test_a_damaged_index_is_as_good_as_none(folder: Folder, harm: Callable[[Path], object]) -> None:
    folder.settled()
    harm(folder.index)
    assert folder.scan() == 1
    folder.settled()


def test_an_index_that_cannot_be_replaced_leaves_nothing_behind(folder: Folder) -> None:
    folder.scan()
    folder.index.unlink()
    path = Index.open(folder.state, folder.file.parent).path
    assert path
    path.mkdir()
    assert folder.scan() == 1
    assert folder.index == path


def test_an_index_that_cannot_be_written_stops_nothing(folder: Folder) -> None:
    folder.state.write_text("")
    assert folder.scan() == 1
    assert folder.scan() == 1
