"""Pages of runs that could not leave one themselves: killed, cancelled, or cancelled before they began."""

from __future__ import annotations

import os
import signal
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from shipway.prefect.api import Api
from shipway.prefect.pages import find_page
from shipway.prefect.runs import find_run
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, one_line, wait_until
from tests.unit.pages import Reader, read

FLOW = """
import os
import time
from pathlib import Path

from prefect import flow, get_run_logger, task
import shipway

@task
def prepare(month: str) -> int:
    return len(month)

@flow(name="NAME")
def main(word: str, month: str = "2013-02") -> None:
    prepare(month)
    shipway.save("numbers", list(range(1000)))
    Path("left.txt").write_text("left")
    get_run_logger().info("It goes <b>on</b>")
    time.sleep(3)  # log lines are sent every two seconds
    Path(word).write_text(str(os.getpid()))
    time.sleep(600)
"""


class Play:
    """A deployment whose runs go on and on."""

    def __init__(self, project: Shell) -> None:
        self.shell = project
        self.settings = Settings.load(project.folder, project.environment)
        self.api = Api(self.settings)
        self.flow = f"ended-{uuid.uuid4().hex[:8]}"
        (project.folder / "ended.py").write_text(FLOW.replace("NAME", self.flow))
        word = f"word={project.folder / 'pid'}"
        project.ok("deploy", "./ended.py:main", "-n", "daily", "-p", word, "-p", "month=2013-03")

    def begin(self) -> tuple[str, int]:
        """Start a run; return its name and its process."""
        word = self.shell.folder / "pid"
        word.unlink(missing_ok=True)
        name: str = self.shell.json("run", f"{self.flow}/daily")["name"]
        wait_until(lambda: word.exists() and word.read_text() != "")
        return name, int(word.read_text())

    def set_state(self, run: str, **state: Any) -> None:
        self.api.request("POST", f"/flow_runs/{find_run(self.api, run)['id']}/set_state", {"state": state})

    def link(self, run: str) -> str:
        """Return what Prefect's UI says of a run's page, once it says it."""
        identity = find_run(self.api, run)["id"]
        wanted = {"artifacts": {"flow_run_id": {"any_": [identity]}}}
        wait_until(lambda: bool(self.api.request("POST", "/artifacts/filter", wanted)))
        [row] = self.api.request("POST", "/artifacts/filter", wanted)
        return str(row["data"])

    def page(self, run: str, state: str, *, made: bool) -> Reader:
        """Return a run's page; it says how to run it again, and shows none of its data."""
        facts = self.shell.json("report", run)
        assert (facts["state"], facts["made"]) == (state, made)
        reader = read(Path(facts["path"]).read_text())
        again = (f"shipway run --resume {run}", f"shipway run {self.flow}/daily -p word=", "-p month=2013-03")
        for words in (*again, f"{self.flow}/daily", "How it ended", "Nothing of this run is committed"):
            assert words in reader.text, words
        assert not reader.all("b")
        return reader


@pytest.fixture
def play(project: Shell) -> Play:
    return Play(project)


def test_a_run_that_was_killed_gets_its_page_from_its_worker(play: Play) -> None:
    run, pid = play.begin()
    meanwhile = Path(play.shell.json("report", run)["path"])
    assert "Running after" in read(meanwhile.read_text()).text
    os.kill(pid, signal.SIGKILL)
    link = play.link(run)
    assert "**Crashed Process exited with status code: -9" in link
    assert f"shipway report {run}\n" in link
    # The overview links it now, and no page of the time before.
    play.shell.ok("report")
    assert "Crashed after" in read(meanwhile.read_text()).text
    reader = play.page(run, "Crashed", made=False)
    for words in ("status code: -9", "It goes <b>on</b>", "prepare-", "1 of 1 task completed", "Pending", "Running"):
        assert words in reader.text, words
    # Nothing that it had saved is there for anybody.
    assert "has no data; it is Crashed" in one_line(play.shell("get", run, "numbers"), 4)

    # The overview has the page as well, in another folder than it was fetched to.
    folder = play.shell.folder / "elsewhere"
    play.shell.ok("report", "--output", str(folder / "index.html"))
    assert list(folder.glob(f"{play.flow}/*/{run}-*.html"))

    # It is the page of this end, and of no other.
    found = find_run(play.api, run)
    assert not find_page(play.api, found, play.settings, fresh=False).made
    assert find_page(play.api, {**found, "run_count": 2}, play.settings, fresh=False).made
    assert find_page(play.api, {**found, "state_type": "CANCELLED"}, play.settings, fresh=False).made


@pytest.mark.long
def test_a_run_that_is_cancelled_gets_its_page_from_its_worker(play: Play) -> None:
    run, _pid = play.begin()
    play.set_state(run, type="CANCELLING", name="Cancelling")
    assert "**Cancelled " in play.link(run)
    reader = play.page(run, "Cancelled", made=False)
    for words in ("Cancelling", "It goes <b>on</b>", "prepare-"):
        assert words in reader.text, words


def test_a_run_that_nobody_had_begun_has_a_page_when_it_is_asked_for(play: Play) -> None:
    due = datetime.now(UTC) + timedelta(days=1)
    deployment = play.api.deployment(f"{play.flow}/daily")
    state = {"type": "SCHEDULED", "state_details": {"scheduled_time": due.isoformat()}}
    run = play.api.request("POST", f"/deployments/{deployment['id']}/create_flow_run", {"state": state})["name"]
    play.set_state(run, type="CANCELLED", name="Cancelled", message="nobody wants it")
    reader = play.page(run, "Cancelled", made=True)
    for words in ("nobody wants it", "before it began", "Scheduled"):
        assert words in reader.text, words
