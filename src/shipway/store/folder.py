"""A store in a folder of this machine."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import secrets
import stat
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from io import BufferedRandom, BufferedReader
from pathlib import Path

from shipway.digest import CHUNK, sha256_bytes
from shipway.errors import (
    AccessDeniedError,
    ConflictError,
    InputError,
    ObjectExistsError,
    ObjectNotFoundError,
    StoreError,
    UnsupportedStoreError,
)
from shipway.store import source
from shipway.store.base import ObjectInfo
from shipway.store.url import check_key

PRIVATE = ".shipway-store"
"""Folder, beside the objects, of half-written files and locks. It is on the same file system, so renames are atomic."""
HASHED = 1 << 20
"""Bytes up to which an object's ETag is the digest of its content."""

_LOCKS = 64
_PATIENCE = 100
_FORGOTTEN_SECONDS = 86_400
_LAST_TIME = datetime(9999, 1, 1, tzinfo=UTC).timestamp()
_WORDS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ENOTDIR: "an object has the name of a folder on the way",
    errno.EISDIR: "a folder has this name",
    errno.ELOOP: "it is a link",
}
_DENIED = {errno.EACCES, errno.EPERM, errno.EROFS}


class FolderStore:
    """A folder whose files are the objects. Safe to share between threads and processes of one machine.

    Every write goes to a file in the private folder first, is flushed to the disk, and then gets its name in one step;
    a crash leaves at most a file there, which a later writer removes. Links below the folder are never followed.
    """

    def __init__(self, path: Path) -> None:
        """Take the folder at `path`; it is created by the first write."""
        self._root = path.expanduser().resolve()
        self._private = self._root / PRIVATE
        self._swept = False

    @property
    def address(self) -> str:
        """Where the store is, as a URL."""
        return self._root.as_uri()

    def url(self, key: str) -> str:
        """Return the address of one object, as a URL."""
        return self._path(key).as_uri()

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        """Return an object's bytes, or `length` of them from `start`; fewer, or none, where it ends before."""
        if start < 0 or (length is not None and length < 0):
            raise InputError(f"a range of {key!r} cannot start at {start} with length {length}")
        with self._translated(key), self._open(key) as file:
            file.seek(start)
            return file.read(-1 if length is None else length)

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        """Return an object's bytes and the ETag they had."""
        # Both come from one open file, which stays what it was when another takes its name.
        with self._translated(key), self._open(key) as file:
            data = file.read()
            return data, _etag(file)

    def read_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        """Return an object's bytes and ETag, or None when its ETag is still `etag`."""
        found = self.read_tagged(key)
        return None if found[1] == etag else found

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        """Yield an object's bytes in pieces, memory bounded."""
        with self._translated(key), self._open(key) as file:
            file.seek(start)
            left = sys.maxsize if length is None else length
            while piece := file.read(min(left, CHUNK)):
                left -= len(piece)
                yield piece

    def head(self, key: str) -> ObjectInfo:
        """Return what is known of an object."""
        with self._translated(key), self._open(key) as file:
            found = os.fstat(file.fileno())
            # Some file systems keep times that are in no year of ours.
            modified = datetime.fromtimestamp(max(0, min(found.st_mtime, _LAST_TIME)), UTC)
            return ObjectInfo(key=key, size=found.st_size, etag=_etag(file), modified=modified)

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        """Write an object, replacing what was there."""
        with self._translated(key), self._written(data) as (temporary, etag), self._locked(key):
            self._named(key, temporary.replace)
            return etag

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        """Write an object that must not exist yet, atomically; one with the same bytes already counts as written."""
        with self._translated(key), self._written(data, sha256) as (temporary, etag):
            while True:
                try:
                    # A link, unlike a rename, fails when the name is taken.
                    self._named(key, lambda target: _link(temporary, target))
                except FileExistsError:
                    found = self._etag_if_same(key, data)
                    if found:
                        return found
                else:
                    return etag

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        """Write an object only if its ETag is still `etag`; one that holds the same bytes already counts as written."""
        # `put` and `delete` take the same lock; otherwise one of them could fall between the look and the write.
        with self._translated(key), self._written(data) as (temporary, new), self._locked(key):
            try:
                with self._open(key) as file:
                    now = _etag(file)
                    if now != etag:
                        file.seek(0)
                        if file.read() == data:
                            return now
                        raise ConflictError(f"{self.url(key)} was changed by somebody else meanwhile")
            except FileNotFoundError:
                raise ConflictError(f"{self.url(key)} was removed by somebody else meanwhile") from None
            self._named(key, temporary.replace)
            return new

    def delete(self, key: str) -> None:
        """Remove an object; one that does not exist is no error."""
        path = self._path(key)
        with self._translated(key):
            if not path.is_file():
                return
            with self._locked(key):
                path.unlink(missing_ok=True)
                _sync_folder(path.parent)
        for folder in path.parents:
            if folder == self._root:
                break
            try:
                # Removes empty folders only. A writer that has just made this one makes it again.
                folder.rmdir()
            except OSError:
                break

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Yield the objects whose key starts with `prefix`, in no fixed order."""
        above = prefix.rpartition("/")[0]
        waiting = [self._path(above) if above else self._root]
        while waiting:
            folder = waiting.pop()
            with self._translated(prefix):
                for path, is_folder in _entries(folder):
                    key = path.relative_to(self._root).as_posix()
                    if is_folder and path != self._private and (key.startswith(prefix) or prefix.startswith(f"{key}/")):
                        waiting.append(path)
                    elif not is_folder and key.startswith(prefix):
                        try:
                            yield self.head(key)
                        except (ObjectNotFoundError, InputError):
                            continue  # removed since the folder was read, or with a name that no key can be

    def _path(self, key: str) -> Path:
        check_key(key)
        if key.split("/", 1)[0] == PRIVATE:
            raise InputError(f"the key {key!r} is in the store's private folder")
        path = self._root / key
        if os.path.realpath(path.parent) != str(path.parent):
            raise StoreError(f"{path} is behind a link, and links are not part of a store", hint="remove the link")
        return path

    def _open(self, key: str) -> BufferedReader:
        try:
            # Without O_NONBLOCK the opening of a pipe would wait for its other end.
            descriptor = os.open(self._path(key), os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
        except NotADirectoryError as error:
            raise FileNotFoundError(errno.ENOENT, "an object is on the way", key) from error
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            return os.fdopen(descriptor, "rb")
        os.close(descriptor)
        raise FileNotFoundError(errno.ENOENT, "not a file", key)

    @contextmanager
    def _written(self, data: bytes | Path | Iterator[bytes], sha256: str | None = None) -> Iterator[tuple[Path, str]]:
        """Write a file that nobody sees yet, and remove it unless it got a name."""
        folder = self._private / "tmp"
        _make_folder(folder)
        self._sweep(folder)
        temporary = folder / secrets.token_hex(16)
        try:
            with temporary.open("xb+") as file:
                for piece in source.checked(data, sha256):
                    file.write(piece)
                file.flush()
                os.fsync(file.fileno())
                etag = _etag(file)
            yield temporary, etag
        finally:
            temporary.unlink(missing_ok=True)

    def _etag_if_same(self, key: str, data: bytes | Path) -> str | None:
        """Return the ETag of an object that holds exactly these bytes, or None when there is no object any more."""
        try:
            with self._open(key) as file:
                if hashlib.file_digest(file, "sha256").hexdigest() == source.digest(data):
                    return _etag(file)
        except FileNotFoundError:
            if self._path(key).is_dir():
                raise IsADirectoryError(errno.EISDIR, "a folder", key) from None
            return None
        raise ObjectExistsError(f"{self.url(key)} exists already")

    def _named(self, key: str, give: Callable[[Path], object]) -> None:
        """Give a written file its name, and make that survive a power cut."""
        target = self._path(key)
        for last in (*[False] * _PATIENCE, True):
            try:
                _make_folder(target.parent)
                give(target)
                break
            except FileNotFoundError:
                # A `delete` may have removed the empty folder meanwhile.
                if last:
                    raise
        _sync_folder(target.parent)

    @contextmanager
    def _locked(self, key: str) -> Iterator[None]:
        folder = self._private / "locks"
        _make_folder(folder)
        # Few files for any number of keys; they are never removed, for a lock on a removed file guards nothing.
        name = folder / f"{int(sha256_bytes(key.encode())[:8], 16) % _LOCKS:02}"
        descriptor = os.open(name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)  # given up by closing, and so by the end of the process too
            yield
        finally:
            os.close(descriptor)

    def _sweep(self, folder: Path) -> None:
        """Remove what killed writers left, once for each store opened."""
        if self._swept:
            return
        self._swept = True
        for path in folder.iterdir():
            try:
                if path.stat().st_mtime < time.time() - _FORGOTTEN_SECONDS:
                    path.unlink()
            except FileNotFoundError:
                continue

    @contextmanager
    def _translated(self, key: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            thing = f"{self.address}/{key}"
            if error.errno == errno.ENOENT:
                raise ObjectNotFoundError(f"{thing} does not exist") from error
            if error.errno in {errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOLCK}:
                raise UnsupportedStoreError(
                    f"the file system of {self._root} lacks hard links or locks", hint="choose a folder on another disk"
                ) from error
            if error.errno in _DENIED:
                raise AccessDeniedError(
                    f"{self._root} may not be used for {key!r}: {error.strerror}", hint="check its owner and mode"
                ) from error
            raise StoreError(f"{thing}: {_WORDS.get(error.errno or 0, error.strerror or str(error))}") from error


def _etag(file: BufferedReader | BufferedRandom) -> str:
    """Return what changes whenever the content does.

    Small objects, which pointers are, have the digest of their content. To hash a large one at every look would take
    seconds, so it has the identity of its file: each write makes a new file while the old one still exists.
    """
    found = os.fstat(file.fileno())
    if found.st_size > HASHED:
        return f"{found.st_size:x}-{found.st_mtime_ns:x}-{found.st_ino:x}"
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()


def _entries(folder: Path) -> Iterator[tuple[Path, bool]]:
    """Yield the files and folders in `folder`, and whether each is a folder; links and special files are left out."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    yield Path(entry.path), True
                elif entry.is_file(follow_symlinks=False):
                    yield Path(entry.path), False
    except (FileNotFoundError, NotADirectoryError):
        return  # not there, or removed since its parent was read


def _make_folder(folder: Path) -> None:
    """Create a folder and those above it, so that they survive a power cut."""
    for _ in range(_PATIENCE):
        if folder.is_dir():
            return
        try:
            folder.mkdir()
        except FileNotFoundError:
            _make_folder(folder.parent)  # it was never there, or a `delete` found it empty
        except FileExistsError:
            # One look: a `delete` may remove the folder between two.
            with suppress(FileNotFoundError):
                if not stat.S_ISDIR(os.lstat(folder).st_mode):
                    raise NotADirectoryError(errno.ENOTDIR, "not a folder", str(folder)) from None
        else:
            _sync_folder(folder.parent)
    raise PermissionError(errno.EACCES, "no folder can be made there", str(folder))


def _link(temporary: Path, target: Path) -> None:
    try:
        target.hardlink_to(temporary)
    except PermissionError as error:
        if error.errno == errno.EPERM:  # how Linux says that a file system (FAT, for one) has no hard links
            raise OSError(errno.EOPNOTSUPP, "no hard links", str(target)) from error
        raise


def _sync_folder(folder: Path) -> None:
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except FileNotFoundError:
        return  # removed meanwhile, being empty
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
