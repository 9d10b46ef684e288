"""Whatever can be seen of a run is the same on a stock process worker and on ours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from shipway.prefect.api import Api
from shipway.settings import Settings
from shipway.worker.pool import AVAILABLE
from tests.acceptance import parity
from tests.acceptance.conftest import Shell, end_or_kill, wait_until
from tests.acceptance.parity import PATIENCE, STOCK, WARM, Case, Facts, Play, Seen, Watch

HERE = Path(__file__).parent

BESIDE = {
    "raises.py": "raise ValueError('at import')\n",
    "lacks.py": "import a_module_that_nobody_has\n",
    "broken.py": "def (:\n",
    "other.py": "from prefect import flow\n\n@flow\ndef other():\n    pass\n",
    "leaves.py": "import sys\nsys.exit(5)\n",
    "on_dask.py": """from prefect import flow, task
from prefect_dask import DaskTaskRunner

@task
def double(n):
    return 2 * n

@flow(name="dask", task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "threads_per_worker": 2}))
def main():
    return sum(double.map([1, 2, 3]).result())
""",
}
"""Modules from which no flow can be loaded, and one that needs what not everybody has installed."""

HEARTBEAT = 5
"""Seconds between two signs of life that our worker gives; `killed` takes longer. Prefect's engine begins with one."""


def cancel(play: Play) -> None:
    play.arrive()
    play.set_state("CANCELLING", "Cancelling")


def cancel_at_once(play: Play) -> None:
    play.set_state("CANCELLING", "Cancelling")


def resume_paused(play: Play) -> None:
    play.state("Paused")
    play.resume()


def resume_suspended(play: Play) -> None:
    play.state("Suspended")
    play.resume()


def suspend(play: Play) -> None:
    play.arrive()
    play.set_state("PAUSED", "Suspended", pause_reschedule=True)
    play.go()
    # The process is to end before the run is started again, by which worker ever.
    wait_until(lambda: ended(play), PATIENCE)
    play.resume()


def ended(play: Play) -> bool:
    """Tell whether the worker has said that the run's process has ended."""
    name = {"name": ["prefect.worker.executed-flow-run"]}
    body = {"filter": {"event": name, "any_resource": {"id": [f"prefect.flow-run.{play.runs[0]}"]}}}
    return bool(play.api.request("POST", "/events/filter", body)["total"])


def one_too_many(play: Play) -> None:
    play.arrive()
    play.end(play.create())
    play.go()


CASES = [
    Case("plain", "plain"),
    Case("killed", "killed", must={"events": r"prefect\.flow-run\.heartbeat .*"}),
    Case("cancelled", "cancelled", cancel),
    Case("suspends-and-fails", "suspends_and_fails", resume_suspended),
]
"""The things that a worker has to do with a run; a run costs the stock worker seconds of processor time."""

MORE = [
    Case("fails", "fails"),
    Case("suspends", "suspends", resume_suspended),
    Case("outer", "outer"),
    Case(
        "limited",
        "limited",
        one_too_many,
        deployment={"concurrency_limit": 1, "concurrency_options": {"collision_strategy": "CANCEL_NEW"}},
    ),
    Case("flow-retries", "flow_retries"),
    Case("crashing-hook", "crashing_hook"),
    Case(
        "folder",
        "folder",
        variables={"working_dir": "FOLDER/SIDE"},
    ),
    Case("async-flow", "async_flow"),
    Case("generator", "generator"),
    Case("completes", "completes"),
    Case("raises-at-import", "raises.py:main"),
    Case("exits", "exits"),
    Case("terminated", "terminated"),
    Case("cancelled-before", "late", cancel_at_once, delay=60),
    Case("pauses", "pauses", resume_paused),
    Case("threads", "threads"),
    Case("processes", "processes"),
    Case(
        "debug",
        "environment",
        variables={"env": {"PARITY_GIVEN": "another", "PREFECT_LOGGING_LEVEL": "DEBUG"}},
    ),
    Case("loud", "says", must={"printed": "child of run "}),
    Case("silent", "says", variables={"stream_output": False}, must={"logs": r".* 20: logger of run .*"}),
    Case(
        "merged",
        "says",
        variables={"env": {"PARITY_GIVEN": "by the run"}},
        deployment={"job_variables": {"stream_output": False, "env": {"PARITY_GIVEN": "by the deployment"}}},
        must={"logs": r".* which was given by the run"},
    ),
    Case("order", "order", parameters={"order": {"item": "bolt", "count": 3}}),
    Case("late", "late", delay=3),
    Case("logs", "logs"),
    Case("times-out", "times_out"),
    Case("makes-artifacts", "makes_artifacts"),
    Case("command", "plain", variables={"command": f"{sys.executable} -m prefect.engine"}),
    Case("async-generator", "async_generator"),
    Case("task-retries", "task_retries"),
    Case("fails-by-task", "fails_by_task"),
    Case("returns-failed", "returns_failed"),
    Case("bad-hook", "hook_fails"),
    Case("missing-module", "lacks.py:main"),
    Case("broken-syntax", "broken.py:main"),
    Case("missing-file", "nowhere.py:main"),
    Case("missing-flow", "other.py:main"),
    Case("exits-at-import", "leaves.py:main"),
    Case("segfault", "segfault"),
    Case("interrupted", "interrupted"),
    Case("exits-hard", "exits_hard"),
    Case("cancelled-async", "cancelled_async", cancel),
    Case("suspended", "suspended", suspend),
    Case("environment", "environment", variables={"env": {"PARITY_GIVEN": "a value"}}),
    Case("task-times-out", "task_times_out"),
    Case("cancelled-inside", "cancelled_inside", cancel),
    Case("cancelled-bad-hook", "cancelled_bad_hook", cancel),
    Case("remembers", "remembers"),
    Case("named", "named"),
    Case("calls-deployment", "calls_deployment"),
    Case("submits", "submits"),
    Case("misfit", "order", parameters={"order": {"item": "bolt", "count": "many"}}),
    Case("unset", "environment", variables={"env": {"PARITY_GIVEN": None}}),
]
"""All that there is besides, which `make parity` plays too."""
if find_spec("prefect_dask"):
    MORE.append(Case("dask", "on_dask.py:main"))

ALL = {case.flow: case for case in CASES + MORE}
NEEDED = "plain"
"""Played in any case: another one's flow runs its deployment."""


def deploy(api: Api, release: dict[str, Any], pool: str, case: Case, side: str) -> str:
    """Make a deployment of a release that is there."""
    flow = api.request("POST", "/flows/", {"name": f"{case.flow}"})
    entrypoint = case.entrypoint if ":" in case.entrypoint else f"parity_flows.py:{case.entrypoint}"
    body = {
        "name": side,
        "flow_id": flow["id"],
        "entrypoint": entrypoint,
        "work_pool_name": pool,
        "version": release["version"],
        "pull_steps": release["pull_steps"],
        "enforce_parameter_schema": False,
        **case.deployment,
    }
    made: str = api.request("POST", "/deployments/", body)["id"]
    return made


@contextmanager
def worker(
    program: Sequence[str], options: Sequence[str], project: Shell, output: Path, variables: Mapping[str, str]
) -> Iterator[None]:
    """A worker of either kind; what it prints goes into a file."""
    # Unbuffered, so that all that it printed is in the file however it ends.
    environment = {**os.environ, **project.environment, **variables, "PYTHONUNBUFFERED": "1"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    start = [sys.executable, "-m", *program, "worker", "start", *options]
    with (
        output.open("wb") as file,
        subprocess.Popen(start, env=environment, cwd=project.folder, stdout=file, stderr=file) as process,
    ):
        try:
            yield
        finally:
            end_or_kill(process)


@contextmanager
def workers(project: Shell, pools: Mapping[str, str], outputs: Mapping[str, Path]) -> Iterator[None]:
    """A process worker of Prefect's, tuned well, and one of ours, each in a pool of its own."""
    stock = ("--pool", pools[STOCK], "--type", "process", "--name", "stock-worker")
    warm = ("--pool", pools[WARM])
    with (
        worker(["prefect"], stock, project, outputs[STOCK], {"PREFECT_WORKER_QUERY_SECONDS": "1"}),
        worker(["shipway"], warm, project, outputs[WARM], {"SHIPWAY_HEARTBEAT_SECONDS": str(HEARTBEAT)}),
    ):
        yield


def switch_off_automations(api: Api, pool: str) -> None:
    """Let no run of a pool be taken for dead: signs of life in such a hurry come late on a busy machine."""
    for row in api.pages("/automations/filter", {}):
        if pool in row["name"]:
            api.request("PATCH", f"/automations/{row['id']}", {"enabled": False})


def play_cases(project: Shell, cases: list[Case], folder: Path) -> dict[tuple[str, str], Facts | BaseException]:
    """Play cases on both workers; return what can be seen of each."""
    api = Api(Settings.load(project.folder, project.environment))
    shutil.copy(HERE / "parity_flows.py", project.folder)
    pools = {side: f"{side}-{folder.name}" for side in (STOCK, WARM)}
    outputs = {side: folder / f"{side}.log" for side in pools}
    marks = folder / "marks"
    for name, text in {**BESIDE, "marks.txt": str(marks)}.items():
        (project.folder / name).write_text(text)
    for side in pools:
        (marks / side).mkdir(parents=True)
    api.request("POST", "/work_pools/", {"name": pools[STOCK], "type": "process"})
    with workers(project, pools, outputs):
        project.ok("deploy", "./parity_flows.py:plain", "-n", "release")
        release = api.deployment("plain/release")
        # A worker gives its pool the template for jobs that all Prefect's pools of the type have.
        wait_until(lambda: bool((api.pool(pools[STOCK]) or {})["base_job_template"]))
        wait_until(lambda: "worker ready" in outputs[WARM].read_text())
        switch_off_automations(api, pools[WARM])
        with Watch(api) as watch:
            plays = [
                Play(api, watch, case, side, deploy(api, release, pool, case, side), marks)
                for case in cases
                for side, pool in pools.items()
            ]
            played = parity.play_all(api, plays)
        parity.settle(api, [run for runs in played.values() if isinstance(runs, list) for run in runs])
    said = {side: output.read_text() for side, output in outputs.items()}
    if AVAILABLE:
        forked = played[NEEDED, WARM]
        assert isinstance(forked, list), forked
        assert all((marks / f"{run}.forked").exists() for run in forked), said[WARM]
    return {
        (flow, side): runs if isinstance(runs, BaseException) else Seen(api, runs, said[side]).facts()
        for (flow, side), runs in played.items()
    }


@pytest.fixture(scope="module")
def seen(
    stack: Shell, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> dict[tuple[str, str], Facts | BaseException]:
    """What can be seen of the runs of each case that was selected, on each worker."""
    folder = tmp_path_factory.mktemp("parity")
    (folder / "project").mkdir()
    project = Shell(folder / "project", {**stack.environment, "PREFECT_API_URL": api_url(stack)})
    selected = {item.name for item in request.session.items if item.path == request.path}
    cases = [case for flow, case in ALL.items() if flow == NEEDED or f"test_it_looks_the_same[{flow}]" in selected]
    return play_cases(project, cases, folder)


def api_url(stack: Shell) -> str:
    return Settings.load(stack.folder, {}).api_url


@pytest.mark.parametrize(
    "flow",
    [*(case.flow for case in CASES), *(pytest.param(case.flow, marks=pytest.mark.parity) for case in MORE)],
)
def test_it_looks_the_same(flow: str, seen: dict[tuple[str, str], Facts | BaseException]) -> None:
    stock, warm = seen[flow, STOCK], seen[flow, WARM]
    assert not isinstance(stock, BaseException), stock
    assert not isinstance(warm, BaseException), warm
    differences = parity.compare(ALL[flow], stock, warm)
    assert not differences, "\n".join(differences)
