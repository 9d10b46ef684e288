"""What is remembered of flows that were imported, so that an unchanged one is not imported for every build.

A memory holds for one release of one folder in one Python environment, and as long as the modules are unchanged that
the flow imported from elsewhere. What else a flow file may ask while it is imported, such as the time or an environment
variable, nobody can know. Nothing here is needed: a memory that is lost or damaged is one more import.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from shipway.digest import sha256_bytes
from shipway.manifest import LINK, tree_digest
from shipway.prefect import environment
from shipway.release.index import RACY_SECONDS, identity
from shipway.release.scan import Scan

FORMAT = 1

KEPT = 5
"""Memories kept of one flow, the newest: enough for whoever goes back and forth between branches."""

MODULES = ("/", ".py", ".so", ".pyd")
"""How the paths end that a module may have."""


class FlowMemory:
    """The memory of one flow in its folder as it is now."""

    def __init__(self, state: Path, entrypoint: str, scan: Scan) -> None:
        self._root = scan.folder.resolve()
        self._scan = scan
        # A module that the ignore file leaves out may be imported all the same; that one has appeared is seen here.
        left_out = [path for path in scan.skipped if path.endswith(MODULES)]
        key = [FORMAT, tree_digest(scan.entries), left_out, environment.fingerprint()]
        self._name = _digest([str(self._root), entrypoint])[:16]
        self._path = state / "flows" / f"{self._name}-{_digest(key)}"
        self._noted: bytes | None = None

    def recall(self) -> dict[str, Any] | None:
        """Return what was noted of the flow, or None if that is not known or may have changed."""
        try:
            digest, _, data = self._path.read_bytes().partition(b"\n")
            if sha256_bytes(data).encode() != digest:
                return None
            noted = json.loads(data)
            unchanged = all(list(identity(Path(path).stat())) == stamp for path, stamp in noted["elsewhere"].items())
        except OSError:
            return None
        facts: dict[str, Any] = noted["facts"]
        return facts if unchanged else None

    def forget(self) -> None:
        """Forget the flow as it is now, for an import that follows: should that fail, nothing is known."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)

    def note(self, facts: Mapping[str, Any], loaded: Iterable[str], search: Iterable[str], began_ns: int) -> None:
        """Note what an import of the flow found, for `save` to keep.

        Args:
            facts: what was found.
            loaded: files of all modules that were loaded.
            search: the module search path.
            began_ns: when the import began, in ns since 1970. Nothing is noted if a file was changed since: nobody
                knows which of its contents was imported.
        """
        try:
            stamps = {str(path): identity(path.stat()) for path in self._elsewhere(loaded, search)}
        except OSError:
            return
        if any(max(stamp[1], stamp[2]) >= began_ns - RACY_SECONDS * 1e9 for stamp in stamps.values()):
            return
        self._noted = json.dumps({"facts": facts, "elsewhere": stamps}).encode()

    def save(self) -> None:
        """Keep what was noted, and forget what was noted long before it."""
        if self._noted is None:
            return
        folder = self._path.parent
        try:
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(prefix=f"{self._name}-", dir=folder)
            with os.fdopen(handle, "wb") as file:
                file.write(sha256_bytes(self._noted).encode() + b"\n" + self._noted)
            Path(scratch).replace(self._path)
            # Among them what a build left half written that was killed.
            known = sorted(folder.glob(f"{self._name}-*"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
            for path in known[KEPT:]:
                path.unlink(missing_ok=True)
        except OSError:
            return

    def _elsewhere(self, loaded: Iterable[str], search: Iterable[str]) -> set[Path]:
        """Return what neither the release nor the environment tells of: other modules, and folders with room for more.

        A path is kept as it was used, so that a link that is changed is seen as well.
        """
        released = {f"{self._root}/{entry.path}" for entry in self._scan.entries if entry.mode != LINK}
        installed = environment.folders()

        @cache
        def is_installed(folder: Path) -> bool:
            real = folder.resolve()
            return not installed.isdisjoint((real, *real.parents))

        files = {path for path in map(Path, set(loaded) - released) if path.is_file()}
        # Folders of the release itself change with every build, which writes into them.
        places = {path for path in map(Path, search) if path.is_dir() and not path.resolve().is_relative_to(self._root)}
        found = {path for path in files if not is_installed((path.resolve() if path.is_symlink() else path).parent)}
        return found | {path for path in places if not is_installed(path)}


def _digest(value: object) -> str:
    # Not our canonical JSON, which is UTF-8: a path need not be.
    return sha256_bytes(json.dumps(value, sort_keys=True).encode())
