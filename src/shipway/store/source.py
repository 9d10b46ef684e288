"""What is to be written: bytes, or a file that is read in pieces."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from shipway.digest import sha256_bytes, sha256_file
from shipway.errors import InputError, IntegrityError

Source = bytes | Path

PIECE = 4 << 20
"""Bytes handed over at a time."""


@contextmanager
def opened(data: Source) -> Iterator[BinaryIO]:
    """Open what is to be written.

    Raises:
        InputError: the file cannot be opened. What goes wrong while it is open is not touched.
    """
    try:
        file: BinaryIO = BytesIO(data) if isinstance(data, bytes) else data.open("rb")
    except OSError as error:
        raise _unreadable(data, error) from error
    with file:
        yield file


def pieces(data: Source | Iterator[bytes]) -> Iterator[bytes]:
    """Yield what is to be written in pieces."""
    if not isinstance(data, bytes | Path):
        yield from data
        return
    with opened(data) as file:
        while piece := file.read(PIECE):
            yield piece


def checked(data: Source | Iterator[bytes], sha256: str | None) -> Iterator[bytes]:
    """Yield what is to be written in pieces, and fail after the last if it was not what it should be.

    Args:
        data: what is to be written.
        sha256: its digest, or None where nobody knows it.

    Raises:
        IntegrityError: the bytes have another digest.
    """
    if sha256 is None:
        yield from pieces(data)
        return
    seen = hashlib.sha256()
    for piece in pieces(data):
        seen.update(piece)
        yield piece
    if seen.hexdigest() != sha256:
        raise IntegrityError(f"{data if isinstance(data, Path) else 'what was to be written'} is not what it was")


def size(data: Source) -> int:
    """Return the number of bytes to be written.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return len(data) if isinstance(data, bytes) else data.stat().st_size
    except OSError as error:
        raise _unreadable(data, error) from error


def digest(data: Source) -> str:
    """Return the sha256 of what is to be written.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        return sha256_bytes(data) if isinstance(data, bytes) else sha256_file(data)[0]
    except OSError as error:
        raise _unreadable(data, error) from error


def _unreadable(data: object, error: OSError) -> InputError:
    return InputError(f"{data} cannot be read: {error.strerror or error}")
