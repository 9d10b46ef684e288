"""Release -> folder: fetch, check every file against its digest, and only then let the folder appear."""

from __future__ import annotations

import hashlib
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path

from shipway.blob import PACK_BYTES
from shipway.digest import sha256_bytes
from shipway.errors import InputError, IntegrityError, ObjectNotFoundError
from shipway.manifest import HINT, Entry, Manifest, Version, read_manifest
from shipway.release.clone import (
    CREATE,
    appearing,
    check_room,
    copy_file,
    make_folders,
    make_links,
    permissions,
    reserve,
    write,
)
from shipway.store.base import Store

AT_ONCE = 8
"""Requests at a time."""

LARGE_AT_ONCE = 4
"""Of which packs, each in memory twice for a moment, so that this is 64 MiB, and blobs as large, which pass in small
pieces: a few of them take all that there is of network and processors, and more get in each other's way."""


def checkout(store: Store, version: Version, folder: Path) -> Manifest:
    """Write a release's files into `folder`, which must not exist yet and appears complete or not at all.

    Raises:
        ObjectNotFoundError: the release is not in the store.
        IntegrityError: something stored is missing or not what it was; nothing is left behind.
        InputError: the folder cannot be written.
    """
    manifest = read_manifest(store, version)
    first = contents(manifest.entries)
    try:
        with appearing(folder) as scratch:
            check_room(scratch, manifest.size)
            make_folders(manifest.entries, scratch)
            fetch(store, manifest, first, lambda entry: [(f"{scratch}/{entry.path}", permissions(entry))])
            for entry in manifest.entries:
                source = first[entry.sha256]
                if entry is not source:
                    copy_file(f"{scratch}/{source.path}", f"{scratch}/{entry.path}", entry.size, permissions(entry))
            make_links(manifest.entries, scratch)
    except OSError as error:
        raise InputError(
            f"release {version.short} cannot be written into {folder}: {error.strerror or error}",
            hint="make room there, or choose another folder",
        ) from error
    return manifest


def contents(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Return the first entry of each content, by sha256.

    Raises:
        IntegrityError: the manifest says of one content that it has two lengths.
    """
    first: dict[str, Entry] = {}
    for entry in entries:
        if first.setdefault(entry.sha256, entry).size != entry.size:
            raise IntegrityError(f"{entry.path} and {first[entry.sha256].path} cannot be one content", hint=HINT)
    return first


def fetch(
    store: Store, manifest: Manifest, wanted: Collection[str], places: Callable[[Entry], Iterable[tuple[str, int]]]
) -> None:
    """Write contents into files that do not exist yet: one request for each object they lie in.

    Of a pack one range is read, from the first byte needed to the last: a pack is one request however many files are
    wanted of it, and what lies before and behind them stays where it is.

    Args:
        store: where the contents are.
        manifest: the release they are contents of.
        wanted: the contents, by sha256.
        places: what gives the files that the content of an entry is written to as it arrives, and their permissions.

    Raises:
        IntegrityError: an object is missing, or a content in it is not what it was.
        OSError: a file cannot be written.
    """
    by_object: defaultdict[str, list[Entry]] = defaultdict(list)
    for sha256, entry in contents(manifest.entries).items():
        if sha256 in wanted:
            by_object[manifest.contents[sha256].key].append(entry)
    work = _Fetch(store, manifest, places)
    with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
        # The longest first, lest one of them begins when all others are done.
        order = sorted(by_object.items(), key=lambda item: -sum(entry.size for entry in item[1]))
        jobs = [pool.submit(work.blob if "/blobs/" in key else work.pack, key, entries) for key, entries in order]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            work.stopped.set()
            pool.shutdown(cancel_futures=True)
            raise


class _Fetch:
    """One fetch, seen from its threads."""

    def __init__(self, store: Store, manifest: Manifest, places: Callable[[Entry], Iterable[tuple[str, int]]]) -> None:
        self.store = store
        self.manifest = manifest
        self.places = places
        self.stopped = threading.Event()
        self.large = threading.Semaphore(LARGE_AT_ONCE)

    def blob(self, key: str, entries: list[Entry]) -> None:
        for entry in entries:
            digest, left = hashlib.sha256(), entry.size
            room = self.large if entry.size >= PACK_BYTES else nullcontext()
            with room, self._files(entry) as files:
                try:
                    for piece in self.store.stream(key):
                        digest.update(piece)
                        left -= len(piece)
                        # An object that is too long is not written to the disk's end.
                        if left < 0 or self.stopped.is_set():
                            break
                        for file in files:
                            write(file, piece)
                except ObjectNotFoundError:
                    raise self._missing(key, entry) from None
            if not self.stopped.is_set():
                self._check(key, entry, digest.hexdigest(), entry.size - left)

    def pack(self, key: str, entries: list[Entry]) -> None:
        with self.large:
            if self.stopped.is_set():
                return
            start, data = self._range(key, entries)
            view = memoryview(data)
            for entry in entries:
                offset = self.manifest.contents[entry.sha256].offset - start
                content = view[offset : offset + entry.size]
                self._check(key, entry, sha256_bytes(content), len(content))
                with self._files(entry) as files:
                    for file in files:
                        write(file, content)

    @contextmanager
    def _files(self, entry: Entry) -> Iterator[list[int]]:
        """Give the files, open, that a content is written to."""
        with ExitStack() as undo:
            files = []
            for path, mode in self.places(entry):
                files.append(os.open(path, CREATE, mode))
                undo.callback(os.close, files[-1])
                reserve(files[-1], entry.size)
            yield files

    def _range(self, key: str, entries: list[Entry]) -> tuple[int, bytes]:
        """Read the part of a pack that holds `entries`; return where it starts, and its bytes."""
        spans = [(self.manifest.contents[entry.sha256].offset, entry.size) for entry in entries if entry.size]
        if not spans:
            return 0, b""
        start, end = min(offset for offset, _ in spans), max(map(sum, spans))
        # No pack is longer: nobody can make a reader take more than this into memory.
        if end > PACK_BYTES:
            raise IntegrityError(f"files lie outside their pack {self.store.url(key)}", hint=HINT)
        # Nor can thousands of files be made of the same few bytes.
        if sum(size for _, size in spans) > end - start:
            raise IntegrityError(f"files overlap in their pack {self.store.url(key)}", hint=HINT)
        try:
            return start, self.store.read(key, start=start, length=end - start)
        except ObjectNotFoundError:
            raise self._missing(key, entries[0]) from None

    def _check(self, key: str, entry: Entry, sha256: str, size: int) -> None:
        if size != entry.size or sha256 != entry.sha256:
            raise IntegrityError(f"{entry.path} is damaged in {self.store.url(key)}", hint=HINT)

    def _missing(self, key: str, entry: Entry) -> IntegrityError:
        return IntegrityError(f"{self.store.url(key)} is missing, and with it {entry.path}", hint=HINT)
