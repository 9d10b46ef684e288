"""What may answer in the place of a Prefect server: errors of ours, or output that can be shown."""

from __future__ import annotations

import io
import json
import tempfile
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.answering import Answer, Asked, answering
from tests.property.fuzzing import budget, documents, encoded, nearly, only, talking

from shipway.cli import cli
from shipway.deployment.step import PULL_STEP
from shipway.errors import InputError, ServerError, ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.runs import LAST_LINE
from shipway.prefect.stores import store_config
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.settings import Settings
from shipway.store.folder import FolderStore

RUN: dict[str, Any] = {
    "id": "0190d000-0000-7000-8000-00000000000a", "name": "first", "flow_id": "f", "deployment_id": "d",
    "deployment_version": f"1.{'a' * 64}", "state_name": "Completed", "state_type": "COMPLETED", "state": {
        "message": "done", "timestamp": "2026-01-02T03:04:05Z",
    }, "expected_start_time": "2026-01-02T03:04:05+00:00", "start_time": "2026-01-02T03:04:05+00:00",
    "end_time": None, "total_run_time": 1.0, "parameters": {"n": 1}, "labels": {"shipway.release": "1.x"},
}  # fmt: skip
DEPLOYMENT: dict[str, Any] = {
    "id": "d", "flow_id": "f", "name": "one", "version": f"1.{'a' * 64}", "tags": ["t"], "parameters": {"n": 1},
    "schedules": [
        {"id": "s", "schedule": {"cron": "0 6 * * 1", "timezone": "Europe/Berlin"}, "active": True},
        {"id": "u", "schedule": {"interval": 3600.0}, "active": False},
    ],
    "paused": False, "pull_steps": [{PULL_STEP: {"store": "local-file-system/it"}}], "description": "a\nb",
    "work_pool_name": "shipway", "work_queue_name": "q", "global_concurrency_limit": {"limit": 1, "active_slots": 0},
    "parameter_openapi_schema": {"type": "object", "properties": {"n": {"type": "integer"}}},
}  # fmt: skip
LOG = {"message": f"{LAST_LINE}, a line", "level": 20, "timestamp": "2026-01-02T03:04:05Z", "task_run_id": None}
TASK = {"id": "t", "name": "task-1", "state_type": "COMPLETED", "state_name": "Completed", "total_run_time": 1.0}


def answers(folder: Path) -> dict[str, Any]:
    """Return what a server says whose deployments keep their data in a folder."""
    return {
        "POST /api/flows/filter": [{"id": "f", "name": "tiny"}],
        "POST /api/flow_runs/filter": [RUN],
        f"GET /api/flow_runs/{RUN['id']}": RUN,
        "POST /api/task_runs/filter": [TASK],
        "POST /api/logs/filter": [LOG],
        "POST /api/deployments/filter": [DEPLOYMENT],
        "GET /api/deployments/d": DEPLOYMENT,
        "GET /api/deployments/name/tiny/one": DEPLOYMENT,
        "GET /api/block_types/slug/local-file-system/block_documents/name/it": {
            "id": "b",
            "data": {"basepath": str(folder)},
        },
    }


class Server:
    """A server on this machine that gives what it is told to give."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.good = answers(folder)
        self.answers: dict[str, bytes] = {}
        self.address = ""

    def reset(self) -> None:
        """Answer as a good server does."""
        self.answers = {name: encoded(value) for name, value in self.good.items()}

    def api(self) -> Api:
        return Api(Settings(project=self.folder, api_url=self.address))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with tempfile.TemporaryDirectory() as path:
        told = Server(Path(path))
        time = RUN["expected_start_time"]
        timings = dict.fromkeys(("scheduled", "started", "ended"), time)
        record = RunRecord(RUN["id"], "first", "tiny", "tiny/one", 1, None, {}, timings=timings)
        store = FolderStore(told.folder)
        assert write_record(store, run_folder("tiny", datetime.fromisoformat(time), "first", RUN["id"]), record)

        def answer(asked: Asked) -> Answer:
            found = told.answers.get(asked.line)
            return Answer(404, b'{"detail": "none"}') if found is None else Answer(200, found)

        with answering(answer) as address:
            told.address = f"{address}/api"
            yield told


COMMANDS = (
    "ls", "ls --json", "runs", "runs --json", "runs tiny/one", "inspect tiny/one", "inspect tiny/one --json",
    "show first", "show first --json", "show first --watch", "releases tiny/one", "why first", "get first x",
    "report first --no-open",
)  # fmt: skip


def carry_out(server: Server, command: str) -> str:
    """Carry out a command and return what it said."""
    said = io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True)
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(said), redirect_stderr(said):
        patch.chdir(server.folder)
        patch.setenv("PREFECT_API_URL", server.address)
        only(ShipwayError, lambda: cli.main(args=command.split(), prog_name="shipway", standalone_mode=False))
    return said.buffer.getvalue().decode()


def test_the_good_server_is_understood(server: Server) -> None:
    server.reset()
    assert "tiny/one" in carry_out(server, "ls")
    assert "first" in carry_out(server, "runs")
    assert "Completed" in carry_out(server, "show first")
    assert "every 3600 s (paused)" in carry_out(server, "inspect tiny/one")
    assert json.loads(carry_out(server, "show first --json"))["artifacts"] == []
    assert "a line" in carry_out(server, "show first --watch")


NAMES = sorted(answers(Path("/")))


@budget
@given(st.sampled_from(COMMANDS), st.sampled_from(NAMES), st.data())
def test_answers_of_the_api(server: Server, command: str, name: str, data: st.DataObject) -> None:
    server.reset()
    server.answers[name] = data.draw(documents(server.good[name]))
    assert "\x1b" not in carry_out(server, command)


def changed(document: Any, *path: Any, to: Any) -> Any:
    """Return a document with another value in one place."""
    made = json.loads(json.dumps(document))
    node = made
    for step in path[:-1]:
        node = node[step]
    node[path[-1]] = to
    return made


@pytest.mark.parametrize(
    ("command", "name", "answer"),
    [
        ("ls", "POST /api/deployments/filter", b"[" * 100_000),
        ("ls", "POST /api/deployments/filter", b'[{"name": "\xed\xa0\x80"}]'),
        ("ls", "POST /api/deployments/filter", encoded({"detail": "no list"})),
        ("ls", "POST /api/deployments/filter", encoded([7])),
        ("ls", "POST /api/deployments/filter", encoded([changed(DEPLOYMENT, "schedules", 0, "schedule", to=None)])),
        ("ls", "POST /api/deployments/filter", encoded([changed(DEPLOYMENT, "tags", to=[1])])),
        ("ls", "POST /api/deployments/filter", encoded([DEPLOYMENT] * 200)),
        ("inspect tiny/one", "GET /api/deployments/name/tiny/one", b"null"),
        ("inspect tiny/one", "GET /api/deployments/name/tiny/one", encoded(changed(DEPLOYMENT, "pull_steps", to=[1]))),
        ("runs", "POST /api/flow_runs/filter", encoded([changed(RUN, "name", to="\ud800")])),
        ("runs", "POST /api/flow_runs/filter", encoded([changed(RUN, "start_time", to="yesterday")])),
        ("runs", "POST /api/flow_runs/filter", encoded([changed(RUN, "start_time", to="0001-01-01T00:00:00Z")])),
        ("runs", "POST /api/flow_runs/filter", encoded([changed(RUN, "total_run_time", to=10**400)])),
        ("show first --watch", "POST /api/logs/filter", encoded([changed(LOG, "level", to="high")])),
    ],
)
def test_answers_that_are_refused(server: Server, command: str, name: str, answer: bytes) -> None:
    server.reset()
    server.answers[name] = answer
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(server.folder)
        patch.setenv("PREFECT_API_URL", server.address)
        with pytest.raises(ServerError, match=r"does not answer as a Prefect API does|the same page again"):
            cli.main(args=command.split(), prog_name="shipway", standalone_mode=False)


BLOCKS: dict[str, dict[str, Any]] = {
    "s3": {"bucket_path": "b/p", "endpoint_url": "http://127.0.0.1:1", "aws_access_key_id": "a" * 20,
           "aws_secret_access_key": "of-mine", "region_name": "x"},
    "s3-bucket": {"bucket_name": "b", "bucket_folder": "p", "credentials": {
        "aws_access_key_id": "a" * 20, "aws_secret_access_key": "of-mine", "region_name": "x",
        "aws_client_parameters": {"endpoint_url": "http://127.0.0.1:1"}}},
    "local-file-system": {"basepath": "/tmp/x"},
}  # fmt: skip


@budget
@given(st.sampled_from(sorted(BLOCKS)).flatmap(lambda kind: st.tuples(st.just(kind), nearly(BLOCKS[kind]))))
@example(("local-file-system", {"basepath": "~nobody-of-that-name/x"}))
@example(("local-file-system", {"basepath": "a\0b"}))
@example(("local-file-system", {"basepath": 7}))
@example(("s3-bucket", {**BLOCKS["s3-bucket"], "credentials": "of-mine"}))
@example(("s3", {**BLOCKS["s3"], "endpoint_url": ["of-mine"]}))
def test_block_of_a_store(server: Server, block: tuple[str, Any]) -> None:
    kind, data = block
    server.reset()
    path = f"GET /api/block_types/slug/{kind}/block_documents/name/it"
    server.answers[path] = encoded({"id": "b", "data": data})
    settings = Settings(project=server.folder, api_url=server.address)
    said, address = "", ""
    try:
        address = store_config(settings, f"{kind}/it").address
    except ShipwayError as error:
        said = str(error)
    assert "of-mine" not in said
    assert said or address


@budget
@given(st.sampled_from([401, 403, 404, 409, 422, 500]), documents({"detail": [{"loc": ["body"], "msg": "no"}]}))
@example(422, encoded({"detail": [{"loc": 7, "msg": "no"}]}))
@example(500, b"[" * 4096)
def test_errors_of_the_api(status: int, body: bytes) -> None:
    with talking(f"HTTP/1.1 {status} x\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body) as address:
        only(ShipwayError, lambda: Api(Settings(project=Path(), api_url=f"{address}/api")).request("GET", "/health"))


@budget
@given(st.binary(max_size=60) | st.sampled_from([b"HTTP/1.1 200 x\r\nDate: x\r\nContent-Length: 9\r\n\r\n3"]))
@example(b"SSH-2.0-OpenSSH_9.6\r\n")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}")
@example(b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
@example(b"HTTP/1.1 200 " + b"x" * 70_000)
@example(b'HTTP/1.1 200 OK\r\nDate: 99 Foo 99999 99:99:99\r\nContent-Length: 3\r\n\r\n"3"')
def test_what_is_no_web_server(said: bytes) -> None:
    with talking(said) as address:
        only(ShipwayError, lambda: Api(Settings(project=Path(), api_url=f"{address}/api")).greet())


@pytest.mark.parametrize(
    "settings",
    [
        {"api_key": "of-mine\n"},
        {"api_key": "of-mine\u20ac"},
        {"auth_string": "me:of-mine\udcff"},
        {"api_url": "http://me:of-mine@127.0.0.1:4200/api"},
        {"api_url": "http://[::1/of-mine"},
    ],
)
def test_a_secret_that_cannot_be_sent_is_not_repeated(settings: dict[str, str]) -> None:
    with pytest.raises(InputError) as caught:
        Api(Settings(project=Path(), **settings)).request("GET", "/health")  # type: ignore[arg-type]
    assert "of-mine" not in str(caught.value)
