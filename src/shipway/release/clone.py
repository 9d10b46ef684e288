"""Copying a tree: files that share their blocks where the file system can, folders, links, and all of it at once."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from shipway.digest import CHUNK
from shipway.errors import IntegrityError
from shipway.manifest import LINK, MAX_LINK, Entry

Stamp = tuple[int, int, int, int]
"""Size, modification time (ns), change time (ns) and inode of a file: no write leaves all four as they were."""

READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
"""How a file is opened whose place somebody may have put a link or a pipe in."""

FICLONE = 0x40049409
"""Number of the request that makes a file share another one's blocks: `man 2 ioctl_ficlone`."""

RESERVED = 1024 * 1024
"""Bytes from which the room of a new file is taken at once; a smaller one is written in one call anyway."""

CREATE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW


def stamp(status: os.stat_result) -> Stamp:
    """Return what a file is told from a changed one by."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def copy_file(source: str, target: str, size: int, mode: int) -> tuple[Stamp, Stamp]:
    """Copy a file of `size` bytes to where there is none, with `mode` as far as the umask lets it.

    Returns:
        The stamps of source and target, both taken when the copy was complete.

    Raises:
        OSError: the source is no file, or the target cannot be written.
    """
    reader = os.open(source, READ)
    try:
        writer = os.open(target, CREATE, mode)
        try:
            _copy(reader, writer, size)
            return stamp(os.fstat(reader)), stamp(os.fstat(writer))
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def reserve(file: int, size: int) -> None:
    """Take the room of a new file that will have `size` bytes, where it is worth a call of its own.

    The writes that follow are a third cheaper then (ext4), the file is in one piece, and a full disk is known at once.

    Raises:
        OSError: there is no room.
    """
    if size >= RESERVED and hasattr(os, "posix_fallocate"):
        try:
            os.posix_fallocate(file, 0, size)
        except OSError as error:
            # Some file systems cannot, and need not.
            if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
                raise


def shares_blocks(source: Path, target: Path) -> bool:
    """Tell whether a copy from one folder to another takes no room and no time (reflink)."""
    if sys.platform != "linux":
        return False
    with (
        tempfile.NamedTemporaryFile(prefix=".", dir=source) as original,
        tempfile.NamedTemporaryFile(prefix=".", dir=target) as copy,
        suppress(OSError),
    ):
        original.write(b"whether these bytes can be in two files at once")
        original.flush()
        fcntl.ioctl(copy, FICLONE, original.fileno())
        return True
    return False


def verified(path: str, sha256: str, size: int) -> Stamp | None:
    """Return the stamp of a file that nobody may write to and that holds what it should, or None when it does not.

    Raises:
        FileNotFoundError: there is nothing of that name.
    """
    try:
        reader = os.open(path, READ)
    except FileNotFoundError:
        raise
    except OSError:
        return None
    try:
        status = os.fstat(reader)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return None
        if status.st_mode & 0o222:
            os.fchmod(reader, 0o444)
        before = stamp(os.fstat(reader))
        with open(reader, "rb", closefd=False) as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        return before if digest == sha256 and stamp(os.fstat(reader)) == before else None
    finally:
        os.close(reader)


def permissions(entry: Entry) -> int:
    """Return the mode a working copy of `entry` is made with."""
    return 0o755 if entry.mode == "100755" else 0o644


@contextmanager
def appearing(folder: Path) -> Iterator[Path]:
    """Give a folder to fill, which becomes `folder` when all went well and vanishes when it did not."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".checkout-", dir=folder.parent))
    try:
        yield scratch
        scratch.chmod(0o755)
        scratch.rename(folder)
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise


def check_room(folder: Path, wanted: int) -> None:
    """Make sure that `wanted` bytes fit on the disk of `folder`, before the first of them is written.

    A manifest of a few kilobytes may ask for terabytes: many files with one content.

    Raises:
        OSError: they do not fit.
    """
    free = shutil.disk_usage(folder).free
    if wanted > free:
        raise OSError(errno.ENOSPC, f"it takes {wanted:,} bytes, and {free:,} are free")


def make_folders(entries: Iterable[Entry], root: Path) -> None:
    """Make the folders that `entries` lie in."""
    for folder in {entry.path.rpartition("/")[0] for entry in entries}:
        (root / folder).mkdir(parents=True, exist_ok=True)


def make_links(entries: Iterable[Entry], root: Path) -> None:
    """Turn the files that hold the targets of links into links.

    This comes last: until every file is written there is no link that could lead a write out of the folder. Where they
    lead is judged when all are in place, as one may lead out only through another.

    Raises:
        IntegrityError: a link leads out of `root`, or nowhere.
    """
    links = [entry for entry in entries if entry.mode == LINK]
    for entry in links:
        path = root / entry.path
        target = path.read_bytes()
        if not target or b"\0" in target or len(target) >= MAX_LINK:
            raise IntegrityError(f"{entry.path} is a link that cannot be")
        path.unlink()
        path.symlink_to(os.fsdecode(target))
    real = root.resolve()
    for entry in links:
        path = root / entry.path
        try:
            # The kernel follows 40 at most; a longer chain is of no use, and would take long to follow by hand.
            path.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                raise IntegrityError(f"{entry.path} is a link in a loop, or through too many others") from None
        if path.readlink().is_absolute() or not Path(os.path.realpath(path)).is_relative_to(real):
            raise IntegrityError(f"{entry.path} is a link that leaves its release")


def write(file: int, data: bytes | memoryview) -> None:
    """Write all of `data`."""
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _copy(reader: int, writer: int, size: int) -> None:
    left = size
    if sys.platform == "linux":
        # On Btrfs, XFS and other file systems that can, this shares the blocks until one of the two files is written
        # to. What it cannot do (between two file systems, for one) is left to the loop below, as is telling why.
        with suppress(OSError):
            while left > 0 and (done := os.copy_file_range(reader, writer, left)):
                left -= done
    while left > 0 and (piece := os.read(reader, min(left, CHUNK))):
        left -= len(piece)
        write(writer, piece)
