"""This machine's cache of releases, shared by its workers and projects: what is in it costs no request.

    files/<sha256>          a content, verified, read-only
    releases/<release-id>   a tree, in the very bytes that the release id is the digest of; last used at its mtime
    stamps/<release-id>     what the files of that release were when they were verified
    tmp/<release-id>        what a fill has not finished
    locks/<00..ff>          held while a release of which the id begins so is filled

A file that has the stamp it was verified with holds what it held then. One that has another is verified again, and
fetched again if it fails. Nothing here is needed: without it a release is fetched into the workspace itself.
"""

from __future__ import annotations

import fcntl
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from shipway.digest import canonical_json, sha256_bytes
from shipway.manifest import LINK, Entry, Manifest, Version, read_manifest, read_tree, tree_bytes
from shipway.release.checkout import contents, fetch
from shipway.release.clone import (
    Stamp,
    appearing,
    check_room,
    copy_file,
    make_folders,
    make_links,
    permissions,
    shares_blocks,
    stamp,
    verified,
)
from shipway.release.trim import by_use, discard, filling, opened, trim
from shipway.settings import is_private
from shipway.store.base import Store

TRIES = 3
TICK_SECONDS = 0.01
"""Coarsest clock of a kernel in use: two writes within one tick may leave the same times."""

NEIGHBOURS = 8
"""Releases, those used last, of which the stamps serve a new one: what it shares with them is not read again."""

_log = logging.getLogger("shipway")


@dataclass(frozen=True, slots=True)
class Copied:
    """A working copy that was made from the cache.

    Attributes:
        stamps: what its files were when they were written, by path; links have none.
        lease: open file that keeps the release in the cache until it is closed, or its process is gone.
    """

    stamps: dict[str, Stamp]
    lease: IO[bytes]


@dataclass(frozen=True, slots=True)
class _Known:
    """A release the cache knows, leased; `stamps` has those of its contents that were verified, by sha256."""

    lease: IO[bytes]
    entries: tuple[Entry, ...]
    stamps: dict[str, Stamp]


class _TouchedError(Exception):
    """A file of the cache is missing, or not as it was when it was verified."""


class Cache:
    """A folder of verified contents. Safe to share between threads and processes of one machine."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Take a folder that nobody else can write to; `Cache.open` makes and checks it."""
        self.folder = folder
        self.max_bytes = max_bytes
        self._files = f"{folder}/files"

    @classmethod
    def open(cls, folder: Path, max_bytes: int) -> Cache | None:
        """Return the cache in `folder`, which is made if need be, with what it was told to be kept under.

        None, with the reason in the log, where others could have written to it or it cannot be made: such a cache is
        worse than none. None without a word where `max_bytes` is 0.
        """
        if max_bytes <= 0:
            return None
        folder = folder.absolute()
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            if not is_private(folder):
                _log.warning("Releases are not cached: %s must belong to this user alone (chmod 700)", folder)
                return None
            for name in ("files", "releases", "stamps", "tmp", "locks"):
                (folder / name).mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            _log.warning("Releases are not cached: %s cannot be used: %s", folder, error.strerror)
            return None
        return cls(folder, max_bytes)

    def checkout(self, store: Store, version: Version, folder: Path) -> Copied:
        """Write a release's files into `folder`, which must not exist yet, fetching what the cache lacks.

        Raises:
            ObjectNotFoundError: the release is not in the store.
            IntegrityError: something stored is missing or not what it was.
            OSError: the cache, or the folder, cannot be used.
        """
        known = self._recall(version.release_id)
        for _ in range(TRIES):
            with suppress(_TouchedError), ExitStack() as undo:
                with appearing(folder) as scratch:
                    filled, arrived = known is None, frozenset[str]()
                    if known is None:
                        # Where a copy costs nothing, one is made when all is there.
                        too = None if shares_blocks(self.folder, scratch) else scratch
                        known, arrived = self._fill(store, version, too)
                    undo.callback(known.lease.close)
                    stamps = self._copy(known, scratch, arrived)
                if filled:
                    self.trim()
                undo.pop_all()
                return Copied(stamps, known.lease)
            known = None
        raise OSError(f"files in {self.folder} change while they are used")

    def tree(self, version: Version) -> tuple[Entry, ...] | None:
        """Return the files of a release, or None where it is not in the cache."""
        known = self._recall(version.release_id)
        if known is None:
            return None
        known.lease.close()
        return known.entries

    def trim(self, max_bytes: int | None = None) -> None:
        """Remove what was used longest ago until the rest has at most `max_bytes`; what is in use stays."""
        trim(self.folder, self.max_bytes if max_bytes is None else max_bytes)

    def _copy(self, known: _Known, scratch: Path, arrived: frozenset[str]) -> dict[str, Stamp]:
        """Write the files of a release, but for the contents that were written when they arrived from the store."""
        first = contents(known.entries)
        if not arrived:
            self._prepare(known.entries, scratch)
        made: dict[str, Stamp] = {}
        for entry in known.entries:
            target = f"{scratch}/{entry.path}"
            if entry.sha256 in arrived and entry is first[entry.sha256]:
                copy = stamp(os.lstat(target))
            else:
                copy = self._copy_content(known, entry, target)
            if entry.mode != LINK:
                made[entry.path] = copy
        make_links(known.entries, scratch)
        return made

    def _copy_content(self, known: _Known, entry: Entry, target: str) -> Stamp:
        try:
            found, copy = copy_file(self._file(entry.sha256), target, entry.size, permissions(entry))
        except OSError:
            if self._is(entry.sha256, known.stamps):
                raise
            raise _TouchedError from None
        # Judged after the copy: a file that is now as it was when it was verified was so while it was read.
        if found != known.stamps.get(entry.sha256):
            raise _TouchedError
        return copy

    @staticmethod
    def _prepare(entries: Iterable[Entry], scratch: Path) -> None:
        check_room(scratch, sum(entry.size for entry in entries))
        make_folders(entries, scratch)

    def _recall(self, release_id: str) -> _Known | None:
        """Return what is known of a release, leased, or None."""
        path = self.folder / "releases" / release_id
        try:
            lease = opened(path)
        except FileNotFoundError:
            return None
        except OSError:
            discard(path)
            return None
        with ExitStack() as undo:
            undo.callback(lease.close)
            fcntl.flock(lease, fcntl.LOCK_SH)
            tree = lease.read()
            if sha256_bytes(tree) != release_id:
                _log.warning("Release %s was changed in the cache; it is fetched again", release_id[:12])
                discard(path)
                return None
            # Recently used ones are kept longer.
            os.utime(lease.fileno())
            known = _Known(lease, read_tree(tree), self._stamps(release_id))
            undo.pop_all()
        return known

    def _fill(self, store: Store, version: Version, workspace: Path | None) -> tuple[_Known, frozenset[str]]:
        """Make a release complete in the cache; of several that want to, one does it and the others wait for it.

        Returns:
            The release, and the contents that are in `workspace` too, as they came from the store.
        """
        with filling(self.folder, version.release_id), ExitStack() as undo:
            manifest: Manifest | None = None
            known = self._recall(version.release_id)
            if known is None:
                manifest = read_manifest(store, version)
                known = _Known(self._remember(version.release_id, manifest.entries), manifest.entries, {})
            undo.callback(known.lease.close)
            wanted = contents(known.entries)
            missing: list[str] = []
            good = {sha256: known.stamps[sha256] for sha256 in wanted if self._is(sha256, known.stamps)}
            if len(good) < len(wanted):
                others = self._neighbours()
                for sha256 in wanted.keys() - good.keys():
                    if found := others[sha256] if self._is(sha256, others) else self._verify(wanted[sha256]):
                        good[sha256] = found
                if missing := [sha256 for sha256 in wanted if sha256 not in good]:
                    # Where contents lie is a matter of the store, and the tree may have come here from another one.
                    good |= self._fetch(store, manifest or read_manifest(store, version), missing, workspace)
                # Whatever is written to the files after this moment shows in their stamps.
                time.sleep(TICK_SECONDS)
                self._write("stamps", version.release_id, canonical_json(good)).close()
            undo.pop_all()
            return _Known(known.lease, known.entries, good), frozenset(missing if workspace else ())

    def _fetch(self, store: Store, manifest: Manifest, missing: list[str], workspace: Path | None) -> dict[str, Stamp]:
        scratch = self.folder / "tmp" / manifest.release_id
        shutil.rmtree(scratch, ignore_errors=True)  # of a fill that was killed
        scratch.mkdir()
        try:
            wanted = contents(manifest.entries)
            check_room(scratch, sum(wanted[sha256].size for sha256 in missing))
            if workspace:
                self._prepare(manifest.entries, workspace)

            def places(entry: Entry) -> list[tuple[str, int]]:
                ours = [(f"{scratch}/{entry.sha256}", 0o444)]
                return [*ours, (f"{workspace}/{entry.path}", permissions(entry))] if workspace else ours

            fetch(store, manifest, set(missing), places)
            found = {}
            for item in list(os.scandir(scratch)):
                path = self._file(item.name)
                os.replace(item.path, path)  # noqa: PTH105 - a Path costs as much as the rename
                # A rename is a change too, so that the stamp comes after it.
                status = os.lstat(path)
                if status.st_ino == item.inode():
                    found[item.name] = stamp(status)
            return found
        finally:
            shutil.rmtree(scratch, ignore_errors=True)

    def _verify(self, entry: Entry) -> Stamp | None:
        """Return the stamp of a file that holds what its name says, else remove it and return None."""
        path = self._file(entry.sha256)
        try:
            if found := verified(path, entry.sha256, entry.size):
                return found
        except FileNotFoundError:
            return None
        _log.warning("%s was changed in the cache, as %s; it is fetched again", entry.path, path)
        discard(Path(path))
        return None

    def _is(self, sha256: str, stamps: Mapping[str, Stamp]) -> bool:
        """Tell whether a content is there with the stamp it was verified with."""
        try:
            return stamp(os.lstat(self._file(sha256))) == stamps.get(sha256)
        except OSError:
            return False

    def _file(self, sha256: str) -> str:
        return f"{self._files}/{sha256}"

    def _stamps(self, release_id: str) -> dict[str, Stamp]:
        try:
            with opened(self.folder / "stamps" / release_id) as file:
                document = json.load(file)
            return {sha256: (size, mtime, ctime, inode) for sha256, (size, mtime, ctime, inode) in document.items()}
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return {}

    def _neighbours(self) -> dict[str, Stamp]:
        stamps: dict[str, Stamp] = {}
        for path in by_use(self.folder)[-NEIGHBOURS:]:
            stamps |= self._stamps(path.name)
        return stamps

    def _remember(self, release_id: str, entries: Iterable[Entry]) -> IO[bytes]:
        """Keep a tree; return its lease, held from before it can be seen."""
        return self._write("releases", release_id, tree_bytes(entries))

    def _write(self, area: str, name: str, data: bytes) -> IO[bytes]:
        """Write a file that appears complete; return it open, and locked as what is in use."""
        handle, scratch = tempfile.mkstemp(prefix=".", dir=self.folder / area)
        with ExitStack() as undo:
            file = undo.enter_context(open(handle, "w+b"))  # noqa: PTH123 - of a descriptor
            undo.callback(Path(scratch).unlink, missing_ok=True)
            file.write(data)
            file.flush()
            fcntl.flock(file, fcntl.LOCK_SH)
            target = self.folder / area / name
            if target.is_dir():
                discard(target)
            Path(scratch).replace(target)
            undo.pop_all()
        return file
