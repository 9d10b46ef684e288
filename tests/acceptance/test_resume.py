"""A failed run is resumed: what completed in it is not done again, and comes back as it was."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from tests.acceptance.conftest import Shell, one_line, wait_until

FLOW = """
import datetime, os, signal, time
from pathlib import Path
import lightgbm, numpy, polars
from prefect import flow, task
from prefect.cache_policies import INPUTS, NO_CACHE, TASK_SOURCE
import shipway
from shipway.run.session import current

OUTSIDE = Path("FOLDER")

def did(what):
    with (OUTSIDE / what).open("a") as file:
        file.write("x")

def kept():
    return sum(info.key.endswith(".json") for info in current().store.list("results/"))

@task
def expensive(n: int):
    did("expensive")
    frame = polars.DataFrame({"a": range(n), "b": [str(i) for i in range(n)]})
    shipway.save("frame", frame)
    shipway.log_metrics({"rows": n})
    return frame, {"when": datetime.date(2013, 1, n), 3: {1, 2}}

@task
def train(frame):
    did("train")
    rows = frame.with_columns(polars.col("b").cast(polars.Float64)).to_numpy()
    data = lightgbm.Dataset(numpy.tile(rows, (50, 1)), numpy.tile(rows[:, 0], 50))
    return lightgbm.train({"verbose": -1, "num_threads": 1, "seed": 1}, data, 3)

@task
def draw():
    did("draw")
    return os.urandom(8)

@task
def writes_a_file():
    did("writes_a_file")
    Path("left.txt").write_text("here")

@task(cache_policy=NO_CACHE)
def uncached():
    did("uncached")

@task
def pickled():
    did("pickled")
    return object

@task
def late(frame, model, kind, before):
    did("late")
    if kind == "crash" and not (OUTSIDE / "mended").exists():
        (OUTSIDE / "reached").touch()
        while not (OUTSIDE / "asked").exists() or kept() < before + 4:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGKILL)
    if not (OUTSIDE / "mended").exists():
        raise ValueError("not yet")
    return float(model.predict(numpy.array([[1.0, 1.0]]))[0]) + frame.height

@flow(name="NAME")
def main(n: int = 5, kind: str = "fail"):
    before = kept()
    frame, facts = expensive(n)
    assert frame.height == n and facts == {"when": datetime.date(2013, 1, n), 3: {1, 2}}, facts
    model = train(frame)
    drawn = [draw().hex(), draw().hex()]
    assert drawn[0] != drawn[1]
    with (OUTSIDE / "drawn").open("a") as file:
        file.write(" ".join(drawn) + "\\n")
    writes_a_file()
    assert Path("left.txt").read_text() == "here"
    uncached()
    pickled()
    shipway.save("value", late(frame, model, kind, before))
"""


class Project:
    """A deployed flow that fails until it is mended."""

    def __init__(self, project: Shell) -> None:
        self.shell = project
        self.outside = project.folder / "outside"
        self.outside.mkdir()
        self.code = project.folder / "code"
        self.code.mkdir()
        self.name = f"resume-{uuid.uuid4().hex[:8]}"
        self.deploy(FLOW)

    def deploy(self, text: str) -> None:
        (self.code / "work.py").write_text(text.replace("FOLDER", str(self.outside)).replace("NAME", self.name))
        self.shell.ok("deploy", "./work.py:main", "-n", "d", folder=self.code)

    def times(self, what: str) -> int:
        path = self.outside / what
        return len(path.read_text()) if path.exists() else 0

    def mend(self) -> None:
        (self.outside / "mended").touch()

    def run(self, *arguments: str, status: int) -> str:
        """Start a run and watch it to the end; return its name."""
        name = f"r-{uuid.uuid4().hex[:8]}"
        done = self.shell("run", *arguments, "--watch", "--name", name)
        assert done.returncode == status, done.stderr
        return name


@pytest.fixture
def deployed(project: Shell) -> Project:
    return Project(project)


def test_what_completed_is_not_done_again(deployed: Project) -> None:
    """Twice over: a resumed run that fails is resumed, with what both of them have done."""
    first = deployed.run(f"{deployed.name}/d", "-p", "n=7", status=1)
    second = deployed.run("--resume", first, status=1)
    deployed.mend()
    done = deployed.shell("run", "--resume", second, "--watch", "--json")
    assert done.returncode == 0, done.stderr
    facts: dict[str, Any] = json.loads(done.stdout)
    assert facts["parameters"] == {"n": 7, "kind": "fail"}
    times = {what: deployed.times(what) for what in ("expensive", "train", "draw", "late")}
    assert times == {"expensive": 1, "train": 1, "draw": 2, "late": 3}
    # Those that do not want it, that left a file, or returned what has no codec, are.
    assert [deployed.times(what) for what in ("uncached", "writes_a_file", "pickled")] == [3, 3, 3]
    lines = set((deployed.outside / "drawn").read_text().splitlines())
    assert len(lines) == 1
    # What the task has saved beside what it returned is this run's, too.
    assert {item["name"] for item in facts["artifacts"]} == {"frame", "value", "left.txt"}
    assert facts["metrics"] == {"rows": 7}
    assert all(facts["run"] in item["key"] for item in facts["artifacts"])
    assert facts["state"] == "Completed"
    for word in ("writes_a_file", "pickled"):
        assert f"What task {word} returned is not kept" in done.stderr


@pytest.mark.long
def test_a_mended_release_keeps_what_did_not_change(deployed: Project) -> None:
    """And an unmended one can be asked for, of which the changed task is done as it was."""
    first = deployed.run(f"{deployed.name}/d", status=1)
    deployed.deploy(FLOW.replace('raise ValueError("not yet")', "pass").replace("3)", "4)  # a tree more"))
    done = deployed.shell("run", "--resume", first, "--watch", "--json")
    assert done.returncode == 0, done.stderr
    assert [deployed.times(what) for what in ("expensive", "train", "draw")] == [1, 2, 2]
    facts = json.loads(done.stdout)
    releases = deployed.shell.json("releases", f"{deployed.name}/d")
    [old] = {row["release"] for row in releases} - {facts["release"]}
    asked = deployed.run(f"{deployed.name}/d", "--release", old.rpartition(".")[2][:8], status=1)
    assert deployed.shell.json("show", asked)["release"] == old


def test_a_killed_run_is_resumed(deployed: Project) -> None:
    name = f"r-{uuid.uuid4().hex[:8]}"
    deployed.shell.ok("run", f"{deployed.name}/d", "-p", "kind=crash", "--name", name)
    wait_until((deployed.outside / "reached").exists)
    run = deployed.shell.json("show", name)
    refused = one_line(deployed.shell("run", "--resume", name), 3)
    assert "has not ended" in refused
    # It kills itself when what its tasks returned has arrived in the store.
    (deployed.outside / "asked").touch()
    assert deployed.shell("show", run["id"], "--watch").returncode == 10
    deployed.mend()
    deployed.run("--resume", run["id"], status=0)
    assert [deployed.times(what) for what in ("expensive", "train", "draw")] == [1, 1, 2]


def test_what_cannot_be_resumed_is_refused(deployed: Project) -> None:
    deployed.mend()
    name = deployed.run(f"{deployed.name}/d", status=0)
    assert "there is nothing to resume" in one_line(deployed.shell("run", "--resume", name), 3)
    assert "has the parameters it had" in one_line(deployed.shell("run", "--resume", name, "-p", "n=3"), 2)
    assert "either" in one_line(deployed.shell("run", f"{deployed.name}/d", "--resume", name), 2)
    assert "no run 'nobody'" in one_line(deployed.shell("run", "--resume", "nobody"), 4)
    assert "no release" in one_line(deployed.shell("run", f"{deployed.name}/d", "--release", "ffffffffff"), 4)
