"""`shipway doctor` on a real stack: well, broken, and mended by the very commands that it names."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from shipway.doctor import Finding
from shipway.prefect.api import Api
from shipway.prefect.doctor_runs import overdue, pending, zombies
from shipway.prefect.doctor_slots import slots
from shipway.prefect.runs import FINAL
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, running_stack, wait_until


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shell]:
    """A stack on which nothing else goes on: doctor looks at all of it."""
    with running_stack(tmp_path_factory.mktemp("doctor") / "stack") as shell:
        yield shell


@pytest.fixture
def api(stack: Shell) -> Iterator[Api]:
    """The stack's API, without runs that other tests have left behind."""
    api = Api(Settings.load(stack.folder, {}))
    _clear(api)
    yield api
    _clear(api)


def _clear(api: Api) -> None:
    unfinished = {"flow_runs": {"state": {"type": {"not_any_": list(FINAL)}}}, "limit": 200}
    for run in api.request("POST", "/flow_runs/filter", unfinished):
        api.request("DELETE", f"/flow_runs/{run['id']}")


def _flow(api: Api) -> str:
    return str(api.request("POST", "/flows/", {"name": "examined"})["id"])


def _run(api: Api, state: dict[str, Any], **more: Any) -> str:
    return str(api.request("POST", "/flow_runs/", {"flow_id": _flow(api), "state": state, **more})["id"])


def _zombie(api: Api) -> str:
    """Make a run that is Running for a worker that no longer exists."""
    labels = {"prefect.worker.name": "of a machine that burnt", "prefect.worker.type": "shipway"}
    return _run(api, {"type": "RUNNING"}, labels={**labels, "prefect.work-pool.name": "shipway"})


def _mend(command: str, folder: Path) -> None:
    """Do what doctor says, as a person would."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["sh", "-c", command],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, (command, done.stdout, done.stderr)


def _wrong(findings: Iterator[Finding]) -> Finding:
    wrong = [finding for finding in findings if finding.to_mend]
    assert len(wrong) == 1, wrong
    return wrong[0]


def test_a_broken_project_is_mended_by_what_doctor_says(stack: Shell, api: Api) -> None:
    well = stack("doctor")
    assert well.returncode == 0, well.stdout
    assert "All is well." in well.stderr
    assert "conditional writes work" in well.stdout

    zombie = _zombie(api)
    state = stack.folder / ".shipway"
    state.chmod(0o755)
    found = stack("doctor", "--json")
    assert found.returncode == 1
    wrong = {
        each["check"]: each for each in json.loads(found.stdout)["findings"] if each["level"] in ("warning", "error")
    }
    assert set(wrong) == {"permissions", "running"}
    assert zombie in wrong["running"]["what"]
    for each in wrong.values():
        _mend(each["mend"], stack.folder)

    assert state.stat().st_mode & 0o777 == 0o700
    assert api.request("GET", f"/flow_runs/{zombie}")["state_type"] == "CRASHED"
    assert stack("doctor").returncode == 0

    secrets = json.loads((state / "secrets.json").read_text())
    said = well.stdout + well.stderr + found.stdout + found.stderr
    assert not [name for name, value in secrets.items() if value in said]


def test_runs_that_do_not_go_on_are_found(stack: Shell, api: Api) -> None:
    now = datetime.now(UTC)
    stuck = _run(api, {"type": "PENDING"})
    finding = _wrong(pending(api, now + timedelta(minutes=5)))
    assert stuck in finding.what
    assert not [each for each in pending(api, now) if each.to_mend], "it was claimed just now"
    _mend(finding.mend, stack.folder)
    taken_up = api.request("GET", f"/flow_runs/{stuck}")
    assert (taken_up["state_type"], taken_up["state_name"]) == ("SCHEDULED", "AwaitingRetry")

    finding = _wrong(overdue(api, now + timedelta(minutes=10)))
    assert stuck in finding.what
    assert "no queue at all" in finding.what


def test_a_silent_run_is_found_by_its_last_sign_of_life(api: Api) -> None:
    now = datetime.now(UTC)
    run = _run(api, {"type": "RUNNING"})
    later = now + timedelta(hours=3)
    assert not [each for each in zombies(api, later) if each.to_mend], "nobody knows whether its engine gives signs"
    sign = {
        "id": str(uuid4()),
        "occurred": now.isoformat(),
        "event": "prefect.flow-run.heartbeat",
        "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
        "payload": {},
    }
    api.request("POST", "/events", [sign])
    wait_until(lambda: any(each.to_mend for each in zombies(api, later)))
    assert "last sign of life came 3 h ago" in _wrong(zombies(api, later)).what
    assert not [each for each in zombies(api, now + timedelta(minutes=2)) if each.to_mend]


def test_slots_of_runs_that_have_ended_are_found_and_freed(stack: Shell, api: Api) -> None:
    flow = _flow(api)
    run = _run(api, {"type": "RUNNING"})
    body = {"flow_run_id": run, "task_key": "t", "dynamic_key": "0", "state": {"type": "COMPLETED"}}
    task = api.request("POST", "/task_runs/", body)["id"]
    killed = api.request("POST", "/task_runs/", body | {"dynamic_key": "1", "state": {"type": "RUNNING"}})["id"]
    api.request("POST", "/concurrency_limits/", {"tag": "gpu", "concurrency_limit": 2})
    for holder in (task, killed):
        api.request("POST", "/concurrency_limits/increment", {"names": ["gpu"], "task_run_id": holder})
    deployment = api.request("POST", "/deployments/", {"name": "one", "flow_id": flow, "concurrency_limit": 2})["id"]
    try:
        limit = api.request("GET", f"/deployments/{deployment}")["global_concurrency_limit"]
        api.request("PATCH", f"/v2/concurrency_limits/{limit['id']}", {"active_slots": 1})

        wrong = [each for each in slots(api) if each.to_mend]
        assert len(wrong) == 2, wrong
        assert "1 of 2 slots of tag 'gpu'" in wrong[0].what, "the other task's flow run goes on"
        api.request("POST", f"/flow_runs/{run}/set_state", {"state": {"type": "CRASHED"}, "force": True})
        wrong = [each for each in slots(api) if each.to_mend]
        assert "2 of 2 slots of tag 'gpu'" in wrong[0].what
        assert "1 of 2 slots of deployment examined/one" in wrong[1].what
        for each in wrong:
            _mend(each.mend, stack.folder)
        assert [each.level for each in slots(api)] == ["ok"]
    finally:
        api.request("DELETE", f"/deployments/{deployment}")
        api.request("DELETE", "/concurrency_limits/tag/gpu")
