"""What runs of a deployment import, learnt from one or declared so that the next finds it done.

A run that was forked from a template writes down, when it ends, what it had to import; its worker reads it and asks for
a template that has. Only what is installed counts: the code of a release is imported in the run, from its workspace.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from types import ModuleType

from shipway.prefect.environment import folders
from shipway.settings import is_private

VARIABLE = "SHIPWAY__IMPORTS"
"""Environment variable of a run that names the file to write to."""

WORTH_SECONDS = 0.05
"""A run that waits less for its imports needs no template of its own."""

_DAMAGED = (OSError, ValueError, KeyError, TypeError, OverflowError, RecursionError)

MOST_MODULES = 20_000
MOST_FLOWS = 200
"""Deployments whose imports are remembered; those not run for longest are forgotten."""


def write(before: Iterable[str], seconds: float) -> None:
    """Write down what was imported since `before`, where a worker has asked for it.

    Args:
        before: names of the modules that there were.
        seconds: how long the flow's imports took.
    """
    path = os.environ.get(VARIABLE)
    if not path:
        return
    known = set(before)
    installed = tuple(f"{folder}{os.sep}" for folder in folders())
    # In the order in which they came; a module that is done stands after those that it needs.
    names = [
        name for name, module in list(sys.modules.items()) if name not in known and _file(module).startswith(installed)
    ]
    with suppress(OSError):
        Path(path).write_text(json.dumps({"seconds": seconds, "modules": names}))


def with_declared(learnt: Iterable[str], declared: Iterable[str]) -> tuple[str, ...]:
    """Return what a template is to import, in order and nothing twice: what was learnt, then what somebody declared."""
    return tuple(dict.fromkeys((*learnt, *declared)))


class Learnt:
    """What the runs of each deployment import, kept from one worker to the next.

    Args:
        folder: where it is kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[str, tuple[str, ...]] = {}
        # What somebody else could write there would be imported here.
        self._usable = not folder.exists() or (is_private(folder) and is_private(folder.parent))

    def modules(self, deployment: str) -> tuple[str, ...]:
        """Return what runs of a deployment import, in order; nothing when that is not known or takes no time."""
        if deployment not in self._known:
            self._known[deployment] = ()
            if not self._usable:
                return ()
            with suppress(*_DAMAGED):
                self._known[deployment] = _names(json.loads((self.folder / f"{deployment}.json").read_text()))
        return self._known[deployment]

    def recent(self, count: int) -> list[tuple[str, ...]]:
        """Return what is known of the deployments whose imports were learnt last, none twice."""
        with suppress(OSError):
            if not self._usable:
                return []
            files = sorted(self.folder.glob("*.json"), key=lambda each: each.stat().st_mtime, reverse=True)
            return list(dict.fromkeys(self.modules(each.stem) for each in files[:count]))
        return []

    def learn(self, deployment: str, path: Path) -> None:
        """Read what a run wrote to `path`, add it to what is known, and remove the file."""
        try:
            found = json.loads(path.read_text())
            if float(found["seconds"]) < WORTH_SECONDS:
                return
            names = tuple(dict.fromkeys((*self.modules(deployment), *_names(found))))
        except _DAMAGED:
            return
        finally:
            path.unlink(missing_ok=True)
        if names == self._known[deployment] or len(names) > MOST_MODULES:
            return
        self._known[deployment] = names
        with suppress(OSError):
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o700, exist_ok=True)
            if not (is_private(self.folder) and is_private(self.folder.parent)):
                return
            scratch = self.folder / f"{deployment}.{os.getpid()}"
            scratch.write_text(json.dumps({"modules": names}))
            scratch.replace(self.folder / f"{deployment}.json")
            old = sorted(self.folder.glob("*.json"), key=lambda each: each.stat().st_mtime)[:-MOST_FLOWS]
            for each in old:
                each.unlink(missing_ok=True)


def _file(module: ModuleType) -> str:
    path = getattr(module, "__file__", None)
    return os.path.realpath(path) if isinstance(path, str) else ""


def _names(document: dict[str, object]) -> tuple[str, ...]:
    names = document["modules"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise TypeError("not a list of names")
    return tuple(names)
