"""Processes that are killed, stopped or asked to end while runs go on; seeded, repeatable as far as clocks allow."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial

from tests.faults.stage import FINAL, Stage, audit, kill, patient, state_type, wait

RUNS = 3
VICTIMS = ("server", "store", "worker", "template", "child", "supervisor", "worker and child", "command")
SIGNALS = ("KILL", "STOP", "TERM")
LONGEST_STOP = 16.0
"""Seconds for which a process is stopped at most: longer than a run may be silent."""


@dataclass(frozen=True)
class Outcome:
    """How a scenario went.

    Attributes:
        name: who was hit, and how.
        seconds: from then until every run had ended.
        states: how often each state was a run's last.
        again: how many runs were begun more than once.
        faults: how many processes were hit; none where what was to be hit was not there at that moment.
    """

    name: str
    seconds: float
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
    pause = dice.uniform(0.2, LONGEST_STOP) if how == "STOP" else 0.0
    strike(pids, victim, how, pause)
    if command:
        command.wait(120)
    stage.ready()
    # What is killed with its run alone has crashed, as Prefect has it; whatever else happens is mended.
    audit(stage, runs, completed=victim != "child")
    seconds = max(ended(stage, runs) - hit, 0.0)
    states: dict[str, int] = {}
    for run in runs:
        states[state_type(stage, run)] = states.get(state_type(stage, run), 0) + 1
    again = sum(stage.run(run)["run_count"] > 1 for run in runs)
    return Outcome(name(seed), seconds, states, again, faults=len(pids))


def strike(pids: list[int], victim: str, how: str, pause: float) -> None:
    """Kill, stop for some seconds, or ask to end; returns when it shows."""
    kill(*pids, number=getattr(signal, f"SIG{how}"))
    if how == "STOP":
        time.sleep(pause)
        kill(*pids, number=signal.SIGCONT)
    elif victim == "supervisor":
        # Until it has ended, what it has written says that all is well.
        wait(lambda: not any(map(alive, pids)), "the supervisor has ended")


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
    children = [int(path.read_text() or 0) for run in runs for path in stage.lives.glob(f"{run}.*")]
    children = [pid for pid in children if pid and alive(pid)]
    if victim == "child":
        return children[:1]
    if victim == "worker and child":
        return [stage.service("worker"), *stage.templates(), *children]
    return [stage.service(victim)]


def alive(pid: int) -> bool:
    """Tell whether a process is there."""
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def deploy(stage: Stage) -> subprocess.Popen[bytes]:
    """Deploy changed code, as somebody does while runs go on."""
    path = stage.shell.folder / "work.py"
    path.write_text(path.read_text() + f"\n# {time.time_ns()}\n")
    return stage.shell.start("deploy", "./work.py:work", "-n", "d")


def ended(stage: Stage, runs: list[str]) -> float:
    """Return when the last of some runs ended, on the clock of `time.monotonic`."""
    ends = [patient(partial(last_end, stage, run)) for run in runs]
    return time.monotonic() - (datetime.now(UTC) - datetime.fromisoformat(max(ends))).total_seconds()


def last_end(stage: Stage, run: str) -> str:
    """Return when a run reached its last final state."""
    states = stage.api.request("GET", f"/flow_run_states/?flow_run_id={run}")
    return str(max(state["timestamp"] for state in states if state["type"] in FINAL))
