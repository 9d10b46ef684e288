"""The workspace: the private, writable copy of a release in which one run executes."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from shipway.manifest import Version
from shipway.release.checkout import checkout
from shipway.run.capture import Stamp, snapshot
from shipway.store.base import Store


@dataclass(frozen=True, slots=True)
class Workspace:
    """A run's working folder.

    Attributes:
        root: private folder that holds everything of the run on this machine.
        folder: the release's files, where the flow runs.
        before: the files' stamps before the run began.
        version: the release.
        store: block the release came from, where the run's data goes too.
    """

    root: Path
    folder: Path
    before: dict[str, Stamp]
    version: Version
    store: str

    def remove(self) -> None:
        """Delete it with all that is in it."""
        shutil.rmtree(self.root, ignore_errors=True)


def open_workspace(store: Store, version: Version, *, parent: Path, block: str) -> Workspace:
    """Check a release out into a new workspace below `parent`.

    Raises:
        ObjectNotFoundError: the release is not in the store.
        IntegrityError: a file is not what it was when the release was built.
    """
    root = Path(tempfile.mkdtemp(prefix="shipway-", dir=parent))
    try:
        checkout(store, version, root / "work")
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    return Workspace(root, root / "work", snapshot(root / "work"), version, block)
