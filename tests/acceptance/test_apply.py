"""Applying deployment files: the plan comes first, and what fails half-way leaves every deployment as it was."""

from __future__ import annotations

import io
import json
import sys
import uuid
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest

from shipway.errors import ServerError, ServerUnreachableError
from shipway.prefect.api import Api
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, one_line

FLOW = """
from prefect import flow

@flow(name="NAME")
def main(n: int = 1) -> int:
    return n
"""

SCHEDULES = """schedules:
  - cron: 0 6 * * *
  - interval: 86400
    parameters: {n: 2}
  - rrule: FREQ=DAILY;COUNT=3
"""
OTHER_SCHEDULES = """schedules:
  - cron: 0 6 * * *
  - interval: 86400
    parameters: {n: 3}
  - cron: 30 7 * * 1
"""


@pytest.fixture
def flow(project: Shell) -> str:
    """Write a flow file and return the flow's name, which no other test has."""
    name = f"apply-{uuid.uuid4().hex[:8]}"
    (project.folder / "work.py").write_text(FLOW.replace("NAME", name))
    return name


@pytest.fixture
def changing(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[], ServerError | None]]:
    """Have every changing request to the API, made in this process, ask the functions in this list.

    Each may return an error that takes the request's place; ServerUnreachableError takes that of its answer.
    """
    asked: list[Callable[[], ServerError | None]] = []
    request = Api.request

    def wrapped(self: Api, method: str, path: str, body: Any = None) -> Any:
        errors = [ask() for ask in asked] if method != "GET" and not path.endswith("/filter") else []
        error = next(filter(None, errors), None)
        if error and not isinstance(error, ServerUnreachableError):
            raise error
        answer = request(self, method, path, body)
        if error:
            raise error
        return answer

    monkeypatch.setattr(Api, "request", wrapped)
    return asked


def test_the_plan_is_shown_before_anything_is_changed(
    project: Shell, flow: str, changing: list[Callable[[], ServerError | None]]
) -> None:
    project.ok("build", "./work.py:main", "-n", "daily", "-q", flow)
    file = f"{flow}-deployment.yaml"
    said: list[str] = []
    refuse = True

    def note() -> ServerError | None:
        assert isinstance(sys.stdout.buffer, io.BytesIO)
        said.append(sys.stdout.buffer.getvalue().decode())
        return ServerError("the API refused") if refuse else None

    changing.append(note)
    failed = project.inside("apply", file)
    assert one_line(failed, 5) == "shipway: the API refused"
    assert failed.stdout == said[0]
    assert said[0].startswith(
        f"Creating deployment {flow}/daily\n  + work queue to create: shipway/{flow}\n  + release: "
    )
    silent = project.inside("apply", file, "--json")
    one_line(silent, 5)
    assert silent.stdout == ""

    refuse, said[:] = False, []
    plan = project.inside("apply", file, "--plan").stdout
    assert not said
    done = project.inside("apply", file).stdout
    assert said[0] == plan.replace("Would create", "Creating")
    assert done == f"{said[0]}Created deployment {flow}/daily\n"
    assert project.inside("apply", file).stdout == f"Nothing to do for deployment {flow}/daily\n"
    assert json.loads(project.inside("apply", file, "--json").stdout) == [
        {"deployment": f"{flow}/daily", "action": "keep", "changes": []}
    ]
    assert project.json("deploy", "./work.py:main", "-n", "daily", "-t", "new")["deployment"] == f"{flow}/daily"


def told(client: Api, full_name: str) -> dict[str, Any] | None:
    """Return what a person sees of a deployment: everything but times, and ids of schedules that were put back."""
    found = client.find_deployment(full_name)
    if found is None:
        return None
    schedules = [
        {key: item[key] for key in ("schedule", "active", "slug", "parameters", "max_scheduled_runs")}
        for item in found["schedules"]
    ]
    limit = (found["global_concurrency_limit"] or {}).get("limit")
    never = ("updated", "last_polled", "status", "concurrency_limit", "global_concurrency_limit")
    kept = {key: value for key, value in found.items() if key not in never}
    return kept | {"schedules": sorted(schedules, key=json.dumps), "limit": limit}


@pytest.mark.long
def test_whichever_request_fails_all_deployments_are_as_before(
    project: Shell, flow: str, changing: list[Callable[[], ServerError | None]]
) -> None:
    client = Api(Settings.load(project.folder, project.environment))
    project.ok("build", "./work.py:main", "-n", "old", "-t", "a", "-p", "n=1")
    path = project.folder / f"{flow}-deployment.yaml"
    path.write_text(path.read_text().replace("schedules: []\n", SCHEDULES))
    project.ok("apply", path.name)
    # What people do in the UI: pause a schedule and the deployment, add a schedule, which gets no name there.
    found = client.deployment(f"{flow}/old")
    route = f"/deployments/{found['id']}"
    paused = next(item for item in found["schedules"] if "interval" in item["schedule"])
    client.request("PATCH", f"{route}/schedules/{paused['id']}", {"active": False, "parameters": {"n": 2}})
    more = {"schedule": {"cron": "5 5 * * 5", "timezone": "Asia/Tokyo"}, "active": False, "max_scheduled_runs": 2}
    client.request("POST", f"{route}/schedules", [more])
    client.request("POST", f"{route}/pause_deployment")
    before = told(client, f"{flow}/old")
    assert before

    (project.folder / "work.py").write_text(FLOW.replace("NAME", flow).replace("return n", "return -n"))
    project.ok("build", "./work.py:main", "-n", "old", "-t", "b", "-p", "n=4", "--description", "Changed.")
    text = path.read_text().replace("concurrency_limit: null", "concurrency_limit: 2")
    text = text[: text.index("schedules:\n")] + OTHER_SCHEDULES + text[text.index("concurrency_limit:") :]
    new = text.replace("name: old", "name: new")

    seen, failing, lost = 0, 0, False

    def fail() -> ServerError | None:
        nonlocal seen
        seen += 1
        if seen != failing:
            return None
        return ServerUnreachableError("its answer was lost") if lost else ServerError("it was refused")

    changing.append(fail)
    for failing in count(1):
        for lost in (False, True):
            # Each time there is a queue to be made, so that the requests are the same ones every time.
            (project.folder / "old.yaml").write_text(text.replace("queue: b", f"queue: {flow}-{failing}-{lost}"))
            (project.folder / "new.yaml").write_text(new)
            seen = 0
            done = project.inside("apply", "old.yaml", "new.yaml")
            if seen < failing:
                break
            one_line(done, 5)
            assert told(client, f"{flow}/old") == before, (failing, lost)
            assert told(client, f"{flow}/new") is None, (failing, lost)
            if (failing, lost) == (2, False):  # the first after the pointers were moved; a lost answer leaves them
                assert len(json.loads(project.inside("releases", f"{flow}/old", "--json").stdout)) == 1
        if seen < failing:
            break
    # A queue, two schedules that leave, the old deployment, and the new one with its flow.
    assert (done.returncode, seen) == (0, 6)
    after = told(client, f"{flow}/old")
    assert after
    assert (after["tags"], after["limit"], len(after["schedules"])) == (["b"], 2, 3)
    assert not next(item for item in after["schedules"] if "interval" in item["schedule"])["active"]
    assert told(client, f"{flow}/new")
