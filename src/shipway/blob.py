"""Where immutable content lies: blobs, packs and release manifests, under the epoch in which they were written.

Epochs make garbage collection safe without locks: a writer in epoch *e* refers only to objects of *e* or *e - 1*, so an
object that is older, and that no deployment's history reaches, cannot be about to be used.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

EPOCH_SECONDS = 14 * 24 * 3600
"""Length of an epoch: a fortnight. Shorter means more content uploaded again, longer means garbage kept longer."""

LARGE_FILE = 256 * 1024
"""Files of this many bytes and up are blobs of their own; smaller ones travel together in packs."""

PACK_BYTES = 8 * 1024 * 1024
"""Most bytes in one pack."""


@dataclass(frozen=True, slots=True)
class Location:
    """Where the bytes of one content lie.

    Attributes:
        key: object in the store, a blob or a pack.
        offset: first byte of the content in that object; 0 for a blob.
    """

    key: str
    offset: int = 0


def current_epoch(now: float | None = None) -> int:
    """Return the number of the epoch at `now` (seconds since 1970, by default the present)."""
    return int((time.time() if now is None else now) // EPOCH_SECONDS)


def blob_key(epoch: int, sha256: str) -> str:
    """Return the key of a large file's content."""
    return f"code/{epoch}/blobs/{sha256}"


def pack_key(epoch: int, sha256: str) -> str:
    """Return the key of a pack, named by the digest of the whole pack."""
    return f"code/{epoch}/packs/{sha256}"


def release_key(epoch: int, release_id: str) -> str:
    """Return the key of a release's manifest."""
    return f"code/{epoch}/releases/{release_id}"


def epoch_of(key: str) -> int | None:
    """Return the epoch a code object was written in, or None when `key` is not the key of a code object."""
    parts = key.split("/")
    if len(parts) == 4 and parts[0] == "code" and parts[1].isdigit():
        return int(parts[1])
    return None
