"""Pages of runs whose worker died with them: another worker makes them, where nobody runs these runs again."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.faults.stage import Stage, kill, staged, wait
from tests.unit.pages import read

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("d"), SHIPWAY_CRASH_RETRIES="0") as found:
        yield found


def link(stage: Stage, run: str) -> str:
    """Return what the UI says of a run's page, once it says it; one thing, whoever was told of the run."""
    wanted = {"artifacts": {"flow_run_id": {"any_": [run]}}}
    wait(lambda: bool(stage.api.request("POST", "/artifacts/filter", wanted)), lambda: f"a page: {stage.history(run)}")
    [row] = stage.api.request("POST", "/artifacts/filter", wanted)
    return str(row["data"])


def check(stage: Stage, run: str, state: str, words: str) -> None:
    assert f"**{state} " in link(stage, run)
    facts = stage.shell.json("report", stage.run(run)["name"])
    assert (facts["state"], facts["made"]) == (state, False)
    text = read(Path(facts["path"]).read_text()).text
    for expected in (words, "Nothing of this run is committed", "shipway run --resume"):
        assert expected in text, expected


def test_a_run_that_fell_silent_for_good(stage: Stage) -> None:
    run = stage.start(seconds=600)
    kill(stage.pid(run), stage.service("worker"), *stage.templates())
    check(stage, run, "Crashed", "zombie: ")


def test_a_run_whose_worker_died_while_it_cancelled_it(stage: Stage) -> None:
    run = stage.start(seconds=600)
    pid, worker = stage.pid(run), stage.service("worker")
    os.kill(worker, signal.SIGSTOP)
    stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    kill(worker, *stage.templates(), pid)
    check(stage, run, "Cancelled", "Its worker died before it had ended the run")
