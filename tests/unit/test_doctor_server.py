"""What `shipway doctor` says about servers that are not as they should be."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from shipway.cli import cli
from shipway.prefect.api import Api
from shipway.prefect.doctor import server, workers
from shipway.settings import Settings

CLOCK = 1_800_000_000.0


@contextmanager
def answering(answers: dict[str, Any], clock: float = CLOCK) -> Iterator[Settings]:
    """Serve fixed answers, with a clock of one's own."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            wanted = self.path.removeprefix("/api")
            self.send_response(200 if wanted in answers else 404)
            body = json.dumps(answers.get(wanted, {"detail": "Not Found"})).encode()
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815 - the names the server calls

        def date_time_string(self, timestamp: float | None = None) -> str:
            return formatdate(clock, usegmt=True)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the server's own name for it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        try:
            yield Settings(project=Path("/nowhere"), api_url=f"http://127.0.0.1:{running.server_address[1]}/api")
        finally:
            running.shutdown()


def own() -> str:
    from importlib.metadata import version

    return version("prefect")


def test_a_server_that_is_well() -> None:
    with answering({"/admin/version": own()}) as settings:
        found = list(server(settings, lambda: CLOCK + 1))
    assert [(each.check, each.level) for each in found] == [("server", "ok"), ("clock", "ok")]


def test_a_server_of_another_version_and_another_time_is_found() -> None:
    with answering({"/admin/version": "2.14.0"}) as settings:
        found = {each.check: each for each in server(settings, lambda: CLOCK + 90)}
    assert found["version"].level == "error"
    assert f"2.14.0, commands and workers here {own()}" in found["version"].what
    assert found["version"].mend == "python -m pip install prefect==2.14.0"
    assert (found["clock"].level, found["clock"].mend) == ("warning", "sudo timedatectl set-ntp true")


def test_something_that_is_no_prefect_is_found() -> None:
    with answering({}) as settings:
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
    with answering(answers) as settings:
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
