"""The cache saves requests, is never believed without a look, and never makes a run fail."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shipway.blob import LARGE_FILE
from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.manifest import Version
from shipway.release.build import build
from shipway.release.cache import Cache
from shipway.release.clone import copy_file
from shipway.release.scan import scan
from shipway.run.workspace import Workspace, open_workspace
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore

PLENTY = 1 << 40


class Place:
    """A project, a store that counts, and a cache."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.project = root / "project"
        self.project.mkdir()
        self.runs = root / "runs"
        self.runs.mkdir()
        self.store = CountingStore(FolderStore(root / "store"))
        self.cache = self.opened(root / "cache")
        self.previous: Version | None = None

    @staticmethod
    def opened(folder: Path, max_bytes: int = PLENTY) -> Cache:
        cache = Cache.open(folder, max_bytes)
        assert cache
        return cache

    def release(self, **contents: str | bytes) -> Version:
        """Change files of the project and build it."""
        for name, content in contents.items():
            (self.project / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        self.previous = build(scan(self.project), self.store, previous=self.previous).version
        self.store.requests = 0
        return self.previous

    def open(self, version: Version) -> Workspace:
        return open_workspace(self.store, version, parent=self.runs, block="s3/it", cache=self.cache)

    @contextmanager
    def workspace(self, version: Version) -> Iterator[Path]:
        workspace = self.open(version)
        try:
            yield workspace.folder
        finally:
            workspace.remove()

    def read(self, version: Version) -> dict[str, bytes]:
        """Return the files of a new workspace."""
        with self.workspace(version) as folder:
            return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*")}

    def file(self, content: bytes) -> Path:
        """Return where the cache keeps a content."""
        return self.cache.folder / "files" / sha256_bytes(content)

    def used(self, *order: Version) -> None:
        """Make it so that releases were last used in this order."""
        for n, version in enumerate(order):
            os.utime(self.cache.folder / "releases" / version.release_id, (1e9 + n, 1e9 + n))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_a_cold_checkout_asks_for_the_manifest_and_each_object(place: Place) -> None:
    version = place.release(one="1", two="2", large=b"\0" * LARGE_FILE)
    assert place.read(version) == {"one": b"1", "two": b"2", "large": b"\0" * LARGE_FILE}
    assert place.store.requests == 3


def test_a_warm_checkout_asks_for_nothing(place: Place) -> None:
    version = place.release(one="1", large=b"\0" * LARGE_FILE)
    first = place.read(version)
    place.store.requests = 0
    assert place.read(version) == first
    assert place.store.requests == 0


def test_of_a_changed_release_only_the_change_is_fetched(place: Place) -> None:
    place.read(place.release(one="1", two="2", large=b"\0" * LARGE_FILE))
    version = place.release(two="3")
    assert place.read(version) == {"one": b"1", "two": b"3", "large": b"\0" * LARGE_FILE}
    assert place.store.requests == 2


def test_what_other_releases_have_is_read_again_where_no_stamp_of_it_is_left(place: Place) -> None:
    place.read(place.release(one="1", two="2"))
    version = place.release(two="3")
    shutil.rmtree(place.cache.folder / "stamps")
    (place.cache.folder / "stamps").mkdir()
    place.file(b"1").chmod(0o644)
    place.file(b"1").write_bytes(b"!")
    assert place.read(version) == {"one": b"1", "two": b"3"}


def test_the_cache_is_one_for_all_stores_with_a_release(place: Place, tmp_path: Path) -> None:
    """Where a content lies differs from store to store; what the cache lacks comes from the one at hand."""
    place.release(zero="0")
    version = place.release(one="1", two="2")
    place.read(version)
    other = CountingStore(FolderStore(tmp_path / "other"))
    assert build(scan(place.project), other).version == version
    shutil.rmtree(tmp_path / "store")
    place.store, other.requests = other, 0
    place.read(version)
    assert other.requests == 0
    place.file(b"2").unlink()
    assert place.read(version) == {"zero": b"0", "one": b"1", "two": b"2"}
    assert other.requests == 2


def overwrite(path: Path) -> None:
    """Change the content, and hide it as well as one can: same size, same times."""
    status = path.stat()
    path.chmod(0o644)
    path.write_bytes(b"!" * status.st_size)
    path.chmod(status.st_mode)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def swap(path: Path) -> None:
    path.rename(path.with_name("aside"))
    path.write_bytes(b"!" * path.with_name("aside").stat().st_size)


def lead_elsewhere(path: Path) -> None:
    path.unlink()
    path.symlink_to("/etc/hostname")


def make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def make_folder(path: Path) -> None:
    path.unlink()
    (path / "in it").mkdir(parents=True)


def append(path: Path) -> None:
    path.chmod(0o644)
    with path.open("ab") as file:
        file.write(b"!")


def cut(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, 1)


@pytest.mark.parametrize("harm", [overwrite, swap, lead_elsewhere, make_pipe, make_folder, append, cut, Path.unlink])
@pytest.mark.parametrize("content", [b"small", b"large" * LARGE_FILE])
def test_a_touched_file_is_never_used(
    place: Place, caplog: pytest.LogCaptureFixture, harm: Callable[[Path], None], content: bytes
) -> None:
    version = place.release(flow=content, other="other")
    place.read(version)
    harm(place.file(content))
    place.store.requests = 0
    assert place.read(version) == {"flow": content, "other": b"other"}
    assert place.store.requests == 2
    if harm is not Path.unlink:
        assert "flow was changed in the cache" in caplog.text
    place.read(version)
    assert place.store.requests == 2


def test_a_file_that_was_touched_but_is_the_same_is_read_again_and_kept(place: Place) -> None:
    version = place.release(flow="x = 1")
    place.read(version)
    place.file(b"x = 1").chmod(0o666)
    place.store.requests = 0
    assert place.read(version) == {"flow": b"x = 1"}
    assert place.store.requests == 0
    assert not place.file(b"x = 1").stat().st_mode & 0o222


@pytest.mark.parametrize("area", ["releases", "stamps"])
@pytest.mark.parametrize("harm", [overwrite, append, cut, Path.unlink])
def test_what_the_cache_knows_of_a_release_may_be_damaged(
    place: Place, area: str, harm: Callable[[Path], None]
) -> None:
    version = place.release(flow="x = 1")
    place.read(version)
    harm(place.cache.folder / area / version.release_id)
    place.store.requests = 0
    assert place.read(version) == {"flow": b"x = 1"}
    assert place.store.requests == (area == "releases")
    place.read(version)
    assert place.store.requests == (area == "releases")


def test_stamps_that_lie_are_found_out(place: Place) -> None:
    version = place.release(flow="x = 1")
    place.read(version)
    stamps = place.cache.folder / "stamps" / version.release_id
    for text in ("[]", "[" * 100_000, '{"a": 1}', f'{{"{sha256_bytes(b"x = 1")}": [5, 0, 0, 0]}}'):
        stamps.write_text(text)
        assert place.read(version) == {"flow": b"x = 1"}


def test_what_lies_about_in_the_cache_goes_into_no_workspace(place: Place) -> None:
    version = place.release(flow="x = 1")
    place.read(version)
    for name in ("files/flow", "files/extra", "releases/extra", "stamps/extra", "tmp/extra", "extra"):
        (place.cache.folder / name).write_text("extra")
    for n, text in enumerate(("[]", "{}", "[" * 100_000, '{"tree":[1]}', '{"tree":[[1]]}')):
        (place.cache.folder / "releases" / f"{n}").write_text(text)
    assert place.read(version) == {"flow": b"x = 1"}
    place.cache.trim(0)
    assert list((place.cache.folder / "files").iterdir()) == []
    assert list((place.cache.folder / "tmp").iterdir()) == []
    assert place.read(version) == {"flow": b"x = 1"}


def test_a_damaged_store_stops_the_run_and_leaves_nothing_behind(place: Place) -> None:
    version = place.release(flow="x = 1")
    for info in place.store.list("code/"):
        if "/packs/" in info.key:
            place.store.put(info.key, b"x = 2")
    with pytest.raises(IntegrityError, match="flow is damaged"):
        place.open(version)
    assert list((place.cache.folder / "files").iterdir()) == []
    assert list((place.cache.folder / "tmp").iterdir()) == []
    assert list(place.runs.iterdir()) == []
    with pytest.raises(ObjectNotFoundError):
        place.open(Version(1, "0" * 64))


CHILD = """
import sys, time
from pathlib import Path
from shipway.manifest import Version
from shipway.release.cache import Cache
from shipway.run.workspace import open_workspace
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore

class Stuck(FolderStore):
    def read(self, key, **rest):
        if "/packs/" in key:
            print("fetching", flush=True)
            time.sleep(600)
        return super().read(key, **rest)

root, version, mode = sys.argv[1:]
store = CountingStore((Stuck if mode == "stuck" else FolderStore)(Path(root, "store")))
cache = Cache.open(Path(root, "cache"), 1 << 40)
print("ready", flush=True)
sys.stdin.readline()
workspace = open_workspace(store, Version.parse(version), parent=Path(root, "runs"), block="s3/it", cache=cache)
print(store.requests, flush=True)
if mode == "stay":
    time.sleep(600)
workspace.remove()
"""


@contextmanager
def child(place: Place, version: Version, mode: str = "") -> Iterator[subprocess.Popen[str]]:
    """Run another process that opens a workspace when it is told to; it is killed at the end."""
    process = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(place.root), str(version), mode],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    with process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def tell(process: subprocess.Popen[str]) -> None:
    assert process.stdin
    process.stdin.write("\n")
    process.stdin.flush()


def hear(process: subprocess.Popen[str]) -> str:
    assert process.stdout
    return process.stdout.readline().strip()


def test_processes_at_once_do_the_work_once(place: Place) -> None:
    version = place.release(**{f"file_{n}": f"{n}" for n in range(300)}, large=b"\0" * LARGE_FILE)
    with child(place, version) as one, child(place, version) as two, child(place, version) as three:
        for process in (one, two, three):
            tell(process)
        assert sorted(hear(process) for process in (one, two, three)) == ["0", "0", "3"]


def test_who_dies_while_filling_stops_nobody(place: Place) -> None:
    version = place.release(flow="x = 1")
    with child(place, version, "stuck") as process:
        tell(process)
        assert hear(process) == "fetching"
    assert list((place.cache.folder / "tmp").iterdir()) != []
    assert place.read(version) == {"flow": b"x = 1"}
    assert list((place.cache.folder / "tmp").iterdir()) == []


def test_what_killed_fills_left_is_removed(place: Place) -> None:
    with child(place, place.release(flow="x = 1"), "stuck") as process:
        tell(process)
        assert hear(process) == "fetching"
        place.cache.trim()
        assert list((place.cache.folder / "tmp").iterdir()) != []
    place.cache.trim()
    assert list((place.cache.folder / "tmp").iterdir()) == []


def test_the_release_used_longest_ago_goes_first(place: Place) -> None:
    shared = b"s" * 1000
    versions = [place.release(shared=shared, own=bytes([n]) * 1000) for n in range(3)]
    for version in versions:
        place.read(version)
    place.used(versions[1], versions[2], versions[0])
    place.cache.trim(3000)
    assert [place.file(bytes([n]) * 1000).exists() for n in range(3)] == [True, False, True]
    assert place.file(shared).exists()
    place.store.requests = 0
    place.read(versions[0])
    assert place.store.requests == 0
    place.cache.trim(2000)
    assert [place.file(bytes([n]) * 1000).exists() for n in range(3)] == [True, False, False]
    place.cache.trim(0)
    assert list((place.cache.folder / "files").iterdir()) == []
    assert list((place.cache.folder / "releases").iterdir()) == []
    assert list((place.cache.folder / "stamps").iterdir()) == []


def test_after_the_clock_was_set_back_what_was_used_before_goes_first(place: Place) -> None:
    versions = [place.release(own=bytes([n]) * 1000) for n in range(2)]
    for version in versions:
        place.read(version)
    os.utime(place.cache.folder / "releases" / versions[0].release_id, (4e9, 4e9))
    place.cache.trim(1000)
    assert [place.file(bytes([n]) * 1000).exists() for n in range(2)] == [False, True]


def test_a_fill_keeps_the_cache_under_its_size(place: Place) -> None:
    place.cache = place.opened(place.root / "cache", 2500)
    versions = [place.release(own=bytes([n]) * 1000) for n in range(3)]
    for version in versions:
        place.read(version)
        place.used(*(v for v in versions if (place.cache.folder / "releases" / v.release_id).exists()))
    assert [place.file(bytes([n]) * 1000).exists() for n in range(3)] == [False, True, True]


def test_what_is_in_use_is_kept(place: Place) -> None:
    one, two = place.release(flow="1"), place.release(flow="2")
    place.read(two)
    with place.workspace(one):
        place.cache.trim(0)
        assert [place.file(b"1").exists(), place.file(b"2").exists()] == [True, False]
    place.cache.trim(0)
    assert not place.file(b"1").exists()


def test_what_a_killed_process_used_is_in_use_no_longer(place: Place) -> None:
    version = place.release(flow="1")
    with child(place, version, "stay") as process:
        tell(process)
        assert hear(process) == "2"
        place.cache.trim(0)
        assert place.file(b"1").exists()
    place.cache.trim(0)
    assert not place.file(b"1").exists()


def test_a_cache_of_no_size_is_none(tmp_path: Path) -> None:
    assert Cache.open(tmp_path / "cache", 0) is None
    assert not (tmp_path / "cache").exists()


def test_the_cache_is_private(tmp_path: Path) -> None:
    cache = Cache.open(tmp_path / "a/b/cache", PLENTY)
    assert cache
    assert cache.folder.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o1777])
def test_a_folder_open_to_others_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture, mode: int) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(mode)
    assert Cache.open(tmp_path / "cache", PLENTY) is None
    assert "must belong to this user alone" in caplog.text
    assert list((tmp_path / "cache").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_a_folder_of_somebody_else_is_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").mkdir(mode=0o700)
    os.chown(tmp_path / "cache", 12345, 12345)
    assert Cache.open(tmp_path / "cache", PLENTY) is None
    assert "must belong to this user alone" in caplog.text


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "cache").touch()
    assert Cache.open(tmp_path / "cache", PLENTY) is None
    assert "cannot be used" in caplog.text


@pytest.mark.parametrize("area", ["files", "releases", "tmp", "locks"])
def test_a_cache_that_does_not_work_fails_no_run(place: Place, caplog: pytest.LogCaptureFixture, area: str) -> None:
    version = place.release(flow="x = 1")
    (place.cache.folder / area).rmdir()
    (place.cache.folder / area).touch()
    assert place.read(version) == {"flow": b"x = 1"}
    assert "fetched without the cache" in caplog.text


def test_a_full_disk_fails_no_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The room that the cache takes up is given to the run."""
    place.read(place.release(flow="x = 1"))
    version = place.release(flow="x = 2")

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shipway.release.cache.fetch", fail)
    assert place.read(version) == {"flow": b"x = 2"}
    assert "No space left on device" in caplog.text
    assert list((place.cache.folder / "files").iterdir()) == []


def test_a_cache_that_never_rests_fails_no_run(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    # What comes from the store is written into the workspace as it arrives; its twin is a copy of the cache's.
    version = place.release(flow="x = 1", twin="x = 1")
    place.read(version)

    def touch_and_copy(source: str, *rest: object) -> object:
        overwrite(Path(source))
        return copy_file(source, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr("shipway.release.cache.copy_file", touch_and_copy)
    assert place.read(version) == {"flow": b"x = 1", "twin": b"x = 1"}
    assert "change while they are used" in caplog.text


@pytest.mark.parametrize("shares", [False, True])
def test_from_the_store_it_is_the_same_wherever_copies_cost_nothing(
    place: Place, monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    """A file system that shares blocks is not to be had everywhere; what differs is who writes the workspace."""
    monkeypatch.setattr("shipway.release.cache.shares_blocks", lambda *_: shares)
    version = place.release(flow="x = 1", twin="x = 1", other="y = 2")
    expected = {"flow": b"x = 1", "twin": b"x = 1", "other": b"y = 2"}
    assert place.read(version) == expected
    assert place.read(version) == expected
