"""A checkout is whole and right, or it is not there."""

from pathlib import Path

import pytest

from shipway.blob import LARGE_FILE, Location, release_key
from shipway.digest import sha256_bytes
from shipway.errors import FolderError, IntegrityError, ObjectNotFoundError
from shipway.manifest import LINK, Entry, Manifest, Version
from shipway.release.build import Release, build
from shipway.release.checkout import checkout
from shipway.release.scan import scan
from shipway.store.folder import FolderStore


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


def test_files_of_both_sizes_come_back(tmp_path: Path, store: FolderStore, release: Release) -> None:
    checkout(store, release.version, tmp_path / "copy")
    assert (tmp_path / "copy/flow.py").read_text() == "x = 1\n"
    assert (tmp_path / "copy/large.bin").stat().st_size == LARGE_FILE


@pytest.mark.parametrize("area", ["packs", "blobs"])
@pytest.mark.parametrize("harm", ["flip", "cut", "remove"])
def test_damage_stops_the_checkout(tmp_path: Path, store: FolderStore, release: Release, area: str, harm: str) -> None:
    key = next(info.key for info in store.list("code/") if f"/{area}/" in info.key)
    data = bytearray(store.read(key))
    if harm == "flip":
        data[0] ^= 1
        store.put(key, bytes(data))
    elif harm == "cut":
        store.put(key, bytes(data[:-1]))
    else:
        store.delete(key)
    with pytest.raises(IntegrityError, match="missing" if harm == "remove" else "damaged"):
        checkout(store, release.version, tmp_path / "copies/copy")
    assert list((tmp_path / "copies").iterdir()) == []


def test_an_unknown_release_is_not_found(tmp_path: Path, store: FolderStore) -> None:
    with pytest.raises(ObjectNotFoundError):
        checkout(store, Version(1, "0" * 64), tmp_path / "copy")


@pytest.mark.parametrize(
    "links",
    [
        {"out": "../../etc"},
        {"out": "/etc"},
        # Each looks harmless by its text alone: the second leads out through the first.
        {"a/b/up": "../..", "a/b/out": "up/../x"},
    ],
)
def test_no_link_leads_out(tmp_path: Path, store: FolderStore, links: dict[str, str]) -> None:
    contents, entries, pack = {}, [], b""
    for path, target in links.items():
        sha = sha256_bytes(target.encode())
        contents[sha] = Location("code/1/packs/" + "0" * 64, len(pack))
        entries.append(Entry(path, LINK, len(target), sha))
        pack += target.encode()
    manifest = Manifest(tuple(entries), contents)
    store.create("code/1/packs/" + "0" * 64, pack)
    store.create(release_key(1, manifest.release_id), manifest.to_bytes())
    with pytest.raises(IntegrityError, match="leaves its release"):
        checkout(store, Version(1, manifest.release_id), tmp_path / "copies/copy")
    assert list((tmp_path / "copies").iterdir()) == []


def test_a_file_changed_after_the_scan_is_refused(tmp_path: Path, store: FolderStore) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("x = 1\n")
    found = scan(folder)
    (folder / "flow.py").write_text("x = 2\n")
    with pytest.raises(FolderError, match="changed while it was uploaded"):
        build(found, store)
    assert not [info for info in store.list("code/") if "/releases/" in info.key]
