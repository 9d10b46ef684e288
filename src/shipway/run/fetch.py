"""Fetching an artifact's bytes, checked; what they mean is for `run.data` to say."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import IO, TypeVar

from shipway.artifact import MAX_SEGMENT, Artifact
from shipway.digest import CHUNK, sha256_bytes, sha256_file
from shipway.errors import IntegrityError
from shipway.release.clone import reserve
from shipway.release.retention import in_parallel
from shipway.store.base import Store

PART = 8 << 20
"""Bytes of each part, at least, that a large object is fetched in: several at once are faster than one stream."""
MOST_PART = 64 << 20
AT_ONCE = 4

MAX_INDEX = 32 << 20
"""An index of a folder that is longer is refused unread: 100,000 files need about 10 MB."""

_T = TypeVar("_T")


def download(store: Store, artifact: Artifact, path: Path) -> Path:
    """Write an artifact's bytes to `path`, which appears only when they are right.

    Raises:
        IntegrityError: the stored bytes are not those that were saved, or are gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:100]}.part")
    seen, size = hashlib.sha256(), 0
    try:
        with scratch.open("w+b") as file:
            reserve(file.fileno(), artifact.bytes)
            for start, arrived in _parts(store, artifact, file):
                # A part is hashed when it and all before it are there, while the next ones arrive.
                size += arrived
                for at in range(start, start + arrived, CHUNK):
                    seen.update(os.pread(file.fileno(), min(CHUNK, start + arrived - at), at))
        if (seen.hexdigest(), size) != (artifact.sha256, artifact.bytes):
            raise damaged(store, artifact)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def read_while_checking(store: Store, artifact: Artifact, path: Path, read: Callable[[Path], _T]) -> _T:
    """Return what `read` makes of an artifact's bytes, which are in `path` then.

    It reads before their digest is known, at the time that comparing it takes; nobody gets what it made of other bytes.

    Raises:
        IntegrityError: the stored bytes are not those that were saved, or are gone.
    """
    with path.open("wb") as file:
        reserve(file.fileno(), artifact.bytes)
        size = sum(arrived for _, arrived in _parts(store, artifact, file))
    if size != artifact.bytes:
        raise damaged(store, artifact)
    with ThreadPoolExecutor(1) as pool:
        digest = pool.submit(sha256_file, path)
        try:
            return read(path)
        finally:
            # Whatever came of it: an error that other bytes led to is not the one to tell.
            if digest.result()[0] != artifact.sha256:
                raise damaged(store, artifact) from None


def files_of(store: Store, folder: Artifact, saved: Iterable[Artifact]) -> list[Artifact]:
    """Return the files of a folder that was saved, trusting nothing in the index of them.

    Args:
        store: where it lies.
        folder: the folder, whose object is the index.
        saved: what the run saved.

    Raises:
        IntegrityError: the index is not what was saved, or names other things than files of this folder.
    """
    where = f"the index of folder {folder.name} in {store.url(folder.key)}"
    if folder.bytes > MAX_INDEX:
        raise IntegrityError(f"{where} is longer than {MAX_INDEX} bytes")
    data = check(store, folder, store.read(folder.key, length=folder.bytes + 1))
    try:
        names = json.loads(data)
    except (ValueError, RecursionError):
        raise IntegrityError(f"{where} is not JSON") from None
    known = {item.name: item for item in saved if item.name.startswith(f"{folder.name}/")}
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name in known for name in names):
        raise IntegrityError(f"{where} lists something else than what the run saved in that folder")
    # Sorted so that what lies in a folder comes right after it.
    ordered = sorted(name.replace("/", "\0") for name in names)
    if any(second == first or second.startswith(f"{first}\0") for first, second in pairwise(ordered)):
        raise IntegrityError(f"{where} lists a file twice, or as a folder too")
    if any(len(part.encode()) > MAX_SEGMENT for name in names for part in name.split("/")):
        raise IntegrityError(f"{where} lists a name that no file can have")
    return [known[name] for name in names]


def check(store: Store, artifact: Artifact, data: bytes) -> bytes:
    """Return an artifact's bytes.

    Raises:
        IntegrityError: they are not those that were saved.
    """
    if (sha256_bytes(data), len(data)) != (artifact.sha256, artifact.bytes):
        raise damaged(store, artifact)
    return data


def damaged(store: Store, artifact: Artifact) -> IntegrityError:
    """Return what says that an artifact's bytes are not those that were saved."""
    return IntegrityError(f"{artifact.name} is damaged in {store.url(artifact.key)}")


def _parts(store: Store, artifact: Artifact, file: IO[bytes]) -> Iterator[tuple[int, int]]:
    """Write the object's bytes to a file, in parts of which several arrive at once; yield start and size of each."""
    length = min(max(artifact.bytes // (4 * AT_ONCE), PART), MOST_PART)
    # The last part takes all that is left: an object that is too long is not the one that was saved.
    starts = range(0, max(artifact.bytes, 1), length)
    work = partial(_part, store, artifact, file, length)
    arrived = in_parallel(work, starts, threads=AT_ONCE) if len(starts) > 1 else map(work, starts)
    return zip(starts, arrived, strict=True)


def _part(store: Store, artifact: Artifact, file: IO[bytes], length: int, start: int) -> int:
    """Write the part from `start` on; return how many bytes it had, more than it should only where there are more."""
    last = start + length >= artifact.bytes
    at, end = start, artifact.bytes if last else start + length
    for piece in store.stream(artifact.key, start=start, length=None if last else length):
        at += len(piece)
        if at > end:
            break  # not written to the disk's end
        os.pwrite(file.fileno(), piece, at - len(piece))
    return at - start
