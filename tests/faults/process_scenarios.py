"""Processes that are killed, stopped or asked to end while runs go on; seeded, repeatable as far as clocks allow."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

import psutil
from tests.faults.stage import FINAL, Stage, audit, children, kill, patient, state_type, wait

RUNS = 3
VICTIMS = (
    *("server", "store", "worker", "template", "child", "supervisor"),
    *("worker and child", "command", "everything"),
)
"""`everything` is what happens to a machine: power off, a sleep, a shutdown."""
SIGNALS = ("KILL", "STOP", "TERM")
LONGEST_STOP = 16.0
"""Seconds for which a process is stopped at most: longer than a run may be silent."""
NEVER = "1970-01-01T00:00:00+00:00"


@dataclass(frozen=True)
class Outcome:
    """How a scenario went.

    Attributes:
        name: who was hit, and how.
        seconds: from then until every run had ended.
        recovered: seconds until the stack was ready and each run was Running for the last time; from the hit on, or
            from when what was stopped went on.
        states: how often each state was a run's last.
        again: how many runs were begun more than once.
        faults: how many processes were hit; none where what was to be hit was not there at that moment.
    """

    name: str
    seconds: float
    recovered: float
    states: dict[str, int]
    again: int
    faults: int = 1


def play(stage: Stage, seed: int) -> Outcome:
    """Play the scenario of a seed and check what it left; raises AssertionError where a guarantee was broken."""
    dice = random.Random(seed)  # noqa: S311
    victim, how = chosen(seed)
    stage.ready()
    runs = [stage.start(seconds=round(dice.uniform(0, 3), 2)) for _ in range(RUNS)]
    command = deploy(stage) if victim == "command" else None
    time.sleep(dice.uniform(0, 3))
    pids = find(stage, victim, runs, command)
    hit = time.monotonic()
    over = strike(pids, victim, how, dice.uniform(0.2, LONGEST_STOP))
    stage.ready()
    ready = time.monotonic()
    if command:
        command.wait(120)
    # What is killed with its run alone has crashed, as Prefect has it; whatever else happens is mended.
    audit(stage, runs, completed=victim != "child")
    return outcome(name(seed), stage, runs, hit=hit, over=over, ready=ready, faults=len(pids))


def outcome(name: str, stage: Stage, runs: list[str], *, hit: float, over: float, ready: float, faults: int) -> Outcome:
    """Return how a scenario went, from its times: of the hit, of its end, of when the stack was ready again."""
    return Outcome(
        name,
        max(last(stage, runs, FINAL) - hit, 0.0),
        max(ready - over, last(stage, runs, {"RUNNING"}) - over, 0.0),
        dict(Counter(state_type(stage, run) for run in runs)),
        sum(stage.run(run)["run_count"] > 1 for run in runs),
        faults,
    )


def strike(pids: list[int], victim: str, how: str, pause: float, then: Callable[[], None] = lambda: None) -> float:
    """Kill, stop for some seconds, or ask to end, and do something `then`; return, when it shows, when it was over."""
    kill(*pids, number=getattr(signal, f"SIG{how}"))
    over = time.monotonic()
    then()
    if how == "STOP":
        time.sleep(pause)
        kill(*pids, number=signal.SIGCONT)
        over = time.monotonic()
    elif victim != "command":
        # Until it has ended, and that may take its time, what the supervisor has written says that all is well.
        wait(lambda: not any(map(works, pids)), "what was hit has ended")
    return over


def chosen(seed: int) -> tuple[str, str]:
    """Return who is hit under a seed, and how."""
    return VICTIMS[seed % len(VICTIMS)], SIGNALS[seed // len(VICTIMS) % len(SIGNALS)]


def name(seed: int) -> str:
    """Return the name of a seed's scenario."""
    victim, how = chosen(seed)
    return f"{victim}: SIG{how}"


def find(stage: Stage, victim: str, runs: list[str], command: subprocess.Popen[bytes] | None) -> list[int]:
    """Return the processes to hit, those that are there now."""
    if victim == "command":
        return [command.pid] if command else []
    if victim == "template":
        return stage.templates()
    if victim == "everything":
        supervisor = stage.service("supervisor")
        return [supervisor, *(process.pid for process in children(supervisor))]
    found = [int(path.read_text() or 0) for run in runs for path in stage.lives.glob(f"{run}.*")]
    found = [pid for pid in found if pid and alive(pid)]
    if victim == "child":
        return found[:1]
    if victim == "worker and child":
        return [stage.service("worker"), *stage.templates(), *found]
    return [stage.service(victim)]


def alive(pid: int) -> bool:
    """Tell whether a process is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def works(pid: int) -> bool:
    """Tell whether a process is there, and has not ended without anybody having asked how."""
    with suppress(psutil.Error):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def deploy(stage: Stage) -> subprocess.Popen[bytes]:
    """Deploy changed code, as somebody does while runs go on."""
    path = stage.shell.folder / "work.py"
    path.write_text(path.read_text() + f"\n# {time.time_ns()}\n")
    return stage.shell.start("deploy", "./work.py:work", "-n", "d")


def last(stage: Stage, runs: list[str], types: Collection[str]) -> float:
    """Return when the last of some runs last got into a state of some types, on the clock of `time.monotonic`."""
    times = [patient(partial(last_state, stage, run, types)) for run in runs]
    return time.monotonic() - (datetime.now(UTC) - datetime.fromisoformat(max(times))).total_seconds()


def last_state(stage: Stage, run: str, types: Collection[str]) -> str:
    """Return when a run last got into a state of some types; the beginning of time where it never did."""
    states = stage.api.request("GET", f"/flow_run_states/?flow_run_id={run}")
    return str(max((state["timestamp"] for state in states if state["type"] in types), default=NEVER))
