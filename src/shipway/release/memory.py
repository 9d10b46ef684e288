"""What a builder remembers between builds, on its own disk: manifests it knows, and uploads that were interrupted.

Nothing here is needed: whoever has lost it asks the store once more, or sends something that had arrived already.
"""

from __future__ import annotations

import os
import tempfile
import threading
from contextlib import suppress
from pathlib import Path

from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError
from shipway.manifest import Manifest, Version, parse

KEPT = 20
"""Manifests kept; each is needed only until the deployment's next release."""


class Memory:
    """A builder's memory of one store."""

    def __init__(self, state: Path, address: str) -> None:
        self._folder = state / "builds" / sha256_bytes(address.encode())[:16]
        self._lock = threading.Lock()

    def manifest(self, version: Version) -> Manifest | None:
        """Return a manifest seen before, or None."""
        try:
            return parse((self._folder / str(version)).read_bytes(), expected=version.release_id)
        except (OSError, IntegrityError):
            return None

    def newest(self) -> Version | None:
        """Return the release whose manifest was kept last; whether it is still in the store must be asked."""
        try:
            known = max(self._folder.glob("[0-9]*.*"), key=lambda path: path.stat().st_mtime_ns)
            return Version.parse(known.name)
        except (OSError, ValueError, IntegrityError):
            return None

    def keep(self, version: Version, manifest: Manifest) -> None:
        """Remember a manifest, and forget the oldest ones."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle, scratch = tempfile.mkstemp(prefix=".", dir=self._folder)
            with os.fdopen(handle, "wb") as file:
                file.write(manifest.to_bytes())
            Path(scratch).replace(self._folder / str(version))
            known = sorted(self._folder.glob("[0-9]*.*"), key=lambda path: path.stat().st_mtime, reverse=True)
            for path in known[KEPT:]:
                path.unlink(missing_ok=True)
        except OSError:
            return

    def arrived(self) -> set[str]:
        """Return the keys of what an interrupted build had sent; whether it is still there must be asked."""
        try:
            return set((self._folder / "arrived").read_text().splitlines())
        except (OSError, ValueError):
            return set()

    def note_arrival(self, key: str) -> None:
        """Note that an object arrived, for a later build should this one be interrupted."""
        with self._lock:
            try:
                self._folder.mkdir(parents=True, exist_ok=True)
                with (self._folder / "arrived").open("a") as file:
                    file.write(f"{key}\n")
            except OSError:
                return

    def forget_arrivals(self) -> None:
        """Note that the build is complete."""
        with suppress(OSError):
            (self._folder / "arrived").unlink(missing_ok=True)
