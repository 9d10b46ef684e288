"""The workspace: the private, writable copy of a release in which one run executes."""

from __future__ import annotations

import errno
import logging
import shutil
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO

from shipway.errors import ShipwayError
from shipway.manifest import Version, read_manifest
from shipway.release.cache import Cache
from shipway.release.checkout import checkout
from shipway.run.capture import Stamp, snapshot
from shipway.run.reads import Reads, watch, with_digests
from shipway.store.base import Store

_log = logging.getLogger("shipway")


@dataclass(frozen=True, slots=True)
class Workspace:
    """A run's working folder.

    Attributes:
        root: private folder that holds everything of the run on this machine.
        folder: the release's files, where the flow runs.
        before: the files' stamps before the run began.
        version: the release.
        store: block the release came from, where the run's data goes too.
        lease: open file that keeps the release in the machine's cache, where it came from there.
        reads: what notices which of the files are read, once the run's process watches them.
    """

    root: Path
    folder: Path
    before: dict[str, Stamp]
    version: Version
    store: str
    lease: IO[bytes] | None = None
    reads: Reads | None = None

    def watched(self) -> Workspace:
        """Return it with its files watched from now on: for the process of the run, before it loads flow code."""
        return replace(self, reads=watch(self.folder, self.before))

    def read(self, store: Store, cache: Cache | None = None) -> tuple[list[dict[str, str]], str | None]:
        """Return the files of the release that the run has read so far, as a record has them.

        Args:
            store: where the release is; asked for its manifest where the machine's cache does not have it.
            cache: the machine's cache.

        Returns:
            The files, and why some may be missing, or None.
        """
        if self.reads is None:
            return [], "nobody watched"
        paths, gap = self.reads.found()
        try:
            entries = (cache and cache.tree(self.version)) or read_manifest(store, self.version).entries
        except ShipwayError as error:
            return [], f"their digests are not known: {error.message}"
        return with_digests(paths, {entry.path: entry.sha256 for entry in entries}), gap

    def remove(self) -> None:
        """Delete it with all that is in it."""
        if self.reads:
            self.reads.close()
        shutil.rmtree(self.root, ignore_errors=True)
        if self.lease:
            self.lease.close()


def open_workspace(
    store: Store, version: Version, *, parent: Path, block: str, cache: Cache | None = None
) -> Workspace:
    """Copy a release into a new workspace below `parent`, out of the cache where there is one.

    The copy shares no inode with the cache: whatever a run does to its files, the next run's are as they were released.

    Raises:
        ObjectNotFoundError: the release is not in the store.
        IntegrityError: a file is not what it was when the release was built.
        InputError: the workspace cannot be written.
    """
    root = Path(tempfile.mkdtemp(prefix="shipway-", dir=parent))
    try:
        before, lease = _fill(store, version, root / "work", cache)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return Workspace(root, root / "work", before, version, block, lease)


def _fill(
    store: Store, version: Version, folder: Path, cache: Cache | None
) -> tuple[dict[str, Stamp], IO[bytes] | None]:
    if cache:
        try:
            copied = cache.checkout(store, version, folder)
        except OSError as error:
            _log.warning("Release %s is fetched without the cache %s: %s", version.short, cache.folder, error)
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                cache.trim(0)
        else:
            return copied.stamps, copied.lease
    checkout(store, version, folder)
    return snapshot(folder), None
