"""What is said of a run too late: by its process while it is handed back, by its worker when it has ended."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
from tests.faults.process_scenarios import alive
from tests.faults.stage import HEARTBEAT, Stage, audit, kill, staged, wait

pytestmark = pytest.mark.long

LATE = """
import os
import sys
import time
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.exceptions import TerminationSignal
from prefect.states import Running
from prefect.utilities.engine import capture_sigterm

run, lives, wait_for = os.environ["PREFECT__FLOW_RUN_ID"], Path({lives!r}), sys.argv[1]
word = lives / f"{{run}}.late"
if word.exists():
    os.execv(sys.executable, [sys.executable, "-m", "shipway.prefect.engine"])
# As in the engine: it agrees to be handed back, and is then asked to end.
with capture_sigterm():
    word.write_text(str(os.getpid()))
    while True:
        try:
            time.sleep(0.05)
        except TerminationSignal:
            break
    if wait_for:
        while not (lives / f"{{run}}.{{wait_for}}").exists():
            time.sleep(0.05)
    else:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(UUID(run), Running())
"""
"""A run's process that is handed back before it begins: then it begins, or waits for a later attempt; then it ends."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("l")) as found:
        yield found


def late(stage: Stage, wait_for: str = "", seconds: float = 0.0) -> str:
    """Start a run whose first process does not begin; return it when that process waits to be ended."""
    script = stage.lives.parent / "late.py"
    script.write_text(LATE.format(lives=str(stage.lives)))
    run = stage.start(seconds=seconds, variables={"command": f"{sys.executable} {script} {wait_for or repr('')}"})
    wait((stage.lives / f"{run}.late").exists, "the process waits")
    return run


def test_a_run_that_begins_while_it_is_handed_back_is_handed_back_again(stage: Stage) -> None:
    run = late(stage)
    kill(stage.service("worker"), number=signal.SIGTERM)
    stage.wait_for(run, "Completed")
    # Not found by its silence.
    assert "Crashed" not in stage.history(run)
    assert stage.history(run).count("AwaitingRetry") == 2
    audit(stage, [run])


def test_a_run_that_another_worker_has_taken_up_meanwhile_is_left_to_it(stage: Stage) -> None:
    run = late(stage, wait_for="1", seconds=10)
    worker = stage.service("worker")
    other = stage.shell.start("worker", "start")
    try:
        kill(worker, number=signal.SIGTERM)
        # The first process lets its worker end when the other's is under way.
        wait(lambda: not alive(worker), "the worker has ended")
        stage.wait_for(run, "Completed")
    finally:
        other.terminate()
        other.wait(120)
    assert stage.history(run).count("AwaitingRetry") == 1
    assert stage.run(run)["run_count"] == 1
    audit(stage, [run])


def test_no_sign_of_life_is_given_of_a_run_that_has_ended(stage: Stage) -> None:
    """Though its process lives on for a while, as it does where it has something to publish."""
    run = stage.start(seconds=2.5 * HEARTBEAT, linger=3.5 * HEARTBEAT)
    pid = stage.pid(run)
    stage.wait_for(run, "Completed")
    assert alive(pid)

    def times(event: str) -> list[datetime]:
        found = {"event": {"name": [event]}, "any_resource": {"id": [f"prefect.flow-run.{run}"]}}
        events = stage.api.request("POST", "/events/filter", {"filter": found})["events"]
        return [datetime.fromisoformat(each["occurred"]) for each in events]

    # The worker tells in their order what happened: what it had told before is there when this is.
    wait(lambda: bool(times("prefect.worker.executed-flow-run")), "the worker has told of the process's end")
    # A moment for the run to say that it has completed, and to whom.
    end = datetime.fromisoformat(stage.run(run)["end_time"]) + timedelta(seconds=1)
    signs = times("prefect.flow-run.heartbeat")
    assert signs
    assert [sign for sign in signs if sign > end] == []
