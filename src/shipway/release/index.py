"""The index: what a folder's files were when they were last hashed, so that a file that has not changed is not read.

A file is taken as unchanged when its size, times, inode and mode are, as git does. One that was written to within
`RACY_SECONDS` before the index, or after it, is hashed again: two writes within one tick of a file system's clock look
the same from outside.
"""

from __future__ import annotations

import json
import os
import stat
import tempfile
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

from shipway.digest import is_sha256, sha256_bytes

FORMAT = 1
RACY_SECONDS = 2.0
"""Coarsest clock among file systems in use (FAT)."""

Identity = tuple[int, int, int, int, int]
"""Size, modification time (ns), change time (ns), inode and mode of a file."""


def identity(status: os.stat_result) -> Identity:
    """Return what a file is told from a changed one by."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino, stat.S_IMODE(status.st_mode)


@dataclass(slots=True)
class Index:
    """What is known of one folder.

    Attributes:
        path: file the index is kept in, or None for one that is forgotten.
        known: digests by path and identity, from earlier scans.
        written_ns: when the earlier scan began, in ns since 1970.
        seen: what this scan found; `save` keeps exactly that.
        began_ns: when this scan began.
    """

    path: Path | None = None
    known: dict[str, tuple[Identity, str]] = field(default_factory=dict)
    written_ns: int = 0
    seen: dict[str, tuple[Identity, str]] = field(default_factory=dict)
    began_ns: int = field(default_factory=time.time_ns)

    @classmethod
    def open(cls, state: Path, folder: Path) -> Index:
        """Open the index of `folder`, kept in the state folder; one that is missing or damaged is empty."""
        name = sha256_bytes(os.fsencode(folder.resolve()))[:16]
        path = state / "index" / f"{name}.json"
        try:
            document = json.loads(path.read_bytes())
            if document["version"] != FORMAT:
                return cls(path)
            known = {
                str(name): ((int(a), int(b), int(c), int(d), int(e)), str(sha256))
                for name, (a, b, c, d, e, sha256) in document["files"].items()
                if is_sha256(sha256)
            }
            return cls(path, known, int(document["written_ns"]))
        except (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError):
            return cls(path)

    def digest(self, path: str, now: Identity) -> str | None:
        """Return the digest of a file that has not changed since it was hashed, else None."""
        found = self.known.get(path)
        if found is None or found[0] != now:
            return None
        newest = max(now[1], now[2])
        return found[1] if newest < self.written_ns - RACY_SECONDS * 1e9 else None

    def note(self, path: str, now: Identity, sha256: str) -> None:
        """Remember the digest of a file as it is now."""
        self.seen[path] = (now, sha256)

    def save(self) -> None:
        """Keep what this scan saw; an index that cannot be written costs time at the next scan and nothing else."""
        if self.path is None:
            return
        files = {path: [*now, sha256] for path, (now, sha256) in self.seen.items()}
        data = json.dumps({"version": FORMAT, "written_ns": self.began_ns, "files": files}, separators=(",", ":"))
        with suppress(OSError), ExitStack() as undo:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(dir=self.path.parent)
            undo.callback(Path(scratch).unlink, missing_ok=True)
            with os.fdopen(handle, "w") as file:
                file.write(data)
            Path(scratch).replace(self.path)
