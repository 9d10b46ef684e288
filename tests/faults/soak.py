"""The soak: `python -m tests.faults.soak [--minutes M] [--seed S] [--to FOLDER]`.

A run is started every second, and every twenty seconds a process is killed, stopped or asked to end. Afterwards no run
may be lost, and what the services take of memory and descriptors must not have grown.
"""

from __future__ import annotations

import argparse
import csv
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

import psutil
from tests.faults.flows import TAG
from tests.faults.process_scenarios import SIGNALS, find, last_state, strike
from tests.faults.stage import FINAL, Stage, audit, is_final, patient, staged, state_type, wait

from shipway.stack import facts

EVERY_SECONDS = 1.0
FAULT_SECONDS = 20.0
SAMPLE_SECONDS = 5.0
LONGEST_STOP = 8.0
VICTIMS = ("server", "store", "worker", "template", "child", "supervisor", "worker and child")
SERVICES = ("supervisor", "server", "store", "worker")
HEARTBEAT = 10
"""Seconds between two signs of life. Each that comes when its run has ended already costs the server a wait in vain."""
BACKLOG_SECONDS = 1800.0
"""How long what has piled up while things were down may take at the end."""
GROWTH = 1.25
"""How much more the services may take at the end than in the second quarter: each is begun anew many times."""


@dataclass
class Soak:
    """What happens, and what is seen.

    Attributes:
        stage: the stack.
        dice: decides about the faults.
        runs: ids of those that were started.
        hits: how often each fault was.
        samples: seconds since the beginning, MB of memory, descriptors, runs started, runs ended.
    """

    stage: Stage
    dice: random.Random
    began: float = field(default_factory=time.monotonic)
    runs: list[str] = field(default_factory=list)
    hits: Counter[str] = field(default_factory=Counter)
    samples: list[tuple[float, float, int, int, int]] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def start_runs(self) -> None:
        """Start one every second; what could not be asked for while the server was away is made up for."""
        dice = random.Random(1)  # noqa: S311
        while not self.over.wait(max(0.0, self.began + len(self.runs) * EVERY_SECONDS - time.monotonic())):
            seconds = round(dice.uniform(0, 0.5), 2)
            key = f"soak-{len(self.runs)}"
            self.runs.append(patient(partial(self.start, seconds, key)))

    def start(self, seconds: float, key: str) -> str:
        """Start a run once, however often it is asked for."""
        body = {"parameters": {"seconds": seconds}, "state": {"type": "SCHEDULED"}, "idempotency_key": key}
        path = f"/deployments/{self.stage.deployments['work']}/create_flow_run"
        return str(self.stage.api.request("POST", path, body)["id"])

    def look(self) -> None:
        """Take samples."""
        while not self.over.wait(SAMPLE_SECONDS):
            with suppress(Exception):
                megabytes, descriptors = taken(self.stage)
                ended = patient(lambda: self.stage.api.request("POST", "/flow_runs/count", ENDED))
                now = time.monotonic() - self.began
                self.samples.append((round(now, 1), megabytes, descriptors, len(self.runs), int(ended)))

    def hit(self) -> None:
        """Let one fault happen, and wait until everything is there again."""
        victim, how = self.dice.choice(VICTIMS), self.dice.choice(SIGNALS)
        pids = find(self.stage, victim, self.runs[-20:], None)
        self.hits[f"{victim}: SIG{how}"] += 1
        strike(pids, victim, how, self.dice.uniform(0.2, LONGEST_STOP))
        self.stage.ready()

    def play(self, seconds: float) -> None:
        """Go on for some time."""
        threads = [threading.Thread(target=work, daemon=True) for work in (self.start_runs, self.look)]
        for thread in threads:
            thread.start()
        try:
            following = self.began + FAULT_SECONDS
            while following < self.began + seconds:
                time.sleep(max(0.0, following - time.monotonic()))
                self.hit()
                following = max(following + FAULT_SECONDS, time.monotonic())
        finally:
            self.over.set()
            for thread in threads:
                thread.join()

    def check(self) -> dict[str, int]:
        """Check that nothing was lost; return how often each state was a run's last."""
        for run in self.runs:
            wait(partial(is_final, self.stage, run), f"{run} ends", BACKLOG_SECONDS)
        # A run that is hit alone has crashed, as Prefect has it; whatever else happens is mended.
        alone = sum(count for name, count in self.hits.items() if name.startswith("child"))
        wait(
            lambda: len(self.runs) - self.states()["COMPLETED"] <= alone, lambda: f"{self.states()}, {alone} hit alone"
        )
        states = self.states()
        audit(self.stage, self.runs, completed=False)
        return dict(states)

    def states(self) -> Counter[str]:
        """Return how often each type is that of a run's state."""
        return Counter(state_type(self.stage, run) for run in self.runs)

    def growth(self) -> tuple[float, float]:
        """Return how much more memory and descriptors were taken in the last quarter than in the second."""
        quarter = len(self.samples) // 4
        second, last = self.samples[quarter : 2 * quarter], self.samples[-quarter:]
        return tuple(median(row[at] for row in last) / median(row[at] for row in second) for at in (1, 2))  # type: ignore[return-value]


ENDED = {"flow_runs": {"state": {"type": {"any_": sorted(FINAL)}}}}


def taken(stage: Stage) -> tuple[float, int]:
    """Return what the services and all that they started take: MB of memory of their own, and descriptors."""
    found = facts(stage.settings)
    processes = {service.process.pid for service in found.services if service.process} if found else set()
    megabytes, descriptors = 0.0, 0
    for pid in processes:
        with suppress(psutil.Error):
            for process in (psutil.Process(pid), *psutil.Process(pid).children(recursive=True)):
                with suppress(psutil.Error):
                    megabytes += process.memory_full_info().pss / 1e6
                    descriptors += process.num_fds()
    return round(megabytes, 1), descriptors


def save(soak: Soak, folder: Path) -> None:
    """Write what was seen, and draw it over time."""
    with (folder / "soak.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("seconds", "MB", "descriptors", "started", "ended"), *soak.samples])
    import matplotlib as mpl

    mpl.use("svg")
    import matplotlib.pyplot as plt

    minutes = [row[0] / 60 for row in soak.samples]
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(8, 7), layout="constrained")
    for axis, title, columns in (
        (axes[0], "memory of services and runs, MB", ((1, None),)),
        (axes[1], "open descriptors", ((2, None),)),
        (axes[2], "runs", ((3, "started"), (4, "ended"))),
    ):
        for column, label in columns:
            axis.plot(minutes, [row[column] for row in soak.samples], label=label, linewidth=1)
        axis.set_title(title, loc="left", fontsize=10)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.3)
    axes[2].legend(frameon=False)
    axes[2].set_xlabel("minutes")
    mpl.rcParams["svg.hashsalt"] = "soak"
    figure.savefig(folder / "soak.svg", metadata={"Date": None})


def counted(numbers: Mapping[str, int]) -> str:
    """Return numbers by name as text."""
    return ", ".join(f"{name} {count}" for name, count in sorted(numbers.items()))


def main() -> int:
    """Soak, print a summary, and write samples and plot into a folder; return 1 where something was lost or grew."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.soak")
    parser.add_argument("--minutes", type=float, default=40.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--to", type=Path, default=Path("results"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="sws-") as folder, staged(Path(folder) / "s", heartbeat=HEARTBEAT) as stage:
        # A task that finds no slot free waits for many seconds, as Prefect has it: with two, runs would pile up.
        stage.api.request("POST", "/concurrency_limits/", {"tag": TAG, "concurrency_limit": 50})
        soak = Soak(stage, random.Random(options.seed))  # noqa: S311
        try:
            soak.play(60 * options.minutes)
        finally:
            # Before the audit: what was seen is told whatever that finds.
            save(soak, options.to)
        behind = time.monotonic()
        states = soak.check()
        behind = time.monotonic() - behind
        again = sum(stage.run(run)["run_count"] > 1 for run in soak.runs)
        last = max(last_state(stage, run, FINAL) for run in soak.runs)
    memory, descriptors = soak.growth()
    print(
        f"{options.minutes:g} minutes, seed {options.seed}: {len(soak.runs)} runs started, {soak.hits.total()} faults.",
        f"Ended as {counted(states)}; {again} were begun more than once.",
        f"The last ended at {last}; the audit took {behind:.0f} s and found nothing lost and nothing left.",
        f"Last quarter against second: memory {memory:.2f}, descriptors {descriptors:.2f}.",
        f"Faults: {counted(soak.hits)}.",
        sep="\n",
    )
    return 1 if max(memory, descriptors) > GROWTH else 0


if __name__ == "__main__":
    sys.exit(main())
