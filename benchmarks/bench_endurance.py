"""Whether a worker stays as it was through a thousand runs, and what becomes of runs when processes are killed."""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks.report import Goal, Table
from benchmarks.stack import Project, running_stack
from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.automations import is_silent
from shipway.settings import Settings
from shipway.stack import StackFacts, facts

RUNS = int(os.environ.get("SHIPWAY_BENCH_RUNS", "1000"))
KILLS = int(os.environ.get("SHIPWAY_BENCH_KILLS", "100"))
AT_ONCE = 4
SEED = 2013
LIMIT = 300.0
"""Seconds within which a run must have ended, or everything be ready again, however the machine is used otherwise."""

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
EXPECTED = {"template": "Completed", "run": "Crashed", "worker": "Completed, begun again"}
"""What becomes of a run, by which process is killed meanwhile."""

FLOWS = '''"""A run that is over at once, and one that takes a while."""

import os
import sys
import time
from pathlib import Path

from prefect import flow, runtime, task

LIVES = Path({lives!r})


@task
def step(n: int) -> int:
    """Add one."""
    return n + 1


def live() -> None:
    """Leave word of this process, and whether it was forked from a template."""
    word = LIVES / f"{{runtime.flow_run.id}}.{{runtime.flow_run.run_count}}"
    word.with_suffix(".new").write_text(f"{{os.getpid()}} {{int('shipway.worker.child' in sys.modules)}}")
    word.with_suffix(".new").rename(word)


@flow(name="short")
def short() -> int:
    """Do next to nothing."""
    return step(1)


@flow(name="long")
def long() -> None:
    """Take three seconds."""
    live()
    for number in range(12):
        step(number)
        time.sleep(0.25)


@flow(name="probe")
def probe() -> None:
    """Say how it was started."""
    live()
'''


@dataclass(frozen=True)
class Look:
    """What there is of a stack while no run goes on: memory and descriptors of the worker and its templates, and more.

    Attributes:
        memory: that nobody shares.
        supervisor: descriptors of the process that starts all others, and that nobody kills.
        processes: all of the stack.
        folders: of runs.
        files: temporary ones.
    """

    memory: int
    descriptors: int
    threads: int
    supervisor: int
    processes: int
    folders: int
    files: int

    def row(self, title: str) -> tuple[str, ...]:
        """Return it as a line of a table with `HEADERS`."""
        figures = (self.descriptors, self.threads, self.supervisor, self.processes, self.folders, self.files)
        return (title, f"{self.memory / 1e6:.1f}", *map(str, figures))

    def is_like(self, other: Look) -> bool:
        """Tell whether as much is there as before, but for memory and what connections come and go with."""
        return (
            (self.processes, self.folders, self.files) == (other.processes, other.folders, other.files)
            and self.descriptors <= other.descriptors + 5
            and self.threads <= other.threads + 5
            and self.supervisor <= other.supervisor + 5
        )


HEADERS = (
    "worker and templates",
    "private MB",
    "descriptors",
    "threads",
    "supervisor's descriptors",
    "processes of the stack",
    "folders of runs",
    "temporary files",
)


def run() -> list[Table]:
    """Measure on a stack of its own, whose temporary files are counted."""
    with tempfile.TemporaryDirectory(prefix="shipway-bench-tmp-") as scratch, tempfile.TemporaryDirectory() as lives:
        before, os.environ["TMPDIR"] = os.environ.get("TMPDIR"), scratch
        try:
            with running_stack() as project:
                (project.folder / "flows.py").write_text(FLOWS.format(lives=lives))
                for flow in ("short", "long", "probe"):
                    project.shipway("deploy", f"./flows.py:{flow}", "-n", "x")
                place = _Place(project, Path(scratch), Path(lives))
                return [_thousand(place), *_kills(place)]
        finally:
            if before is None:
                del os.environ["TMPDIR"]
            else:
                os.environ["TMPDIR"] = before


class _Place:
    """The stack under test."""

    def __init__(self, project: Project, scratch: Path, lives: Path) -> None:
        self.scratch = scratch
        self.lives = lives
        self.settings = Settings.load(project.folder, project.environment)
        self.api = Api(self.settings)

    def start(self, flow: str) -> str:
        """Create a run and return its id."""
        deployment = self.api.deployment(f"{flow}/x")
        return str(self.api.request("POST", f"/deployments/{deployment['id']}/create_flow_run", {})["id"])

    def ended(self, run: str) -> str:
        """Wait until a run has ended for good; return how, or what was seen last."""
        _until(lambda: self._is_final(self._run(run)))
        found = self._run(run)
        return str(found["state_type"]).capitalize() + (", begun again" if found["run_count"] > 1 else "")

    def _run(self, run: str) -> dict[str, Any]:
        found: dict[str, Any] = self.api.request("GET", f"/flow_runs/{run}")
        return found

    def _is_final(self, run: dict[str, Any]) -> bool:
        # One that lost its worker has crashed for a moment only.
        return run["state_type"] in FINAL and not is_silent(run, self.settings.crash_retries)

    def process(self, run: str) -> tuple[psutil.Process, bool]:
        """Return the process of a run's first attempt, once it has begun, and whether it was forked."""
        word = self.lives / f"{run}.1"
        if not _until(word.exists):
            raise RuntimeError("a run does not begin")
        pid, forked = map(int, word.read_text().split())
        return psutil.Process(pid), bool(forked)

    def worker(self) -> psutil.Process:
        """Return the worker's process."""
        [worker] = [each.process for each in self._facts().services if each.name == "worker"]
        if worker is None:
            raise RuntimeError("the worker has no process")
        return psutil.Process(worker.pid)

    def templates(self) -> list[psutil.Process]:
        """Return the worker's templates."""
        return [child for child in self.worker().children() if "shipway.worker.template" in child.cmdline()]

    def ready(self) -> None:
        """Wait until the stack is ready, no run goes on, and the next one is forked from a template."""
        if not _until(self._quiet):
            raise RuntimeError("the stack does not come to rest")
        while not self._probe():
            pass
        if not _until(self._quiet):
            raise RuntimeError("the stack does not come to rest")

    def _quiet(self) -> bool:
        if not self._facts().ready:
            return False
        worker, templates = self.worker(), self.templates()
        # A run whose template was killed is the worker's own child.
        return bool(templates) and worker.children(recursive=True) == templates

    def _probe(self) -> bool:
        run = self.start("probe")
        _process, forked = self.process(run)
        if self.ended(run) != "Completed":
            raise RuntimeError("a run that nobody disturbed did not complete")
        return forked

    def look(self) -> Look:
        """Count what there is."""
        processes = [self.worker(), *self.templates()]
        return Look(
            sum(each.memory_full_info().uss for each in processes),
            sum(each.num_fds() for each in processes),
            sum(each.num_threads() for each in processes),
            psutil.Process(self._facts().supervisor.pid).num_fds(),
            sum(1 for _ in self._processes()),
            sum(1 for _ in self.scratch.glob("shipway-worker-*/run-*")),
            sum(1 for _ in self.scratch.rglob("*")),
        )

    def _processes(self) -> Iterator[psutil.Process]:
        """Yield all processes of the stack, whoever their parent is now: they are told where temporary files go."""
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("TMPDIR") == str(self.scratch):
                    yield process

    def _facts(self) -> StackFacts:
        found = facts(self.settings)
        if found is None:
            raise RuntimeError("the stack is gone")
        return found


def _thousand(place: _Place) -> Table:
    looks: dict[int, Look] = {}
    ended: Counter[str] = Counter()
    for count in range(0, RUNS + 1, max(RUNS // 10, 1)):
        while ended.total() < count:
            batch = [place.start("short") for _ in range(min(AT_ONCE, count - ended.total()))]
            ended.update(map(place.ended, batch))
        place.ready()
        looks[count] = place.look()
    # The first tenth fills caches: of names, of connections, of what the allocator keeps.
    begin, end = sorted(looks)[1], max(looks)
    grown = (looks[end].memory - looks[begin].memory) / max(end - begin, 1)
    goals = (
        Goal(f"all {RUNS} Completed", f"{dict(ended)}", ended == {"Completed": RUNS}),
        Goal("no growth of memory: less than 10 KB a run", f"{grown / 1e3:.1f} KB a run", grown < 10e3),
        Goal("no growth of anything else", "see above", looks[end].is_like(looks[begin])),
    )
    rows = tuple(look.row(f"after {count} runs") for count, look in looks.items())
    return Table(f"{RUNS} runs, {AT_ONCE} at once", HEADERS, rows, goals)


def _kills(place: _Place) -> tuple[Table, Table]:
    chance = random.Random(SEED)
    found: dict[str, Counter[str]] = {name: Counter() for name in EXPECTED}
    seconds: dict[str, list[float]] = {name: [] for name in EXPECTED}
    before = place.look()
    for number in range(KILLS):
        name = list(EXPECTED)[number % len(EXPECTED)]
        run = place.start("long")
        process, _forked = place.process(run)
        victims = {"template": place.templates(), "run": [process], "worker": [place.worker()]}
        time.sleep(chance.random())
        for victim in victims[name]:
            victim.kill()
        began = time.monotonic()
        found[name][place.ended(run)] += 1
        seconds[name].append(time.monotonic() - began)
        place.ready()
    # A worker that is new gets a workspace ready when it has had some runs.
    _until(lambda: place.look().is_like(before))
    after = place.look()
    rows = tuple(
        (name, str(found[name].total()), str(dict(found[name])), f"{max(seconds[name], default=0):.1f}")
        for name in EXPECTED
    )
    wrong = sum(count for name in EXPECTED for ended, count in found[name].items() if ended != EXPECTED[name])
    ends = Goal(
        "every run ends: Completed where its template was killed, Crashed where it was killed alone, begun again and "
        "Completed where its worker was killed",
        f"{wrong} did not",
        wrong == 0,
    )
    nothing = Goal("nothing left behind", "see above", after.is_like(before))
    return (
        Table("Processes killed at random", ("killed", "times", "runs ended", "s until then, most"), rows, (ends,)),
        Table("What they leave behind", HEADERS, (before.row("before"), after.row(f"after {KILLS} kills")), (nothing,)),
    )


def _until(true: Callable[[], bool]) -> bool:
    """Wait for a condition, whatever dies meanwhile; tell whether it came true."""
    end = time.monotonic() + LIMIT
    while time.monotonic() < end:
        with suppress(psutil.Error, ShipwayError):
            if true():
                return True
        time.sleep(0.05)
    return False
