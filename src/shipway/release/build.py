"""Entries -> release: upload what the store lacks, then the manifest, which makes it a release."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from shipway.blob import LARGE_FILE, PACK_BYTES, Location, blob_key, current_epoch, epoch_of, pack_key, release_key
from shipway.digest import sha256_bytes, sha256_file
from shipway.errors import FolderError, ObjectExistsError, ObjectNotFoundError
from shipway.manifest import MAX_BYTES, Entry, Manifest, Version, parse, tree_digest
from shipway.release.scan import Scan, read_entry
from shipway.store.base import Store

Progress = Callable[[int, int], None]
"""Called with (bytes done, bytes in all) from several threads."""


@dataclass(frozen=True, slots=True)
class Release:
    """A release that is in the store.

    Attributes:
        version: where its manifest is.
        manifest: its tree and where each content lies.
        uploaded_bytes: bytes this build sent to the store.
        seconds: time this build took.
    """

    version: Version
    manifest: Manifest
    uploaded_bytes: int
    seconds: float


def build(scan: Scan, store: Store, *, previous: Version | None = None, progress: Progress | None = None) -> Release:
    """Put a scanned folder into the store as a release.

    Content is uploaded first and the manifest last, so that a manifest that can be read is a release that is complete.
    Everything is put-if-absent: what another build put there meanwhile is the same bytes.

    Args:
        scan: the folder's entries.
        store: where to.
        previous: a release whose contents are known to be in the store, usually the deployment's current one.
        progress: told of bytes as they arrive.

    Raises:
        FolderError: a file changed after it was scanned.
        StoreError: the store failed; no release was made.
    """
    began = time.monotonic()
    epoch = current_epoch()
    version = Version(epoch, tree_digest(scan.entries))
    try:
        return Release(version, read_manifest(store, version), 0, time.monotonic() - began)
    except ObjectNotFoundError:
        pass
    contents = _known(store, previous, epoch)
    wanted = {entry.sha256: entry for entry in scan.entries if entry.sha256 not in contents}
    uploaded = _upload(scan.folder, store, epoch, wanted.values(), contents, progress or (lambda _done, _total: None))
    used = {entry.sha256: contents[entry.sha256] for entry in scan.entries}
    manifest = Manifest(scan.entries, used)
    data = manifest.to_bytes()
    if len(data) > MAX_BYTES:
        raise FolderError(
            f"{scan.folder} holds {len(scan.entries)} files, too many for one release",
            hint="leave out data with .shipwayignore",
        )
    _create(store, release_key(epoch, version.release_id), data)
    return Release(version, manifest, uploaded + len(data), time.monotonic() - began)


def read_manifest(store: Store, version: Version) -> Manifest:
    """Read and check a release's manifest.

    Raises:
        ObjectNotFoundError: there is no such release.
        IntegrityError: the manifest is damaged or unsafe.
    """
    data = store.read(release_key(version.epoch, version.release_id), length=MAX_BYTES + 1)
    return parse(data, expected=version.release_id)


def _known(store: Store, previous: Version | None, epoch: int) -> dict[str, Location]:
    """Return the contents of the previous release that a writer in `epoch` may still refer to."""
    if previous is None:
        return {}
    try:
        manifest = read_manifest(store, previous)
    except ObjectNotFoundError:
        return {}
    return {sha: where for sha, where in manifest.contents.items() if (epoch_of(where.key) or 0) >= epoch - 1}


def _upload(
    folder: Path, store: Store, epoch: int, wanted: Iterable[Entry], contents: dict[str, Location], progress: Progress
) -> int:
    """Upload contents, note where they lie in `contents`, and return the number of bytes sent."""
    small: list[list[Entry]] = [[]]
    large: list[Entry] = []
    room = PACK_BYTES
    for entry in sorted(wanted, key=lambda e: e.path.encode()):
        if entry.size >= LARGE_FILE:
            large.append(entry)
            continue
        if entry.size > room:
            small.append([])
            room = PACK_BYTES
        small[-1].append(entry)
        room -= entry.size
    packs = [group for group in small if group]
    total = sum(entry.size for group in (*packs, large) for entry in group)
    done = 0

    def finished(size: int) -> None:
        nonlocal done
        done += size
        progress(done, total)

    def send_pack(group: list[Entry]) -> dict[str, Location]:
        placed, data = _pack(folder, group)
        key = pack_key(epoch, sha256_bytes(data))
        _create(store, key, data)
        finished(len(data))
        return {sha: Location(key, offset) for sha, offset in placed.items()}

    def send_large(entry: Entry) -> dict[str, Location]:
        key = blob_key(epoch, entry.sha256)
        _send_file(folder / entry.path, entry, store, key)
        finished(entry.size)
        return {entry.sha256: Location(key)}

    # Eight at once: packs and blobs are megabytes, and more would only hold more of them in memory.
    with ThreadPoolExecutor(max_workers=8) as pool:
        jobs = [pool.submit(send_pack, group) for group in packs] + [pool.submit(send_large, entry) for entry in large]
        try:
            for job in jobs:
                contents.update(job.result())
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
    return total


def _pack(folder: Path, group: list[Entry]) -> tuple[dict[str, int], bytes]:
    placed: dict[str, int] = {}
    data = bytearray()
    for entry in group:
        content = _read(folder, entry)
        placed[entry.sha256] = len(data)
        data += content
    return placed, bytes(data)


def _read(folder: Path, entry: Entry) -> bytes:
    try:
        content = read_entry(folder, entry.path)
    except OSError as error:
        raise FolderError(
            f"{entry.path} vanished while it was uploaded: {error.strerror}", hint="run the build again"
        ) from None
    if sha256_bytes(content) != entry.sha256:
        raise _changed(entry)
    return content


def _send_file(path: Path, entry: Entry, store: Store, key: str) -> None:
    # The copy is hashed, then sent: a file written to meanwhile cannot leave wrong bytes under a right digest.
    with tempfile.TemporaryDirectory(prefix="shipway-") as scratch:
        copy = Path(scratch) / "blob"
        try:
            shutil.copyfile(path, copy)
        except OSError as error:
            raise FolderError(f"{entry.path} cannot be copied for upload: {error.strerror}") from None
        if sha256_file(copy) != (entry.sha256, entry.size):
            raise _changed(entry)
        _create(store, key, copy)


def _create(store: Store, key: str, data: bytes | Path) -> None:
    try:
        store.create(key, data)
    except ObjectExistsError:
        return  # the key is the digest, so what is there is what we have


def _changed(entry: Entry) -> FolderError:
    return FolderError(f"{entry.path} changed while it was uploaded", hint="stop what writes it, then build again")
