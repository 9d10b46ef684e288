"""Small artifacts, read before they are asked for: who loads many of a run's, one by one, waits for few requests."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain, islice

from shipway.artifact import Artifact
from shipway.errors import StoreError
from shipway.release.retention import in_parallel
from shipway.run.references import run_of
from shipway.store.base import Store

SMALL = 64 << 10
"""Bytes of the largest artifact that is read ahead."""
MOST = 128
"""Artifacts read ahead and not asked for yet, at most: 8 MiB."""


class _Ahead:
    """What was read ahead of one run's. Safe among threads: at worst two of them read the same thing."""

    def __init__(self) -> None:
        self.asked: set[str] = set()
        self.held: dict[str, bytes] = {}

    def read(self, store: Store, artifact: Artifact, siblings: Iterable[Artifact]) -> bytes:
        self.asked.add(artifact.key)
        data = self.held.pop(artifact.key, None)
        if data is not None:
            return data
        # As many more as were asked for so far: who loads one thing reads one, who loads all waits a few times.
        room = min(len(self.asked) - 1, MOST) - len(self.held)
        more = list(islice(self._next(artifact, siblings), max(room, 0)))
        if not more:
            return store.read(artifact.key)
        first, *others = in_parallel(lambda key: _read(store, key), [artifact.key, *more])
        self.held.update((key, data) for key, data in zip(more, others, strict=True) if data is not None)
        # What could not be read is asked for by itself, so that the error is raised where it is wanted.
        return store.read(artifact.key) if first is None else first

    def _next(self, artifact: Artifact, siblings: Iterable[Artifact]) -> Iterable[str]:
        """Yield the keys of what may be asked for next: what stands behind `artifact`, then what stands before it."""
        keys = [item.key for item in siblings if item.bytes <= SMALL or item.key == artifact.key]
        at = keys.index(artifact.key) if artifact.key in keys else 0
        return (key for key in chain(keys[at:], keys[:at]) if key not in self.asked and key not in self.held)


_of_run: dict[tuple[Store, str], _Ahead] = {}


def read(store: Store, artifact: Artifact, siblings: Iterable[Artifact]) -> bytes:
    """Return the bytes that lie under a small artifact's key, unchecked.

    Args:
        store: where it lies.
        artifact: which one, of at most `SMALL` bytes.
        siblings: the artifacts of its run, in the order of the record.

    Raises:
        ObjectNotFoundError: there are none.
    """
    run = (store, run_of(artifact.key))
    found = _of_run.get(run)
    if found is None:
        # One run's at a time; a thread that loads from another one keeps what it has in hand.
        found = _Ahead()
        _of_run.clear()
        _of_run[run] = found
    return found.read(store, artifact, siblings)


def _read(store: Store, key: str) -> bytes | None:
    try:
        return store.read(key)
    except StoreError:
        return None
