"""Fetching an artifact's bytes, checked; what they mean is for `run.data` to say."""

from __future__ import annotations

import hashlib
import os
from functools import partial
from pathlib import Path
from typing import IO

from shipway.artifact import Artifact
from shipway.digest import CHUNK, sha256_bytes
from shipway.errors import IntegrityError
from shipway.release.retention import in_parallel
from shipway.store.base import Store

PART = 16 << 20
"""Bytes of each part that a large object is fetched in, which is faster than one stream."""
AT_ONCE = 4


def download(store: Store, artifact: Artifact, path: Path) -> Path:
    """Write an artifact's bytes to `path`, which appears only when they are right.

    Raises:
        IntegrityError: the stored bytes are not those that were saved, or are gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:100]}.part")
    try:
        with scratch.open("w+b") as file:
            if _write(store, artifact, file) != (artifact.sha256, artifact.bytes):
                raise damaged(store, artifact)
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


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


def _write(store: Store, artifact: Artifact, file: IO[bytes]) -> tuple[str, int]:
    """Write the object's bytes to a file, in parts of which several arrive at once; return their digest and number."""
    seen, size = hashlib.sha256(), 0
    # The last part takes all that is left: an object that is too long is not the one that was saved.
    starts = range(0, max(artifact.bytes, 1), PART)
    work = partial(_part, store, artifact, file)
    parts = in_parallel(work, starts, threads=AT_ONCE) if len(starts) > 1 else map(work, starts)
    for start, arrived in zip(starts, parts, strict=True):
        # A part is hashed when it and all before it are there, while the next ones arrive.
        size += arrived
        for at in range(start, start + arrived, CHUNK):
            seen.update(os.pread(file.fileno(), min(CHUNK, start + arrived - at), at))
    return seen.hexdigest(), size


def _part(store: Store, artifact: Artifact, file: IO[bytes], start: int) -> int:
    """Write the part from `start` on; return how many bytes it had, more than it should only where there are more."""
    last = start + PART >= artifact.bytes
    at, end = start, artifact.bytes if last else start + PART
    for piece in store.stream(artifact.key, start=start, length=None if last else PART):
        at += len(piece)
        if at > end:
            break  # not written to the disk's end
        os.pwrite(file.fileno(), piece, at - len(piece))
    return at - start
