"""Runs that nobody is to begin a second time: those that go on, and those that have committed what they did."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import pytest
from tests.faults import point_scenarios
from tests.faults.stage import Stage, audit, kill, staged, wait

from shipway.prefect.automations import silence_seconds
from shipway.prefect.doctor_runs import Workers

pytestmark = pytest.mark.long

PROACTIVE_SECONDS = 5
"""How often the server looks at what it has not heard."""


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    # So that workers have time to be heard after the server has looked.
    with staged(tmp_path_factory.mktemp("b"), heartbeat=8) as found:
        yield found


@pytest.fixture(scope="module")
def watched(stage: Stage) -> Iterator[point_scenarios.Watched]:
    with point_scenarios.watched_runs(stage) as found:
        yield found


def test_a_run_that_had_committed_is_not_executed_again(stage: Stage, watched: point_scenarios.Watched) -> None:
    """All were killed before the server heard that it had completed: the next attempt says so."""
    watched.ask("recorded")
    try:
        run = stage.start(point_scenarios.NAME)
        [pid] = watched.reached("recorded", [run])
        kill(stage.service("worker"), *stage.templates(), pid)
    finally:
        watched.let_go()
    stage.wait_for(run, "Completed")
    assert "attempt 1" in stage.run(run)["state"]["message"].lower()
    assert stage.history(run)[-3:] == ["Submitting", "Running", "Completed"]
    assert stage.run(run)["run_count"] == 2
    assert not (stage.lives / f"{run}.2").exists()
    audit(stage, [run])
    wait(lambda: bool(artifacts(stage, run)), "the UI shows what was saved")

    # Who tries it again by hand wants it done.
    state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": "Retried by hand"}
    stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": state})
    stage.pid(run, 3)
    stage.wait_for(run, "Completed")
    audit(stage, [run])


def artifacts(stage: Stage, run: str) -> list[dict[str, object]]:
    """Return what the UI shows of what came of a run."""
    where = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    rows: list[dict[str, object]] = stage.api.request("POST", "/artifacts/filter", where)
    return rows


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_is_away_for_longer_than_silence_may_last(stage: Stage, number: signal.Signals) -> None:
    """Runs go on; nobody takes them for dead, and nothing is begun a second time by another worker.

    Where all are stopped, as with their machine, the server goes on first, and looks before it has heard of anybody.
    """
    silence = silence_seconds(stage.settings)
    other = stage.shell.start("worker", "start", "--pool", "shipway")
    try:
        wait(lambda: len(Workers(stage.api).online("shipway")) > 1, "there is another worker")
        runs = [stage.start(seconds=3.5 * silence), stage.start(seconds=1)]
        for run in runs:
            stage.pid(run)
        supervisor, server = stage.service("supervisor"), stage.service("server")
        workers = [stage.service("worker"), other.pid]
        if number == signal.SIGKILL:
            # Held back, so that it does not start the server again.
            os.kill(supervisor, signal.SIGSTOP)
            kill(server)
        else:
            kill(server, *workers, number=signal.SIGSTOP)
        try:
            time.sleep(2.5 * silence)
        finally:
            os.kill(supervisor if number == signal.SIGKILL else server, signal.SIGCONT)
            if number == signal.SIGSTOP:
                wait(stage.answers, "the server answers")
                time.sleep(PROACTIVE_SECONDS + 1)
            kill(*workers, number=signal.SIGCONT)
        for run in runs:
            stage.wait_for(run, "Completed")
            assert "Crashed" not in stage.history(run)
            assert stage.run(run)["run_count"] == 1, stage.history(run)
    finally:
        other.terminate()
        other.wait(120)
    audit(stage, runs)
