"""Capture: what a run left in its working folder, found by comparing with what was there when it began."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pathspec

from shipway.artifact import check_name
from shipway.errors import InputError
from shipway.release.scan import NEVER, SECRET

Stamp = tuple[int, int, int, int]
"""Size, modification time (ns), change time (ns) and inode of a file."""


@dataclass(frozen=True, slots=True)
class Captured:
    """What was found.

    Attributes:
        paths: new and changed files, relative to the folder, sorted.
        left_out: what was not taken, each with the reason.
    """

    paths: tuple[str, ...]
    left_out: tuple[str, ...]


def snapshot(folder: Path) -> dict[str, Stamp]:
    """Return the stamp of every file in `folder`, by path."""
    return dict(_walk(folder))


def changed(folder: Path, before: Mapping[str, Stamp], *, max_bytes: int, max_files: int) -> Captured:
    """Find the files that are new or changed since `before`.

    Args:
        folder: the working folder.
        before: what `snapshot` returned when the run began.
        max_bytes: most bytes taken in all.
        max_files: most files taken.
    """
    caches, secrets = patterns()
    paths: list[str] = []
    left_out: list[str] = []
    room = max_bytes
    for path, stamp in sorted(_walk(folder)):
        if before.get(path) == stamp or caches.match_file(path):
            continue
        if secrets.match_file(path):
            left_out.append(f"{path}: it looks like a secret")
        elif len(paths) >= max_files:
            left_out.append(f"{path}: over the limit of {max_files} files (capture_max_files)")
        elif stamp[0] > room:
            left_out.append(f"{path}: over the limit of {max_bytes} bytes in all (capture_max_bytes)")
        elif reason := _unnameable(path):
            left_out.append(f"{path!r}: {reason}")
        else:
            paths.append(path)
            room -= stamp[0]
    return Captured(tuple(paths), tuple(left_out))


@cache
def patterns() -> tuple[pathspec.GitIgnoreSpec, pathspec.GitIgnoreSpec]:
    """Return what is never captured, and what is left out because it looks like a secret."""
    return pathspec.GitIgnoreSpec.from_lines(NEVER), pathspec.GitIgnoreSpec.from_lines(SECRET)


def _walk(folder: Path) -> list[tuple[str, Stamp]]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in ("__pycache__", ".git", ".venv", "node_modules")]
        for name in names:
            path = Path(root) / name
            # Links are left alone: what they point to is either captured itself or is not the run's.
            if path.is_file() and not path.is_symlink():
                status = path.stat()
                stamp = (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
                found.append((path.relative_to(folder).as_posix(), stamp))
    return found


def _unnameable(path: str) -> str | None:
    try:
        check_name(path)
    except InputError as error:
        return error.message
    return None
