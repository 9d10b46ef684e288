"""Backfills: in order, once each, gone on with wherever they were left."""

from __future__ import annotations

import re
import uuid
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest

from shipway.model.registry import model_names, read_line
from shipway.prefect import turn
from shipway.prefect.api import Api
from shipway.prefect.labels import AFTER, RELEASE
from shipway.prefect.stores import store_of
from shipway.run.record import read_record, record_keys
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, one_line, wait_until

FLOW = '''
import time
from pathlib import Path

from prefect import flow

import shipway
from shipway.run.session import current

WAIT = Path("FOLDER")


@flow(name="NAME")
def main(month: str, wait: bool = False):
    """Save a month, as soon as it may.

    Args:
        month: which one; that of a file named `bad-MONTH` fails.
        wait: whether to wait for a file named `go-MONTH`.
    """
    deadline = time.monotonic() + 100
    while wait and not (WAIT / f"go-{month}").exists():
        assert time.monotonic() < deadline, "nobody said go"
        time.sleep(0.05)
    assert not (WAIT / f"bad-{month}").exists(), f"{month} is bad"
    worked = time.time()
    current().wait_for_turn()
    shipway.log_metrics({"worked": worked, "turn": time.time()})
    shipway.save("month", month)
'''


@pytest.fixture
def flow(project: Shell) -> str:
    """Deploy the flow and return its name."""
    name = f"fill-{uuid.uuid4().hex[:8]}"
    (project.folder / "wait").mkdir()
    text = FLOW.replace("NAME", name).replace("FOLDER", str(project.folder / "wait"))
    (project.folder / "work.py").write_text(text)
    (project.folder / ".shipwayignore").write_text("wait\noutput\n")
    project.ok("deploy", "./work.py:main", "-n", "monthly")
    return name


def api(project: Shell) -> Api:
    return Api(Settings.load(project.folder, project.environment))


def runs(project: Shell, flow: str) -> list[dict[str, Any]]:
    """Return all runs of a flow, the oldest first."""
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "EXPECTED_START_TIME_ASC"}
    return list(api(project).pages("/flow_runs/filter", body))


def names(project: Shell, flow: str) -> list[tuple[str, str]]:
    return [(run["name"], run["state_name"]) for run in runs(project, flow)]


def test_each_value_once_in_order(project: Shell, flow: str) -> None:
    for words, value, status in (
        ("goes backwards; write 2013-02..2013-03", "month=2013-03..2013-02", 3),
        ("has no parameter 'moon'", "moon=1..3", 3),
        ("Missing option '-p'", "", 2),
    ):
        assert words in one_line(project("backfill", f"{flow}/monthly", *(("-p", value) if value else ())), status)
    assert "there is no deployment" in one_line(project("backfill", "no/body", "-p", "month=1..3"), 4)

    fill = ("backfill", f"{flow}/monthly", "-p", "month=2013-02..2013-04")
    planned = project(*fill, "--dry-run")
    assert planned.returncode == 2
    assert [line.split()[:2] for line in planned.stdout.splitlines()[1:]] == [
        [f"month-2013-0{n}", "run"] for n in (2, 3, 4)
    ]
    assert runs(project, flow) == []

    done = project(*fill)
    assert done.returncode == 0, done.stderr
    assert f"{flow}/monthly: 3 Completed" in done.stdout
    ended = [line for line in done.stderr.splitlines() if re.search(r"Completed in \d+\.\d s$", line)]
    assert [line.split()[0] for line in ended] == ["month-2013-02", "month-2013-03", "month-2013-04"]
    rows = runs(project, flow)
    assert [row["parameters"]["month"] for row in rows] == ["2013-02", "2013-03", "2013-04"]
    for before, after in pairwise(rows):
        assert datetime.fromisoformat(before["end_time"]) <= datetime.fromisoformat(after["created"])
    assert all(row["tags"] == ["backfill"] for row in rows)
    assert project.json("show", "month-2013-03")["artifacts"][0]["address"].split("/")[-3].startswith("month-2013-03-")

    assert "Nothing to do: all 3 values" in project.ok(*fill)
    assert project(*fill, "--dry-run").returncode == 0
    assert len(runs(project, flow)) == 3
    facts = project.json("backfill", f"{flow}/monthly", "-p", "month=2013-03..2013-05")
    assert [(one["action"], one["state"]) for one in facts["values"]] == [
        ("skip", "Completed"),
        ("skip", "Completed"),
        ("create", "Completed"),
    ]

    # Data that came late: the same once more. Another code: another matter.
    project.ok("backfill", f"{flow}/monthly", "-p", "month=2013-05", "--again")
    assert [name for name, _ in names(project, flow)].count("month-2013-05") == 2
    with (project.folder / "work.py").open("a") as file:
        file.write("# changed\n")
    project.ok("deploy", "./work.py:main", "-n", "monthly")
    assert project(*fill, "--dry-run", "--json").returncode == 2


def test_a_failure_stops_it_and_the_same_command_goes_on(project: Shell, flow: str) -> None:
    fill = ("backfill", f"{flow}/monthly", "-p", "month=2013-02..2013-04")
    (project.folder / "wait/bad-2013-03").touch()
    assert "run month-2013-03 is Failed; `shipway show month-2013-03` says why" in one_line(project(*fill), 1)
    assert names(project, flow) == [("month-2013-02", "Completed"), ("month-2013-03", "Failed")]

    done = project(*fill, "--keep-going")
    one_line(done, 1)
    assert f"{flow}/monthly: 1 Failed, 1 Completed, 1 completed before" in done.stdout

    (project.folder / "wait/bad-2013-03").unlink()
    assert f"{flow}/monthly: 1 Completed, 2 completed before" in project.ok(*fill)
    assert names(project, flow) == [
        ("month-2013-02", "Completed"),
        ("month-2013-03", "Failed"),
        ("month-2013-03", "Failed"),
        ("month-2013-04", "Completed"),
        ("month-2013-03", "Completed"),
    ]


def test_a_killed_command_is_gone_on_with(project: Shell, flow: str) -> None:
    fill = ("backfill", f"{flow}/monthly", "-p", "month=2013-02..2013-04", "-p", "wait=true")
    (project.folder / "wait/go-2013-02").touch()
    driver = project.start(*fill, output=project.folder / "output")
    wait_until(lambda: names(project, flow)[1:] == [("month-2013-03", "Running")])
    driver.kill()
    driver.wait()

    output = project.folder / "output"
    driver = project.start(*fill, "--json", output=output)
    wait_until(lambda: "month-2013-03  Running already" in output.read_text())
    for month in ("2013-03", "2013-04"):
        (project.folder / f"wait/go-{month}").touch()
    assert driver.wait(timeout=120) == 0, output.read_text()
    assert [(one["action"], one["state"]) for one in project.json(*fill)["values"]] == [("skip", "Completed")] * 3
    assert len(runs(project, flow)) == 3


def test_parallel_runs_have_their_turns_in_order(project: Shell, flow: str) -> None:
    """The later a month the sooner its work is done here; the turns come in order all the same."""
    fill = ("backfill", f"{flow}/monthly", "-p", "month=2013-02..2013-05", "-p", "wait=true", "--parallel", "3")
    driver = project.start(*fill, output=project.folder / "output")
    wait_until(lambda: [state for _, state in names(project, flow)] == ["Running"] * 3)
    release = {run["labels"][RELEASE] for run in runs(project, flow)}
    project.ok("deploy", "./work.py:main", "-n", "monthly", "-p", "wait=false")
    for month in ("2013-05", "2013-04", "2013-03"):
        (project.folder / f"wait/go-{month}").touch()
    (project.folder / "wait/go-2013-02").touch()
    assert driver.wait(timeout=120) == 0, (project.folder / "output").read_text()

    rows = runs(project, flow)
    assert [row["labels"].get(AFTER) for row in rows] == [None, *(row["id"] for row in rows[:-1])]
    assert {row["labels"][RELEASE] for row in rows} == release
    for before, after in pairwise(rows):
        turn_of_the_later = project.json("show", after["id"])["metrics"]["turn"]
        assert turn_of_the_later >= datetime.fromisoformat(before["end_time"]).timestamp()


TRAINING = '''
import time
from pathlib import Path

from prefect import flow

import shipway

WAIT = Path("FOLDER")


@flow(name="NAME")
def main(month: int):
    """Train, as soon as it may; the later the month, the better the model."""
    deadline = time.monotonic() + 200
    while not (WAIT / f"go-{month}").exists():
        assert time.monotonic() < deadline, "nobody said go"
        time.sleep(0.05)
    shipway.save("model", month)
    (WAIT / f"trained-{month}").touch()
    champion = shipway.champion("NAME", None)
    actual = list(range(8))
    predictions = {"actual": actual, "prediction": [value + 10 - month for value in actual]}
    if champion:
        predictions["champion"] = [value + 10 - champion.model for value in actual]
    decision = shipway.gate(predictions)
    shipway.register("NAME", "model", decision=decision, predict=lambda model: [model], expected=[month])
'''


@pytest.mark.long
def test_models_trained_in_parallel_are_promoted_in_order(project: Shell) -> None:
    """The last month is trained first, the first one last: each meets the model of the month before all the same."""
    name, wait = f"train-{uuid.uuid4().hex[:8]}", project.folder / "wait"
    wait.mkdir()
    (project.folder / ".shipwayignore").write_text("wait\noutput\n")
    (project.folder / "work.py").write_text(TRAINING.replace("NAME", name).replace("FOLDER", str(wait)))
    project.ok("deploy", "./work.py:main", "-n", "monthly")
    fill = ("backfill", f"{name}/monthly", "-p", "month=1..3", "--parallel", "3")
    store = store_of(Settings.load(project.folder, project.environment), "s3/stack")
    driver = project.start(*fill, output=project.folder / "output")
    for month in (3, 2, 1):
        (wait / f"go-{month}").touch()
        wait_until((wait / f"trained-{month}").exists)
        assert month == 1 or name not in model_names(store), "it was registered before its turn"
    assert driver.wait(timeout=240) == 0, (project.folder / "output").read_text()

    line = read_line(store, name)
    assert [move.version for move in line.champion.history] == [3, 2, 1]
    assert line.champion.held == ()
    assert {version.run_name: version.version for version in line.versions} == {f"month-{n}": n for n in (1, 2, 3)}
    met = {run.run_name: run.champions for run in (read_record(store, key) for key, *_ in record_keys(store, name))}
    assert met == {"month-1": {name: None}, "month-2": {name: 1}, "month-3": {name: 2}}


@pytest.mark.long
def test_fewer_places_than_runs_do_not_lock_them_out(
    project: Shell, flow: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There is one place, and it is the later run that has it, waiting for the earlier one: it gives it up."""
    text = (project.folder / "work.py").read_text()
    shorter = "import datetime\nfrom shipway.prefect import turn\n\n"
    shorter += "turn.PLACE_SECONDS, turn.BEHIND = 0.5, datetime.timedelta(seconds=2)\n"
    (project.folder / "work.py").write_text(text.replace("WAIT = ", f"{shorter}WAIT = "))
    project.ok("deploy", "./work.py:main", "-n", "monthly", "-q", f"narrow-{flow}")
    client = api(project)
    queue = f"/work_pools/shipway/queues/narrow-{flow}"
    client.request("PATCH", queue, {"concurrency_limit": 1})
    assert turn.PLACE_SECONDS > 30, "longer than a run waits that met its deployment's limit"

    deployment = client.deployment(f"{flow}/monthly")
    # As after the worker of the earlier run was stopped: that run is due behind the later one.
    client.request("PATCH", queue, {"is_paused": True})
    path = f"/deployments/{deployment['id']}/create_flow_run"
    first = client.request("POST", path, {"parameters": {"month": "2013-02"}, "state": {"type": "SCHEDULED"}})
    labels = {AFTER: first["id"]}
    client.request("POST", path, {"parameters": {"month": "2013-03"}, "labels": labels, "state": {"type": "SCHEDULED"}})
    client.request("POST", f"/flow_runs/{first['id']}/set_state", {"state": {"type": "SCHEDULED"}, "force": True})
    client.request("PATCH", queue, {"is_paused": False})

    wait_until(lambda: {state for _, state in names(project, flow)} == {"Completed"})
    by_month = {run["parameters"]["month"]: run for run in runs(project, flow)}
    assert by_month["2013-03"]["run_count"] > 1, "it had the place first"
    turn_of_the_later = project.json("show", by_month["2013-03"]["id"])["metrics"]["turn"]
    assert turn_of_the_later >= datetime.fromisoformat(by_month["2013-02"]["end_time"]).timestamp()
    done = project("backfill", f"{flow}/monthly", "-p", "month=2014-01..2014-02", "--parallel", "2")
    assert f"1 at once, not 2: queue narrow-{flow} allows no more" in done.stderr
