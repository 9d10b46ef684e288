"""What of the code may go: objects that are three epochs old and that nothing reaches.

Nobody takes a lock for this, as every way to an object that could go is closed by then (docs/explanation/retention.md):
a build refers only to objects of its own epoch and the one before; a deployment is given only a release of these epochs
or one of its own history; and it is in the history before any server hears of it.
"""

from __future__ import annotations

import secrets
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from shipway.blob import current_epoch, epoch_of, release_key
from shipway.digest import is_sha256
from shipway.errors import ObjectNotFoundError, StoreError
from shipway.manifest import Manifest, Version, read_manifest
from shipway.store.base import ObjectInfo, Store
from shipway.store.probe import FOLDER

EPOCHS_KEPT = 3
"""Code objects of the present epoch and the ones before it, so many in all, stay whether anything reaches them or not.

A builder may still be at work that began in the epoch before and that refers to objects of the one before that."""

SKEW_SECONDS = 3600
"""Clocks that differ by more are wrong, and nothing is judged by a wrong clock."""

AT_ONCE = 16

_T = TypeVar("_T")
_R = TypeVar("_R")


def in_parallel(work: Callable[[_T], _R], items: Iterable[_T], *, threads: int = AT_ONCE) -> Iterator[_R]:
    """Yield `work(item)` for every item, in order; few items are taken ahead, however many there are."""
    waiting: deque[Future[_R]] = deque()
    with ThreadPoolExecutor(max_workers=threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= 2 * threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for job in waiting:
                job.cancel()


def store_time(store: Store, clock: Callable[[], float] = time.time) -> float:
    """Return the present by the store's clock, in seconds since 1970: when it says it wrote an object just written.

    Raises:
        StoreError: this machine's clock tells another time; one of the two is wrong.
    """
    key = f"{FOLDER}/{secrets.token_hex(8)}"
    try:
        store.create(key, b"clock")
        now = store.head(key).modified.timestamp()
    finally:
        store.delete(key)
    apart = clock() - now
    if abs(apart) > SKEW_SECONDS:
        which = "ahead of" if apart > 0 else "behind"
        raise StoreError(
            f"this machine's clock is {abs(apart) / 3600:.1f} hours {which} that of {store.address}",
            hint="set the one that is wrong; nothing was removed",
        )
    return now


class Reach:
    """The code objects that releases consist of, learnt release by release.

    Attributes:
        keys: manifests, packs and blobs of the releases added so far.
        missing: those of the releases whose manifest is not in the store.
    """

    def __init__(self, store: Store) -> None:
        self.keys: set[str] = set()
        self.missing: set[Version] = set()
        self._store = store
        self._known: set[Version] = set()

    def add(self, versions: Iterable[Version]) -> None:
        """Learn what releases consist of, reading the manifests not read before.

        Raises:
            IntegrityError: a manifest is damaged, so that nobody can say what it reaches.
        """
        new = set(versions) - self._known
        for version, manifest in in_parallel(partial(_read, self._store), new):
            self.keys.add(release_key(version.epoch, version.release_id))
            if manifest is None:
                self.missing.add(version)
            else:
                self.keys.update(where.key for where in manifest.contents.values())
        self._known |= new


def old_code(store: Store, epoch: int, kept: int = EPOCHS_KEPT) -> tuple[list[ObjectInfo], list[Version]]:
    """List the code objects old enough to go, and the releases that may need them though nobody uses these.

    An object is as old as its key says, or as the store says if that is younger: a builder whose clock was set back
    writes new objects under old epochs.

    Args:
        store: where to look.
        epoch: the present epoch.
        kept: how many epochs, the present one included, are spared.

    Returns:
        The objects, and the releases whose manifest is too young to go while some of their contents are not: where
        there is a manifest its contents are there too.
    """
    old: list[ObjectInfo] = []
    young: list[Version] = []
    for info in store.list("code/"):
        born = epoch_of(info.key)
        if born is None:
            continue
        if max(born, current_epoch(info.modified.timestamp())) <= epoch - kept:
            old.append(info)
        elif (version := version_at(info.key)) and born <= epoch - kept + 1:
            young.append(version)
    return old, young


def version_at(key: str) -> Version | None:
    """Return the release whose manifest lies under `key`, or None where that is no manifest's key."""
    epoch, parts = epoch_of(key), key.split("/")
    return Version(epoch, parts[3]) if epoch is not None and parts[2] == "releases" and is_sha256(parts[3]) else None


def _read(store: Store, version: Version) -> tuple[Version, Manifest | None]:
    try:
        return version, read_manifest(store, version)
    except ObjectNotFoundError:
        return version, None
