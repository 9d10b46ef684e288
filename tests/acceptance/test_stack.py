"""The local stack with real processes: found, watched, killed, started again, stopped."""

from __future__ import annotations

import base64
import glob
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest

from shipway.settings import Settings
from shipway.stack import StackFacts, facts
from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.testing import skip_or_fail
from tests.acceptance.conftest import Shell, one_line, quiet_port

LIMIT = 90.0
NOBODY = 65534


def wait(condition: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.1)


def known(shell: Shell) -> StackFacts:
    found = facts(Settings(project=shell.folder))
    assert found is not None
    return found


def store(shell: Shell) -> Store:
    return open_store(known(shell).store)


def call(stack: StackFacts, method: str, path: str, body: Any = None, auth: str | None = None) -> tuple[int, Any]:
    headers = {"Content-Type": "application/json"}
    if auth:
        headers["Authorization"] = f"Basic {base64.b64encode(auth.encode()).decode()}"
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{stack.api_url}{path}", data=data, headers=headers, method=method)  # noqa: S310
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            return answer.status, json.loads(answer.read() or "null")
    except urllib.error.HTTPError as error:
        return error.code, None


def processes(folder: Path) -> list[psutil.Process]:
    """Return every process that works in a project's folder or names it."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.status() == psutil.STATUS_ZOMBIE:
                continue
            if str(folder) in process.cwd() or str(folder) in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def temporary_files(shell: Shell) -> list[str]:
    ports = json.loads((shell.folder / ".shipway/ports.json").read_text())
    sockets = [path for port in ports.values() for path in glob.glob(f"/tmp/seaweedfs-*-{port}.sock")]  # noqa: PTH207
    half_written = [str(path) for path in (shell.folder / ".shipway").glob(".*-*")]
    return sockets + half_written


def came_back(shell: Shell, name: str) -> bool:
    stack = known(shell)
    return stack.ready and [service.restarts for service in stack.services if service.name == name] == [1]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Shell]:
    """A project of its own, with ports of its own in its settings; nothing runs in it before and after the test."""
    toml = f"server_port = {quiet_port()}\nstore_port = {quiet_port()}\n"
    (tmp_path / "shipway.toml").write_text(toml)
    shell = Shell(tmp_path, {"NO_COLOR": "1"})
    yield shell
    shell.ok("down")
    assert processes(tmp_path) == []


def test_a_second_up_finds_the_first_and_says_where_it_is(stack: Shell) -> None:
    before = known(stack)

    done = stack("up", "--detach")

    assert done.returncode == 0
    assert before.api_url in done.stdout
    assert str(before.store.endpoint_url) in done.stdout
    assert known(stack).supervisor == before.supervisor


@pytest.mark.parametrize("option", [["--port", "4999"], ["--store-port", "4999"], ["--host", "127.0.0.2"], ["--auth"]])
def test_a_second_up_that_asks_for_something_else_is_refused(stack: Shell, option: list[str]) -> None:
    assert "runs already" in one_line(stack("up", *option), 8)


def test_status_tells_every_part(stack: Shell) -> None:
    status = stack.json("status")

    assert (status["running"], status["ready"], status["state"]) == (True, True, "ready")
    assert [(row["name"], row["state"]) for row in status["services"]] == [
        ("server", "ready"),
        ("store", "ready"),
        ("worker", "ready"),
    ]
    assert all(psutil.pid_exists(row["pid"]) for row in [status["supervisor"], *status["services"]])
    text = stack.ok("status")
    assert all(str(row["pid"]) in text for row in status["services"])
    assert status["ui_url"] in text


def test_the_ui_is_served_and_finds_its_api(stack: Shell) -> None:
    with urllib.request.urlopen(known(stack).ui_url, timeout=30) as answer:  # noqa: S310
        assert b"<html" in answer.read().lower()
    with urllib.request.urlopen(f"{known(stack).ui_url}/ui-settings", timeout=30) as answer:  # noqa: S310
        assert json.loads(answer.read())["api_url"] == "/api"


@pytest.mark.parametrize("header", [("Origin", "http://evil.example"), ("Host", "evil.example")])
def test_other_pages_in_a_browser_of_this_machine_get_nothing(stack: Shell, header: tuple[str, str]) -> None:
    request = urllib.request.Request(f"{known(stack).api_url}/admin/version", headers=dict([header]))  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as caught, urllib.request.urlopen(request, timeout=30):  # noqa: S310
        pass
    with caught.value:
        assert caught.value.code == 403
        assert "Access-Control-Allow-Origin" not in caught.value.headers


def test_logs_are_there_by_name(stack: Shell) -> None:
    assert "worker ready" in stack.ok("logs", "worker", "--lines", "100000")
    together = stack.ok("logs", "--lines", "1").splitlines()
    assert {line.split("|")[0].strip() for line in together} >= {"store", "supervisor", "worker"}
    assert "there are " in one_line(stack("logs", "nothing"), 4)


def test_following_a_log_shows_what_is_written_from_now(stack: Shell) -> None:
    path = stack.folder / ".shipway/logs/worker.log"
    with path.open("a") as log:
        log.write("a line from before\n")
    follower = subprocess.Popen(
        [sys.executable, "-m", "shipway", "logs", "worker", "--follow", "--lines", "0"],
        cwd=stack.folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert follower.stdout is not None
        with path.open("a", buffering=1) as log:
            # Again and again, because the follower does not say when it has begun to follow.
            while not select.select([follower.stdout], [], [], 0.5)[0]:
                log.write("a line from a test\n")
            log.write("a line from a test\n")
        # The worker writes too, whenever it has something to say.
        seen = list(iter(follower.stdout.readline, "a line from a test\n"))
        assert "a line from before\n" not in seen
        assert follower.poll() is None
    finally:
        follower.kill()
        follower.communicate()


def test_secrets_are_in_one_private_file_and_in_no_command_line(stack: Shell) -> None:
    state = stack.folder / ".shipway"
    values = [str(value) for value in json.loads((state / "secrets.json").read_text()).values()]
    written = [state / "stack.json", state / "supervisor.lock", *(state / "logs").iterdir()]

    texts = [path.read_text(errors="replace") for path in written]
    texts += [" ".join(psutil.Process(row["pid"]).cmdline()) for row in stack.json("status")["services"]]

    assert not [value for value in values if any(value in text for text in texts)]
    assert state.stat().st_mode & 0o777 == 0o700
    assert (state / ".gitignore").read_text() == "*\n"


def test_the_stack_has_saved_the_block_of_its_own_store(stack: Shell) -> None:
    status, block = call(known(stack), "GET", "/block_types/slug/s3/block_documents/name/stack")

    assert status == 200
    assert block["data"]["endpoint_url"] == known(stack).store.endpoint_url


def test_commands_without_a_stack_say_so(tmp_path: Path) -> None:
    shell = Shell(tmp_path, {})

    assert "No stack is running" in shell("down").stderr
    assert shell("down").returncode == 0
    assert shell("status").returncode == 8
    assert json.loads(shell("status", "--json").stdout) == {"running": False, "ready": False, "services": []}
    assert "shipway up" in one_line(shell("logs"), 4)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["server_port", "store_port"])
def test_a_taken_port_is_told_with_the_program_that_holds_it(place: Shell, name: str) -> None:
    port = getattr(Settings.load(place.folder), name)
    with socket.socket() as holder:
        holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        holder.bind(("127.0.0.1", port))
        holder.listen()

        for options in ((), ("--detach",)):
            line = one_line(place("up", *options), 8)
            assert f"port {port}" in line
            assert f"(pid {os.getpid()})" in line
            assert {"server_port": "--port", "store_port": "--store-port"}[name] in line
    assert not (place.folder / ".shipway/stack.json").exists()


def test_secrets_that_others_may_read_stop_the_stack(place: Shell) -> None:
    path = place.folder / ".shipway/secrets.json"
    path.parent.mkdir()
    path.touch(mode=0o644)
    path.chmod(0o644)

    assert f"chmod 600 {path}" in one_line(place("up"), 8)


@pytest.mark.long
def test_what_was_saved_survives_kills_of_everything(place: Shell) -> None:
    place.ok("up", "--detach")
    first = known(place)
    assert call(first, "POST", "/variables/", {"name": "kept", "value": 42})[0] == 201
    store(place).create("kept/object", b"every byte")

    # A service that is killed comes back by itself, with what it knew.
    for name in ("server", "store"):
        process = next(service.process for service in known(place).services if service.name == name)
        assert process is not None
        os.kill(process.pid, signal.SIGKILL)
        wait(partial(came_back, place, name), f"the {name} was started again")
    assert call(known(place), "GET", "/variables/name/kept")[1]["value"] == 42
    assert store(place).read("kept/object") == b"every byte"

    # So does everything when the supervisor is killed, and status tells the truth in between.
    os.kill(first.supervisor.pid, signal.SIGKILL)
    wait(lambda: not first.supervisor.alive, "the supervisor is gone")
    done = place("status", "--json")
    assert done.returncode == 8
    status = json.loads(done.stdout)
    assert (status["running"], status["ready"], status["state"]) == (False, False, "dead")
    assert {row["state"] for row in status["services"]} == {"ready"}
    left = [service.process for service in known(place).services]

    place.ok("up", "--detach")

    assert [process for process in left if process and process.alive] == []
    assert known(place).api_url == first.api_url
    assert call(known(place), "GET", "/variables/name/kept")[1]["value"] == 42
    assert store(place).read("kept/object") == b"every byte"

    place.ok("down")

    assert processes(place.folder) == []
    assert temporary_files(place) == []
    assert not (place.folder / ".shipway/stack.json").exists()
    assert "No stack is running" in place("down").stderr


@pytest.mark.long
def test_an_interrupt_in_the_foreground_stops_everything_in_order(place: Shell) -> None:
    argv = [sys.executable, "-m", "shipway", "up"]
    with subprocess.Popen(argv, cwd=place.folder, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        said = []
        for line in up.stderr:
            said.append(line)
            if "stack: ready" in line:
                up.send_signal(signal.SIGINT)
        assert up.wait(LIMIT) == 0
    stops = [line.split()[1] for line in said if line.endswith(": stopped\n")]
    assert stops[0] == "worker:"
    assert sorted(stops[1:]) == ["server:", "store:"]
    assert processes(place.folder) == []


@pytest.mark.long
def test_a_folder_serves_where_there_is_no_s3_server(place: Shell) -> None:
    code = (
        "import shipway.stack.manager as manager; manager.weed_binary = lambda: None; "
        "from shipway.cli import main; main(['up', '--no-worker'])"
    )
    with subprocess.Popen([sys.executable, "-c", code], cwd=place.folder, stderr=subprocess.PIPE, text=True) as up:
        assert up.stderr is not None
        said = []
        for line in up.stderr:
            said.append(line)
            if "stack: ready" in line:
                stack = known(place)
                path = "/block_types/slug/local-file-system/block_documents/name/stack"
                _, block = call(stack, "GET", path)
                shown = place.ok("status")
                place.ok("down")
        assert up.wait(LIMIT) == 0
    assert "a folder serves instead" in "".join(said)
    assert stack.store.kind == "folder"
    assert block["data"]["basepath"] == str(place.folder / ".shipway/store")
    assert str(place.folder / ".shipway/store") in shown


@pytest.mark.long
def test_the_api_asks_for_the_auth_string_where_it_was_asked_to(place: Shell) -> None:
    place.ok("up", "--detach", "--auth")
    stack = known(place)
    auth = json.loads((place.folder / ".shipway/secrets.json").read_text())["auth_string"]

    assert call(stack, "GET", "/admin/version")[0] == 401
    assert call(stack, "GET", "/admin/version", auth="shipway:wrong")[0] == 401
    assert call(stack, "GET", "/admin/version", auth=auth)[0] == 200
    # The stack's own worker and commands know it.
    assert [service.state for service in stack.services] == ["ready"] * 3
    assert place("ls").returncode == 0


@pytest.mark.long
def test_another_address_than_loopback_asks_for_the_auth_string_unasked(place: Shell) -> None:
    """And `down` stops it when its supervisor was killed."""
    place.ok("up", "--detach", "--no-worker", "--host", "0.0.0.0")  # noqa: S104
    stack = known(place)
    assert [service.name for service in stack.services] == ["server", "store"]

    assert stack.api_url.startswith("http://127.0.0.1:")
    assert stack.auth_string is not None
    assert call(stack, "GET", "/admin/version")[0] == 401
    assert call(stack, "GET", "/admin/version", auth=stack.auth_string)[0] == 200

    os.kill(stack.supervisor.pid, signal.SIGKILL)
    wait(lambda: not stack.supervisor.alive, "the supervisor is gone")
    assert len(processes(place.folder)) >= 2
    place.ok("down")
    assert processes(place.folder) == []
    assert temporary_files(place) == []


def test_a_server_that_cannot_start_is_told_with_its_last_words(place: Shell) -> None:
    nobody_listens = quiet_port()
    url = f"postgresql://me:pw-of-mine@127.0.0.1:{nobody_listens}/prefect"

    done = place("up", "--detach", SHIPWAY_DATABASE_URL=url)

    assert "the server ended with status" in one_line(done, 8)
    assert "server | " in done.stderr
    assert "Connect call failed" in done.stderr
    log = (place.folder / ".shipway/logs/server.log").read_text()
    assert "pw-of-mine" not in done.stderr + log
    assert processes(place.folder) == []


@pytest.fixture
def postgresql() -> Iterator[str]:
    """Start a PostgreSQL server and yield the address of an empty database with a password."""
    programs = [*Path("/usr/lib/postgresql").glob("*/bin"), Path(shutil.which("postgres") or "/none/postgres").parent]
    binaries = next((folder for folder in programs if (folder / "initdb").exists()), None)
    if binaries is None:
        skip_or_fail("PostgreSQL is not installed")
    folder, port = Path("/tmp") / f"shipway-postgresql-{os.getpid()}", quiet_port()
    # It refuses to run as root, and nobody cannot enter pytest's folders.
    user: dict[str, Any] = {"user": NOBODY, "group": NOBODY, "extra_groups": []} if os.geteuid() == 0 else {}
    folder.mkdir(mode=0o700)
    (folder / "password").write_text("pg-password")
    if user:
        for path in (folder, folder / "password"):
            os.chown(path, NOBODY, NOBODY)
    try:
        subprocess.run(
            [
                *(binaries / "initdb", "-D", folder / "data", "-U", "prefect", "-A", "scram-sha-256", "--no-sync"),
                *("--pwfile", folder / "password", "-E", "UTF8", "--locale", "C"),
            ],
            check=True,
            capture_output=True,
            cwd="/",
            **user,
        )
        options = ["-k", str(folder), "-p", str(port), "-h", "127.0.0.1", "-c", "fsync=off"]
        server = subprocess.Popen(
            [binaries / "postgres", "-D", folder / "data", *options], cwd="/", stderr=subprocess.DEVNULL, **user
        )
        try:
            wait((folder / f".s.PGSQL.{port}").exists, "PostgreSQL listens")
            yield f"postgresql://prefect:pg-password@127.0.0.1:{port}/postgres"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait(LIMIT)
    finally:
        shutil.rmtree(folder)


def test_the_data_is_in_postgresql_when_its_address_is_given(place: Shell, postgresql: str) -> None:
    for _ in range(2):
        place.ok("up", "--detach", "--no-worker", SHIPWAY_DATABASE_URL=postgresql)
        call(known(place), "POST", "/variables/", {"name": "kept", "value": 42})
        assert call(known(place), "GET", "/variables/name/kept")[1]["value"] == 42
        place.ok("down")

    assert not (place.folder / ".shipway/server/prefect.db").exists()
    texts = [path.read_text(errors="replace") for path in (place.folder / ".shipway/logs").iterdir()]
    assert not [text for text in texts if "pg-password" in text]
