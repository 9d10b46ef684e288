"""Folders of code to release: many small files, or a few large ones, of contents that do not repeat."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path

IN_ONE = 50
"""Files in each folder below the top."""

SETTLED_SECONDS = 3.0
"""Age from which neither an index nor a clock of whole seconds takes a file for one written just now."""


@dataclass(frozen=True)
class Kind:
    """What a folder holds.

    Attributes:
        name: what the tables call it.
        files: how many files.
        size: bytes of each.
    """

    name: str
    files: int
    size: int

    @property
    def slug(self) -> str:
        """The kind as part of a path."""
        return f"{self.files}-files"

    @property
    def total(self) -> int:
        """Bytes of all files."""
        return self.files * self.size


TEN = Kind("10 files, 0.1 MB", 10, 10_000)
THOUSAND = Kind("1,000 files, 10 MB", 1_000, 10_000)
FIVE_THOUSAND = Kind("5,000 files, 50 MB", 5_000, 10_000)
GIGABYTE = Kind("20 files, 1 GB", 20, 50_000_000)
KINDS = (TEN, THOUSAND, FIVE_THOUSAND, GIGABYTE)


def make(kind: Kind, folder: Path) -> None:
    """Fill `folder`; the same kind has the same contents on every machine."""
    contents = random.Random(kind.name)
    for number in range(kind.files):
        path = path_of(folder, number)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents.randbytes(kind.size))


def change_one(kind: Kind, folder: Path) -> None:
    """Give one file another content of the same size, and wait until the change has settled."""
    path = path_of(folder, kind.files // 2)
    path.write_bytes(random.randbytes(kind.size))
    time.sleep(SETTLED_SECONDS)


def check_copy(folder: Path, copy: Path) -> None:
    """See to it that a checkout brought all files of `folder`; what else it brought is its own affair.

    Raises:
        RuntimeError: a file is missing or another.
    """
    for path in folder.rglob("*"):
        found = copy / path.relative_to(folder)
        if path.is_file() and not (found.is_file() and found.read_bytes() == path.read_bytes()):
            raise RuntimeError(f"{found} is not what {path} is")


def path_of(folder: Path, number: int) -> Path:
    """Return where a folder has its file of that number."""
    return folder / f"part_{number // IN_ONE:03}" / f"module_{number:05}.py"
