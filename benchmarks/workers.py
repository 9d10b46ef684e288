"""Workers and the runs that they are given: started, watched by the server's own timestamps, measured, stopped."""

from __future__ import annotations

import random
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil

from benchmarks.stack import Project
from shipway.prefect.api import Api
from shipway.settings import Settings

LIMIT = 180.0
"""Seconds after which a worker that is not ready, or a run that has not ended, is given up."""

LOOK_SECONDS = 0.5
"""Time between two looks at a run: each costs the server time that the run would have. The figures are the server's."""

STATES = ("Scheduled", "Pending", "Submitting", "Running", "Completed")
"""What a run goes through."""


@dataclass(frozen=True)
class Run:
    """A run that has ended.

    Attributes:
        since: when it was asked for, by this process's clock, before the request was sent.
        states: when it came into each state, by the server's record; seconds since then.
    """

    since: float
    states: dict[str, float]


class Runs:
    """Creates runs on a server and looks at them."""

    def __init__(self, project: Project) -> None:
        self.api = Api(Settings.load(project.folder, project.environment))

    def start(self, deployment: str, parameters: dict[str, Any] | None = None, tag: str | None = None) -> str:
        """Create a run of a deployment, given by its id, and return the run's id."""
        body = {"state": {"type": "SCHEDULED"}, "parameters": parameters or {}, "tags": [tag] if tag else []}
        return str(self.api.request("POST", f"/deployments/{deployment}/create_flow_run", body)["id"])

    def measure(self, deployment: str) -> Run:
        """Create a run and wait until it has completed.

        Raises:
            RuntimeError: it did not.
        """
        since = time.time()
        run = self.start(deployment)
        self.await_state(run, "Completed")
        return Run(since, self.states(run, since))

    def await_state(self, run: str, name: str) -> dict[str, Any]:
        """Wait until a run is in a state.

        Raises:
            RuntimeError: it ended in another, or takes too long.
        """
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            found: dict[str, Any] = self.api.request("GET", f"/flow_runs/{run}")
            state = found["state"]
            if state["name"] == name:
                return found
            if state["type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
                raise RuntimeError(f"a run that was to be {name} is {state['name']}: {state['message']}")
            time.sleep(LOOK_SECONDS)
        raise RuntimeError(f"a run was not {name} after {LIMIT:g} s")

    def states(self, run: str, since: float) -> dict[str, float]:
        """Return when a run came into each of its states, in seconds after `since`."""
        rows = self.api.request("GET", f"/flow_run_states/?flow_run_id={run}")
        return {row["name"]: datetime.fromisoformat(row["timestamp"]).timestamp() - since for row in rows}

    def burst(self, deployment: str, count: int, tag: str) -> float:
        """Create many runs at once; return the seconds until the last of them has completed.

        Raises:
            RuntimeError: one did not.
        """
        since = time.time()
        for _ in range(count):
            self.start(deployment, tag=tag)
        mine = {"tags": {"all_": [tag]}}
        deadline = time.monotonic() + LIMIT
        while time.monotonic() < deadline:
            ended = {**mine, "state": {"type": {"any_": ["COMPLETED", "FAILED", "CRASHED", "CANCELLED"]}}}
            if self.api.request("POST", "/flow_runs/count", {"flow_runs": ended}) == count:
                break
            time.sleep(5 * LOOK_SECONDS)
        rows = list(self.api.pages("/flow_runs/filter", {"flow_runs": mine}))
        bad = [row["state"]["name"] for row in rows if row["state"]["type"] != "COMPLETED"]
        if bad or len(rows) != count:
            raise RuntimeError(f"{len(rows) - len(bad)} of {count} runs completed; the others are {set(bad)}")
        return max(datetime.fromisoformat(row["state"]["timestamp"]).timestamp() for row in rows) - since

    def cancel(self, run: str) -> float:
        """Cancel a run that goes on; return the seconds until it was Cancelled."""
        since = time.time()
        self.api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING", "name": "Cancelling"}})
        self.await_state(run, "Cancelled")
        return self.states(run, since)["Cancelled"]

    def private_bytes(self, run: str) -> int:
        """Return the memory that a run which goes on shares with no other process."""
        pid = int(self.api.request("GET", f"/flow_runs/{run}")["infrastructure_pid"].rpartition(":")[2])
        return sum(int(process.memory_full_info().uss) for process in tree(psutil.Process(pid)))


@contextmanager
def running_worker(project: Project, argv: Sequence[str], says: str, **variables: str) -> Iterator[psutil.Process]:
    """Start a worker, wait until it asks for runs, and stop it in the end whatever happens.

    Args:
        project: where.
        argv: its command line.
        says: what it prints when it begins to ask.
        variables: its environment, besides the project's.

    Raises:
        RuntimeError: it did not get as far.
    """
    log = log_of(project, argv)
    with log.open("wb") as output:
        worker = subprocess.Popen(
            argv,
            cwd=project.folder,
            env=project.environment | variables,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            deadline = time.monotonic() + LIMIT
            while says not in log.read_text():
                if worker.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"{' '.join(argv)} did not start:\n{log.read_text()[-2000:]}")
                time.sleep(LOOK_SECONDS)
            process = psutil.Process(worker.pid)
            settle(process)
            yield process
        finally:
            worker.terminate()
            try:
                worker.wait(60)
            except subprocess.TimeoutExpired:
                worker.kill()
                worker.wait()


def log_of(project: Project, argv: Sequence[str]) -> Path:
    """Return where a worker's output goes."""
    return project.folder.parent / f"{Path(argv[0]).name}-worker.log"


def tree(root: psutil.Process) -> list[psutil.Process]:
    """Return a process and all its descendants."""
    return [root, *root.children(recursive=True)]


def processor(root: psutil.Process) -> float:
    """Return the processor seconds of a process, of its descendants, and of those that have ended."""
    seconds = 0.0
    for process in tree(root):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # it has just ended; its parent has its times now, or soon
        # Those of children are of children that were waited for: nothing is counted twice.
        seconds += times.user + times.system + times.children_user + times.children_system
    return seconds


def settle(root: psutil.Process) -> None:
    """Wait until a process and its descendants have nothing to do.

    Raises:
        RuntimeError: they always have.
    """
    deadline = time.monotonic() + LIMIT
    quiet = 0
    while quiet < 3:
        if time.monotonic() > deadline:
            raise RuntimeError("a worker that has no runs is busy all the time")
        before = processor(root)
        time.sleep(0.5)
        quiet = quiet + 1 if processor(root) - before < 0.05 else 0


def some_time() -> None:
    """Wait up to a second: a run is asked for at any moment between two polls, and the one before has ended."""
    time.sleep(random.uniform(0.2, 1.2))
