"""A file that is read from its beginning while somebody writes it: it can be sent, and hashed, before it is whole."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from pathlib import Path

PIECE = 4 << 20
LOOK_SECONDS = 0.02


class Growing:
    """A file that is only added to, until `end` is called.

    Args:
        path: the file, which may not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ended = threading.Event()
        self._whole = False

    def size(self) -> int:
        """Return how many bytes there are by now."""
        try:
            return self.path.stat().st_size
        except FileNotFoundError:
            return 0

    def end(self, *, whole: bool) -> None:
        """Say that nothing more will be written, and whether the file is as it was to be."""
        self._whole = whole
        self._ended.set()

    def reaches(self, size: int) -> bool:
        """Wait until there are so many bytes, or the end; tell whether there are.

        Raises:
            GivenUpError: it was not written to its end.
        """
        while not self._ended.wait(LOOK_SECONDS):
            if self.size() >= size:
                return True
        if not self._whole:
            raise GivenUpError
        return self.size() >= size

    def pieces(self) -> Iterator[bytes]:
        """Yield the file in pieces, as they come to be.

        Raises:
            GivenUpError: it was not written to its end.
        """
        while not self.path.exists() and not self._ended.wait(LOOK_SECONDS):
            pass
        try:
            file = self.path.open("rb")
        except FileNotFoundError:
            # What was given up is removed, be it before anybody had begun with it.
            if self._ended.is_set() and not self._whole:
                raise GivenUpError from None
            raise
        with file:
            while True:
                ended = self._ended.is_set()  # before the look: what is written in between is seen
                while piece := file.read(PIECE):
                    yield piece
                if ended:
                    break
                self._ended.wait(LOOK_SECONDS)
        if not self._whole:
            raise GivenUpError

    def digest(self) -> tuple[str, int]:
        """Hash the file while it grows; return its sha256 and its size in bytes when it is whole.

        Raises:
            GivenUpError: it was not written to its end.
        """
        seen, size = hashlib.sha256(), 0
        for piece in self.pieces():
            seen.update(piece)
            size += len(piece)
        return seen.hexdigest(), size


class GivenUpError(Exception):
    """The file was not written to its end."""
