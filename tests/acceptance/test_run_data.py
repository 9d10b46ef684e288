"""A run's data on a real stack: what is left out is said, and no run completes without its data."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipway.errors import NotFoundError
from shipway.prefect.api import Api
from shipway.prefect.runs import data_folder, find_run
from shipway.prefect.stores import store_of
from shipway.run.data import load
from shipway.run.record import find_record
from shipway.settings import Settings
from shipway.store.base import Store
from tests.acceptance.conftest import Shell
from tests.faults.proxy import FaultyProxy, Request, faulty_proxy
from tests.unit.pages import read

FLOW = '''
from pathlib import Path

from prefect import flow

import shipway


@flow(name="NAME")
def main(save: bool = True):
    """Save a table by name, and leave four files."""
    if save:
        shipway.save("numbers", [1, 2, 3])
    for name in ("a.txt", "b.txt", "c.txt"):
        Path(name).write_text(name * 10)
    Path("large.bin").write_bytes(b"0" * 5000)
    Path("server.pem").write_text("looks like a key")
'''


@pytest.fixture
def flow(project: Shell) -> str:
    name = f"data-{uuid.uuid4().hex[:8]}"
    (project.folder / "work.py").write_text(FLOW.replace("NAME", name))
    return name


def api(project: Shell) -> Api:
    return Api(Settings.load(project.folder, project.environment))


def logged(project: Shell, run: str) -> str:
    """Return what the log of a run says, as the server has it."""
    body = {"logs": {"flow_run_id": {"any_": [run]}}}
    return "\n".join(line["message"] for line in api(project).pages("/logs/filter", body))


def test_what_is_over_the_limits_is_said_in_the_log_the_record_and_the_page(
    project: Shell, flow: str, tmp_path: Path
) -> None:
    project.ok("build", "./work.py:main", "-n", "daily")
    file = project.folder / f"{flow}-deployment.yaml"
    limits = "{SHIPWAY_CAPTURE_MAX_FILES: '2', SHIPWAY_CAPTURE_MAX_BYTES: '4000'}"
    file.write_text(file.read_text().replace("job_variables: {}", f"job_variables: {{env: {limits}}}"))
    project.ok("apply", file.name)
    facts = project.json("run", f"{flow}/daily", "--watch")

    assert [artifact["name"] for artifact in facts["artifacts"]] == ["a.txt", "b.txt", "numbers"]
    left_out = [
        "c.txt: over the limit of 2 files (capture_max_files)",
        "large.bin: over the limit of 2 files (capture_max_files)",
        "server.pem: it looks like a secret",
    ]
    log = logged(project, facts["id"])
    for reason in left_out:
        assert f"Not saved: {reason}" in log
    store = store_of(Settings.load(project.folder, project.environment), "s3/stack")
    record = find_record(store, data_folder(find_run(api(project), facts["id"])))
    assert record
    assert list(record.left_out) == left_out
    project.ok("report", facts["id"], "--fresh", "--output", str(tmp_path / "page.html"))
    text = read((tmp_path / "page.html").read_text()).text
    assert all(reason in text for reason in left_out)

    file.write_text(file.read_text().replace("MAX_FILES: '2'", "MAX_FILES: '9'"))
    project.ok("apply", file.name)
    facts = project.json("run", f"{flow}/daily", "--watch")
    assert [artifact["name"] for artifact in facts["artifacts"]] == ["a.txt", "b.txt", "c.txt", "numbers"]
    assert "Not saved: large.bin: over the limit of 4000 bytes in all (capture_max_bytes)" in logged(
        project, facts["id"]
    )


@pytest.fixture
def refusing(stack: Shell, project: Shell, flow: str) -> Iterator[FaultyProxy]:
    """Deploy the flow with a store behind a proxy."""
    endpoint = json.loads((stack.folder / ".shipway/stack.json").read_text())["store"]["endpoint_url"]
    secrets = json.loads((stack.folder / ".shipway/secrets.json").read_text())
    keys = {"AWS_ACCESS_KEY_ID": secrets["s3_access_key"], "AWS_SECRET_ACCESS_KEY": secrets["s3_secret_key"]}
    with faulty_proxy(endpoint) as proxy:
        block = (
            "block",
            "s3",
            flow,
            "--bucket-path",
            f"shipway/{flow}",
            "--endpoint-url",
            proxy.url,
            "--region",
            "us-east-1",
            "--keep-keys",
        )
        project.ok(*block, **keys)
        project.ok("deploy", "./work.py:main", "-n", "daily", "-sb", f"s3/{flow}")
        yield proxy


@pytest.mark.long
def test_a_run_whose_data_does_not_arrive_fails_and_says_so(refusing: FaultyProxy, project: Shell, flow: str) -> None:
    settings = Settings.load(project.folder, project.environment)
    for what, given in (("/1/numbers.json", "true"), ("/1/files/b.txt", "false"), ("/run.json", "true")):

        def choose(request: Request, ending: str = what) -> str | None:
            return "403" if request.method in ("PUT", "POST") and ending in request.target else None

        refusing.befall(choose)
        name = f"{what.rpartition('/')[2]}-{flow}"
        done = project("run", f"{flow}/daily", "--watch", "--name", name, "-p", f"save={given}", "--json")
        refused = refusing.done["403"]
        refusing.befall(lambda _request: None)

        assert refused, f"nobody asked for {what}"
        assert done.returncode == 1, done.stderr
        run = find_run(api(project), name)
        assert run["state_name"] == "Failed"
        assert "the credentials do not allow this on" in run["state"]["message"], run["state"]["message"]
        assert what in run["state"]["message"]
        store = store_of(settings, f"s3/{flow}")
        assert find_record(store, data_folder(run)) is None
        assert nobody_sees(store, flow)
    facts = project.json("run", f"{flow}/daily", "--watch")
    assert facts["state"] == "Completed"
    assert load("numbers", flow=flow, store=store) == [1, 2, 3]


def nobody_sees(store: Store, flow: str) -> bool:
    """Tell whether readers find nothing, though there are objects of attempts in the store."""
    assert list(store.list("runs/"))
    with pytest.raises(NotFoundError, match="has no completed run"):
        load("numbers", flow=flow, store=store)
    return True
