"""Reading on where an answer broke off: an object piece by piece, and a list of objects page by page."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store


class Reading:
    """An object's bytes, piece by piece, that go on where they were when a piece did not come."""

    def __init__(self, store: S3Store, path: str, start: int, length: int | None) -> None:
        self._store = store
        self._path = path
        self._pieces: Iterator[Any] | None = None
        self._tag: str | None = None
        self._at = start
        self._end = None if length is None else start + length

    def piece(self) -> bytes:
        """Return the next piece, none at the end."""
        if self._pieces is None:
            if self._at == self._end:
                return b""
            options: Any = {}
            if self._at or self._end is not None:
                options["range"] = {"offset": self._at} if self._end is None else (self._at, self._end)
            if self._tag:
                # The rest of this very object, not of one that has taken its place.
                options["if_match"] = self._tag
            answer = obstore.get(self._store, self._path, options=options)
            self._tag, self._end = answer.meta["e_tag"], answer.range[1]
            self._pieces = iter(answer.stream(min_chunk_size=1 << 18))
        try:
            piece = next(self._pieces, b"")
        except (BaseError, OSError):
            self._pieces = None
            raise
        self._at += len(piece)
        return piece


class Listing:
    """A list of objects, page by page, that goes on where it was when a page did not come."""

    def __init__(self, store: S3Store, path: str | None) -> None:
        self._store = store
        self._path = path
        self._pages: Iterator[Sequence[Any]] | None = None
        self._last: str | None = None

    def page(self) -> Sequence[Any]:
        """Return the next page, an empty one at the end."""
        if self._pages is None:
            self._pages = obstore.list(self._store, self._path, offset=self._last)
        try:
            page = next(self._pages, ())
        except (BaseError, OSError):
            self._pages = None
            raise
        if page:
            self._last = max(str(meta["path"]) for meta in page)
        return page
