"""A stack of a benchmark's own, in a temporary folder and on free ports."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.measure import clean_environment

LIMIT = 300.0


@dataclass(frozen=True)
class Project:
    """A project folder with a running stack.

    Attributes:
        folder: the project folder.
        environment: what commands in it run with.
    """

    folder: Path
    environment: dict[str, str]

    def shipway(self, *arguments: str, limit: float = LIMIT) -> str:
        """Run a command that must succeed, within `limit` seconds, and return its standard output.

        Raises:
            RuntimeError: it failed.
        """
        done = subprocess.run(
            [sys.executable, "-m", "shipway", *arguments],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=limit,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"shipway {' '.join(arguments)} exited with {done.returncode}:\n{done.stderr.strip()}")
        return done.stdout

    @property
    def api_url(self) -> str:
        """Address of the stack's Prefect API."""
        return str(self.status()["api_url"])

    def status(self) -> dict[str, Any]:
        """Return what `shipway status --json` says."""
        document: dict[str, Any] = json.loads(self.shipway("status", "--json"))
        return document


@contextmanager
def running_stack(*, worker: bool = True, auth: bool = False) -> Iterator[Project]:
    """Start a stack, with a worker and no auth string unless told otherwise, and stop it whatever happens."""
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as name:
        home = Path(name) / "home"
        folder = Path(name) / "project"
        home.mkdir()
        folder.mkdir()
        project = Project(folder, clean_environment(home, NO_COLOR="1"))
        try:
            options = [*(() if worker else ("--no-worker",)), *(("--auth",) if auth else ())]
            project.shipway("up", "--detach", "--port", free_port(), "--store-port", free_port(), *options)
            yield project
        finally:
            project.shipway("down")


def free_port() -> str:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
