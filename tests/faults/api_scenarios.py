"""A bad network between the Prefect API and a worker with its runs; seeded, repeatable as far as clocks allow."""

from __future__ import annotations

import random
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

from tests.faults.process_scenarios import last
from tests.faults.proxy import Choose, FaultyProxy, Request, at_random, faulty_proxy
from tests.faults.stage import FINAL, Stage, audit, is_final, state_type, wait

from shipway.errors import NotFoundError

POOL = "far"
RUNS = 3
MOST = 8
SHARE = 0.25
LONGEST = 60.0
"""Seconds for which faults may befall requests; what is to be mended afterwards is mended without."""
FAULTS = ("delay", "500", "503", "429", "reset", "cut", "lose", "truncate", "duplicate", "stale")
"""Not `flip` and `garble`: nothing in HTTP tells a changed bit, and the API has no digests."""

ASKED = ("", "", "set_state", "/get_scheduled_flow_runs", "/flow_runs/", "/logs/")
"""What requests may be about; each scenario's faults befall those about one of them, or any."""


@dataclass(frozen=True)
class Outcome:
    """How a scenario went.

    Attributes:
        name: the fault.
        seconds: from the first run's start until every run had ended.
        states: how often each state was a run's last.
        again: how many runs were begun more than once.
        faults: how many requests something befell.
    """

    name: str
    seconds: float
    states: dict[str, int]
    again: int
    faults: int


class Far:
    """A worker that reaches the stack's API through a proxy, as its runs do; pool and deployment are its own."""

    def __init__(self, stage: Stage, proxy: FaultyProxy) -> None:
        self.stage = stage
        self.proxy = proxy
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the worker unless it is there, as a service manager does, and wait until it has asked for runs."""
        if self.process is None or self.process.poll() is not None:
            self.stage.shell.environment["PREFECT_API_URL"] = f"{self.proxy.url}/api"
            try:
                self.process = self.stage.shell.start("worker", "start", "--pool", POOL)
            finally:
                del self.stage.shell.environment["PREFECT_API_URL"]
            wait(self._online, "the far worker asks for runs")

    def _online(self) -> bool:
        with suppress(NotFoundError):
            workers = self.stage.api.request("POST", f"/work_pools/{POOL}/workers/filter", {})
            return any(worker["status"] == "ONLINE" for worker in workers)
        return False  # nor is there its pool


@contextmanager
def far_worker(stage: Stage) -> Iterator[Far]:
    """Run one."""
    address = urlsplit(stage.settings.api_url)
    with faulty_proxy(f"{address.scheme}://{address.netloc}") as proxy:
        worker = Far(stage, proxy)
        try:
            worker.start()
            stage.shell.ok("deploy", "./work.py:work", "-n", POOL, "--pool", POOL)
            stage.deployments[POOL] = stage.api.deployment(f"work/{POOL}")["id"]
            yield worker
        finally:
            if worker.process:
                worker.process.terminate()
                worker.process.wait(120)


def play(worker: Far, seed: int) -> Outcome:
    """Play the scenario of a seed and check what it left; raises AssertionError where a guarantee was broken."""
    stage, dice, kind = worker.stage, random.Random(seed), name(seed)  # noqa: S311
    began = time.monotonic()
    worker.proxy.befall(about("" if kind == "stale" else dice.choice(ASKED), at_random(seed, (kind,), SHARE, MOST)))
    try:
        runs = [stage.start(POOL, seconds=round(dice.uniform(0, 2), 2)) for _ in range(RUNS)]
        while time.monotonic() < began + LONGEST and not all(is_final(stage, run) for run in runs):
            time.sleep(0.5)
    finally:
        faults = worker.proxy.done.total()
        worker.proxy.befall(lambda _request: None)
    worker.start()
    # A server that answers with 500 may have done what it was asked to: Prefect's client does not ask again.
    audit(stage, runs, completed=kind != "500")
    states = Counter(state_type(stage, run) for run in runs)
    again = sum(stage.run(run)["run_count"] > 1 for run in runs)
    return Outcome(kind, max(last(stage, runs, FINAL) - began, 0.0), dict(states), again, faults)


def about(word: str, choose: Choose) -> Choose:
    """Let faults befall only requests whose address has this word in it."""

    def chosen(request: Request) -> str | None:
        return choose(request) if word in request.target else None

    return chosen


def name(seed: int) -> str:
    """Return the fault of a seed."""
    return FAULTS[seed % len(FAULTS)]
