"""The folder on this machine in which a worker and its runs work, and what is left of the folders of dead workers."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO

PREFIX = "shipway-worker-"
LOCK = "lock"


class Scratch:
    """A private folder that is locked as long as its worker or one of its templates lives.

    Attributes:
        folder: the folder.
        lock: descriptor that holds the lock, for whoever is to hold it too.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._file: IO[bytes] = (self.folder / LOCK).open("wb")
        fcntl.flock(self._file, fcntl.LOCK_EX)
        self.lock = self._file.fileno()

    def __enter__(self) -> Scratch:
        return self

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._file.close()


def sweep() -> None:
    """Remove the folders of workers of this user that were killed, once their runs have ended too."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
                continue
            with (folder / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
