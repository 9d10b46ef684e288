"""A run that means harm to the terminal of whoever looks at it, on a real server and through real commands."""

from __future__ import annotations

import json
import uuid

import pytest

from shipway.cli.follow import watch_run
from shipway.errors import RunFailedError
from shipway.prefect.api import Api
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, one_line

ORDER = "\x1b]0;gotcha\x07\x9b2J\u202e"


@pytest.fixture
def settings(project: Shell) -> Settings:
    return Settings.load(project.folder, project.environment)


def hostile_run(api: Api) -> tuple[str, str]:
    """Make a failed run of which everything that can be chosen holds orders; return its id and name."""
    name = f"run{ORDER}{uuid.uuid4().hex}"
    flow = api.request("POST", "/flows/", {"name": f"flow{ORDER}"})
    body = {"flow_id": flow["id"], "name": name, "parameters": {f"p{ORDER}": ORDER}, "tags": [ORDER]}
    run = api.request("POST", "/flow_runs/", body)
    failed = {"type": "FAILED", "name": f"Failed{ORDER}", "message": f"because {ORDER}"}
    api.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": failed, "force": True})
    line = {"name": ORDER, "level": 40, "message": f"line {ORDER}", "timestamp": run["created"]}
    api.request("POST", "/logs/", [{**line, "flow_run_id": run["id"]}])
    return run["id"], name


def test_nothing_of_a_run_reaches_the_terminal_as_it_is(
    project: Shell, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    api = Api(settings)
    run_id, name = hostile_run(api)
    said = [
        project.inside("show", run_id).stdout,
        project.inside("runs", "--state", "failed", "--limit", "200").stdout,
        one_line(project.inside("why", run_id), 4),
        one_line(project.inside("get", name, "x"), 4),
        one_line(project.inside("show", f"none{ORDER}"), 4),
    ]
    with pytest.raises(RunFailedError):
        watch_run(api, run_id, settings=settings)
    said.append(capsys.readouterr().err)
    for text in said:
        assert "gotcha" in text
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(text)
    assert "line \\x1b]0;gotcha\\x07\\x9b2J\\u202e" in said[-1]
    document = project.inside("show", run_id, "--json").stdout
    assert json.loads(document)["run"] == name
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(document)
