"""A checkout is whole and right, or it is not there."""

import errno
import os
import tracemalloc
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from shipway.blob import LARGE_FILE, PACK_BYTES, Location, release_key
from shipway.digest import sha256_bytes
from shipway.errors import FolderError, InputError, IntegrityError, ObjectNotFoundError
from shipway.manifest import LINK, Entry, Manifest, Version
from shipway.release.build import Release, build
from shipway.release.checkout import checkout
from shipway.release.clone import RESERVED, reserve
from shipway.release.scan import scan
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore

PACK = "code/1/packs/" + "0" * 64
BLOB = "code/1/blobs/"


class Meter(FolderStore):
    """A store that notes how many bytes each request brought."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.brought: list[int] = []

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        data = super().read(key, start=start, length=length)
        self.brought.append(len(data))
        return data

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.brought.append(0)
        for piece in super().stream(key, start=start, length=length):
            self.brought[-1] += len(piece)
            yield piece


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def release(tmp_path: Path, store: FolderStore) -> Release:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("x = 1\n")
    (folder / "large.bin").write_bytes(b"\0" * LARGE_FILE)
    return build(scan(folder), store)


def made_by_hand(store: FolderStore, rows: list[tuple[str, str, bytes, Location]]) -> Version:
    """Put a manifest into the store as somebody else might have written it: path, mode, content, and where it lies."""
    entries = tuple(Entry(path, mode, len(content), sha256_bytes(content)) for path, mode, content, _ in rows)
    manifest = Manifest(entries, {entry.sha256: row[3] for entry, row in zip(entries, rows, strict=True)})
    store.create(release_key(1, manifest.release_id), manifest.to_bytes())
    return Version(1, manifest.release_id)


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_of_both_sizes_come_back(tmp_path: Path, store: FolderStore, release: Release) -> None:
    checkout(store, release.version, tmp_path / "copy")
    assert (tmp_path / "copy/flow.py").read_text() == "x = 1\n"
    assert (tmp_path / "copy/large.bin").stat().st_size == LARGE_FILE


def test_one_request_for_the_manifest_and_each_object(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for n in range(20):
        (folder / f"module_{n}.py").write_text(f"x = {n}\n")
        (folder / f"same_{n}.py").write_text("x = 0\n")
    for n in range(3):
        (folder / f"data_{n}.bin").write_bytes(bytes([n]) * LARGE_FILE)
    counting = CountingStore(store)
    version = build(scan(folder), store).version
    checkout(counting, version, tmp_path / "copy")
    assert counting.requests == 1 + 1 + 3
    assert files(tmp_path / "copy") == files(folder)


def test_of_a_pack_only_the_range_that_is_needed_is_read(tmp_path: Path) -> None:
    store = Meter(tmp_path / "store")
    folder = tmp_path / "project"
    folder.mkdir()
    for name in "abcdef":
        (folder / name).write_bytes(name.encode() * 100_000)
    first = build(scan(folder), store)
    for name in "abef":
        (folder / name).unlink()
    second = build(scan(folder), store, previous=first.version)
    store.brought.clear()
    checkout(store, second.version, tmp_path / "copy")
    assert sorted(store.brought)[1:] == [200_000]
    assert files(tmp_path / "copy") == files(folder)


def test_an_empty_file_costs_no_request(tmp_path: Path, store: FolderStore) -> None:
    (tmp_path / "project").mkdir()
    (tmp_path / "project/__init__.py").touch()
    counting = CountingStore(store)
    checkout(counting, build(scan(tmp_path / "project"), store).version, tmp_path / "copy")
    assert counting.requests == 1
    assert files(tmp_path / "copy") == {"__init__.py": b""}


def test_one_content_in_several_places(tmp_path: Path, store: FolderStore) -> None:
    """Links, files and programs may have the same bytes; each comes back as what it was."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("a-file", "b-program", "d-file", "e-program"):
        (folder / name).write_text("a-file")
    for name in ("b-program", "e-program"):
        (folder / name).chmod(0o755)
    (folder / "a-link").symlink_to("a-file")
    (folder / "c-link").symlink_to("a-file")
    checkout(store, build(scan(folder), store).version, tmp_path / "copy")
    copy = tmp_path / "copy"
    assert {path.name for path in copy.iterdir() if path.is_symlink()} == {"a-link", "c-link"}
    assert {path.name for path in copy.iterdir() if path.stat().st_mode & 0o100} == {"b-program", "e-program"}
    assert files(copy) == files(folder)
    assert (copy / "c-link").readlink() == Path("a-file")


@pytest.mark.parametrize("area", ["packs", "blobs"])
@pytest.mark.parametrize("harm", ["flip", "cut", "empty", "grow", "remove"])
def test_damage_stops_the_checkout(tmp_path: Path, store: FolderStore, release: Release, area: str, harm: str) -> None:
    key = next(info.key for info in store.list("code/") if f"/{area}/" in info.key)
    data = bytearray(store.read(key))
    if harm == "flip":
        data[0] ^= 1
    elif harm == "cut":
        del data[-1]
    elif harm == "empty":
        data.clear()
    elif harm == "grow":
        # At the front, as a pack may have more at its end than a release needs.
        data.insert(0, 0)
    if harm == "remove":
        store.delete(key)
    else:
        store.put(key, bytes(data))
    name = "flow.py" if area == "packs" else "large.bin"
    with pytest.raises(IntegrityError, match="missing" if harm == "remove" else "damaged") as caught:
        checkout(store, release.version, tmp_path / "copies/copy")
    assert name in caught.value.message
    assert store.url(key) in caught.value.message
    assert caught.value.hint
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_blob_that_is_too_long_is_not_read_to_its_end(tmp_path: Path) -> None:
    store = Meter(tmp_path / "store")
    key = BLOB + sha256_bytes(b"\0" * LARGE_FILE)
    version = made_by_hand(store, [("large.bin", "100644", b"\0" * LARGE_FILE, Location(key))])
    store.put(key, b"\0" * (64 << 20))
    with pytest.raises(IntegrityError, match=r"large\.bin is damaged"):
        checkout(store, version, tmp_path / "copy")
    assert store.brought[-1] < 4 << 20


@pytest.mark.parametrize(
    ("offset", "words"), [(6, "damaged"), (100, "damaged"), (PACK_BYTES, "outside"), (1 << 62, "outside")]
)
def test_a_range_outside_the_pack_stops_the_checkout(
    tmp_path: Path, store: FolderStore, offset: int, words: str
) -> None:
    store.put(PACK, b"x = 1\n" * 2)
    version = made_by_hand(store, [("flow.py", "100644", b"x = 1\nx = 2\n", Location(PACK, offset))])
    with pytest.raises(IntegrityError, match=words) as caught:
        checkout(store, version, tmp_path / "copies/copy")
    assert store.url(PACK) in caught.value.message
    assert list((tmp_path / "copies").iterdir()) == []


@pytest.mark.parametrize("key", [PACK, BLOB])
@pytest.mark.parametrize(("size", "sha256"), [(5, None), (7, None), (0, None), (6, "1" * 64)])
def test_a_manifest_with_a_wrong_size_or_digest_stops_the_checkout(
    tmp_path: Path, store: FolderStore, key: str, size: int, sha256: str | None
) -> None:
    content = b"x = 1\n"
    entry = Entry("flow.py", "100644", size, sha256 or sha256_bytes(content))
    place = key + entry.sha256 if key == BLOB else key
    manifest = Manifest((entry,), {entry.sha256: Location(place)})
    store.put(place, content if key == BLOB else content * 2)
    store.create(release_key(1, manifest.release_id), manifest.to_bytes())
    with pytest.raises(IntegrityError, match=r"flow\.py is damaged") as caught:
        checkout(store, Version(1, manifest.release_id), tmp_path / "copies/copy")
    assert caught.value.hint
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_content_has_one_length(tmp_path: Path, store: FolderStore) -> None:
    sha256 = sha256_bytes(b"x")
    entries = (Entry("a", "100644", 1, sha256), Entry("b", "100644", 2, sha256))
    manifest = Manifest(entries, {sha256: Location(PACK)})
    store.put(PACK, b"xx")
    store.create(release_key(1, manifest.release_id), manifest.to_bytes())
    with pytest.raises(IntegrityError, match="b and a cannot be one content"):
        checkout(store, Version(1, manifest.release_id), tmp_path / "copy")


def test_an_unknown_release_is_not_found(tmp_path: Path, store: FolderStore) -> None:
    with pytest.raises(ObjectNotFoundError):
        checkout(store, Version(1, "0" * 64), tmp_path / "copy")


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path, store: FolderStore, release: Release) -> None:
    (tmp_path / "copies").touch()
    with pytest.raises(InputError, match="cannot be written"):
        checkout(store, release.version, tmp_path / "copies/copy")


@pytest.mark.parametrize(
    ("links", "words"),
    [
        ({"out": b"../../etc"}, "leaves its release"),
        ({"out": b"/etc"}, "leaves its release"),
        # Each looks harmless by its text alone: the second leads out through the first.
        ({"a/b/up": b"../..", "a/b/out": b"up/../x"}, "leaves its release"),
        ({"none": b""}, "cannot be"),
        ({"zero": b"a\0b"}, "cannot be"),
        ({"long": b"a" * 4096}, "cannot be"),
    ],
)
def test_no_link_leads_out(tmp_path: Path, store: FolderStore, links: dict[str, bytes], words: str) -> None:
    rows, pack = [], b""
    for path, target in links.items():
        rows.append((path, LINK, target, Location(PACK, len(pack))))
        pack += target
    version = made_by_hand(store, rows)
    store.create(PACK, pack)
    with pytest.raises(IntegrityError, match=words):
        checkout(store, version, tmp_path / "copies/copy")
    assert list((tmp_path / "copies").iterdir()) == []


def test_memory_is_bounded(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    for n in range(12 * 40):
        (folder / f"small_{n}").write_bytes(n.to_bytes(4, "big") * 50_000)
    with (folder / "large").open("wb") as file:
        file.truncate(128 << 20)
    version = build(scan(folder), store).version
    assert len([info for info in store.list("code/") if "/packs/" in info.key]) >= 12
    tracemalloc.start()
    try:
        checkout(store, version, tmp_path / "copy")
        assert tracemalloc.get_traced_memory()[1] < 5 * PACK_BYTES
    finally:
        tracemalloc.stop()
    assert (tmp_path / "copy/large").stat().st_size == 128 << 20


def test_a_file_changed_after_the_scan_is_refused(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("x = 1\n")
    found = scan(folder)
    (folder / "flow.py").write_text("x = 2\n")
    with pytest.raises(FolderError, match="changed while it was uploaded"):
        build(found, store)
    assert not [info for info in store.list("code/") if "/releases/" in info.key]


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system takes no room at once")
@pytest.mark.parametrize(("number", "raised"), [(errno.EOPNOTSUPP, False), (errno.EINVAL, False), (errno.ENOSPC, True)])
def test_a_file_system_that_takes_no_room_at_once_serves_too(
    number: int, raised: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", refuse)
    with (tmp_path / "file").open("wb") as file:
        reserve(file.fileno(), RESERVED - 1)
        with pytest.raises(OSError, match=os.strerror(number)) if raised else nullcontext():
            reserve(file.fileno(), RESERVED)


@pytest.mark.skipif(not hasattr(os, "posix_fallocate"), reason="this system takes no room at once")
def test_room_is_taken_before_there_is_anything_to_write(tmp_path: Path) -> None:
    with (tmp_path / "file").open("wb") as file:
        reserve(file.fileno(), RESERVED)
        assert os.fstat(file.fileno()).st_size == RESERVED
