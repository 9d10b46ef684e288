"""Runs whose worker died on this machine: the next one begins them again, long before their silence is noticed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.flows import TAG
from tests.faults.stage import LIMIT, Stage, audit, kill, staged, wait

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    # Three signs of life that do not come take longer than anything is waited for here.
    with staged(tmp_path_factory.mktemp("l"), heartbeat=round(LIMIT)) as found:
        yield found


def test_runs_that_died_with_their_worker_are_begun_again_at_once(stage: Stage) -> None:
    """Those that held all slots of a tag get them again."""
    runs, paused = [stage.start(first=600) for _ in range(2)], stage.start("stumble")
    pids = [stage.pid(run) for run in (*runs, paused)]
    wait(lambda: len(stage.api.request("GET", f"/concurrency_limits/tag/{TAG}")["active_slots"]) == 2, "both hold one")
    stage.wait_for(paused, "AwaitingRetry")
    kill(stage.service("worker"), *stage.templates(), *pids)
    for each in (*runs, paused):
        stage.wait_for(each, "Completed")
        assert stage.run(each)["run_count"] == 2
    assert all("Crashed" in stage.history(run) for run in runs)
    audit(stage, [*runs, paused])


def test_what_another_worker_has_begun_since_is_left_to_it(stage: Stage) -> None:
    run = stage.start(first=600)
    pid = stage.pid(run)
    # As if it had been taken up anew elsewhere: it is claimed once more.
    for state in ({"type": "PENDING"}, {"type": "RUNNING"}):
        stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    kill(stage.service("worker"), *stage.templates(), pid)
    folders = Path(stage.shell.environment["TMPDIR"])
    wait(lambda: not list(folders.glob(f"*/claim-{run}")), "the next worker has looked at what was left")
    others = [stage.start()]
    stage.wait_for(others[0], "Completed")
    others.append(stage.start())
    stage.wait_for(others[1], "Completed")
    assert stage.run(run)["state_name"] == "Running"
    stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLED"}, "force": True})
    audit(stage, others)
