"""Which files of its release a run reads, whoever does it: Python, a library written in another language, a child.

On Linux the kernel tells (inotify(7)): folders are watched, not files, and what it has told is looked at at the end.
Elsewhere Python tells what it opens itself.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from shipway.run.capture import Stamp

# linux/inotify.h
OPEN, CLOSE_WRITE, CLOSE_NOWRITE = 0x20, 0x08, 0x10
MOVED_TO, CREATE, DELETE = 0x80, 0x100, 0x200
CHANGES = CLOSE_WRITE | MOVED_TO | CREATE | DELETE
OVERFLOW, ONLYDIR = 0x4000, 0x01000000

_HEADER = struct.Struct("iIII")
_BUFFER = 1 << 20


class Reads(Protocol):
    """What watches a folder."""

    def found(self) -> tuple[set[str], str | None]:
        """Return the files that were read so far, by their path, and why some may be missing, or None."""

    def close(self) -> None:
        """Stop."""


def watch(folder: Path, before: Mapping[str, Stamp]) -> Reads:
    """Begin to notice which of a folder's files are read.

    A file that was changed counts if it was read before that: afterwards it is the run's own. One that was opened, and
    at the end is as it was before, was read.

    Args:
        folder: where they are.
        before: its files with their stamps; no other ones count.
    """
    return _Kernel(folder, before) if sys.platform == "linux" else _Python(folder, before)


class _Kernel:
    """A queue of what happened, kept by the kernel.

    No events of single reads are asked for: two files read in turns would fill the queue with them. Opening and closing
    a file are two events, and 16,384 fit in by default.
    """

    def __init__(self, folder: Path, before: Mapping[str, Stamp]) -> None:
        self._folder = folder
        self._before = before
        self._gap: str | None = None
        self._watched: dict[int, str] = {}
        self._opened: set[str] = set()
        self._read: set[str] = set()
        self._changed: set[str] = set()
        libc = ctypes.CDLL(None, use_errno=True)
        self._queue = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._queue < 0:
            self._gap = f"the system watches no more folders: {_last_error()}"
            return
        for path in sorted({path.rpartition("/")[0] for path in before}):
            number = libc.inotify_add_watch(
                self._queue, os.fsencode(folder / path), OPEN | CLOSE_NOWRITE | CHANGES | ONLYDIR
            )
            if number < 0:
                self._gap = f"the folder {path or '.'} could not be watched: {_last_error()}"
                if ctypes.get_errno() == errno.ENOSPC:
                    break
            else:
                self._watched[number] = f"{path}/" if path else ""

    def found(self) -> tuple[set[str], str | None]:
        for number, mask, name in self._events():
            if mask & OVERFLOW:
                self._gap = "more files were opened than the system keeps in mind (fs.inotify.max_queued_events)"
                continue
            path = self._watched.get(number, "") + name
            if path not in self._before:
                continue
            if mask & CHANGES:
                self._changed.add(path)
            elif path not in self._changed:
                (self._read if mask & CLOSE_NOWRITE else self._opened).add(path)
        # Still open, perhaps mapped into memory, or opened for reading and writing: read, unless it was changed.
        rest = (self._opened | self._changed) - self._read
        return self._read | {path for path in rest if _stamp(self._folder / path) == self._before[path]}, self._gap

    def close(self) -> None:
        if self._queue >= 0:
            os.close(self._queue)
            self._queue = -1

    def _events(self) -> Iterator[tuple[int, int, str]]:
        with contextlib.suppress(BlockingIOError):
            while self._queue >= 0:
                data = os.read(self._queue, _BUFFER)
                place = 0
                while place < len(data):
                    number, mask, _, length = _HEADER.unpack_from(data, place)
                    place += _HEADER.size + length
                    yield number, mask, os.fsdecode(data[place - length : place].rstrip(b"\0"))


class _Python:
    """What this process itself opens, as Python's audit events tell."""

    def __init__(self, folder: Path, before: Mapping[str, Stamp]) -> None:
        self._root = f"{os.path.realpath(folder)}/"
        self._before = before
        self._read: set[str] = set()
        self._closed = False
        self._changed: set[str] = set()
        sys.addaudithook(self._hear)

    def _hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        # A hook stays for good, and what it raises stops whoever opens a file.
        if event != "open" or self._closed or not isinstance(arguments[0], str):
            return
        path = os.path.realpath(arguments[0]).removeprefix(self._root)
        if path not in self._before or path in self._changed:
            return
        flags = arguments[2] if isinstance(arguments[2], int) else 0
        (self._read if flags & os.O_ACCMODE == os.O_RDONLY else self._changed).add(path)

    def found(self) -> tuple[set[str], str | None]:
        return set(self._read), "on this system only what Python itself opened is known"

    def close(self) -> None:
        self._closed = True


def _stamp(path: Path) -> Stamp | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def _last_error() -> str:
    return os.strerror(ctypes.get_errno())


def with_digests(paths: Collection[str], digests: Mapping[str, str]) -> list[dict[str, str]]:
    """Return what a record says of files that were read: of each its path and its digest in the release."""
    return [{"path": path, "sha256": digests[path]} for path in sorted(paths) if path in digests]
