"""Whether a worker stays as it was through a thousand runs, and what becomes of runs when processes are killed."""

from __future__ import annotations

import os
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil

from benchmarks.report import Goal, Table
from benchmarks.stack import Project, running_stack
from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.settings import Settings

RUNS = int(os.environ.get("SHIPWAY_BENCH_RUNS", "1000"))
KILLS = int(os.environ.get("SHIPWAY_BENCH_KILLS", "100"))
AT_ONCE = 4
SEED = 2013
LIMIT = 120.0
"""Seconds within which a run must have ended, however the machine is used otherwise."""

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
FLOWS = '''"""A run that is over at once, and one that takes a while."""

import time

from prefect import flow, task


@task
def step(n: int) -> int:
    """Add one."""
    return n + 1


@flow(name="short")
def short() -> int:
    """Do next to nothing."""
    return step(1)


@flow(name="long")
def long() -> None:
    """Take two seconds."""
    for number in range(8):
        step(number)
        time.sleep(0.25)
'''


@dataclass(frozen=True)
class Look:
    """The worker and its templates at a moment."""

    runs: int
    memory: int
    descriptors: int
    processes: int
    threads: int
    files: int


def run() -> list[Table]:
    """Measure on a stack of its own, whose temporary files are counted."""
    with tempfile.TemporaryDirectory(prefix="shipway-bench-tmp-") as scratch:
        before, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), scratch
        try:
            with running_stack() as project:
                (project.folder / "flows.py").write_text(FLOWS)
                project.shipway("deploy", "./flows.py:short", "-n", "x")
                project.shipway("deploy", "./flows.py:long", "-n", "x")
                place = _Place(project, Path(scratch))
                return [_thousand(place), _kills(place)]
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


class _Place:
    """The stack under test."""

    def __init__(self, project: Project, scratch: Path) -> None:
        self.project = project
        self.scratch = scratch
        self.api = Api(Settings.load(project.folder, project.environment))

    def start(self, flow: str) -> str:
        """Create a run and return its id."""
        deployment = self.api.deployment(f"{flow}/x")
        return str(self.api.request("POST", f"/deployments/{deployment['id']}/create_flow_run", {})["id"])

    def state(self, run: str) -> str:
        """Return the type of a run's state."""
        return str(self.api.request("GET", f"/flow_runs/{run}")["state_type"])

    def until(self, run: str, types: tuple[str, ...]) -> str:
        """Wait until a run's state is one of `types`; return it, or the last one seen."""
        end = time.monotonic() + LIMIT
        while (now := self.state(run)) not in types and time.monotonic() < end:
            time.sleep(0.05)
        return now

    def worker(self) -> psutil.Process:
        """Return the worker's process, once it is ready."""
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            [worker] = [each for each in self.project.status()["services"] if each["name"] == "worker"]
            if worker["state"] == "ready":
                return psutil.Process(worker["pid"])
            time.sleep(0.2)
        raise RuntimeError("the worker does not come back")

    def templates(self) -> list[psutil.Process]:
        """Return the worker's templates."""
        return [child for child in self.worker().children() if "shipway.worker.template" in child.cmdline()]

    def forks(self) -> list[psutil.Process]:
        """Return the processes of forked runs."""
        return [child for template in self.templates() for child in template.children()]

    def look(self, runs: int) -> Look:
        """Measure the worker and its templates."""
        processes = [self.worker(), *self.templates()]
        return Look(
            runs,
            sum(each.memory_full_info().uss for each in processes),
            sum(each.num_fds() for each in processes),
            len(self.worker().children(recursive=True)),
            sum(each.num_threads() for each in processes),
            sum(1 for _ in self.scratch.rglob("*")),
        )


def _thousand(place: _Place) -> Table:
    looks = []
    ended: Counter[str] = Counter()
    for count in range(0, RUNS + 1, max(RUNS // 10, 1)):
        while sum(ended.values()) < count:
            batch = [place.start("short") for _ in range(min(AT_ONCE, count - sum(ended.values())))]
            ended.update(place.until(run, FINAL) for run in batch)
        _quiet(place)
        looks.append(place.look(count))
    rows = tuple(
        (
            f"after {look.runs} runs",
            f"{look.memory / 1e6:.1f}",
            *map(str, (look.descriptors, look.processes, look.threads, look.files)),
        )
        for look in looks
    )
    # The first tenth fills caches: of names, of connections, of what the allocator keeps.
    first, last = looks[1], looks[-1]
    grown = (last.memory - first.memory) / max(last.runs - first.runs, 1)
    same = all(getattr(first, name) == getattr(last, name) for name in ("processes", "files"))
    steady = last.descriptors <= first.descriptors + 5 and last.threads <= first.threads + 5
    goals = (
        Goal(f"all {RUNS} Completed", f"{dict(ended)}", ended == {"COMPLETED": RUNS}),
        Goal("no growth of memory: less than 10 KB a run", f"{grown / 1e3:.1f} KB a run", grown < 10e3),
        Goal("no growth of descriptors, processes, threads and temporary files", "see above", same and steady),
    )
    headers = ("worker and templates", "private MB", "descriptors", "processes", "threads", "temporary files")
    return Table(f"{RUNS} runs, {AT_ONCE} at once", headers, rows, goals)


def _kills(place: _Place) -> Table:
    chance = random.Random(SEED)
    victims: dict[str, Callable[[], list[psutil.Process]]] = {
        "template": place.templates,
        "run": place.forks,
        "worker": lambda: [place.worker()],
    }
    expected = {"template": {"COMPLETED"}, "run": {"CRASHED"}, "worker": {"CRASHED"}}
    found: dict[str, Counter[str]] = {name: Counter() for name in victims}
    seconds: dict[str, list[float]] = {name: [] for name in victims}
    for number in range(KILLS):
        name = ("template", "run", "worker")[number % 3]
        place.worker()
        run = place.start("long")
        place.until(run, ("RUNNING", *FINAL))
        time.sleep(chance.random())
        for victim in victims[name]():
            victim.send_signal(signal.SIGKILL)
        began = time.monotonic()
        found[name][place.until(run, FINAL)] += 1
        seconds[name].append(time.monotonic() - began)
    _quiet(place)
    left = sorted(path.name for path in place.scratch.glob("shipway-*"))
    rows = tuple(
        (name, str(sum(found[name].values())), str(dict(found[name])), f"{max(seconds[name], default=0):.1f}")
        for name in victims
    )
    wrong = sum(count for name in victims for state, count in found[name].items() if state not in expected[name])
    goals = (
        Goal(
            "every run ends: Completed where its template was killed, Crashed where it or its worker was",
            f"{wrong} did not",
            wrong == 0,
        ),
        Goal("nothing left behind but the living worker's folder", str(len(left)), len(left) == 1),
    )
    return Table("Processes killed at random", ("killed", "times", "runs ended", "s until then, most"), rows, goals)


def _quiet(place: _Place) -> None:
    """Wait until no run's process is there."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        try:
            if not place.forks():
                time.sleep(0.5)
                return
        except (psutil.Error, ShipwayError):
            pass
        time.sleep(0.2)
