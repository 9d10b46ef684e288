"""Every kind of flow keeps its data: async, generators, sub-flows, retries, child processes."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from shipway.prefect.api import Api
from shipway.settings import Settings
from tests.acceptance.conftest import Shell

KINDS = {
    "async": """
@flow(name="NAME")
async def main():
    await asyncio.sleep(0)
    shipway.save("value", 1)
""",
    "generator": """
@flow(name="NAME")
def main():
    yield 1
    shipway.save("value", 1)
    yield 2
""",
    "async-generator": """
@flow(name="NAME")
async def main():
    yield 1
    shipway.save("value", 1)
    yield 2
""",
    "sub-flow": """
@flow
def inner():
    shipway.save("value", 1)

@flow(name="NAME")
def main():
    inner()
""",
    "retried": """
@flow(name="NAME", retries=1)
def main():
    shipway.save("value", run_count())
    shipway.save(f"of attempt {run_count()}", 1)
    if run_count() == 1:
        raise ValueError("once")
""",
    "process": """
def work():
    shipway.save("value", 1)

@flow(name="NAME")
def main():
    subprocess.run([sys.executable, "-c", "import shipway; shipway.save('value', 1)"], check=True)
""",
    "dask": """
from prefect_dask import DaskTaskRunner

@task
def one(number):
    shipway.save("value", number)
    return number

@flow(name="NAME", task_runner=DaskTaskRunner(cluster_kwargs={"n_workers": 1, "dashboard_address": None}))
def main():
    assert one.submit(1).result() == 1
""",
    "returns-a-failed-future-of-none": """
@task
def one():
    shipway.save("value", 1)
    return 1

@flow(name="NAME")
def main():
    return one.submit()
""",
    "loads": """
@flow(name="NAME")
def main():
    shipway.save("value", {"a": [1, 2]})
    assert shipway.load("value") == {"a": [1, 2]}
""",
}

VARIANTS = ("async-generator", "process", "returns-a-failed-future-of-none")

HEAD = """
import asyncio, subprocess, sys
from prefect import flow, task
from prefect.runtime import flow_run
import shipway

def run_count():
    from prefect.context import FlowRunContext
    return FlowRunContext.get().flow_run.run_count
"""


FLOW_NAME = f"kinds-{uuid.uuid4().hex[:8]}"


@pytest.fixture(scope="module")
def release(stack: Shell, tmp_path_factory: pytest.TempPathFactory) -> tuple[Shell, dict[str, Any]]:
    """A project with a file for each kind, and the deployment that its release is of."""
    api_url = Settings.load(stack.folder, {}).api_url
    project = Shell(tmp_path_factory.mktemp("kinds"), {**stack.environment, "PREFECT_API_URL": api_url})
    for kind, code in KINDS.items():
        (project.folder / f"kind-{kind}.py").write_text(HEAD + code.replace("NAME", f"{FLOW_NAME}-{kind}"))
    project.ok("deploy", "./kind-loads.py:main", "-n", "d")
    return project, Api(Settings.load(project.folder, project.environment)).deployment(f"{FLOW_NAME}-loads/d")


def run(release: tuple[Shell, dict[str, Any]], kind: str) -> dict[str, Any]:
    """Run a kind's flow, of a deployment that is made without a look at it, which takes longer than its run."""
    project, like = release
    api = Api(Settings.load(project.folder, project.environment))
    flow = api.request("POST", "/flows/", {"name": f"{FLOW_NAME}-{kind}"})["id"]
    same = {key: like[key] for key in ("version", "pull_steps", "work_pool_name", "work_queue_name")}
    body = {"name": "d", "flow_id": flow, "entrypoint": f"kind-{kind}.py:main", **same}
    api.request("POST", "/deployments/", body)
    facts: dict[str, Any] = project.json("run", f"{FLOW_NAME}-{kind}/d", "--watch")
    return facts


@pytest.mark.parametrize(
    "kind",
    [pytest.param(kind, marks=[pytest.mark.long] if kind in VARIANTS else []) for kind in KINDS if kind != "retried"],
)
def test_what_it_saves_is_there(release: tuple[Shell, dict[str, Any]], kind: str) -> None:
    facts = run(release, kind)
    assert facts["state"] == "Completed"
    assert [item["name"] for item in facts["artifacts"]] == ["value"]


def test_a_retry_is_an_attempt_of_its_own(release: tuple[Shell, dict[str, Any]]) -> None:
    """What the failed attempt saved is not in the record: readers see the attempt that completed, and it alone."""
    facts = run(release, "retried")
    assert [item["name"] for item in facts["artifacts"]] == ["of attempt 2", "value"]
    assert all("/2/" in item["key"] for item in facts["artifacts"])


def test_the_newest_run_is_loaded_and_remembered_as_an_input(project: Shell) -> None:
    name = f"chain-{uuid.uuid4().hex[:8]}"
    code = f"""
@flow(name="{name}")
def main(n: int):
    before = shipway.load("number", flow="{name}") if n else 0
    shipway.save("number", before + 1)
"""
    (project.folder / "work.py").write_text(HEAD + code)
    project.ok("deploy", "./work.py:main", "-n", "d")
    first = project.json("run", f"{name}/d", "-p", "n=0", "--watch")
    second = project.json("run", f"{name}/d", "-p", "n=1", "--watch")
    [number] = first["artifacts"]
    assert second["inputs"] == [
        {
            "kind": "artifact",
            "name": "number",
            "run": first["id"],
            "key": number["key"],
            "sha256": number["sha256"],
            "bytes": number["bytes"],
            "rows": None,
            "asked": f"{name}/",
        }
    ]


@pytest.mark.long
def test_modules_and_files_beside_the_flow_are_found_at_any_time(project: Shell) -> None:
    name = f"modules-{uuid.uuid4().hex[:8]}"
    code = f"""
from pathlib import Path
import early
@task
def one():
    import late
    return late.VALUE + early.VALUE
@flow(name="{name}")
def main():
    shipway.save("value", one() + int(Path("flows/number.txt").read_text()))
"""
    flows = project.folder / "flows"
    flows.mkdir()
    (flows / "work.py").write_text(HEAD + code)
    (flows / "early.py").write_text("VALUE = 1\n")
    (flows / "late.py").write_text("VALUE = 2\n")
    (flows / "number.txt").write_text("4\n")
    project.ok("deploy", "./flows/work.py:main", "-n", "d")
    facts = project.json("run", f"{name}/d", "--watch")
    project.ok("get", facts["run"], "value", "value.json")
    assert (project.folder / "value.json").read_text().strip() == "7"


@pytest.mark.long
def test_what_it_prints_is_in_its_log(project: Shell) -> None:
    name = f"prints-{uuid.uuid4().hex[:8]}"
    code = f'@flow(name="{name}")\ndef main():\n    print("hello from the flow")\n'
    (project.folder / "work.py").write_text(HEAD + code)
    project.ok("deploy", "./work.py:main", "-n", "d")
    assert "hello from the flow" in project("run", f"{name}/d", "--watch").stderr


@pytest.mark.long
def test_captured_files_keep_their_ending_and_name(project: Shell) -> None:
    name = f"files-{uuid.uuid4().hex[:8]}"
    code = f'@flow(name="{name}")\ndef main():\n    open("größe 1.csv", "w").write("a")\n'
    (project.folder / "work.py").write_text(HEAD + code)
    project.ok("deploy", "./work.py:main", "-n", "d")
    facts = project.json("run", f"{name}/d", "--watch")
    assert facts["artifacts"][0]["key"].endswith(".csv")
    project.ok("get", facts["run"], "größe 1.csv")
    assert (project.folder / "größe 1.csv").read_text() == "a"
    assert project.ok("get", facts["run"], "größe 1.csv", "-") == "a"


def test_hooks_of_a_crashed_run_have_its_release(project: Shell) -> None:
    name = f"crashes-{uuid.uuid4().hex[:8]}"
    code = f"""
def mourn(flow, flow_run, state):
    import beside
    # Whatever a hook does, it is not the worker that it does it to.
    assert "shipway.prefect.worker" not in sys.modules
    print("mourned", beside.NAME)

@flow(name="{name}", on_crashed=[mourn])
def main():
    import os
    os._exit(7)
"""
    (project.folder / "beside.py").write_text("NAME = 'by a module of the release'\n")
    (project.folder / "work.py").write_text(HEAD + code)
    project.ok("deploy", "./work.py:main", "-n", "d")
    done = project("run", f"{name}/d", "--watch")
    assert done.returncode == 10
    assert "Hook 'mourn' finished running successfully" in done.stderr
