"""Keeping a machine's cache of releases under a size; `shipway.release.cache` says what lies where in it."""

from __future__ import annotations

import fcntl
import os
import shutil
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from shipway.manifest import read_tree
from shipway.release.clone import READ


def trim(cache: Path, limit: int) -> None:
    """Remove the releases used least recently, and what none refers to, until the rest has at most `limit` bytes.

    What is in use stays. Nothing is waited for, and nothing raised: what could not be done, the next call does.
    """
    with suppress(OSError), (cache / "locks/trim").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        _sweep(cache)
        sizes = {item.name: item.stat(follow_symlinks=False).st_size for item in list(os.scandir(cache / "files"))}
        total = sum(sizes.values())
        if total <= limit:
            return
        trees = {path.name: _contents(path) for path in by_use(cache)}
        users = Counter(sha256 for contents in trees.values() for sha256 in contents)
        unused = sizes.keys() - users.keys()
        for release_id, contents in [("", unused), *trees.items()]:
            if release_id and not _forget(cache, release_id):
                continue
            users.subtract(contents)
            for name in contents & sizes.keys():
                if users[name] <= 0:
                    discard(cache / "files" / name)
                    total -= sizes[name]
            if total <= limit:
                break


def by_use(cache: Path) -> list[Path]:
    """Return the files of the releases, that used longest ago first."""
    found = {}
    for item in list(os.scandir(cache / "releases")):
        with suppress(FileNotFoundError):
            found[Path(item.path)] = item.stat(follow_symlinks=False).st_mtime_ns
    # A time in the future is of a clock that was set back since: it says nothing, and would keep its release for ever.
    now = time.time_ns()
    return sorted(found, key=lambda path: found[path] if found[path] <= now else 0)


@contextmanager
def filling(cache: Path, release_id: str, how: int = 0) -> Iterator[None]:
    """Hold the lock of those who fill a release; `how` may say not to wait for it."""
    # Few files for any number of releases; they are never removed, for a lock on a removed file guards nothing.
    with (cache / "locks" / release_id[:2]).open("wb") as file:
        fcntl.flock(file, fcntl.LOCK_EX | how)
        yield


def opened(path: Path) -> IO[bytes]:
    """Open a file of the cache to read it, whatever somebody may have put there."""
    return open(path, "rb", opener=lambda name, _flags: os.open(name, READ))


def discard(path: Path) -> None:
    """Remove a file or a folder, or nothing."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _contents(path: Path) -> set[str]:
    try:
        with opened(path) as file:
            return {entry.sha256 for entry in read_tree(file.read())}
    except (OSError, ValueError, TypeError, LookupError, RecursionError):
        return set()


def _forget(cache: Path, release_id: str) -> bool:
    """Remove a release that is not in use; tell whether it is gone."""
    path = cache / "releases" / release_id
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            path.unlink()
    except BlockingIOError:
        return False
    (cache / "stamps" / release_id).unlink(missing_ok=True)
    return True


def _sweep(cache: Path) -> None:
    """Remove what fills that were killed left."""
    for item in list(os.scandir(cache / "tmp")):
        with suppress(BlockingIOError), filling(cache, item.name, fcntl.LOCK_NB):
            discard(Path(item.path))
