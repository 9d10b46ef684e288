"""Building a folder again: the same and without an import where nothing changed, and with the errors one expects."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from tests.acceptance.conftest import Shell, one_line

FLOW = """
import os, time
from pathlib import Path
from prefect import flow
time.sleep(float(os.environ.get("NAP", "0")))
with Path({count!r}).open("a") as file:
    file.write("x")

@flow(name={name!r}, description=os.environ.get("TOLD", "nothing"))
def main(zebra: int = 1, apple: str = "x"):
    pass
"""


@pytest.fixture
def count(project: Shell, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a flow file that counts its imports, and return what it counts in."""
    file = tmp_path_factory.mktemp("count") / "count"
    file.touch()
    (project.folder / "work.py").write_text(FLOW.format(count=str(file), name=f"again-{uuid.uuid4().hex[:8]}"))
    return file


def written(folder: Path) -> dict[str, str]:
    """Return the two files that a build writes."""
    return {path.name: path.read_text() for path in folder.glob("again-*")}


def test_an_unchanged_folder_is_built_in_one_request_and_imports_nothing(project: Shell, count: Path) -> None:
    first = project.json("deploy", "./work.py:main", "-n", "x", "-p", "zebra=2", "-t", "blue", NAP="0.5")
    size, flow = (project.folder / "work.py").stat().st_size, flow_of(project)
    assert first == {
        "deployment": f"{flow}/x",
        "release": project.json("inspect", f"{flow}/x")["version"],
        "files": 1,
        "bytes": size,
        "uploaded_bytes": first["uploaded_bytes"],
        "requests": 3,  # the pointer, a pack, the manifest
        "seconds": first["seconds"],
        "deployment_file": str(project.folder.resolve() / f"{flow}-deployment.yaml"),
        "store": "s3/stack",
    }
    assert size < first["uploaded_bytes"] < size + 1000, "the manifest goes up too"
    assert 0.5 < first["seconds"] < 300, "the import, which slept, is part of it"
    assert count.read_text() == "x"
    before = written(project.folder)
    again = project.json("build", "./work.py:main", "-n", "x")
    assert again == first | {"requests": 1, "uploaded_bytes": 0, "seconds": again["seconds"]}
    assert again["seconds"] > 0
    assert count.read_text() == "x"
    assert written(project.folder) == before
    assert len(before) == 2

    (project.folder / "new.txt").write_text("new")
    assert project.json("deploy", "./work.py:main", "-n", "x")["release"] != first["release"]
    assert count.read_text() == "xx"
    project.ok("deploy", "./work.py:main", "-n", "second")
    assert count.read_text() == "xx"


@pytest.mark.long
def test_fresh_imports_the_flow_although_nothing_changed(project: Shell, count: Path) -> None:
    project.ok("build", "./work.py:main", "-n", "x", TOLD="one thing")
    project.ok("build", "./work.py:main", "-n", "y", TOLD="another")
    assert "one thing" in written(project.folder)[f"{flow_of(project)}-y-deployment.yaml"]
    project.ok("deploy", "./work.py:main", "-n", "z", "--fresh", TOLD="another")
    assert "another" in written(project.folder)[f"{flow_of(project)}-z-deployment.yaml"]
    assert count.read_text() == "xx"


def flow_of(project: Shell) -> str:
    [name] = {name[: len("again-") + 8] for name in written(project.folder)}
    return name


def test_what_is_wrong_is_said_whether_the_flow_is_known_or_not(project: Shell, count: Path) -> None:
    project.ok("build", "./work.py:main", "-n", "x")
    before = written(project.folder)
    for options, status, words in (
        (("./werk.py:main", "-n", "x"), 3, "werk.py does not exist"),
        (("./work.py:mein", "-n", "x"), 3, "has no 'mein'; its flows are main"),
        (("./work.py:main", "-n", "x", "-p", "zebra=one"), 3, "parameter zebra does not fit"),
        (("./work.py:main", "-n", "x", "-p", "lion=1"), 3, "has no parameter 'lion'; it takes zebra, apple"),
        (("./work.py:main", "-n", "x", "--cron", "61 * * * *"), 3, "not a cron expression"),
        (("./work.py:main", "-n", "x", "-sb", "s3/nowhere"), 4, "there is no block s3/nowhere"),
    ):
        assert words in one_line(project.inside("build", *options), status)
    assert written(project.folder) == before


def test_a_wrong_file_name_is_said_before_anything_else(project: Shell, count: Path) -> None:
    """Before the folder is read, which may take long, and leaving nothing behind in it."""
    (project.folder / ".env").write_text("TOKEN=x\n")
    assert "werk.py does not exist" in one_line(project("build", "./werk.py:main", "-n", "x"), 3)
    assert "looks like a secret" in one_line(project("build", "./work.py:main", "-n", "x"), 3)
    assert {path.name for path in project.folder.iterdir()} == {"work.py", ".env"}
