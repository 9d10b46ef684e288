"""A look at a flow and its folder, before anything is made of them."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.errors import FlowFileError
from shipway.prefect.flow_memory import FlowMemory
from shipway.release.index import Index
from shipway.release.scan import Scan, scan
from shipway.settings import Settings

IMPORT_SECONDS = 300
"""How long a flow file may take to import."""


@dataclass(frozen=True, slots=True)
class Look:
    """What was seen.

    Attributes:
        flow: the flow's name as `flow`, its `description`, and the `schema` of its parameters.
        scan: what a release takes of the folder.
        index: what the next scan need not read.
        memory: what the next look need not import.
    """

    flow: dict[str, Any]
    scan: Scan
    index: Index
    memory: FlowMemory

    def keep(self) -> None:
        """Keep what was seen, so that the next look is quick."""
        self.index.save()
        self.memory.save()


def look(settings: Settings, folder: Path, entrypoint: str, *, fresh: bool = False) -> Look:
    """Scan a folder and look at its flow, which is imported only if something changed since it was the last time.

    Args:
        settings: the project.
        folder: the folder.
        entrypoint: `FILE.py:FLOW`, the file relative to the folder.
        fresh: import the flow in any case.

    Raises:
        FlowFileError: the flow cannot be loaded, or its file is no part of the release.
        FolderError: the folder cannot be released.
    """
    index = Index.open(settings.state, folder)
    found = scan(folder, index)
    _check_taken(found, entrypoint)
    memory = FlowMemory(settings.state, entrypoint, found)
    if not fresh and (flow := memory.recall()):
        return Look(flow, found, index, memory)
    memory.forget()
    began_ns = time.time_ns()
    flow = inspect_flow(folder, entrypoint)
    loaded, search = flow.pop("loaded"), flow.pop("search")
    # A file may write into its folder when it is imported, and so may anybody meanwhile: what is there now is released.
    index = Index(index.path, index.seen, index.began_ns)
    after = scan(folder, index)
    if after.entries == found.entries:
        memory.note(flow, loaded, search, began_ns)
    return Look(flow, after, index, memory)


def inspect_flow(folder: Path, entrypoint: str) -> dict[str, Any]:
    """Load a flow in a process of its own.

    Returns:
        Its name as `flow`, its `description`, the `schema` of its parameters; and, of the process, the files it has
        `loaded` modules from and the folders it would `search` for more.

    Raises:
        FlowFileError: it cannot be loaded; the message says where and why.
    """
    import subprocess

    argv = [sys.executable, "-m", "shipway.prefect.inspect_flow", entrypoint]
    try:
        done = subprocess.run(
            argv, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=IMPORT_SECONDS, check=False
        )
        facts: dict[str, Any] = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise FlowFileError(
            f"{entrypoint} takes over {IMPORT_SECONDS} s to import", hint="move work into the flow"
        ) from None
    except ValueError:
        last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        raise FlowFileError(
            f"{entrypoint} ends its process when it is imported ({done.returncode}): {''.join(last)[:300]}"
        ) from None
    if "error" in facts:
        raise FlowFileError(facts["error"], hint=facts.get("hint"))
    return facts


def _check_taken(found: Scan, entrypoint: str) -> None:
    path = entrypoint.rpartition(":")[0]
    if not any(entry.path == path for entry in found.entries):
        raise FlowFileError(f"{path} is left out of the release by an ignore file", hint=f"add !{path} to it")
