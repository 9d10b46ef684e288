"""The folder on this machine in which a worker and its runs work, and what is left of the folders of dead workers."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO
from uuid import UUID

PREFIX = "shipway-worker-"
LOCK = "lock"
CLAIM = "claim-"
"""What the names of files begin with that say which runs the worker has."""
MAX_CLAIM = 64
"""Bytes that are read of such a file, which holds an id."""
ENDING = "ending"
"""File that is there while the worker lets its runs finish, as it was asked to end."""
VARIABLE = "SHIPWAY__SCRATCH"
"""Tells a run's process where the folder of its worker is."""


class Scratch:
    """A private folder that is locked as long as its worker, one of its templates or one of its runs lives.

    Attributes:
        folder: the folder.
        lock: descriptor that holds the lock, for whoever is to hold it too.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix=PREFIX))
        self._file: IO[bytes] = (self.folder / LOCK).open("wb")
        fcntl.flock(self._file, fcntl.LOCK_SH)
        self.lock = self._file.fileno()

    def __enter__(self) -> Scratch:
        return self

    def note_claim(self, run: str, state: str) -> None:
        """Note that the worker has a run, and by which state it claimed it, for whoever finds the folder."""
        (self.folder / f"{CLAIM}{run}").write_text(state)

    def forget_claim(self, run: str) -> None:
        """Note that a run has ended; nothing where it was not claimed."""
        (self.folder / f"{CLAIM}{run}").unlink(missing_ok=True)

    def __exit__(self, *_exc: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        self._file.close()


def hold() -> None:
    """Keep the worker's folder for this process, a run's: it may outlive its worker and their template for a while."""
    with suppress(OSError, KeyError):
        # As long as the process, and those that it forks: nothing closes it.
        fcntl.flock(os.open(Path(os.environ[VARIABLE]) / LOCK, os.O_RDONLY), fcntl.LOCK_SH)


def is_ending() -> bool:
    """Tell a run's process whether its worker was asked to end."""
    return VARIABLE in os.environ and (Path(os.environ[VARIABLE]) / ENDING).exists()


def sweep() -> dict[str, str]:
    """Remove the folders of workers of this user that were killed, once the processes of their runs have ended too.

    Returns:
        The runs that they had, by id, each with the id of the state by which it was claimed.
    """
    left: dict[str, str] = {}
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with suppress(OSError):
            if folder.lstat().st_uid != os.getuid() or folder.is_symlink():
                continue
            with (folder / LOCK).open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                left |= dict(_claims(folder))
                shutil.rmtree(folder, ignore_errors=True)
    return left


def _claims(folder: Path) -> Iterator[tuple[str, str]]:
    """Yield the runs that the worker of a folder had, each with the state by which it was claimed."""
    for path in folder.glob(f"{CLAIM}*"):
        # One that was being written when the machine stopped says nothing: its run is missed by its silence.
        with suppress(ValueError, OSError):
            with path.open("rb") as file:
                state = UUID(file.read(MAX_CLAIM).decode())
            yield str(UUID(path.name.removeprefix(CLAIM))), str(state)
