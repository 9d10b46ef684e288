"""Entries -> release: upload what the store lacks, then the manifest, which makes it a release."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from shipway.blob import LARGE_FILE, PACK_BYTES, Location, blob_key, current_epoch, epoch_of, pack_key, release_key
from shipway.digest import sha256_bytes
from shipway.errors import FolderError, IntegrityError, ObjectExistsError, ObjectNotFoundError, StoreError
from shipway.manifest import MAX_BYTES, Entry, Manifest, Version, read_manifest, tree_digest
from shipway.release.memory import Memory
from shipway.release.scan import Scan, read_entry
from shipway.store.base import Store

Progress = Callable[[int, int, int, int], None]
"""Called with (bytes done, bytes in all, files done, files in all), by one thread at a time."""

MAX_PACKS = 8
"""A release refers to at most so many packs with room to spare; past that its small files are packed again."""

AT_ONCE = 4
"""Uploads at a time. Each holds a pack or a few parts, so that a build stays under 200 MB, up to files of 226 GB."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is in the store.

    Attributes:
        version: where its manifest is.
        entries: its tree.
        uploaded_bytes: bytes this build sent to the store.
    """

    version: Version
    entries: tuple[Entry, ...]
    uploaded_bytes: int

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.entries)


def build(
    scan: Scan,
    store: Store,
    *,
    previous: Version | None = None,
    memory: Memory | None = None,
    progress: Progress | None = None,
) -> Release:
    """Put a scanned folder into the store as a release.

    Content is uploaded first and the manifest last, so that a manifest that can be read is a release that is complete.
    Everything is put-if-absent: what another build put there meanwhile is the same bytes.

    Args:
        scan: the folder's entries.
        store: where to.
        previous: a release that a deployment refers to, whose contents are therefore in the store.
        memory: what earlier builds on this machine remembered.
        progress: told of bytes and files as they arrive.

    Raises:
        FolderError: a file changed after it was scanned.
        StoreError: the store failed; no release was made.
    """
    epoch = current_epoch()
    version = Version(epoch, tree_digest(scan.entries))
    known = [each for each in (previous, _built_last(store, previous, memory)) if each and each.epoch >= epoch - 1]
    for same in known:
        if same.release_id == version.release_id:
            return Release(same, scan.entries, 0)
    contents: dict[str, Location] = {}
    for each in known:
        contents |= _known(store, each, epoch, memory)
    wanted = _wanted(scan, contents)
    upload = _Upload(scan.folder, store, epoch, memory, progress or (lambda *_counts: None))
    contents |= upload.send(wanted)
    manifest = Manifest(scan.entries, {entry.sha256: contents[entry.sha256] for entry in scan.entries})
    data = manifest.sealed()
    if len(data) > MAX_BYTES:
        count = len(scan.entries)
        raise FolderError(f"{scan.folder} holds {count} files, too many", hint="leave out data with an ignore file")
    key = release_key(epoch, version.release_id)
    # One that exists is of the same tree, whose contents another build found in other places.
    with contextlib.suppress(ObjectExistsError):
        store.create(key, data)
    if memory:
        memory.keep(version, manifest)
        memory.forget_arrivals()
    return Release(version, scan.entries, upload.sent + len(data))


def _built_last(store: Store, previous: Version | None, memory: Memory | None) -> Version | None:
    """Return the release that this machine built last, where that is another one than `previous` and still there."""
    newest = memory.newest() if memory else None
    if newest is None or newest == previous:
        return None
    try:
        store.head(release_key(newest.epoch, newest.release_id))
    except ObjectNotFoundError:
        return None
    return newest


def _known(store: Store, previous: Version, epoch: int, memory: Memory | None) -> dict[str, Location]:
    """Return the contents of a release that a writer in `epoch` may still refer to."""
    manifest = memory.manifest(previous) if memory else None
    if manifest is None:
        try:
            manifest = read_manifest(store, previous)
        except (ObjectNotFoundError, IntegrityError):
            return {}
        if memory:
            memory.keep(previous, manifest)
    return {sha: where for sha, where in manifest.contents.items() if (epoch_of(where.key) or 0) >= epoch - 1}


def _wanted(scan: Scan, contents: dict[str, Location]) -> list[Entry]:
    """Return one entry for each content that must be sent; drops small ones from `contents` where packs got many."""
    small = {entry.sha256 for entry in scan.entries if entry.size < LARGE_FILE}
    packs = {contents[sha].key for sha in small if sha in contents}
    fewest = sum(entry.size for entry in scan.entries if entry.sha256 in small) // PACK_BYTES + 1
    if len(packs) >= MAX_PACKS + fewest:
        for sha in small:
            contents.pop(sha, None)
    return list({entry.sha256: entry for entry in scan.entries if entry.sha256 not in contents}.values())


class _Upload:
    """One build's uploads, several at a time."""

    def __init__(self, folder: Path, store: Store, epoch: int, memory: Memory | None, progress: Progress) -> None:
        self.folder = folder
        self.store = store
        self.epoch = epoch
        self.memory = memory
        self.progress = progress
        self.arrived = memory.arrived() if memory else set()
        self.sent = 0
        self._lock = threading.Lock()
        self._done = self._files_done = 0
        self._total = self._files = 0

    def send(self, wanted: Iterable[Entry]) -> dict[str, Location]:
        """Send the contents of `wanted`; return where each lies."""
        packs, large = _sort(wanted)
        groups = (*packs, large)
        self._total, self._files = sum(entry.size for group in groups for entry in group), sum(map(len, groups))
        contents: dict[str, Location] = {}
        with ThreadPoolExecutor(max_workers=AT_ONCE) as pool:
            jobs = [pool.submit(self._send_pack, group) for group in packs]
            jobs += [pool.submit(self._send_large, entry) for entry in large]
            try:
                for job in jobs:
                    contents |= job.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
        return contents

    def _send_pack(self, group: list[Entry]) -> dict[str, Location]:
        data = bytearray()
        places: dict[str, int] = {}
        for entry in group:
            places[entry.sha256] = len(data)
            data += self._read(entry)
        content = bytes(data)
        del data
        key = pack_key(self.epoch, sha256_bytes(content))
        self._create(key, content, len(content), key.rpartition("/")[2], len(group))
        return {sha: Location(key, offset) for sha, offset in places.items()}

    def _send_large(self, entry: Entry) -> dict[str, Location]:
        key = blob_key(self.epoch, entry.sha256)
        try:
            self._create(key, self.folder / entry.path, entry.size, entry.sha256, 1)
        except IntegrityError:
            raise _changed(entry) from None
        return {entry.sha256: Location(key)}

    def _create(self, key: str, data: bytes | Path, size: int, sha256: str, files: int) -> None:
        sent = 0
        if not (key in self.arrived and self._is_there(key, size)):
            self.store.create(key, data, sha256=sha256)
            sent = size
            # Only where there is more than one object is there anything to resume.
            if self.memory and self._total > size:
                self.memory.note_arrival(key)
        with self._lock:
            self.sent += sent
            self._done += size
            self._files_done += files
            self.progress(self._done, self._total, self._files_done, self._files)

    def _is_there(self, key: str, size: int) -> bool:
        try:
            return self.store.head(key).size == size
        except StoreError:
            return False

    def _read(self, entry: Entry) -> bytes:
        try:
            content = read_entry(self.folder, entry.path)
        except OSError as error:
            raise FolderError(
                f"{entry.path} vanished while it was uploaded: {error.strerror}", hint="build again"
            ) from None
        if sha256_bytes(content) != entry.sha256:
            raise _changed(entry)
        return content


def _sort(wanted: Iterable[Entry]) -> tuple[list[list[Entry]], list[Entry]]:
    """Group small files into packs, by path so that the same files make the same packs; return the rest too."""
    packs: list[list[Entry]] = []
    large: list[Entry] = []
    room = 0
    for entry in sorted(wanted, key=lambda e: e.path.encode()):
        if entry.size >= LARGE_FILE:
            large.append(entry)
            continue
        if entry.size > room or not packs:
            packs.append([])
            room = PACK_BYTES
        packs[-1].append(entry)
        room -= entry.size
    return packs, large


def _changed(entry: Entry) -> FolderError:
    return FolderError(f"{entry.path} changed while it was uploaded", hint="stop what writes it, then build again")
