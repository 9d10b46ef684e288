"""A store that counts what is asked of it, so that commands can say how many requests they made."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

from shipway.store.base import ObjectInfo, Store


class CountingStore:
    """Another store, with a count of the calls that go to it.

    A call is one request, but for large files sent in parts and for long listings.

    Attributes:
        requests: how many calls there were so far.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self.requests = 0

    @property
    def address(self) -> str:
        """See `Store.address`."""
        return self._store.address

    def url(self, key: str) -> str:
        """See `Store.url`."""
        return self._store.url(key)

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """See `Store.read`."""
        return self._counted().read(key, start=start, length=length)

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """See `Store.read_tagged`."""
        return self._counted().read_tagged(key)

    def read_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """See `Store.read_changed`."""
        return self._counted().read_changed(key, etag)

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """See `Store.stream`."""
        return self._counted().stream(key, start=start, length=length)

    def head(self, key: str) -> ObjectInfo:
        """See `Store.head`."""
        return self._counted().head(key)

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        """See `Store.put`."""
        return self._counted().put(key, data)

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        """See `Store.create`."""
        return self._counted().create(key, data, sha256=sha256)

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        """See `Store.replace`."""
        return self._counted().replace(key, data, etag=etag)

    def delete(self, key: str) -> None:
        """See `Store.delete`."""
        self._counted().delete(key)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """See `Store.list`."""
        return self._counted().list(prefix)

    def _counted(self) -> Store:
        with self._lock:
            self.requests += 1
        return self._store
