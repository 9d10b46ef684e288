"""Workspaces made ahead: for a release that runs again and again one lies ready before its next run is there."""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict
from collections.abc import Callable
from contextlib import suppress

from shipway.errors import ShipwayError
from shipway.manifest import Version
from shipway.run.workspace import Workspace

MOST = 2
"""Releases of which a workspace lies ready, those that ran last."""
MOST_BYTES = 256 << 20
"""Size of a workspace up to which one is made that may never be used."""
HOT = 2
"""Runs after which a release counts as one that runs again."""

Make = Callable[[], Workspace]


class Spares:
    """Workspaces that lie ready, at most one for each of a few releases."""

    def __init__(self) -> None:
        self._runs: Counter[Version] = Counter()
        self._ready: OrderedDict[Version, asyncio.Task[Workspace]] = OrderedDict()
        self._too_large: set[Version] = set()

    async def take(self, version: Version, make: Make) -> Workspace:
        """Return the workspace that lies ready, else one that `make` makes now; raises what `make` does."""
        if ready := self._ready.pop(version, None):
            # One that could not be made ahead is made now, so that whoever needs it hears why it cannot be.
            with suppress(ShipwayError, OSError):
                return await ready
        return await asyncio.to_thread(make)

    def make(self, version: Version, make: Make) -> None:
        """Begin to make one for the next run of a release, where there is none and it has run before."""
        self._runs[version] += 1
        if self._runs[version] < HOT or version in self._ready or version in self._too_large:
            return
        self._ready[version] = asyncio.create_task(self._keep_small(version, make))
        while len(self._ready) > MOST:
            self._drop(self._ready.popitem(last=False)[1])

    def close(self) -> None:
        """Remove what lies ready."""
        while self._ready:
            self._drop(self._ready.popitem()[1])

    async def _keep_small(self, version: Version, make: Make) -> Workspace:
        workspace = await asyncio.to_thread(make)
        if sum(stamp[0] for stamp in workspace.before.values()) > MOST_BYTES:
            self._too_large.add(version)
        return workspace

    def _drop(self, ready: asyncio.Task[Workspace]) -> None:
        ready.add_done_callback(_remove)


def _remove(ready: asyncio.Task[Workspace]) -> None:
    if not ready.cancelled() and not ready.exception():
        ready.result().remove()
