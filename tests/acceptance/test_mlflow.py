"""The mirror, against a real server of MLflow: one run there for one run here, whatever goes wrong on the way."""

from __future__ import annotations

import base64
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from shipway.errors import InputError, MlflowError, MlflowUnreachableError
from shipway.mlflow import mirror as mirrors
from shipway.mlflow.content import RUN_ID, Content, content_of
from shipway.mlflow.mirror import find, mirror, mirror_committed
from shipway.mlflow.server import Server
from shipway.mlflow.sync import sync
from shipway.run.record import RunRecord, write_record
from shipway.store.folder import FolderStore
from shipway.testing import skip_or_fail
from tests.acceptance.conftest import Shell, free_port, one_line, quiet_port, wait_until
from tests.answering import Answer, Asked, answering

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv-mlflow/bin/python"
RECORD = RunRecord(
    run_id="0197a000-0000-7000-8000-0000deadbeef",
    run_name="one",
    flow="train",
    deployment="train/daily",
    attempt=1,
    release=f"1.{'a' * 64}",
    parameters={"month": "2013-02"},
    metrics={"rmse": 0.5},
    timings={"started": "2026-01-02T03:04:06+00:00", "ended": "2026-01-02T03:05:06+00:00"},
)
FOLDER = "runs/train/2026-01-02/one-deadbeef"

FLOW = """
from prefect import flow
import shipway

@flow
def learn(month: str, depth: int = 3):
    shipway.save("model", {"depth": depth})
    shipway.log_metrics({"rmse": 0.25, "r2": 0.75})

if __name__ == "__main__":
    learn("by hand")
"""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an MLflow server of one's own."""
    if not (PYTHON.parent.parent / "installed.lock").is_file():
        skip_or_fail("MLflow is not installed; scripts/test-tools --install mlflow installs it")
    folder = tmp_path_factory.mktemp("mlflow")
    host = f"127.0.0.1:{quiet_port()}"
    found = f"http://{host}"
    # What `mlflow server --gunicorn-opts` starts, without that program, which takes as long to be loaded as the server.
    argv = [str(PYTHON), "-m", "gunicorn", "--bind", host, "--workers", "1", "--threads", "4", "mlflow.server:app"]
    variables = {
        "_MLFLOW_SERVER_FILE_STORE": f"sqlite:///{folder / 'mlflow.db'}",
        "_MLFLOW_SERVER_ARTIFACT_ROOT": str(folder / "artifacts"),
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "true",
    }
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            argv, env=os.environ | variables, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_until(lambda: process.poll() is not None or answers(found), seconds=300)
        assert process.poll() is None, (folder / "log").read_text()
        yield found
    finally:
        # It has children, which are of its group.
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def answers(address: str) -> bool:
    try:
        return Server(address).find_experiment("none") is None
    except MlflowUnreachableError:
        return False


@pytest.fixture
def server(address: str) -> Server:
    return Server(address)


@pytest.fixture
def content(folder_store: FolderStore, request: pytest.FixtureRequest) -> Content:
    """What MLflow is told of a run of a flow that no other test has."""
    return content_of(folder_store, FOLDER, replace(RECORD, flow=request.node.name))


def runs(server: Server, flow: str) -> list[dict[str, Any]]:
    """Return the runs of an experiment as MLflow has them, without those that were deleted."""
    experiment = server.find_experiment(flow)
    body = {"experiment_ids": [experiment], "filter": f"tags.`{RUN_ID}` LIKE '%'", "run_view_type": "ALL"}
    rows = server.request("POST", "runs/search", body).get("runs", ()) if experiment else ()
    return [row for row in rows if row["info"]["lifecycle_stage"] == "active"]


def pairs(row: Mapping[str, Any], kind: str) -> dict[str, Any]:
    return {item["key"]: item["value"] for item in row["data"].get(kind, [])}


def records(store: FolderStore, flow: str, count: int) -> None:
    """Put runs into a store, one a day."""
    for n in range(count):
        record = replace(RECORD, flow=flow, run_id=f"0197a000-0000-7000-8000-{n:012}", run_name=f"run-{n}")
        assert write_record(store, f"runs/{flow}/2026-01-{n + 1:02}/run-{n}-{n:08}", record)


class Gossip(logging.Handler):
    """Keeps what a run's log would say."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[str, str]] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append((record.levelname, record.getMessage()))


def mirrored_lines(
    environ: Mapping[str, str], store: FolderStore, record: RunRecord = RECORD, seconds: float = 120
) -> list[tuple[str, str]]:
    """Mirror a run as it does itself when it has committed, and return what its log says."""
    logger, gossip = logging.Logger("run"), Gossip()
    logger.addHandler(gossip)
    mirror_committed(store, FOLDER, record, logger, seconds=seconds, environ=environ)
    return gossip.lines


@dataclass
class Front:
    """A proxy before MLflow that lets in who has the right header, as companies have one.

    Attributes:
        wanted: the header `Authorization` that it asks for.
        requests: how many it has passed on.
    """

    wanted: str = ""
    requests: list[str] = field(default_factory=list)


@contextmanager
def front(address: str, state: Front) -> Iterator[str]:
    def answer(asked: Asked) -> Answer:
        if asked.headers.get("Authorization") != state.wanted:
            return Answer(401, b"who are you?")
        state.requests.append(asked.path)
        headers = {"Content-Type": "application/json"}
        passed = urllib.request.Request(address + asked.path, asked.body or None, headers, method=asked.method)  # noqa: S310
        try:
            with urllib.request.urlopen(passed) as found:  # noqa: S310
                return Answer(found.status, found.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answer(error.code, error.read())

    with answering(answer) as proxy:
        yield proxy.removeprefix("http://")


def test_what_is_big_and_odd_arrives_and_again_is_nothing_to_do(server: Server, folder_store: FolderStore) -> None:
    odd = ["a b", "a//b", "../up", "/root", ".", "", "é😀", "x%y", "x_y", "line\nbreak", "k" * 400]
    parameters: dict[str, Any] = {f"p{n:03}": "😀" * 6500 if n < 50 else n for n in range(140)}
    parameters |= {name: name or "empty" for name in odd} | {"nul": "a\0b", "half": "\ud83d", "tree": {"b": [1, None]}}
    metrics = {f"m{n}": n / 3 for n in range(1200)} | dict.fromkeys(odd, 1e300)
    record = replace(RECORD, flow="limits / and é", parameters=parameters, metrics=metrics)
    content = content_of(folder_store, FOLDER, record)

    first, second = mirror(server, content), mirror(server, content)

    assert (first.what, second.what, first.run == second.run) == ("added", "there", True)
    [row] = runs(server, "limits / and é")
    assert pairs(row, "params") == content.parameters
    assert pairs(row, "metrics") == content.metrics
    assert pairs(row, "tags") == {**content.tags, "mlflow.runName": "one"}
    assert (len(content.parameters), len(content.metrics)) == (len(parameters), len(metrics))
    assert content.parameters["tree"] == '{"b": [1, null]}'
    info = row["info"]
    assert (info["status"], info["run_name"]) == ("FINISHED", "one")
    assert (info["start_time"], info["end_time"]) == (1_767_323_046_000, 1_767_323_106_000)


def test_half_a_run_is_completed(server: Server, content: Content) -> None:
    half = mirrors._create(server, server.experiment(content.experiment), content)

    done = mirror(server, content)

    assert (done.what, done.run) == ("completed", half.run)
    [row] = runs(server, content.experiment)
    assert (row["info"]["status"], pairs(row, "params")) == ("FINISHED", {"month": "2013-02"})
    mirrors._fill(server, half, content)  # as somebody who had begun before, and comes late
    assert [metric["value"] for metric in runs(server, content.experiment)[0]["data"]["metrics"]] == [0.5]


def test_two_at_once_make_one_run(address: str, content: Content) -> None:
    both = threading.Barrier(2)

    class Racer(Server):
        """Creates a run only when both have found that there is none, and looks only when both have created one."""

        def request(self, method: str, path: str, *rest: Any, **options: Any) -> Any:
            if path != "runs/create":
                return super().request(method, path, *rest, **options)
            both.wait(60)
            answer = super().request(method, path, *rest, **options)
            both.wait(60)
            return answer

    done: list[str] = []
    racers = [threading.Thread(target=lambda: done.append(mirror(Racer(address), content).run)) for _ in range(2)]
    for racer in racers:
        racer.start()
    for racer in racers:
        racer.join()

    [row] = runs(Server(address), content.experiment)
    assert done == [row["info"]["run_id"]] * 2
    assert row["info"]["status"] == "FINISHED"
    assert len(find(Server(address), str(row["info"]["experiment_id"]), content.run_id)) == 2


def test_what_was_whole_before_is_kept_by_who_had_not_seen_it(address: str, content: Content) -> None:
    """Its address has been told. Ids are random: of eight that come late one has a lower id, nearly always."""

    class Late(Server):
        blind = True

        def search(self, *arguments: Any, **options: Any) -> Any:
            found = super().search(*arguments, **options)
            blind, self.blind = self.blind, False
            return [] if blind else found

    first = mirror(Server(address), content)
    assert {mirror(Late(address), content).run for _ in range(8)} == {first.run}
    [row] = runs(Server(address), content.experiment)
    assert (row["info"]["run_id"], row["info"]["status"]) == (first.run, "FINISHED")


def test_who_loses_its_run_to_another_goes_on_with_that_one(address: str, content: Content) -> None:
    other: list[str] = []

    class Loser(Server):
        """Somebody else keeps another run, when this one is about to fill its own."""

        def request(self, method: str, path: str, body: Any = None, **options: Any) -> Any:
            if path == "runs/log-batch" and not other:
                other.append(mirrors._create(self, self.experiment(content.experiment), content).run)
                super().request("POST", "runs/delete", {"run_id": body["run_id"]})
            return super().request(method, path, body, **options)

    done = mirror(Loser(address), content)

    [row] = runs(Server(address), content.experiment)
    assert [done.run] == other == [row["info"]["run_id"]]
    assert row["info"]["status"] == "FINISHED"


def test_what_was_deleted_in_mlflow_stays_so(server: Server, content: Content) -> None:
    done = mirror(server, content)
    server.request("POST", "runs/delete", {"run_id": done.run})

    assert mirror(server, content).what == "deleted"
    assert runs(server, content.experiment) == []

    server.request("POST", "experiments/delete", {"experiment_id": server.experiment(content.experiment)})
    with pytest.raises(MlflowError, match="was deleted in MLflow; restore it"):
        mirror(server, content)


def test_sync_repairs_what_is_missing_half_or_double(server: Server, folder_store: FolderStore) -> None:
    records(folder_store, "gaps", 5)
    folder_store.put("runs/gaps/2026-01-07/broken-00000007/run.json", b"{")
    contents = {
        n: content_of(folder_store, "f", replace(RECORD, flow="gaps", run_id=f"0197a000-0000-7000-8000-{n:012}"))
        for n in range(5)
    }
    experiment = server.experiment("gaps")
    mirror(server, contents[0])
    mirrors._create(server, experiment, contents[1])
    for _ in range(2):
        mirrors._fill(server, mirrors._create(server, experiment, contents[2]), contents[2])

    def states(**options: Any) -> list[str]:
        return [line.what for line in sync(server, folder_store, **options)]

    todo = ["there", "completed", "completed", "added", "added", "failed"]
    assert states(dry_run=True) == todo
    assert len(runs(server, "gaps")) == 4
    assert states(flow="other") == []
    steps: list[tuple[int, int]] = []
    assert states(progress=lambda *step: steps.append(step)) == todo
    assert steps == [(n, 6) for n in range(1, 7)]
    assert states() == ["there"] * 5 + ["failed"]
    found = runs(server, "gaps")
    assert len(found) == len({pairs(row, "tags")[RUN_ID] for row in found}) == 5
    assert {row["info"]["status"] for row in found} == {"FINISHED"}


def test_sync_asks_mlflow_little_where_nothing_is_to_do(address: str, folder_store: FolderStore) -> None:
    records(folder_store, "quiet", 4)
    state = Front(f"Bearer {'t' * 20}")
    with front(address, state) as host:
        server = Server.from_environment({"MLFLOW_TRACKING_URI": f"http://{host}/", "MLFLOW_TRACKING_TOKEN": "t" * 20})
        assert {line.what for line in sync(server, folder_store)} == {"added"}
        state.requests.clear()
        assert {line.what for line in sync(server, folder_store)} == {"there"}
        assert len(state.requests) == 2


@pytest.mark.parametrize(
    ("address_of", "variables", "header"),
    [
        ("ann:se%2Fcret@{}", {}, "ann:se/cret"),
        ("{}", {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "se/cret"}, "ann:se/cret"),
        (
            "joe:x@{}",
            {"MLFLOW_TRACKING_USERNAME": "ann", "MLFLOW_TRACKING_PASSWORD": "se/cret", "MLFLOW_TRACKING_TOKEN": "y"},
            "ann:se/cret",
        ),
        ("joe:x@{}", {"MLFLOW_TRACKING_TOKEN": "se/cret"}, None),
    ],
)
def test_credentials_are_used_and_not_told(
    address: str, folder_store: FolderStore, address_of: str, variables: dict[str, str], header: str | None
) -> None:
    wanted = f"Basic {base64.b64encode(header.encode()).decode()}" if header else "Bearer se/cret"
    state = Front(wanted)
    with front(address, state) as host:
        environ = {"MLFLOW_TRACKING_URI": "http://" + address_of.format(host), **variables}
        [(level, text)] = mirrored_lines(environ, folder_store, replace(RECORD, flow="secrets"))
        assert (level, text.startswith(f"Mirrored to MLflow: http://{host}/#/experiments/")) == ("INFO", True)
        state.wanted = "something else"
        [(level, refusal)] = mirrored_lines(environ, folder_store)
    assert (level, "refused us (401)" in refusal) == ("WARNING", True)
    assert not [word for word in ("cret", "joe", "ann:") if word in text + refusal]


def test_a_redirect_is_not_followed(address: str) -> None:
    with (
        answering(lambda asked: Answer(302, headers={"Location": address + asked.path})) as elsewhere,
        pytest.raises(MlflowUnreachableError, match="does not answer as MLflow does"),
    ):
        Server(elsewhere).find_experiment("x")


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("file:///mlruns", "not supported"),
        ("sqlite:///mlflow.db", "not supported"),
        ("postgresql://ann:secret@db/mlflow", "not supported"),
        ("databricks", "not supported"),
        ("./mlruns", "not supported"),
        ("http://ann:secret@host:port", "not an address"),
        ("http://[ann:secret@host", "not an address"),
        ("http://ann:secret@127.0.0.1:1", "no MLflow answers at http://127.0.0.1:1"),
    ],
)
def test_an_address_that_cannot_serve_is_one_warning(folder_store: FolderStore, uri: str, said: str) -> None:
    [(level, text)] = mirrored_lines({"MLFLOW_TRACKING_URI": uri}, folder_store)

    assert level == "WARNING"
    assert said in text
    assert "secret" not in text
    assert "\n" not in text


def test_without_the_variable_nothing_is_said(folder_store: FolderStore) -> None:
    assert mirrored_lines({}, folder_store) == []
    with pytest.raises(InputError, match="MLFLOW_TRACKING_URI is not set"):
        Server.from_environment({})


def test_a_server_that_does_not_answer_is_waited_for_briefly(folder_store: FolderStore) -> None:
    with socket.socket() as deaf:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen()
        environ = {"MLFLOW_TRACKING_URI": f"http://127.0.0.1:{deaf.getsockname()[1]}"}
        [(level, text)] = mirrored_lines(environ, folder_store, seconds=0.2)

    assert level == "WARNING"
    assert "answer" in text
    assert "shipway mlflow sync" in text


def logged(project: Shell, run_id: str) -> list[tuple[int, str]]:
    """Return the levels and texts of a run's log that are about MLflow."""
    body = json.dumps({"logs": {"flow_run_id": {"any_": [run_id]}}}).encode()
    url = f"{project.environment['PREFECT_API_URL']}/logs/filter"
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})  # noqa: S310
    with urllib.request.urlopen(request) as answer:  # noqa: S310
        return [(row["level"], row["message"]) for row in json.load(answer) if "MLflow" in row["message"]]


def test_a_run_is_in_mlflow_and_one_that_is_not_is_added_later(project: Shell, address: str) -> None:
    (project.folder / "work.py").write_text(FLOW)
    there: dict[str, Any] = {"MLFLOW_TRACKING_URI": address, "SHIPWAY_MLFLOW_SECONDS": "120"}
    nowhere = f"http://127.0.0.1:{free_port()}"

    project.ok("build", "./work.py:learn", "-n", "daily")
    file = project.folder / "learn-deployment.yaml"
    variables = f"{{MLFLOW_TRACKING_URI: '{address}', SHIPWAY_MLFLOW_SECONDS: '120'}}"
    text = file.read_text()
    assert "\njob_variables: {}" in text
    file.write_text(text.replace("\njob_variables: {}", f"\njob_variables: {{env: {variables}}}"))

    def deployed(name: str) -> dict[str, Any]:
        project.ok("apply", file.name)
        project.ok("run", "learn/daily", "-p", f"month={name}", "--name", name, "--watch")
        shown: dict[str, Any] = project.json("show", name)
        wait_until(lambda: bool(logged(project, shown["id"])))
        return shown

    shown = deployed("earlier")

    server = Server(address)
    [row] = runs(server, "learn")
    assert pairs(row, "params") == {"month": "earlier", "depth": "3"}
    assert pairs(row, "metrics") == {"rmse": 0.25, "r2": 0.75}
    tags = pairs(row, "tags")
    assert (tags[RUN_ID], tags["shipway.deployment"]) == (shown["id"], "learn/daily")
    assert tags["shipway.release"] == shown["release"]
    assert tags["shipway.artifacts"].startswith("s3://")
    assert f"{tags['shipway.artifacts']}/model.json" in tags["mlflow.note.content"]
    assert (row["info"]["status"], row["info"]["run_name"]) == ("FINISHED", "earlier")
    place = f"{address}/#/experiments/{row['info']['experiment_id']}/runs/{row['info']['run_id']}"
    assert logged(project, shown["id"]) == [(logging.INFO, f"Mirrored to MLflow: {place}")]

    file.write_text(file.read_text().replace(address, nowhere))
    second = deployed("later")

    [(level, warning)] = logged(project, second["id"])
    assert (level, second["state"]) == (logging.WARNING, "Completed")
    assert f"no MLflow answers at {nowhere}" in warning
    assert len(runs(server, "learn")) == 1

    assert "1 to add, 1 there already" in project.ok("mlflow", "sync", "learn", "--dry-run", **there)
    [done] = [row for row in project.json("mlflow", "sync", "learn", **there)["runs"] if row["run"] == "later"]
    assert (done["what"], done["flow"], done["detail"].startswith(address)) == ("added", "learn", True)
    assert {pairs(row, "params")["month"] for row in runs(server, "learn")} == {"earlier", "later"}
    assert f"{address}: 2 there already." in project.ok("mlflow", "sync", "learn", **there)
    assert "no runs to mirror" in project.ok("mlflow", "sync", "learn", "--since", "2999-01-01", **there)
    assert "no run of 'lern'" in one_line(project("mlflow", "sync", "lern", **there), 4)
    assert "is not set" in one_line(project("mlflow", "sync"), 3)
    assert "no MLflow answers" in one_line(project("mlflow", "sync", "learn", MLFLOW_TRACKING_URI=nowhere), 13)

    subprocess.run(
        [sys.executable, "work.py"],
        cwd=project.folder,
        env={**os.environ, **project.environment, **there},
        check=True,
        timeout=120,
    )
    [by_hand] = [row for row in runs(server, "learn") if pairs(row, "tags")["mlflow.source.type"] == "LOCAL"]
    assert pairs(by_hand, "params") == {"month": "by hand", "depth": "3"}
