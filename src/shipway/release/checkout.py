"""Release -> folder: fetch, check every file against its digest, and only then let the folder appear."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.manifest import LINK, Entry, Manifest, Version, read_manifest
from shipway.store.base import Store


def checkout(store: Store, version: Version, folder: Path) -> Manifest:
    """Write a release's files into `folder`, which must not exist yet and appears complete or not at all.

    Raises:
        ObjectNotFoundError: the release, or an object it needs, is not in the store.
        IntegrityError: something stored is not what it was; nothing is left behind.
    """
    manifest = read_manifest(store, version)
    by_object: defaultdict[str, list[Entry]] = defaultdict(list)
    for entry in manifest.entries:
        by_object[manifest.contents[entry.sha256].key].append(entry)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".checkout-", dir=folder.parent))
    try:
        with ThreadPoolExecutor(max_workers=8) as pool:
            jobs = [pool.submit(_fetch, store, manifest, key, entries, scratch) for key, entries in by_object.items()]
            for job in jobs:
                job.result()
        # Links come last: until every file is written there is none that could lead a write out of the folder.
        for entry in manifest.entries:
            if entry.mode == LINK:
                _link(store, manifest, entry, scratch)
        _refuse_escapes(manifest, scratch)
        scratch.chmod(0o755)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    return manifest


def _fetch(store: Store, manifest: Manifest, key: str, entries: list[Entry], folder: Path) -> None:
    files = [entry for entry in entries if entry.mode != LINK]
    if not files:
        return
    if "/blobs/" in key:
        for entry in files:
            _stream(store, key, entry, folder)
        return
    data = _read(store, key, entries[0])
    for entry in files:
        offset = manifest.contents[entry.sha256].offset
        content = data[offset : offset + entry.size]
        _check(entry, sha256_bytes(content), len(content), store.url(key))
        path = _place(folder, entry)
        path.write_bytes(content)
        path.chmod(int(entry.mode[-3:], 8))


def _stream(store: Store, key: str, entry: Entry, folder: Path) -> None:
    digest, size = hashlib.sha256(), 0
    path = _place(folder, entry)
    try:
        with path.open("wb") as file:
            for piece in store.stream(key):
                digest.update(piece)
                size += len(piece)
                file.write(piece)
    except ObjectNotFoundError:
        raise _missing(store, key, entry) from None
    _check(entry, digest.hexdigest(), size, store.url(key))
    path.chmod(int(entry.mode[-3:], 8))


def _link(store: Store, manifest: Manifest, entry: Entry, folder: Path) -> None:
    where = manifest.contents[entry.sha256]
    content = store.read(where.key, start=where.offset, length=entry.size)
    _check(entry, sha256_bytes(content), len(content), store.url(where.key))
    _place(folder, entry).symlink_to(os.fsdecode(content))


def _refuse_escapes(manifest: Manifest, folder: Path) -> None:
    """Refuse links that lead out, judged when all are in place: one link may lead out only through another."""
    root = folder.resolve()
    for entry in manifest.entries:
        if entry.mode == LINK:
            path = folder / entry.path
            if path.readlink().is_absolute() or not Path(os.path.realpath(path)).is_relative_to(root):
                raise IntegrityError(f"{entry.path} is a link that leaves its release")


def _place(folder: Path, entry: Entry) -> Path:
    path = folder / entry.path
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _read(store: Store, key: str, entry: Entry) -> bytes:
    try:
        return store.read(key)
    except ObjectNotFoundError:
        raise _missing(store, key, entry) from None


def _check(entry: Entry, sha256: str, size: int, where: str) -> None:
    if size != entry.size or sha256 != entry.sha256:
        raise IntegrityError(f"{entry.path} is damaged in {where}", hint="build and apply the deployment again")


def _missing(store: Store, key: str, entry: Entry) -> IntegrityError:
    return IntegrityError(
        f"{store.url(key)} is missing, and with it {entry.path}", hint="build and apply the deployment again"
    )
