"""What a machine does to those who work on it: a disk that is full, no descriptors left, a clock that jumps."""

from __future__ import annotations

import errno
import os
import random
import resource
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from unittest import mock

DISK_BYTES = 128 << 20
DAY = 86_400.0


@contextmanager
def small_disk(folder: Path, size: int = DISK_BYTES) -> Iterator[Path]:
    """Give a folder on a disk of its own, of so many bytes.

    Raises:
        PermissionError: this user may mount none.
    """
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=False).returncode:
        raise PermissionError("a small disk can be mounted by root only")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def full(folder: Path, dice: random.Random) -> Iterator[None]:
    """Fill the disk of a folder up, but for a little."""
    left = dice.choice([0, 4096, 100_000, 1 << 20, 8 << 20])
    filler = folder / "filler"
    try:
        with filler.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(os.statvfs(folder).f_bavail * 4096 - left, 1))
        yield
    finally:
        filler.unlink()


@contextmanager
def few_descriptors(_folder: Path, dice: random.Random) -> Iterator[None]:
    """Let this process open a few more files, or none."""
    before, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(path.name) for path in Path("/proc/self/fd").iterdir()}
    free, left = 0, dice.choice([0, 1, 2, 4, 8, 16])
    # A new one gets the lowest number that is free; what is open above the limit stays open.
    limit = next(number for number in range(before) if (free := free + (number not in taken)) > left)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (before, most))


@contextmanager
def other_time(_folder: Path, dice: random.Random) -> Iterator[None]:
    """Set the clock, as this process's Python sees it, forward or back, and once more while something is done."""
    now = time.time
    shifts = [dice.choice([-1, 1]) * dice.choice([60.0, 3600.0, DAY, 400 * DAY]) for _ in range(2)]
    asked = 0

    def shifted() -> float:
        nonlocal asked
        asked += 1
        return now() + shifts[asked > dice.randrange(1, 20)]

    def shifted_ns() -> int:
        return int(shifted() * 1e9)

    with mock.patch("time.time", shifted), mock.patch("time.time_ns", shifted_ns):
        yield


@contextmanager
def little_memory(limit: int) -> Iterator[Path]:
    """Give the file that takes the ids of processes which may have so many bytes, of what they ask for from then on.

    Raises:
        PermissionError: this user may not make such a group, or the kernel has none.
    """
    root, old = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
    group = (old if old.is_dir() else root) / f"shipway-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        raise PermissionError("groups of little memory can be made by root only, outside containers") from error
    try:
        most = group / ("memory.limit_in_bytes" if old.is_dir() else "memory.max")
        if not most.exists():
            raise PermissionError("this machine's groups do not count memory")
        most.write_text(str(limit))
        yield group / "cgroup.procs"
    finally:
        group.rmdir()


OWN_WORDS = (errno.ENOSPC, errno.EMFILE)
"""What the system itself says of it; whoever calls a function hears that, a command says it in one line."""

HARDSHIPS: dict[str, Callable[[Path, random.Random], AbstractContextManager[None]]] = {
    "full disk": full,
    "few descriptors": few_descriptors,
    "clock jumps": other_time,
}
