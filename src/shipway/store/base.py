"""What a store is: immutable and conditional writes of whole objects under slash-separated keys."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Protocol, runtime_checkable


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """What a store knows of an object without reading it.

    Attributes:
        key: key below the store's prefix, segments separated by `/`.
        size: length in bytes.
        etag: opaque version of the content, to be given to `Store.replace`.
        modified: when the object was last written, in UTC.
    """

    key: str
    size: int
    etag: str
    modified: datetime


@runtime_checkable
class Store(Protocol):
    """A bucket or folder, and a prefix in it.

    All calls block; callers run several at once from a thread pool (16 threads for small objects, 8 for large ones).
    A write that raised has written nothing a reader can see. Keys are relative, normalised, without `..`.

    Raises (all calls): StoreUnreachableError, AccessDeniedError, BucketNotFoundError, or another StoreError; InputError
    for a key that cannot be.
    """

    @property
    def address(self) -> str:
        """Where the store is, as a URL without secrets: `s3://bucket/prefix` or `file:///folder`."""

    def url(self, key: str) -> str:
        """Return the address of one object, as a URL without secrets."""

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes, or `length` of them from `start`; a range over the end is cut, as a slice is.

        Raises:
            ObjectNotFoundError: there is no such object.
        """

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """Return an object's bytes and the ETag they had.

        Raises:
            ObjectNotFoundError: there is no such object.
        """

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes, or `length` of them from `start`, in pieces, memory bounded; cut as by `read`.

        Raises:
            ObjectNotFoundError: there is no such object.
        """

    def read_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and ETag, or None when its ETag is still `etag`: one request, without a body then.

        Raises:
            ObjectNotFoundError: there is no such object.
        """

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object without reading it.

        Raises:
            ObjectNotFoundError: there is no such object.
        """

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        """Write an object, replacing what was there; a path is streamed, memory bounded.

        An iterator yields the content in pieces, whose number and sizes nobody knows before. If it raises, nothing was
        written and its exception comes out here.

        Returns:
            The object's ETag.
        """

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        """Write an object that must not exist yet, atomically.

        Finding exactly these bytes there is success: they may be this writer's own, whose answer was lost. Writers that
        must exclude each other put a nonce into what they write.

        Args:
            key: where to.
            data: what to write; a path is streamed, memory bounded.
            sha256: the digest the bytes must have, for a key that names them by it. They are checked on their way, and
                an object of the same size that is there already is believed to be the same.

        Returns:
            The object's ETag.

        Raises:
            ObjectExistsError: the object exists; it is unchanged.
            IntegrityError: the bytes have another digest; nothing was written.
        """

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        """Write an object only if its ETag is still `etag` (compare-and-swap); finding exactly `data` is success.

        Returns:
            The object's new ETag.

        Raises:
            ConflictError: the object changed or vanished meanwhile; it is as the other writer left it.
            UnsupportedStoreError: the store ignores conditional writes.
        """

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error."""

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix` (a folder when it ends with `/`), in no fixed order."""
