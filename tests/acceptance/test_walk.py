"""The walk on a flow of one's own: build, apply, ls, inspect, run, runs, show, get."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from pathlib import Path
from typing import Any

import pytest

from shipway.prefect.api import Api
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, end_or_kill, one_line, run_python, wait_until

FLOW = '''
from pathlib import Path
from prefect import flow, task
import shipway

raise_at_import = __name__ == "__main__" and 1 / 0

@task
def double(n: int) -> int:
    shipway.save("from a task", [n])
    return 2 * n

@flow(name="NAME")
def main(n: int, label: str = "x") -> int:
    """Doubles a number.

    Args:
        n: what to double
    """
    result = double(n)
    Path("out").mkdir()
    Path("out/result.txt").write_text(str(result))
    shipway.save("table/result", {"n": n, "result": result})
    shipway.log_metrics({"result": result})
    return result
'''


def api(project: Shell) -> Api:
    return Api(Settings.load(project.folder, project.environment))


@pytest.fixture
def flow(project: Shell) -> str:
    """Write a flow file and return the flow's name, which no other test has."""
    name = f"walk-{uuid.uuid4().hex[:8]}"
    (project.folder / "work.py").write_text(FLOW.replace("NAME", name))
    return name


def test_the_whole_walk(project: Shell, flow: str) -> None:
    project.ok(
        "build", "./work.py:main", "-n", "daily", "-t", "blue", "--cron", "0 6 * * 1", "--timezone", "Europe/Berlin"
    )
    assert {path.name for path in project.folder.iterdir()} - {".shipway"} == {
        "work.py",
        f"{flow}-deployment.yaml",
        f"{flow}-manifest.json",
    }

    planned = project("apply", f"{flow}-deployment.yaml", "--plan")
    assert planned.returncode == 2
    assert not [row for row in project.json("ls") if row["deployment"] == f"{flow}/daily"]
    project.ok("apply", f"{flow}-deployment.yaml")
    assert "Nothing to do" in project.ok("apply", f"{flow}-deployment.yaml", "--plan")

    row = next(row for row in project.json("ls") if row["deployment"] == f"{flow}/daily")
    assert (row["queue"], row["tags"], row["work_pool"]) == ("blue", ["blue"], "shipway")
    assert row["schedules"] == ["cron 0 6 * * 1 Europe/Berlin"]
    assert f"{flow}/daily" in project.ok("ls")
    assert "s3/stack" in project.ok("inspect", f"{flow}/daily")

    watched = project("run", f"{flow}/daily", "-p", "n=21", "--watch", "--name", f"run-{flow}", "--json")
    assert watched.returncode == 0, watched.stderr
    facts = json.loads(watched.stdout)
    assert "Completed" in watched.stderr
    assert facts["state"] == "Completed"
    assert facts["metrics"] == {"result": 42}
    assert [item["name"] for item in facts["artifacts"]] == ["from a task", "out/result.txt", "table/result"]
    captured = next(item for item in facts["artifacts"] if item["name"] == "out/result.txt")
    assert captured["captured"]
    assert captured["address"].startswith(f"s3://shipway/runs/{flow}/")

    assert f"run-{flow}" in project.ok("runs", f"{flow}/daily")
    assert project.json("show", f"run-{flow}")["release"] == row["release"]
    project.ok("get", f"run-{flow}", "table/result", "copy.json")
    assert json.loads((project.folder / "copy.json").read_text()) == {"n": 21, "result": 42}
    project.ok("get", f"run-{flow}", "out/", "fetched")
    assert (project.folder / "fetched/result.txt").read_text() == "42"


def test_the_ui_is_pointed_at_what_was_saved(project: Shell, flow: str) -> None:
    project.ok("deploy", "./work.py:main", "-n", "daily", "-p", "n=1")
    facts = project.json("run", f"{flow}/daily", "--watch")
    rows = api(project).request("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [facts["id"]]}}})
    kinds = {row["type"]: row for row in rows}
    assert {row["name"] for row in json.loads(kinds["table"]["data"])} == {item["name"] for item in facts["artifacts"]}
    assert "/run.json" in kinds["markdown"]["data"]


def test_a_run_executes_the_release_it_was_created_with(project: Shell, flow: str) -> None:
    project.ok("deploy", "./work.py:main", "-n", "daily", "-q", "held")
    client = api(project)
    # Nobody may take the run before the second deploy: its queue is paused meanwhile.
    queue = client.queue("shipway", "held")
    assert queue is not None
    client.request("PATCH", "/work_pools/shipway/queues/held", {"is_paused": True})
    project.ok("run", f"{flow}/daily", "-p", "n=1", "--name", f"early-{flow}")
    source = (project.folder / "work.py").read_text()
    (project.folder / "work.py").write_text(source.replace("result = double(n)", "result = 1000"))
    project.ok("deploy", "./work.py:main", "-n", "daily", "-q", "held")
    project.ok("run", f"{flow}/daily", "-p", "n=1", "--name", f"late-{flow}")
    client.request("PATCH", "/work_pools/shipway/queues/held", {"is_paused": False})
    assert project.json("show", f"early-{flow}", "--watch")["metrics"] == {"result": 2}
    assert project.json("show", f"late-{flow}", "--watch")["metrics"] == {"result": 1000}


def test_schedules_follow_the_file_and_pauses_stay(project: Shell, flow: str) -> None:
    project.ok("build", "./work.py:main", "-n", "daily", "--interval", "1h30m", "-p", "n=1")
    path = project.folder / f"{flow}-deployment.yaml"
    project.ok("apply", path.name)
    client = api(project)
    [schedule] = client.deployment(f"{flow}/daily")["schedules"]
    assert schedule["schedule"]["interval"] == 5400
    client.request(
        "PATCH",
        f"/deployments/{client.deployment(f'{flow}/daily')['id']}/schedules/{schedule['id']}",
        {"active": False},
    )

    text = path.read_text()
    more = "  - rrule: 'FREQ=DAILY;COUNT=3'\n    timezone: America/New_York\n    parameters: {n: 7}\n"
    path.write_text(text.replace("  - interval: 5400\n", more + "  - interval: 5400\n"))
    project.ok("apply", path.name)
    found = {next(iter(s["schedule"])): s for s in client.deployment(f"{flow}/daily")["schedules"]}
    assert len(found) == 2
    assert not next(s for s in found.values() if "interval" in s["schedule"])["active"]
    assert next(s for s in found.values() if "rrule" in s["schedule"])["parameters"] == {"n": 7}

    path.write_text(
        text.replace("  - interval: 5400\n    timezone: UTC\n", "").replace("schedules:\n", "schedules: []\n")
    )
    project.ok("apply", path.name)
    assert client.deployment(f"{flow}/daily")["schedules"] == []


def test_two_files_are_applied_together_or_not_at_all(project: Shell, flow: str) -> None:
    project.ok("build", "./work.py:main", "-n", "one")
    path = project.folder / f"{flow}-deployment.yaml"
    one = path.read_text()
    (project.folder / "one.yaml").write_text(one)
    (project.folder / "two.yaml").write_text(
        one.replace("name: one", "name: two").replace("work_pool: shipway", "work_pool: missing/pool")
    )
    one_line(project("apply", "one.yaml", "two.yaml"), 3)
    assert not [row for row in project.json("ls") if row["deployment"].startswith(flow)]
    (project.folder / "two.yaml").write_text(one.replace("name: one", "name: two"))
    project.ok("apply", "one.yaml", "two.yaml")
    assert {row["deployment"] for row in project.json("ls")} >= {f"{flow}/one", f"{flow}/two"}


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ("raise ValueError('no')", 1),
        ("import os; os._exit(3)", 10),
        pytest.param("import shipway; shipway.save('x', {1, 2})", 1, marks=pytest.mark.long),
    ],
)
def test_a_run_that_did_not_complete_left_nothing(project: Shell, body: str, status: int) -> None:
    name = f"fails-{uuid.uuid4().hex[:8]}"
    head = f"from prefect import flow\nimport shipway\n@flow(name='{name}')\ndef main():\n"
    code = f"{head}    shipway.save('before', 1)\n    {body}\n"
    (project.folder / "work.py").write_text(code)
    project.ok("deploy", "./work.py:main", "-n", "d")
    done = project("run", f"{name}/d", "--watch", "--name", f"run-{name}")
    assert done.returncode == status, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"shipway: run run-{name} is ")
    assert project.json("show", f"run-{name}")["artifacts"] == []
    assert "has no data" in one_line(project("get", f"run-{name}", "before"), 4)


@pytest.mark.long
def test_stores_of_other_blocks_serve_too(project: Shell, stack: Shell, flow: str) -> None:
    """prefect-aws's `s3-bucket` and Prefect's `local-file-system` are accepted wherever a block is named."""
    secrets = json.loads((stack.folder / ".shipway/secrets.json").read_text())
    endpoint = json.loads((stack.folder / ".shipway/stack.json").read_text())["store"]["endpoint_url"]
    code = f"""
from prefect_aws import AwsCredentials, S3Bucket
from prefect_aws.client_parameters import AwsClientParameters
from prefect.filesystems import LocalFileSystem
keys = AwsCredentials(aws_access_key_id={secrets["s3_access_key"]!r},
    aws_secret_access_key={secrets["s3_secret_key"]!r}, region_name="us-east-1",
    aws_client_parameters=AwsClientParameters(endpoint_url={endpoint!r}))
keys.save("keys-{flow}")
S3Bucket(bucket_name="shipway", bucket_folder="of-prefect-aws", credentials=keys).save("{flow}")
LocalFileSystem(basepath={str(project.folder / "elsewhere")!r}).save("{flow}")
"""
    run_python(code, project)
    for block in (f"s3-bucket/{flow}", f"local-file-system/{flow}"):
        # The folder store lies in the project for this test, and is no part of its release.
        (project.folder / ".shipwayignore").write_text("elsewhere/\n")
        project.ok("deploy", "./work.py:main", "-n", "daily", "-sb", block, "-p", "n=4")
        facts = project.json("run", f"{flow}/daily", "--watch")
        where = "s3://shipway/of-prefect-aws/" if block.startswith("s3-") else (project.folder / "elsewhere").as_uri()
        assert {item["address"].startswith(where) for item in facts["artifacts"]} == {True}


def test_state_folders_are_only_made_where_needed(project: Shell) -> None:
    before: set[Any] = set(Path(project.folder).iterdir())
    project.ok("ls")
    assert set(Path(project.folder).iterdir()) == before


def test_a_script_run_by_hand_keeps_its_data_too(project: Shell, flow: str) -> None:
    run_python(f"import sys; sys.path.insert(0, {str(project.folder)!r}); import work; work.main(4)", project)
    [row] = [row for row in project.json("runs") if row["flow_name"] == flow]
    facts = project.json("show", row["name"])
    assert [item["name"] for item in facts["artifacts"]] == ["from a task", "table/result"]
    assert facts["metrics"] == {"result": 8}


def test_a_stock_process_worker_runs_our_releases_too(project: Shell, flow: str) -> None:
    prefect = [sys.executable, "-m", "prefect"]
    environment = {**os.environ, **project.environment, "PREFECT_WORKER_QUERY_SECONDS": "1"}
    # Our command names plain `python`, as containers have it: the one of this environment must be found first.
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    pool = f"stock-{flow}"
    subprocess.run([*prefect, "work-pool", "create", pool, "--type", "process"], env=environment, check=True)
    project.ok("deploy", "./work.py:main", "-n", "stock", "--pool", pool)
    with subprocess.Popen([*prefect, "worker", "start", "--pool", pool], env=environment, cwd=project.folder) as worker:
        try:
            facts = project.json("run", f"{flow}/stock", "-p", "n=3", "--watch")
        finally:
            end_or_kill(worker)
    assert facts["metrics"] == {"result": 6}
    assert "out/result.txt" in [item["name"] for item in facts["artifacts"]]


def test_a_schedule_makes_runs(project: Shell, flow: str) -> None:
    project.ok("deploy", "./work.py:main", "-n", "often", "--interval", "5", "-p", "n=2")
    wait_until(lambda: bool(project.json("runs", f"{flow}/often", "--state", "completed")))


@pytest.mark.long
def test_building_again_keeps_what_the_file_says(project: Shell, flow: str) -> None:
    project.ok("build", "./work.py:main", "-n", "daily", "-p", "n=1")
    path = project.folder / f"{flow}-deployment.yaml"
    edited = (
        path.read_text().replace("schedules: []", "schedules:\n  - cron: 0 6 * * *").replace("tags: []", "tags: [mine]")
    )
    path.write_text(edited.replace("job_variables: {}", "job_variables: {env: {A: b}}"))
    project.ok("deploy", "./work.py:main", "-n", "daily", "-p", "label=y")
    found = api(project).deployment(f"{flow}/daily")
    assert found["parameters"] == {"n": 1, "label": "y"}
    assert found["tags"] == ["mine"]
    assert found["job_variables"] == {"env": {"A": "b"}}
    assert len(found["schedules"]) == 1
    project.ok("build", "./work.py:main", "-n", "other", "-p", "n=5")
    assert (project.folder / f"{flow}-other-deployment.yaml").is_file()
    assert "cron: 0 6 * * *" in path.read_text(), "another deployment of the flow has a file of its own"


@pytest.mark.long
def test_a_file_of_prefect_2_is_not_built_over(project: Shell, flow: str) -> None:
    old = project.folder / f"{flow}-deployment.yaml"
    old.write_text(f"name: x\nflow_name: {flow}\nmanifest_path: m\ninfrastructure: {{type: process}}\n")
    before = old.read_text()
    assert "of Prefect 2" in one_line(project("build", "./work.py:main", "-n", "x"), 3)
    assert old.read_text() == before


@pytest.mark.long
def test_a_record_names_what_the_flow_was_called_with(project: Shell, flow: str) -> None:
    project.ok("deploy", "./work.py:main", "-n", "daily")
    facts = project.json("run", f"{flow}/daily", "-p", "n=2", "--watch")
    assert facts["parameters"] == {"n": 2, "label": "x"}


@pytest.mark.long
def test_rollback_is_one_command(project: Shell, flow: str) -> None:
    project.ok("deploy", "./work.py:main", "-n", "daily")
    source = (project.folder / "work.py").read_text()
    (project.folder / "work.py").write_text(
        source.replace("result = double(n)", "result = 1000").replace("n: int,", "m: int,")
    )
    (project.folder / "work.py").write_text((project.folder / "work.py").read_text().replace('"n": n', '"n": m'))
    project.ok("deploy", "./work.py:main", "-n", "daily")
    new, old = project.json("releases", f"{flow}/daily")
    assert new["current"]
    assert not old["current"]
    names = [item["release"].partition(".")[2][:10] for item in (old, new)]
    assert project.json("inspect", f"{flow}/daily", "--diff", *names) == [{"path": "work.py", "change": "changed"}]
    assert "+    result = 1000" in project.ok("inspect", f"{flow}/daily", "--diff", *names, "--text")
    assert project.json("run", f"{flow}/daily", "-p", "m=1", "--watch")["metrics"] == {"result": 1000}
    project.ok("rollback", f"{flow}/daily")
    assert project.json("releases", f"{flow}/daily")[0]["release"] == old["release"]
    assert project.json("run", f"{flow}/daily", "-p", "n=2", "--watch")["metrics"] == {"result": 4}
    project.ok("rollback", f"{flow}/daily", new["release"].partition(".")[2][:8])
    assert project.json("releases", f"{flow}/daily")[0]["release"] == new["release"]
    assert "there is no release" in one_line(project("rollback", f"{flow}/daily", "ffff"), 4)
