"""What `shipway doctor` says about servers that are not as they should be."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.answering import Answer, Asked, answering

from shipway.cli import cli
from shipway.prefect.api import Api
from shipway.prefect.doctor import server, workers
from shipway.settings import Settings

CLOCK = 1_800_000_000.0


@contextmanager
def served(answers: dict[str, Any], clock: float = CLOCK) -> Iterator[Settings]:
    """Serve fixed answers, with a clock of one's own."""

    def answer(asked: Asked) -> Answer:
        wanted = asked.path.removeprefix("/api")
        body = json.dumps(answers.get(wanted, {"detail": "Not Found"})).encode()
        return Answer(200 if wanted in answers else 404, body, {"Date": formatdate(clock, usegmt=True)})

    with answering(answer) as address:
        yield Settings(project=Path("/nowhere"), api_url=f"{address}/api")


def own() -> str:
    from importlib.metadata import version

    return version("prefect")


def test_a_server_that_is_well() -> None:
    with served({"/admin/version": own()}) as settings:
        found = list(server(settings, lambda: CLOCK + 1))
    assert [(each.check, each.level) for each in found] == [("server", "ok"), ("clock", "ok")]


def test_a_server_of_another_version_and_another_time_is_found() -> None:
    with served({"/admin/version": "2.14.0"}) as settings:
        found = {each.check: each for each in server(settings, lambda: CLOCK + 90)}
    assert found["version"].level == "error"
    assert f"2.14.0, commands and workers here {own()}" in found["version"].what
    assert found["version"].mend == "python -m pip install prefect==2.14.0"
    assert (found["clock"].level, found["clock"].mend) == ("warning", "sudo timedatectl set-ntp true")


def test_something_that_is_no_prefect_is_found() -> None:
    with served({}) as settings:
        (finding,) = server(settings)
    assert (finding.level, "/admin/version" in finding.what) == ("error", True)


def test_a_server_that_is_away_is_found() -> None:
    (finding,) = server(Settings(project=Path("/nowhere"), api_url="http://127.0.0.1:9/api"))
    assert finding.level == "error"
    assert finding.what == "no Prefect API answers at http://127.0.0.1:9/api"


def test_a_password_in_the_address_is_found_and_not_told() -> None:
    (finding,) = server(Settings(project=Path("/nowhere"), api_url="http://me:hunter2@127.0.0.1:9/api"))
    assert finding.level == "error"
    assert finding.what == "the address of the Prefect API holds a user or password"
    assert "hunter2" not in str(finding)


def test_a_worker_of_another_version_is_found() -> None:
    answers = {
        "/work_pools/filter": [{"name": "shipway", "type": "shipway"}],
        "/work_pools/shipway/workers/filter": [
            {"name": name, "status": status}
            for name, status in [("old", "ONLINE"), ("gone", "OFFLINE"), ("new", "ONLINE")]
        ],
        "/events/filter": {
            "events": [
                {"resource": {"prefect.resource.name": name, "prefect.version": version}}
                for name, version in [("new", own()), ("gone", "3.0.0"), ("old", "3.7.1"), ("new", "3.7.1")]
            ]
        },
    }
    with served(answers) as settings:
        old, summary = workers(Api(settings))
    assert (old.level, "'old' runs Prefect 3.7.1" in old.what) == ("warning", True)
    assert (summary.level, summary.what) == ("ok", "2 online")


def test_the_command_works_where_there_is_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
    findings = json.loads(done.stdout)["findings"]
    assert done.return_value == 0, findings
    assert {"python", "packages", "disk", "permissions", "server"} <= {each["check"] for each in findings}
    (told,) = [each for each in findings if each["check"] == "server"]
    assert (told["level"], told["mend"]) == ("note", "shipway up --detach")
    assert list(tmp_path.iterdir()) == []


def test_settings_that_cannot_be_read_are_found_and_not_repeated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shipway.toml").write_text('aws = {key = "hunter2"}\n')
    done = CliRunner().invoke(cli, ["doctor"], standalone_mode=False)
    assert done.return_value == 1
    assert f"{tmp_path}/shipway.toml sets aws to a value, which is neither text nor a whole number" in done.stdout
    assert f"mend: ${{EDITOR:-vi}} {tmp_path}/shipway.toml" in done.stdout
    assert "permissions" in done.stdout
    assert "hunter2" not in done.output


def test_a_variable_that_does_not_fit_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHIPWAY_SERVER_PORT", "hunter2")
    done = CliRunner().invoke(cli, ["doctor", "--json"], standalone_mode=False)
    (found,) = [each for each in json.loads(done.stdout)["findings"] if each["check"] == "settings"]
    assert found["mend"] == "unset SHIPWAY_SERVER_PORT"
    assert "hunter2" not in done.output
