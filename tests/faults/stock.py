"""The same processes hit beside Prefect's own process worker: `python -m tests.faults.stock [--rounds N]`.

Both kinds of worker run the same release on the same stack. A run counts as lost where it is not final although nothing
has happened to it for long: what was hit is there again, no process works on it, and its state has not changed.
"""

from __future__ import annotations

import argparse
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.__main__ import median_and_most
from tests.faults.process_scenarios import find, works
from tests.faults.stage import Stage, children, is_final, kill, staged, state_type, wait

from shipway.errors import ShipwayError
from shipway.run.fetch import download
from shipway.run.record import read_record, record_keys

VICTIMS = ("server", "store", "worker", "child", "worker and child")
SIGNALS = ("KILL", "TERM")
RUNS = 3
SECONDS = 4.0
QUIET = 60.0
"""Seconds without anything after which nothing is waited for: six times what silent runs are given on this stack."""
LONGEST = 300.0
"""Seconds after which a run is given up in any case."""


@dataclass
class Tally:
    """What became of runs.

    Attributes:
        ends: how often each state was a run's last.
        lost: how many had not ended.
        bare: how many completed and left no record, or another one than they should.
        left: how many processes of runs that had ended were there still.
        seconds: from each hit until every run had ended, where they all did.
    """

    ends: Counter[str] = field(default_factory=Counter)
    lost: int = 0
    bare: int = 0
    left: int = 0
    seconds: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        """Return them for a table."""
        counts = (*(self.ends[end] for end in ENDS), self.lost, self.bare, self.left)
        return [*map(str, counts), *median_and_most(self.seconds)]


ENDS = ("COMPLETED", "CRASHED", "FAILED", "CANCELLED")


class Stock:
    """Prefect's process worker, begun anew when it has ended, as a service manager does."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it unless it is there; it asks for runs every second."""
        if self.process is None or self.process.poll() is not None:
            command = (str(Path(sys.executable).parent / "prefect"), "worker", "start", "--type", "process")
            environment = self.stage.shell.environment | {
                "PREFECT_API_URL": self.stage.settings.api_url,
                "PREFECT_WORKER_QUERY_SECONDS": "1",
            }
            self.process = subprocess.Popen(
                (*command, "--pool", "stock"),
                cwd=self.stage.shell.folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )

    def processes(self, victim: str) -> list[int]:
        """Return the processes to hit."""
        assert self.process is not None
        runs = [child.pid for child in children(self.process.pid)]
        return [self.process.pid, *(runs if victim == "worker and child" else [])]


@contextmanager
def stock_worker(stage: Stage) -> Iterator[Stock]:
    """Run one, with a pool and a deployment of its own."""
    stage.api.request("POST", "/work_pools/", {"name": "stock", "type": "process"})
    stage.shell.ok("deploy", "./work.py:work", "-n", "stock", "--pool", "stock")
    stage.deployments["stock"] = stage.api.deployment("work/stock")["id"]
    # What Prefect starts where nobody says otherwise, not our engine.
    stage.api.request("PATCH", f"/deployments/{stage.deployments['stock']}", {"job_variables": {}})
    worker = Stock(stage)
    worker.start()
    try:
        yield worker
    finally:
        if worker.process:
            pids = [worker.process.pid, *(child.pid for child in children(worker.process.pid))]
            kill(*pids)
            worker.process.wait()


def play(stage: Stage, stock: Stock | None, victim: str, how: str, dice: random.Random, tally: Tally) -> None:
    """Hit a process while runs go on, and add what became of them."""
    flow = "stock" if stock else "work"
    runs = [stage.start(flow, seconds=SECONDS) for _ in range(RUNS)]
    wait(lambda: bool(processes(stage, runs)), "a run has begun")
    time.sleep(dice.uniform(0, SECONDS / 2))
    if victim == "child":
        pids = processes(stage, runs)[:1]
    else:
        pids = stock.processes(victim) if stock and victim.startswith("worker") else find(stage, victim, runs, None)
    assert pids, "there is what is to be hit"
    kill(*pids, number=getattr(signal, f"SIG{how}"))
    hit = time.monotonic()
    if stock and victim.startswith("worker"):
        assert stock.process is not None
        stock.process.wait(60)
    else:
        wait(lambda: not any(map(works, pids)), "what was hit has ended")
    stage.ready()
    lost = settle(stage, runs, hit, stock.start if stock else lambda: None)
    tally.ends += Counter(state_type(stage, run) for run in runs if run not in lost)
    tally.lost += len(lost)
    tally.bare += bare(stage, [run for run in runs if run not in lost and state_type(stage, run) == "COMPLETED"])
    if not lost:
        tally.seconds.append(time.monotonic() - hit)
    with suppress(AssertionError):
        wait(lambda: not processes(stage, runs), "no process is left", QUIET)
    tally.left += len(processes(stage, runs))
    kill(*processes(stage, runs))  # out of the way of the next ones
    for run in lost:
        state = {"type": "CANCELLED", "message": "Lost"}
        stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})


def settle(stage: Stage, runs: list[str], hit: float, look_after: Callable[[], None]) -> list[str]:
    """Wait until every run has ended, or nothing happens any more; return those that have not ended."""
    seen, since = None, hit
    while True:
        look_after()
        there = [stage.run(run)["state_id"] for run in runs], processes(stage, runs)
        ended = [run for run in runs if is_final(stage, run)]
        now = time.monotonic()
        if there != seen or there[1]:
            seen, since = there, now
        if len(ended) == len(runs) or now > min(since + QUIET, hit + LONGEST):
            return [run for run in runs if run not in ended]
        time.sleep(0.5)


def processes(stage: Stage, runs: list[str]) -> list[int]:
    """Return the processes of runs that are there."""
    words = [path.read_text() for run in runs for path in stage.lives.glob(f"{run}.*")]
    return [int(word) for word in words if word and works(int(word))]


def bare(stage: Stage, completed: list[str]) -> int:
    """Return how many runs have no record, or one that lacks something that they have saved by its name."""
    store = stage.store
    keys = {id8: key for key, _name, id8 in record_keys(store, "work")}
    found = 0
    for run in completed:
        try:
            record = read_record(store, keys[run[-8:]])
            for name in ("begun", "numbers"):
                download(store, record.artifact(name), stage.lives.parent / "fetched")  # which compares digests
        except (KeyError, ShipwayError) as error:
            print(run, "has no whole record:", repr(error), file=sys.stderr, flush=True)
            found += 1
    return found


def main() -> int:
    """Play every victim and signal on both, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.stock")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311
    found: dict[tuple[str, str, str], Tally] = {}
    with tempfile.TemporaryDirectory(prefix="swc-") as folder, staged(Path(folder) / "s") as stage:
        # The tag's limit is for other scenarios: here it would tell who is slow, not who is lost.
        stage.api.request("DELETE", "/concurrency_limits/tag/gpu")
        with stock_worker(stage) as stock:
            for victim in VICTIMS:
                for how in SIGNALS:
                    for name, worker in (("Shipway", None), ("stock", stock)):
                        tally = found[victim, how, name] = Tally()
                        for _ in range(options.rounds):
                            play(stage, worker, victim, how, dice, tally)
                        print(victim, how, name, tally, file=sys.stderr, flush=True)
    heads = [
        "hit",
        "worker",
        *map(str.lower, ENDS),
        "lost",
        "without data",
        "processes left",
        "seconds, median",
        "most",
    ]
    print(f"| {' | '.join(heads)} |", "|---|---|" + "--:|" * (len(heads) - 2), sep="\n")
    for (victim, how, name), tally in found.items():
        print(f"| {victim}: SIG{how} | {name} | {' | '.join(tally.cells())} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
