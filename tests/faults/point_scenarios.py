"""Processes that are hit at a chosen point of a run's life, waited for by what shows that it is there; seeded."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from tests.faults import process_scenarios
from tests.faults.process_scenarios import LONGEST_STOP, RUNS, SIGNALS, Outcome, find, outcome, strike
from tests.faults.proxy import Choose, FaultyProxy, Request, faulty_proxy, nothing
from tests.faults.stage import Stage, audit, kill, state_type, wait

from shipway.prefect.blocks import save_s3_block
from shipway.stack import facts

NAME = "watched"
VICTIMS = tuple(victim for victim in process_scenarios.VICTIMS if victim != "command")


@dataclass
class Watched:
    """A deployment whose runs reach the stack's store through a proxy that can hold them at a point.

    Attributes:
        stage: the stack.
        proxy: in front of its store.
        stopped: templates that may not fork.
    """

    stage: Stage
    proxy: FaultyProxy
    stopped: list[int] = field(default_factory=list)

    def ask(self, point: str) -> None:
        """Ask that one of the runs to come stay at a point."""
        if point == "claimed":
            wait(lambda: bool(self.stage.templates()), "there is a template")
            self.stopped = self.stage.templates()
            kill(*self.stopped, number=signal.SIGSTOP)
        elif point in AT_STORE:
            self.proxy.gate.clear()
            self.proxy.befall(once(*AT_STORE[point]))
        elif point in IN_FLOW:
            (self.stage.points / point).touch()

    def reached(self, point: str, runs: list[str]) -> list[int]:
        """Wait until a run is at the point, and return its process, if it has one."""
        wait(lambda: bool(self._there(point, runs)), lambda: f"{point}: {[self.stage.history(run) for run in runs]}")
        [there, *_] = self._there(point, runs)
        return [there] if there else []

    def _there(self, point: str, runs: list[str]) -> list[int]:
        """Return the processes of the runs that are at a point, 0 for one that has none."""
        if point == "claimed":
            return [0 for run in runs if state_type(self.stage, run) == "PENDING"]
        if point in IN_FLOW:
            return [int(path.name.split()[-1]) for path in self.stage.points.glob(f"{point} *")]
        if point in AT_STORE:
            keys = [request.target for request in self.proxy.waiting]
            return [self.stage.pid(run) for run in runs for key in keys if f"-{run[-8:]}/" in key]
        return [self.stage.pid(run) for run in runs if state_type(self.stage, run) == "COMPLETED"]

    def let_go(self) -> None:
        """Let what stays at a point go on, if it still can; what was on its way to the store, or back, is lost."""
        kill(*self.stopped, number=signal.SIGCONT)
        self.stopped = []
        self.proxy.choose = nothing
        self.proxy.gate.set()
        for path in self.stage.points.iterdir():
            path.unlink()


IN_FLOW = ("loaded", "running", "task")
AT_STORE = {
    "uploading": ("cut", "/numbers"),
    "uploaded": ("reset", "/run.json"),
    "recorded": ("lose", "/run.json"),
}
"""Where a request about such a key stays: when half of it has arrived, before it has, when it has been answered."""
POINTS = ("claimed", *IN_FLOW, *AT_STORE, "completed")
"""Pending and without a process; with one that has loaded the flow; Running; in a task; while data is sent; when all of
it has arrived and the record has not; when that has and the server does not know; Completed."""


def once(fault: str, word: str) -> Choose:
    """Let a fault befall the first write whose address has this word in it."""
    left = 1

    def choose(request: Request) -> str | None:
        nonlocal left
        if left and request.method == "PUT" and word in request.target:
            left = 0
            return fault
        return None

    return choose


@contextmanager
def watched_runs(stage: Stage) -> Iterator[Watched]:
    """Deploy on a stack what can be held."""
    found = facts(stage.settings)
    assert found is not None
    config = found.store
    assert config.endpoint_url is not None
    with faulty_proxy(config.endpoint_url) as proxy:
        save_s3_block(stage.settings, NAME, replace(config, endpoint_url=proxy.url))
        stage.shell.ok("deploy", "./work.py:work", "-n", NAME, SHIPWAY_STORE=f"s3/{NAME}")
        stage.deployments[NAME] = stage.api.deployment(f"work/{NAME}")["id"]
        yield Watched(stage, proxy)


def play(watched: Watched, seed: int) -> Outcome:
    """Play the scenario of a seed and check what it left; raises AssertionError where a guarantee was broken."""
    stage, dice = watched.stage, random.Random(seed)  # noqa: S311
    point, victim, how = chosen(seed)
    stage.ready()
    watched.ask(point)
    try:
        runs = [stage.start(NAME, seconds=round(dice.uniform(0, 2), 2)) for _ in range(RUNS)]
        held = watched.reached(point, runs)
        pids = held if victim == "child" else find(stage, victim, runs, None)
        if victim == "worker and child":
            pids = sorted({*pids, *held})
        hit = time.monotonic()
        over = strike(pids, victim, how, dice.uniform(0.2, LONGEST_STOP), watched.let_go)
    finally:
        watched.let_go()
    stage.ready()
    ready = time.monotonic()
    audit(stage, runs, completed=victim != "child")
    return outcome(point, stage, runs, hit=hit, over=over, ready=ready, faults=len(pids))


def chosen(seed: int) -> tuple[str, str, str]:
    """Return the point, who is hit, and how; each few seeds that follow on each other are about all points."""
    point, how = POINTS[seed % len(POINTS)], SIGNALS[seed % len(SIGNALS)]
    victim = VICTIMS[(seed + seed // len(POINTS)) % len(VICTIMS)]
    # What has been claimed only has no process of its own.
    return point, "worker and child" if (point, victim) == ("claimed", "child") else victim, how


ALL = len(POINTS) * len(VICTIMS) * len(SIGNALS)


def name(seed: int) -> str:
    """Return the name of a seed's scenario."""
    point, victim, how = chosen(seed)
    return f"{point}: {victim} SIG{how}"
