"""Runs that are killed together with their worker: what they left is taken up again without anybody's help."""

from __future__ import annotations

import os
import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing

import pytest
from tests.faults import api_scenarios, point_scenarios, process_scenarios
from tests.faults.flows import TAG
from tests.faults.hardship import little_memory
from tests.faults.process_scenarios import alive
from tests.faults.stage import Stage, audit, kill, staged, wait

from shipway.prefect.automations import automations, ensure_automations


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("h")) as found:
        yield found


@pytest.fixture(scope="module")
def watched(stage: Stage) -> Iterator[point_scenarios.Watched]:
    with point_scenarios.watched_runs(stage) as found:
        yield found


@pytest.fixture(scope="module")
def far(stage: Stage) -> Iterator[api_scenarios.Far]:
    with api_scenarios.far_worker(stage) as worker:
        yield worker


def test_automations_are_installed_once_and_kept_as_somebody_set_them(stage: Stage) -> None:
    api, settings = stage.api, stage.settings
    pool = api.pool("shipway")
    assert pool is not None
    wanted = {automation["name"] for automation in automations(pool["id"], "shipway", settings)}

    def there() -> dict[str, dict[str, object]]:
        rows = [row for row in api.pages("/automations/filter", {}) if row["name"].startswith("shipway: ")]
        assert len(rows) == len({row["name"] for row in rows})
        return {row["name"]: row for row in rows}

    before = there()
    assert before.keys() == wanted
    name = sorted(wanted)[0]
    api.request("PATCH", f"/automations/{before[name]['id']}", {"enabled": False})
    ensure_automations(api, settings, "shipway")
    assert {row["id"] for row in there().values()} == {row["id"] for row in before.values()}
    assert there()[name]["enabled"] is False
    api.request("PATCH", f"/automations/{before[name]['id']}", {"enabled": True})


def test_a_run_that_died_with_its_worker_is_run_again(stage: Stage) -> None:
    """It held a slot too, which its second attempt needs: both of them, with the other run's."""
    runs = [stage.start(first=600) for _ in range(2)]
    pids = [stage.pid(run) for run in runs]
    wait(lambda: slots(stage) == 2, "both hold a slot")
    stage.forget_claims()

    # The supervisor starts the worker again. The runs have no time to say anything.
    worker = stage.service("worker")
    kill(worker, *stage.templates(), *pids)

    for run in runs:
        stage.wait_for(run, "Completed")
        assert "Crashed" in stage.history(run)
        assert stage.run(run)["run_count"] == 2
    audit(stage, runs)


@pytest.mark.long
@pytest.mark.parametrize(
    "command",
    [
        pytest.param("", id="forked"),
        pytest.param(f"{sys.executable} -m shipway.prefect.engine", id="on its own"),
    ],
)
def test_a_run_that_outlives_its_worker_ends_and_is_run_again(stage: Stage, command: str) -> None:
    """Nobody asks it to: its template was killed too, or it never had one."""
    run = stage.start(first=600, variables={"command": command} if command else None)
    pid = stage.pid(run)
    kill(stage.service("worker"), *stage.templates())
    wait(lambda: not alive(pid), "the run has ended")
    stage.wait_for(run, "Completed")
    assert stage.history(run).count("Crashed") == 1
    assert stage.run(run)["run_count"] == 2
    audit(stage, [run])


@pytest.mark.long
def test_runs_that_are_asked_to_end_with_their_worker_are_handed_back(stage: Stage) -> None:
    """As a service manager does."""
    run = stage.start(first=600)
    pid = stage.pid(run)
    kill(stage.service("worker"), *stage.templates(), pid, number=signal.SIGTERM)
    stage.wait_for(run, "Completed")
    assert "AwaitingRetry" in stage.history(run)
    assert stage.run(run)["run_count"] == 2
    audit(stage, [run])


@pytest.mark.long
def test_runs_of_a_stack_all_of_which_is_asked_to_end_are_run_again(stage: Stage) -> None:
    """As when a machine is shut down: the server does not wait for the worker."""
    run = stage.start(first=600)
    pid = stage.pid(run)
    kill(stage.service("server"), stage.service("worker"), *stage.templates(), pid, number=signal.SIGTERM)
    stage.ready()
    stage.wait_for(run, "Completed")
    assert stage.run(run)["run_count"] == 2
    audit(stage, [run])


@pytest.mark.long
def test_a_run_that_dies_just_after_the_server_was_killed_is_run_again_soon(stage: Stage) -> None:
    """What the server was told of it before is what its death follows on, and the server that hears of that is new."""
    run = stage.start(first=600)
    pid = stage.pid(run)
    kill(stage.service("server"))
    stage.ready()
    kill(stage.service("worker"), *stage.templates(), pid)
    stage.wait_for(run, "Completed")
    audit(stage, [run])


@pytest.mark.long
def test_a_run_whose_death_the_server_does_not_wait_for_is_found(stage: Stage) -> None:
    """As when server and worker are killed together: the server that comes has no wait for the run's signs of life."""
    run = stage.start(first=600)
    pid = stage.pid(run)
    stage.forget_claims()
    kill(stage.service("worker"), *stage.templates(), pid)
    with closing(sqlite3.connect(stage.settings.state / "server/prefect.db", timeout=60)) as database, database:
        # More than one time: signs of life that are on their way yet begin a new wait.
        for _ in range(20):
            database.execute("delete from automation_bucket where bucketing_key like ?", (f"%{run}%",))
            database.commit()
            time.sleep(0.5)
    assert stage.run(run)["state_name"] == "Running"
    stage.wait_for(run, "Completed")
    audit(stage, [run])


@pytest.mark.long
def test_a_run_that_is_silent_and_that_no_automation_ran_again_is_found(stage: Stage) -> None:
    run = stage.start(first=600)
    state = {"type": "CRASHED", "name": "Crashed", "message": "zombie: nobody heard of it"}
    name = next(each["name"] for each in automations("", "shipway", stage.settings) if "run again" in each["name"])
    [automation] = stage.api.request("POST", "/automations/filter", {"automations": {"name": {"any_": [name]}}})
    pid = stage.pid(run)
    stage.api.request("PATCH", f"/automations/{automation['id']}", {"enabled": False})
    kill(pid)
    stage.wait_for(run, "Crashed")
    stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": state, "force": True})
    time.sleep(3 * stage.settings.heartbeat_seconds)
    assert stage.run(run)["state_name"] == "Crashed", "somebody has switched it off"
    stage.api.request("PATCH", f"/automations/{automation['id']}", {"enabled": True})
    stage.wait_for(run, "Completed")
    audit(stage, [run])


@pytest.mark.long
def test_a_run_that_the_kernel_ends_for_want_of_memory_has_crashed_and_says_so(stage: Stage) -> None:
    try:
        with little_memory(1 << 20) as members:
            run = stage.start(seconds=3)
            members.write_text(str(stage.pid(run)))
            stage.wait_for(run, "Crashed")
    except PermissionError as error:
        pytest.skip(str(error))
    assert "memory" in stage.run(run)["state"]["message"]
    audit(stage, [run], completed=False)


@pytest.mark.long
def test_a_run_that_kills_its_worker_again_and_again_ends(stage: Stage) -> None:
    run = stage.start(seconds=600)
    for attempt in range(1, stage.settings.crash_retries + 2):
        pid = stage.pid(run, attempt)
        kill(stage.service("worker"), *stage.templates(), pid)

    stage.wait_for(run, "Crashed")
    # Nobody runs it again: what would do so has had its chance when another run went through all that.
    other = stage.start(first=600)
    pid = stage.pid(other)
    kill(stage.service("worker"), *stage.templates(), pid)
    stage.wait_for(other, "Completed")
    assert stage.run(run)["state_name"] == "Crashed"
    assert stage.run(run)["run_count"] == stage.settings.crash_retries + 1
    audit(stage, [run, other], completed=False)


@pytest.mark.long
def test_a_run_that_was_claimed_and_never_begun_is_taken_up_again(stage: Stage) -> None:
    worker = stage.service("worker")
    os.kill(worker, signal.SIGSTOP)
    run = stage.start()
    # As a worker does that dies in the next moment.
    stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "PENDING"}})
    kill(worker)

    stage.wait_for(run, "Completed")
    assert stage.run(run)["run_count"] == 1
    audit(stage, [run])


@pytest.mark.parametrize(
    "machine",
    ["there", pytest.param("gone", marks=pytest.mark.long, id="not there, so that the server has to miss it")],
)
def test_a_run_that_its_own_process_was_to_try_again_is_not_stranded(stage: Stage, machine: str) -> None:
    run = stage.start("stumble")
    pid = stage.pid(run)
    stage.wait_for(run, "AwaitingRetry")
    if machine == "gone":
        stage.forget_claims()
    kill(stage.service("worker"), *stage.templates(), pid)

    stage.wait_for(run, "Completed")
    assert stage.run(run)["run_count"] == 2
    audit(stage, [run])


@pytest.mark.long
def test_a_stopped_process_is_ended_and_its_run_begun_anew(stage: Stage) -> None:
    run = stage.start(first=600)
    pid = stage.pid(run)
    os.kill(pid, signal.SIGSTOP)

    stage.wait_for(run, "Completed")
    assert stage.run(run)["run_count"] == 2
    audit(stage, [run])


@pytest.mark.long
def test_a_run_whose_worker_dies_while_it_cancels_it_is_cancelled(stage: Stage) -> None:
    run = stage.start(seconds=600)
    pid = stage.pid(run)
    worker = stage.service("worker")
    os.kill(worker, signal.SIGSTOP)
    stage.api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CANCELLING"}})
    stage.forget_claims()
    kill(worker, *stage.templates(), pid)

    stage.wait_for(run, "Cancelled")
    audit(stage, [run], completed=False)


@pytest.mark.parametrize("seed", [1, pytest.param(21, marks=pytest.mark.long)], ids=process_scenarios.name)
def test_processes_that_are_hit(stage: Stage, seed: int) -> None:
    """A few of the long list, here where a stack is; so the two below."""
    process_scenarios.play(stage, seed)


@pytest.mark.parametrize("seed", [54, pytest.param(60, marks=pytest.mark.long)], ids=point_scenarios.name)
def test_processes_that_are_hit_at_a_point(watched: point_scenarios.Watched, seed: int) -> None:
    point_scenarios.play(watched, seed)


@pytest.mark.parametrize("seed", [6], ids=api_scenarios.name)
def test_an_api_behind_a_bad_network(far: api_scenarios.Far, seed: int) -> None:
    api_scenarios.play(far, seed)


@pytest.mark.long
@pytest.mark.parametrize("worker_too", [False, True], ids=["the run", "worker and run"])
def test_the_slot_of_a_deployments_own_limit_is_freed(stage: Stage, worker_too: bool) -> None:
    """The next run, which waits for it, begins."""
    path = f"/deployments/{stage.deployments['work']}"
    stage.api.request("PATCH", path, {"concurrency_limit": 1})
    try:
        run = stage.start(first=600)
        pid = stage.pid(run)
        following = stage.start()
        stage.wait_for(following, "AwaitingConcurrencySlot")
        assert own_slots(stage) == 1
        kill(*((stage.service("worker"), *stage.templates()) if worker_too else ()), pid)
        stage.wait_for(following, "Completed")
        stage.wait_for(run, "Completed" if worker_too else "Crashed")
        assert stage.run(run)["run_count"] == 1 + worker_too
        audit(stage, [run, following], completed=worker_too)
        wait(lambda: own_slots(stage) == 0, lambda: f"the slot is freed: {own_slots(stage)}")
    finally:
        stage.api.request("PATCH", path, {"concurrency_limit": None})


def own_slots(stage: Stage) -> int:
    """Return how many slots of the deployment's own limit are held."""
    limit = stage.api.request("GET", f"/deployments/{stage.deployments['work']}")["global_concurrency_limit"]
    return int(stage.api.request("GET", f"/v2/concurrency_limits/{limit['id']}")["active_slots"])


def slots(stage: Stage) -> int:
    """Return how many slots of the tag are held."""
    return len(stage.api.request("GET", f"/concurrency_limits/tag/{TAG}")["active_slots"])
