"""A flow is imported when something changed that can be seen, and not otherwise. Each import is a process."""

from __future__ import annotations

import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from shipway.errors import FlowFileError
from shipway.prefect import environment, flow_memory
from shipway.prefect.flow_look import Look, look
from shipway.settings import Settings

FLOW = """
from pathlib import Path
from prefect import flow
with Path({count!r}).open("a") as file:
    file.write("x")
{more}

@flow(name="looked-at")
def main(zebra: int, apple: str = "ä", *, middle: float | None = None):
    "Does nothing."

@flow
def other():
    pass
"""


@dataclass(frozen=True)
class Project:
    """A folder with a flow that counts how often it is imported.

    Attributes:
        folder: the folder.
        count: the file it counts in.
    """

    folder: Path
    count: Path

    @property
    def memories(self) -> list[Path]:
        return sorted(self.folder.glob(".shipway/flows/*"))

    def write(self, more: str = "") -> None:
        (self.folder / "work.py").write_text(FLOW.format(count=str(self.count), more=more))

    def look(self, entrypoint: str = "work.py:main", *, fresh: bool = False) -> Look:
        """Look, and keep what was seen, as a build that succeeds does."""
        settings = Settings(project=self.folder)
        settings.make_state()
        seen = look(settings, self.folder, entrypoint, fresh=fresh)
        seen.keep()
        return seen

    def imports(self) -> int:
        """Look and return how often the flow was imported for it."""
        before = len(self.count.read_text())
        self.look()
        return len(self.count.read_text()) - before


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    # A test uses a file as soon as it is written; that people must give it time has a test of its own.
    monkeypatch.setattr(flow_memory, "RACY_SECONDS", 0.0)
    made = Project(tmp_path / "folder", tmp_path / "count")
    made.folder.mkdir()
    made.count.touch()
    made.write()
    return made


def test_an_unchanged_flow_is_imported_once(project: Project) -> None:
    project.write("import polars")
    (project.folder / "data.txt").write_text("same")
    first = project.look()
    assert project.count.read_text() == "x"

    (project.folder / "data.txt").write_text("same")
    os.utime(project.folder / "work.py", (1, 1))
    again = project.look()
    assert project.count.read_text() == "x"
    # As JSON, because the order of the parameters is that of the signature and goes into the deployment file.
    assert json.dumps(again.flow) == json.dumps(first.flow)
    assert list(again.flow["schema"]["properties"]) == ["zebra", "apple", "middle"]
    assert (again.flow["flow"], again.flow["description"]) == ("looked-at", "Does nothing.")
    assert again.scan == first.scan

    # Otherwise a build would look at thousands of files of Prefect and of what a flow imports.
    [memory] = project.memories
    noted = json.loads(memory.read_bytes().partition(b"\n")[2])["elsewhere"]
    ours = Path(environment.__file__).parents[1]
    assert [path for path in noted if ours.parent not in (Path(path), *Path(path).parents)] == []

    (project.folder / "beside.py").write_text("")
    assert project.imports() == 1
    (project.folder / "beside.py").unlink()
    assert project.imports() == 0  # whoever goes back to an earlier commit need not wait


def test_flows_of_one_file_are_told_apart(project: Project) -> None:
    assert project.look("work.py:main").flow["flow"] == "looked-at"
    assert project.look("work.py:other").flow["flow"] == "other"
    assert project.look("work.py:main").flow["flow"] == "looked-at"
    assert project.count.read_text() == "xx"


def test_fresh_imports_in_any_case_and_replaces_what_was_known(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOWN", "before")
    project.write("import functools, os\nflow = functools.partial(flow, description=os.environ['SHOWN'])")
    assert project.look().flow["description"] == "before"
    monkeypatch.setenv("SHOWN", "after")
    assert project.look().flow["description"] == "before"
    assert project.look(fresh=True).flow["description"] == "after"
    assert project.look().flow["description"] == "after"


@pytest.mark.long
def test_modules_that_are_no_part_of_the_release(
    project: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the search path, out of an archive, and left out by the ignore file."""
    module, archive, ignored = tmp_path / "path/common.py", tmp_path / "modules.zip", project.folder / "private.py"

    def pack(value: int) -> None:
        with zipfile.ZipFile(archive, "w") as file:
            file.writestr("zipped_up.py", f"VALUE = {value}")

    module.parent.mkdir()
    for path in (module, ignored):
        path.write_text("VALUE = 1")
    pack(1)
    (project.folder / ".shipwayignore").write_text("private.py\n")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (module.parent, archive))))
    project.write("import common, private, zipped_up")
    assert project.imports() == 1
    assert project.imports() == 0
    for change in (lambda: module.write_text("VALUE = 22"), lambda: ignored.write_text("VALUE = 22"), lambda: pack(22)):
        change()
        assert project.imports() == 1
        assert project.imports() == 0


def test_a_folder_that_the_import_changes(project: Project) -> None:
    """Released is what is there afterwards; what was looked at is no longer there, and not remembered."""
    project.write("made = Path('made.txt')\nif not made.exists(): made.write_text('')")
    seen = project.look()
    assert [entry.path for entry in seen.scan.entries] == ["made.txt", "work.py"]
    assert project.memories == []
    assert project.imports() == 1
    assert project.imports() == 0


@pytest.mark.long
def test_a_look_that_failed_is_never_remembered(project: Project, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    project.write(f"if Path({str(broken)!r}).exists(): raise ValueError('it is broken')")
    broken.touch()
    with pytest.raises(FlowFileError, match="it is broken"):
        project.look()
    broken.unlink()
    assert project.imports() == 1
    broken.touch()
    assert project.imports() == 0
    with pytest.raises(FlowFileError, match="it is broken"):
        project.look(fresh=True)
    # What was known from before has been refuted.
    with pytest.raises(FlowFileError, match="it is broken"):
        project.look()


def test_a_flow_file_that_is_ignored_is_not_imported(project: Project) -> None:
    (project.folder / ".shipwayignore").write_text("work.py\n")
    with pytest.raises(FlowFileError, match="left out of the release"):
        project.look()
    assert project.count.read_text() == ""


def test_a_folder_whose_name_is_not_text(project: Project, tmp_path: Path) -> None:
    folder = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe"))
    try:
        project.folder.rename(folder)
    except OSError:
        pytest.skip("this file system has no such names")
    moved = Project(folder, project.count)
    assert moved.imports() == 1
    assert moved.imports() == 0
