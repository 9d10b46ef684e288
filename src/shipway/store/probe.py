"""Whether a store can do what Shipway needs."""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass

from shipway.errors import ConflictError, ObjectExistsError, ShipwayError, StoreError, UnsupportedStoreError
from shipway.store.base import Store
from shipway.store.words import CAPABLE

FOLDER = ".shipway-probe"


@dataclass(frozen=True, slots=True)
class ProbeReport:
    """What was tried and how long it took.

    Attributes:
        address: the store.
        steps: each thing tried, in order, with its seconds; all of them worked.
    """

    address: str
    steps: tuple[tuple[str, float], ...]

    @property
    def seconds(self) -> float:
        """How long everything took."""
        return sum(seconds for _, seconds in self.steps)


def probe(store: Store) -> ProbeReport:
    """Write, read, list and remove one small object, with and against conditions.

    The object is removed again whatever happens.

    Raises:
        UnsupportedStoreError: the store takes conditional writes and ignores the condition, or does not know them.
        StoreError: another step failed; the error says what is wrong with the store, its address or its credentials.
    """
    key = f"{FOLDER}/{secrets.token_hex(8)}"
    try:
        steps = _steps(store, key)
    except BaseException:
        _clean_up(store, key)
        raise
    return ProbeReport(store.address, steps)


def _steps(store: Store, key: str) -> tuple[tuple[str, float], ...]:
    steps: list[tuple[str, float]] = []
    since = time.monotonic()

    def done(step: str) -> None:
        nonlocal since
        now = time.monotonic()
        steps.append((step, now - since))
        since = now

    # Three contents, because a write that finds its own bytes there already counts as done.
    first, second, third = (secrets.token_bytes(16) for _ in range(3))
    etag = store.put(key, first)
    done("write")
    _expect(store, key, first)
    done("read")
    try:
        store.create(key, second)
    except ObjectExistsError:
        _expect(store, key, first)
    else:
        raise _ignored(store, "If-None-Match")
    done("conditional create")
    changed = store.replace(key, second, etag=etag)
    _expect(store, key, second)
    try:
        store.replace(key, third, etag=etag)
    except ConflictError:
        _expect(store, key, second)
    else:
        raise _ignored(store, "If-Match")
    if changed == etag:
        raise UnsupportedStoreError(f"{store.address} does not change an object's ETag with its content")
    done("conditional replace")
    if key not in {info.key for info in store.list(f"{FOLDER}/")}:
        raise StoreError(f"{store.address} does not list an object that was just written")
    done("list")
    store.delete(key)
    done("delete")
    return tuple(steps)


def _expect(store: Store, key: str, content: bytes) -> None:
    if store.read(key) != content:
        raise StoreError(f"{store.address} does not give back what was just written")


def _ignored(store: Store, condition: str) -> UnsupportedStoreError:
    return UnsupportedStoreError(
        f"{store.address} ignores the condition of a conditional write ({condition})",
        hint=f"use a store that has them: {CAPABLE}",
    )


def _clean_up(store: Store, key: str) -> None:
    try:
        store.delete(key)
    except ShipwayError:
        return  # the first error is the one to be told
