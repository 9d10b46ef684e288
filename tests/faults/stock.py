"""The same processes hit beside Prefect's own process worker: `python -m tests.faults.stock [--rounds N]`.

Both kinds of worker run the same release on the same stack. A run counts as lost where it is not final, and no process
works on it, long after what was hit is there again.
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
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from tests.faults.process_scenarios import find
from tests.faults.stage import FINAL, Stage, children, kill, staged, state_type, wait

VICTIMS = ("server", "store", "worker", "child", "worker and child")
SIGNALS = ("KILL", "TERM")
RUNS = 3
SECONDS = 4.0
WINDOW = 60.0
"""Seconds a run has to end in, from the hit on: six times what silent runs are given on this stack."""


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
        return {"worker": [self.process.pid], "child": runs[:1], "worker and child": [self.process.pid, *runs]}[victim]


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


def play(stage: Stage, stock: Stock | None, victim: str, how: str, dice: random.Random) -> Counter[str]:
    """Hit a process while runs go on; return how often each end was a run's, `lost` among them."""
    flow = "stock" if stock else "work"
    runs = [stage.start(flow, seconds=SECONDS) for _ in range(RUNS)]
    wait(lambda: any(stage.lives.glob(f"{run}.*") for run in runs), "a run has begun")
    time.sleep(dice.uniform(0, SECONDS / 2))
    services = victim in ("server", "store")
    pids = stock.processes(victim) if stock and not services else find(stage, victim, runs, None)
    kill(*pids, number=getattr(signal, f"SIG{how}"))
    hit = time.monotonic()
    if stock and victim.startswith("worker"):
        assert stock.process is not None
        stock.process.wait(60)
        stock.start()
    stage.ready()
    while time.monotonic() < hit + WINDOW and any(state_type(stage, run) not in FINAL for run in runs):
        time.sleep(1)
    ends = Counter(state_type(stage, run) if state_type(stage, run) in FINAL else "lost" for run in runs)
    for run in runs:  # out of the way of the next ones
        for path in stage.lives.glob(f"{run}.*"):
            if psutil.pid_exists(pid := int(path.read_text())):
                kill(pid)
    return ends


def main() -> int:
    """Play every victim and signal on both, and print a table."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.stock")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    dice = random.Random(options.seed)  # noqa: S311
    found: dict[tuple[str, str], dict[bool, Counter[str]]] = {}
    with tempfile.TemporaryDirectory(prefix="swc-") as folder, staged(Path(folder) / "s") as stage:
        # The tag's limit is for other scenarios: here it would tell who is slow, not who is lost.
        stage.api.request("DELETE", "/concurrency_limits/tag/gpu")
        with stock_worker(stage) as stock:
            for victim in VICTIMS:
                for how in SIGNALS:
                    both = found[victim, how] = {False: Counter(), True: Counter()}
                    for _ in range(options.rounds):
                        for ours in (True, False):
                            both[ours] += play(stage, None if ours else stock, victim, how, dice)
                    print(victim, how, both, file=sys.stderr, flush=True)
    ends = ("COMPLETED", "CRASHED", "FAILED", "CANCELLED", "lost")
    print(
        "| hit | worker | " + " | ".join(end.lower() for end in ends) + " |", "|---|---|" + "--:|" * len(ends), sep="\n"
    )
    for (victim, how), both in found.items():
        for ours in (True, False):
            counts = " | ".join(str(both[ours][end]) for end in ends)
            print(f"| {victim}: SIG{how} | {'Shipway' if ours else 'stock'} | {counts} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
