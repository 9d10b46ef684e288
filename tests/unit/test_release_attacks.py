"""A release made to do harm, small to store and huge to fetch, or leading elsewhere, is refused before it costs."""

from __future__ import annotations

import json
import os
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.unit.test_checkout import made_by_hand

from shipway.blob import PACK_BYTES, Location, release_key
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import InputError, IntegrityError, ShipwayError
from shipway.manifest import LINK, MAX_FOLDERS, Entry, Manifest, Version, parse, tree_digest
from shipway.release.cache import Cache
from shipway.release.checkout import checkout
from shipway.run.workspace import open_workspace
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore

PACK = "code/1/packs/" + "0" * 64
TERABYTE = 10**12


def published(store: FolderStore, manifest: Manifest) -> Version:
    store.put(release_key(1, manifest.release_id), manifest.to_bytes())
    return Version(1, manifest.release_id)


def nothing_left(store: FolderStore, version: Version, folder: Path, words: str, kind: type[ShipwayError]) -> None:
    folder.mkdir()
    with pytest.raises(kind, match=words) as caught:
        checkout(store, version, folder / "copy")
    assert "\n" not in str(caught.value)
    assert list(folder.iterdir()) == []


def test_a_few_kilobytes_that_stand_for_terabytes_ask_the_store_for_nothing(tmp_path: Path) -> None:
    """One blob, and a hundred files that are copies of it."""
    plain = FolderStore(tmp_path / "store")
    content = b"x" * 1_000_000
    sha = sha256_bytes(content)
    plain.put(f"code/1/blobs/{sha}", content)
    entries = tuple(Entry(f"copy_{n:03}", "100644", TERABYTE, sha) for n in range(100))
    version = published(plain, Manifest(entries, {sha: Location(f"code/1/blobs/{sha}")}))
    store = CountingStore(plain)
    nothing_left(plain, version, tmp_path / "out", "takes 100,000,000,000,000 bytes", InputError)
    # Through the cache it is the same, and the cache does not keep a byte of it.
    cache = Cache.open(tmp_path / "cache", 1 << 40)
    with pytest.raises(InputError, match="takes"):
        open_workspace(store, version, parent=tmp_path / "out", block="b", cache=cache)
    assert list((tmp_path / "cache/files").iterdir()) == []
    assert list((tmp_path / "out").iterdir()) == []
    # The manifest, twice: for the cache, and without it.
    assert store.requests <= 2


def test_files_that_overlap_in_their_pack_are_refused(tmp_path: Path) -> None:
    """Of 8 MiB, thousands of different files of nearly 8 MiB could be made, each with a digest that is right."""
    store = FolderStore(tmp_path / "store")
    data = os.urandom(100_000)
    store.put(PACK, data)
    rows = [(f"f{n}", "100644", data[n : n + 90_000], Location(PACK, n)) for n in range(200)]
    nothing_left(store, made_by_hand(store, rows), tmp_path / "out", "overlap in their pack", IntegrityError)


def test_a_file_beyond_the_longest_pack_is_refused_unread(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    sha = sha256_bytes(b"x")
    entries = (Entry("f", "100644", 1, sha),)
    version = published(store, Manifest(entries, {sha: Location(PACK, PACK_BYTES)}))
    nothing_left(store, version, tmp_path / "out", "outside their pack", IntegrityError)


@pytest.mark.parametrize("where", [Location("code/1/blobs/" + "0" * 64), None])
def test_two_contents_in_one_blob_are_refused(where: Location | None) -> None:
    shas = [sha256_bytes(b"a"), sha256_bytes(b"b")]
    entries = tuple(Entry(f"f{n}", "100644", 1, sha) for n, sha in enumerate(shas))
    place = where or Location(f"code/1/blobs/{shas[0]}")
    manifest = Manifest(entries, dict.fromkeys(shas, place))
    with pytest.raises(IntegrityError, match="is not that of content"):
        parse(manifest.to_bytes(), expected=manifest.release_id)


def test_millions_of_folders_take_no_memory() -> None:
    """Paths of 500 folders each: in 32 MiB there would be 15 million, whose names alone are 7 GB."""
    sha = sha256_bytes(b"")
    rows = [[f"{n:x}/" + "a/" * 500 + "f", "100644", 0, sha] for n in range(500)]
    data = canonical_json({"version": 1, "tree": rows, "contents": {sha: [PACK, 0]}})
    assert len(data) < 1_000_000
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match=f"over {MAX_FOLDERS:,} folders"):
            parse(data, expected=sha)
        assert tracemalloc.get_traced_memory()[1] < 250_000_000
    finally:
        tracemalloc.stop()


def chain(count: int) -> list[tuple[str, str, bytes, Location]]:
    """Return links, each to the next one, and a file at their end."""
    names = [f"l{n:05}" for n in range(count)] + ["file"]
    contents = [*(name.encode() for name in names[1:]), b"x"]
    modes = [LINK] * count + ["100644"]
    rows, offset = [], 0
    for name, mode, content in zip(names, modes, contents, strict=True):
        rows.append((name, mode, content, Location(PACK, offset)))
        offset += len(content)
    return rows


@pytest.mark.parametrize(
    "make",
    [
        lambda: chain(2_000),
        lambda: [("a", LINK, b"b", Location(PACK, 0)), ("b", LINK, b"a", Location(PACK, 1))],
    ],
)
def test_links_in_a_loop_or_a_long_chain_are_refused(
    tmp_path: Path, make: Callable[[], list[tuple[str, str, bytes, Location]]]
) -> None:
    store = FolderStore(tmp_path / "store")
    rows = make()
    store.put(PACK, b"".join(row[2] for row in rows))
    start = time.thread_time()
    nothing_left(store, made_by_hand(store, rows), tmp_path / "out", "loop, or through too many", IntegrityError)
    assert time.thread_time() - start < 10


def test_a_short_chain_of_links_is_followed(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    rows = chain(10)
    store.put(PACK, b"".join(row[2] for row in rows))
    checkout(store, made_by_hand(store, rows), tmp_path / "copy")
    assert (tmp_path / "copy/l00000").read_text() == "x"


def test_what_a_record_names_is_written_nowhere_else(tmp_path: Path) -> None:
    """Who may write to the bucket may not write to the disk of who fetches a folder from it."""
    from shipway.run.record import read_record

    store = FolderStore(tmp_path / "store")
    listing = json.dumps(["plots/../../../../owned"]).encode()
    store.put("runs/f/2024-01-01/r-00000000/1/index", listing)
    artifacts = [
        {"name": name, "key": "runs/f/2024-01-01/r-00000000/1/index", "sha256": sha256_bytes(listing),
         "bytes": len(listing), "codec": codec, "rows": None, "captured": False}
        for name, codec in (("plots", "folder"), ("plots/../../../../owned", "file"))
    ]  # fmt: skip
    record = {"version": 1, "run_id": "r", "run_name": "r", "flow": "f", "deployment": None, "attempt": 1,
              "release": None, "parameters": {}, "artifacts": artifacts}  # fmt: skip
    store.put("runs/f/2024-01-01/r-00000000/run.json", json.dumps(record).encode())
    with pytest.raises(IntegrityError, match="malformed artifact"):
        read_record(store, "runs/f/2024-01-01/r-00000000/run.json")


def test_the_digest_of_a_tree_does_not_hide_its_sizes() -> None:
    """A size is part of what the release id is the digest of, so nobody can change it afterwards."""
    sha = sha256_bytes(b"x")
    assert tree_digest([Entry("a", "100644", 1, sha)]) != tree_digest([Entry("a", "100644", TERABYTE, sha)])
