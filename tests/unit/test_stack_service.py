"""What the services are given: their environment, their ports, the address of their database."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from shipway.errors import InputError, PortTakenError, StackError
from shipway.settings import Settings
from shipway.stack.secrets import Secrets
from shipway.stack.service import all_listen, check_port, http_ready, is_loopback, server_service, url, worker_service


@pytest.fixture
def secrets() -> Secrets:
    return Secrets.random()


def test_a_taken_port_is_told_with_its_holder_and_the_way_out() -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]

        with pytest.raises(PortTakenError) as caught:
            check_port("127.0.0.1", port, "Prefect server", "--port")

    assert f"port {port}" in caught.value.message
    assert f"(pid {os.getpid()})" in caught.value.message
    assert "--port" in str(caught.value.hint)
    check_port("127.0.0.1", port, "Prefect server", "--port")


@pytest.mark.parametrize("host", ["203.0.113.7", "no-such-host.invalid"])
def test_a_host_that_is_not_this_machine_is_told(host: str) -> None:
    with pytest.raises(StackError, match=host):
        check_port(host, 4200, "Prefect server", "--port")


def test_a_port_where_nobody_listens_is_not_ready() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]

        assert not http_ready("127.0.0.1", port, "/")("")


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("10.1.2.3", False), ("box", False)],  # noqa: S104
)
def test_only_loopback_addresses_are_private(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    ("host", "address"),
    [("127.0.0.1", "http://127.0.0.1:1"), ("0.0.0.0", "http://127.0.0.1:1"), ("::", "http://[::1]:1")],  # noqa: S104
)
def test_addresses_are_those_this_machine_can_reach(host: str, address: str) -> None:
    assert url(host, 1) == address


def test_the_callers_prefect_settings_do_not_reach_the_server(
    tmp_path: Path, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (
        "PREFECT_API_URL",
        "PREFECT_API_KEY",
        "PREFECT_PROFILE",
        "PREFECT_SERVER_API_BASE_PATH",
        "PREFECT_SERVER_API_AUTH_STRING",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL",
        "PREFECT_SERVER_UI_SERVE_BASE",
        "SHIPWAY_DATABASE_URL",
    ):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "7")

    env = server_service(Settings(project=tmp_path), secrets, auth=False).env

    assert "leaked" not in env.values()
    assert env["PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS"] == "7"
    assert env["PREFECT_SERVER_ENCRYPTION_KEY"] == secrets.encryption_key
    assert env["PATH"] == os.environ["PATH"]


def test_pages_of_other_origins_may_not_use_the_api_unless_the_user_says_so(
    tmp_path: Path, secrets: Secrets, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"
    settings = Settings(project=tmp_path, server_port=4321)
    assert server_service(settings, secrets, auth=False).env[name] == "http://127.0.0.1:4321"
    monkeypatch.setenv(name, "http://ui.example")
    assert server_service(settings, secrets, auth=False).env[name] == "http://ui.example"


def test_secrets_are_in_the_environment_and_never_on_the_command_line(tmp_path: Path, secrets: Secrets) -> None:
    settings = Settings(project=tmp_path, database_url="postgresql://me:pw-of-mine@db/prefect")

    server = server_service(settings, secrets, auth=True)

    assert server.env["PREFECT_SERVER_API_AUTH_STRING"] == secrets.auth_string
    assert server.env["PREFECT_API_DATABASE_CONNECTION_URL"] == "postgresql+asyncpg://me:pw-of-mine@db/prefect"
    assert not [each for each in (secrets.auth_string, "pw-of-mine") if each in " ".join(server.argv) + repr(server)]


def test_a_database_that_prefect_cannot_use_is_refused_without_repeating_its_password(
    tmp_path: Path, secrets: Secrets
) -> None:
    settings = Settings(project=tmp_path, database_url="mysql://me:pw-of-mine@db/prefect")

    with pytest.raises(InputError) as caught:
        server_service(settings, secrets, auth=False)

    assert "pw-of-mine" not in str(caught.value)


def test_the_worker_sees_its_users_environment_but_not_the_servers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PREFECT_API_KEY", "SHIPWAY_API_URL", "PREFECT_SERVER_ENCRYPTION_KEY", "SHIPWAY_DATABASE_URL"):
        monkeypatch.setenv(name, "leaked")
    monkeypatch.setenv("AWS_PROFILE", "mine")
    settings = Settings(project=tmp_path, api_url="http://127.0.0.1:1/api", auth_string="a:b", work_pool="pool")

    worker = worker_service(settings, ("server",))

    assert "leaked" not in worker.env.values()
    assert worker.env["AWS_PROFILE"] == "mine"
    assert (worker.env["PREFECT_API_URL"], worker.env["PREFECT_API_AUTH_STRING"]) == ("http://127.0.0.1:1/api", "a:b")
    assert worker.argv[-2:] == ("--pool", "pool")


def test_all_parts_listen_or_one_does_not() -> None:
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        addresses = [("127.0.0.1", each.getsockname()[1]) for each in (one, other)]
        assert all_listen(*addresses), "whether they answer or not"
        other.close()
        assert not all_listen(*addresses)
