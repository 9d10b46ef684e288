"""Fetching an artifact's bytes, checked; what they mean is for `run.data` to say."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

from shipway.artifact import Artifact
from shipway.errors import IntegrityError
from shipway.release.retention import in_parallel
from shipway.store.base import Store

PART = 8 << 20
"""Bytes of each part that a large object is fetched in, which is faster than one stream; some are in memory at once."""
AT_ONCE = 4


def download(store: Store, artifact: Artifact, path: Path) -> Path:
    """Write an artifact's bytes to `path`, which appears only when they are right.

    Raises:
        IntegrityError: the stored bytes are not those that were saved, or are gone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name[:100]}.part")
    seen = hashlib.sha256()
    size = 0
    try:
        with scratch.open("wb") as file:
            for piece in _pieces(store, artifact):
                seen.update(piece)
                size += file.write(piece)
        if (seen.hexdigest(), size) != (artifact.sha256, artifact.bytes):
            raise IntegrityError(f"{artifact.name} is damaged in {store.url(artifact.key)}")
        scratch.replace(path)
    finally:
        scratch.unlink(missing_ok=True)
    return path


def _pieces(store: Store, artifact: Artifact) -> Iterator[bytes]:
    if artifact.bytes <= 2 * PART:
        return store.stream(artifact.key)
    # One more than there should be, which is empty then: an object that is too long is not the one that was saved.
    starts = range(0, artifact.bytes + 1, PART)
    return in_parallel(lambda start: store.read(artifact.key, start=start, length=PART), starts, threads=AT_ONCE)
