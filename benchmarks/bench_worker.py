"""How long a run takes to start, and what it costs, on our worker and on Prefect's own process worker."""

from __future__ import annotations

import http.client
import json
import time
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass, field
from statistics import median

import psutil

from benchmarks.measure import script
from benchmarks.report import Goal, Table
from benchmarks.stack import Project, running_stack
from benchmarks.workers import STATES, Run, Runs, log_of, processor, running_worker, settle, some_time

OURS, STOCK, COMMAND = "Shipway", "stock", "stock, our engine as its command"

ROUNDS = {(OURS, "tiny"): 20, (STOCK, "tiny"): 20, (COMMAND, "tiny"): 3, (OURS, "heavy"): 20, (STOCK, "heavy"): 20}
"""How often each is measured; the third is there for comparison, and has no goal."""
CANCELLED = {OURS: 6, STOCK: 3}
BURST, LARGE_BURST = 20, 200
IDLE_SECONDS = 30.0
STATES_ROUNDS = 20

AT_MOST = 0.40
"""Seconds from asking for a run of the trivial flow to its end."""
FASTER = {"tiny": 9.0, "heavy": 15.0}
MORE_RUNS = 4.0
IDLE_PERCENT = 1.0
MEGABYTES = 60

TINY = '''"""Three tasks that do next to nothing."""

import time

from prefect import flow, task


@task
def add(number: int) -> int:
    """Add one."""
    return number + 1


@flow(name="tiny")
def main(seconds: float = 0) -> int:
    """Count to three, then sleep."""
    number = add(add(add(0)))
    time.sleep(seconds)
    return number
'''
HEAVY = '''"""Imports what a training script does, and does nothing with it."""

import time

import lightgbm
import matplotlib.pyplot
import polars
from prefect import flow


@flow(name="heavy")
def main(seconds: float = 0) -> int:
    """Count the modules, then sleep."""
    time.sleep(seconds)
    return len({lightgbm, matplotlib.pyplot, polars})
'''


@dataclass
class Bench:
    """What is there to measure, and what was found.

    Attributes:
        project: a project with a stack.
        runs: creates runs on its server.
        server: the server's process.
        ids: deployments by worker and flow.
        workers: processes by worker.
        found: the runs of each.
    """

    project: Project
    runs: Runs
    server: psutil.Process
    ids: dict[tuple[str, str], str]
    workers: dict[str, psutil.Process] = field(default_factory=dict)
    found: dict[tuple[str, str], list[Run]] = field(default_factory=dict)

    def measure(self, flow: str, most: int) -> None:
        """Have runs of a flow, the workers by turns."""
        rounds = {kind: count for kind, count in ROUNDS.items() if kind[1] == flow}
        self.found |= {kind: [] for kind in rounds}
        for number in range(most):
            for kind, count in rounds.items():
                # Spread over all rounds, so that whatever else the machine does meets all of them alike.
                if number * count // most != (number + 1) * count // most:
                    some_time()
                    self.found[kind].append(self.runs.measure(self.ids[kind]))


def run() -> list[Table]:
    """Measure on a stack of its own, with one worker of each kind."""
    with running_stack(worker=False) as project:
        bench = _prepare(project)
        ours = script("shipway", "worker", "start")
        stock = script("prefect", "worker", "start", "--type", "process", "--pool", "stock")
        variables = {"PREFECT_API_URL": project.api_url, "PREFECT_WORKER_QUERY_SECONDS": "1"}
        with running_worker(project, ours, "worker ready") as bench.workers[OURS]:
            with running_worker(project, stock, "started!", **variables) as bench.workers[STOCK]:
                if not bench.workers[OURS].children():
                    raise RuntimeError(f"Shipway's worker has no template:\n{log_of(project, ours).read_text()}")
                tables = _starts(bench)
                alike = [_idle(bench), _memory(bench), _cancellation(bench)]
                burst = {STOCK: _burst(bench, STOCK, BURST)}
            settle(bench.workers[OURS])
            burst[OURS] = _burst(bench, OURS, BURST)
            large = _burst(bench, OURS, LARGE_BURST)
        return [*tables, _bursts(burst, large), *alike]


def _prepare(project: Project) -> Bench:
    """Make two flows, deployed for each worker: the release is the same."""
    (project.folder / "tiny.py").write_text(TINY)
    (project.folder / "heavy.py").write_text(HEAVY)
    runs = Runs(project)
    runs.api.request("POST", "/work_pools/", {"name": "stock", "type": "process"})
    ids = {}
    for number, (worker, flow) in enumerate(ROUNDS):
        pool = () if worker == OURS else ("--pool", "stock")
        project.shipway("deploy", f"./{flow}.py:main", "-n", f"number-{number}", *pool)
        ids[worker, flow] = runs.api.deployment(f"{flow}/number-{number}")["id"]
        if worker == STOCK:
            # What Prefect starts where nobody says otherwise.
            runs.api.request("PATCH", f"/deployments/{ids[worker, flow]}", {"job_variables": {}})
    (server,) = (row["pid"] for row in project.status()["services"] if row["name"] == "server")
    return Bench(project, runs, psutil.Process(server), ids)


def _starts(bench: Bench) -> list[Table]:
    tables = []
    for flow, title in (("tiny", "A flow with three tasks"), ("heavy", "A flow that imports polars, LightGBM, pyplot")):
        kinds = [kind for kind in ROUNDS if kind[1] == flow]
        print(f"  {title}", flush=True)
        # The second run finds what the first one has learnt to be wanted; what it wants is made behind it.
        for kind in (*kinds, (OURS, flow)):
            bench.runs.measure(bench.ids[kind])
            settle(bench.workers[OURS])
        bench.measure(flow, max(ROUNDS[kind] for kind in kinds))
        tables.append(_times(bench, flow, title))
    return [tables[0], _parts(bench), tables[1]]


def _times(bench: Bench, flow: str, title: str) -> Table:
    rows, medians = [], {}
    for (worker, of), runs in bench.found.items():
        if of == flow:
            times = {name: [run.states[name] for run in runs] for name in ("Running", "Completed")}
            medians[worker] = median(times["Completed"])
            figures = [f(times[name]) for name in times for f in (median, min, max)]
            rows.append((worker, str(len(runs)), *(f"{value:.3f}" for value in figures)))
    ratio = medians[STOCK] / medians[OURS]
    goals = [Goal(f"at least {FASTER[flow]:g} times faster to Completed", f"{ratio:.1f} times", ratio >= FASTER[flow])]
    if flow == "tiny":
        seconds = medians[OURS]
        goals.insert(0, Goal(f"at most {AT_MOST:.2f} s to Completed", f"{seconds:.3f} s", seconds <= AT_MOST))
    headers = ("seconds since it was asked for", "runs", "Running", "min", "max", "Completed", "min", "max")
    return Table(title, headers, tuple(rows), tuple(goals))


def _parts(bench: Bench) -> Table:
    """Say how long a run takes from each of its states to the next; and the same states, set by nobody but a client."""
    columns = {
        OURS: [run.states for run in bench.found[OURS, "tiny"]],
        STOCK: [run.states for run in bench.found[STOCK, "tiny"]],
        "floor": [_bare_states(bench) for _ in range(STATES_ROUNDS)],
    }
    rows = [
        (name, *(f"{median(_step(states, name) for states in runs):.3f}" for runs in columns.values()))
        for name in STATES
    ]
    totals = {name: median(states["Completed"] for states in runs) for name, runs in columns.items()}
    rows.append(("all of it", *(f"{total:.3f}" for total in totals.values())))
    ratio = totals[OURS] / totals["floor"]
    return Table(
        "Where the time of the flow with three tasks goes",
        ("seconds from the state before to", *columns),
        tuple(rows),
        (),
        f"Of ours, {totals['floor']:.3f} s are the server's for the same states; ours is {ratio:.1f} times that.",
    )


def _step(states: dict[str, float], name: str) -> float:
    position = STATES.index(name)
    return states[name] - (states[STATES[position - 1]] if position else 0.0)


def _bare_states(bench: Bench) -> dict[str, float]:
    """Take a run through its states with one request each, over one connection, and do nothing in between."""
    address = urllib.parse.urlsplit(bench.runs.api.url)
    flow = bench.runs.api.request("GET", f"/deployments/{bench.ids[OURS, 'tiny']}")["flow_id"]
    connection = http.client.HTTPConnection(address.hostname or "", address.port)
    try:
        connection.connect()

        def post(path: str, body: object) -> str:
            connection.request("POST", f"{address.path}{path}", json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status not in (200, 201):
                raise RuntimeError(f"{path} answered {answer.status}")
            return str(json.loads(text).get("id"))

        # Without a deployment it is in no queue: no worker hears of it.
        since, found = time.time(), {}
        run = post("/flow_runs/", {"flow_id": flow, "state": {"type": "SCHEDULED"}})
        found["Scheduled"] = time.time() - since
        for name in STATES[1:]:
            kind = "PENDING" if name == "Submitting" else name.upper()
            post(f"/flow_runs/{run}/set_state", {"state": {"type": kind, "name": name}})
            found[name] = time.time() - since
        return found
    finally:
        connection.close()


@dataclass(frozen=True)
class _Burst:
    """What many runs at once took: wall time, and processor time of each, of the worker and its runs and the server."""

    count: int
    seconds: float
    runs: float
    server: float

    @property
    def a_minute(self) -> float:
        return 60 * self.count / self.seconds


def _burst(bench: Bench, worker: str, count: int) -> _Burst:
    processes = bench.workers[worker], bench.server
    before = [processor(process) for process in processes]
    print(f"  {count} runs at once, {worker}", flush=True)
    seconds = bench.runs.burst(bench.ids[worker, "tiny"], count, f"{worker}-{count}")
    # What a run does after it has completed counts too.
    settle(bench.workers[worker])
    ours, server = ((processor(process) - was) / count for process, was in zip(processes, before, strict=True))
    return _Burst(count, seconds, ours, server)


def _bursts(bursts: dict[str, _Burst], large: _Burst) -> Table:
    rows = [(f"{worker}, {burst.count} runs", *_figures(burst)) for worker, burst in (*bursts.items(), (OURS, large))]
    goals = []
    for burst in (bursts[OURS], large):
        ratio = burst.a_minute / bursts[STOCK].a_minute
        text = f"at least {MORE_RUNS:g} times the runs per minute of stock, {burst.count} at once"
        goals.append(Goal(text, f"{ratio:.1f} times", ratio >= MORE_RUNS))
    headers = ("asked for at once", "seconds", "runs a minute", "processor s of a run", "of the server, for it")
    return Table("Many runs at once, of the flow with three tasks", headers, tuple(rows), tuple(goals))


def _figures(burst: _Burst) -> Sequence[str]:
    return f"{burst.seconds:.1f}", f"{burst.a_minute:.0f}", f"{burst.runs:.2f}", f"{burst.server:.2f}"


def _idle(bench: Bench) -> Table:
    for process in bench.workers.values():
        settle(process)
    print("  Idle, memory, cancellation", flush=True)
    templates = bench.workers[OURS].children()
    before = {name: processor(process) for name, process in bench.workers.items()}
    before_templates = sum(map(processor, templates))
    time.sleep(IDLE_SECONDS)
    used = {name: 100 * (processor(process) - before[name]) / IDLE_SECONDS for name, process in bench.workers.items()}
    of_templates = 100 * (sum(map(processor, templates)) - before_templates) / IDLE_SECONDS
    rows = (
        (f"{OURS}, with {len(templates)} templates", f"{used[OURS]:.2f}"),
        ("the templates alone", f"{of_templates:.2f}"),
        (f"{STOCK}, asking every second", f"{used[STOCK]:.2f}"),
    )
    goal = Goal(f"under {IDLE_PERCENT:g} % of a core", f"{used[OURS]:.2f} %", used[OURS] < IDLE_PERCENT)
    return Table("A worker without work", (f"over {IDLE_SECONDS:g} s", "% of a core"), rows, (goal,))


def _memory(bench: Bench) -> Table:
    found = {kind: _private_megabytes(bench, *kind) for kind in ROUNDS if kind[0] != COMMAND}
    rows = tuple((f"{worker}: {flow}", f"{megabytes:.0f}") for (worker, flow), megabytes in found.items())
    most = max(megabytes for (worker, _), megabytes in found.items() if worker == OURS)
    goal = Goal(f"under {MEGABYTES} MB each of ours", f"{most:.0f} MB", most < MEGABYTES)
    return Table("Memory of one more run that has done its imports and sleeps", ("private", "MB"), rows, (goal,))


def _private_megabytes(bench: Bench, worker: str, flow: str) -> float:
    run = bench.runs.start(bench.ids[worker, flow], {"seconds": 600})
    bench.runs.await_state(run, "Running")
    settle(bench.workers[worker])
    megabytes = bench.runs.private_bytes(run) / 1e6
    bench.runs.cancel(run)
    return megabytes


def _cancellation(bench: Bench) -> Table:
    found: dict[str, list[float]] = {worker: [] for worker in CANCELLED}
    for number in range(max(CANCELLED.values())):
        for worker, count in CANCELLED.items():
            if number < count:
                run = bench.runs.start(bench.ids[worker, "tiny"], {"seconds": 600})
                bench.runs.await_state(run, "Running")
                # At any moment of whatever looks after it in turns, and when the tasks are done.
                time.sleep(0.5)
                some_time()
                found[worker].append(bench.runs.cancel(run))
    rows = tuple(
        (worker, str(len(times)), *(f"{f(times):.3f}" for f in (median, min, max))) for worker, times in found.items()
    )
    ratio = median(found[STOCK]) / median(found[OURS])
    goal = Goal("faster than stock", f"{ratio:.1f} times", ratio > 1)
    headers = ("seconds from the request to Cancelled", "runs", "median", "min", "max")
    return Table("Cancelling a run that sleeps", headers, rows, (goal,))
