"""What is remembered of a flow, and what makes it forgotten."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from shipway.prefect import environment, flow_memory
from shipway.prefect.flow_memory import KEPT, FlowMemory
from shipway.release.scan import scan

FACTS = {"flow": "main", "schema": {"properties": {"b": 1, "a": 2}}}


@dataclass
class Builder:
    """Remembers a flow and asks for it again, as one build and the next do.

    Attributes:
        folder: the release's folder.
        state: the state folder.
        loaded: what the flow imports.
        search: where it searches.
    """

    folder: Path
    state: Path
    loaded: list[Path] = field(default_factory=list)
    search: list[Path] = field(default_factory=list)

    def remember(self, facts: object = FACTS, entrypoint: str = "a.py:main") -> None:
        memory = FlowMemory(self.state, entrypoint, scan(self.folder))
        assert isinstance(facts, dict)
        memory.note(facts, map(str, self.loaded), map(str, self.search), time.time_ns())
        memory.save()

    def recall(self, entrypoint: str = "a.py:main") -> object:
        return FlowMemory(self.state, entrypoint, scan(self.folder)).recall()

    @property
    def files(self) -> set[Path]:
        return set(self.state.glob("flows/*"))


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Builder:
    monkeypatch.setattr(flow_memory, "RACY_SECONDS", 0.0)
    made = Builder(tmp_path / "folder", tmp_path / "state")
    made.folder.mkdir()
    (made.folder / "a.py").write_text("flow")
    return made


def settled(paths: Iterable[Path]) -> None:
    """Wait until the clock that files are stamped with has gone on."""
    newest = max(path.stat().st_ctime_ns for path in paths)
    deadline = time.monotonic() + 60
    while time.time_ns() <= newest:
        assert time.monotonic() < deadline


def test_what_was_remembered_is_recalled(builder: Builder) -> None:
    assert builder.recall() is None
    builder.remember()
    assert builder.recall() == FACTS
    assert builder.recall("a.py:other") is None


def test_a_change_of_the_release(builder: Builder) -> None:
    builder.remember()
    (builder.folder / "a.py").write_text("other flow")
    assert builder.recall() is None
    (builder.folder / "a.py").write_text("flow")
    assert builder.recall() == FACTS
    (builder.folder / "a.py").chmod(0o755)
    assert builder.recall() is None


def changed(module: Path) -> None:
    module.write_text("VALUE = 22")


def same_size_and_time(module: Path) -> None:
    before = module.stat()
    module.write_text("VALUE = 2")
    os.utime(module, ns=(before.st_atime_ns, before.st_mtime_ns))


def removed(module: Path) -> None:
    module.unlink()


def replaced(module: Path) -> None:
    module.unlink()
    module.mkdir()


def beside(module: Path) -> None:
    (module.parent / "new.py").touch()


@pytest.mark.parametrize("change", [changed, same_size_and_time, removed, replaced, beside])
def test_a_change_elsewhere(builder: Builder, tmp_path: Path, change: Callable[[Path], None]) -> None:
    """Of a module that was imported, or of what else could be: another module of the name it looked for in vain."""
    module = tmp_path / "elsewhere/module.py"
    module.parent.mkdir()
    module.write_text("VALUE = 1")
    builder.loaded, builder.search = [module], [module.parent, tmp_path / "missing"]
    settled([module])
    builder.remember()
    assert builder.recall() == FACTS
    change(module)
    assert builder.recall() is None


def test_a_link_that_leads_somewhere_else(builder: Builder, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "module.py").write_text("")
    link = tmp_path / "link"
    link.symlink_to("one")
    builder.loaded = [link / "module.py"]
    settled(builder.loaded)
    builder.remember()
    assert builder.recall() == FACTS
    link.unlink()
    link.symlink_to("two")
    assert builder.recall() is None


@pytest.mark.parametrize("link", [False, True])
def test_an_ignored_module_that_was_imported_all_the_same(builder: Builder, link: bool) -> None:
    """By its own name, or by that of a link which is part of the release."""
    (builder.folder / ".shipwayignore").write_text("real.py\n")
    (builder.folder / "real.py").write_text("VALUE = 1")
    (builder.folder / "alias.py").symlink_to("real.py")
    builder.loaded = [builder.folder / ("alias.py" if link else "real.py"), builder.folder / "a.py"]
    settled(builder.loaded)
    builder.remember()
    assert builder.recall() == FACTS
    (builder.folder / "real.py").write_text("VALUE = 22")
    assert builder.recall() is None


def test_an_ignored_module_that_appears(builder: Builder) -> None:
    (builder.folder / ".shipwayignore").write_text("local_*\n")
    builder.remember()
    (builder.folder / "local_notes.txt").touch()
    assert builder.recall() == FACTS
    (builder.folder / "local_settings.py").touch()
    assert builder.recall() is None


def test_what_a_build_writes_beside_the_flow_is_no_change(builder: Builder) -> None:
    builder.search = [builder.folder]
    builder.remember()
    (builder.folder / "main-deployment.yaml").write_text("# Shipway deployment main/x\n")
    assert builder.recall() == FACTS


def test_a_file_that_was_just_written_may_be_written_again(
    builder: Builder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice within a tick of the clock: then it looks the same, and nobody knows which of the two was imported."""
    module = tmp_path / "module.py"
    module.touch()
    builder.loaded = [module]
    monkeypatch.setattr(flow_memory, "RACY_SECONDS", 3600.0)
    builder.remember()
    assert builder.recall() is None
    monkeypatch.setattr(flow_memory, "RACY_SECONDS", 0.0)
    settled([module])
    builder.remember()
    assert builder.recall() == FACTS


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "not text", "folder"])
def test_a_damaged_memory_is_none(builder: Builder, damage: str) -> None:
    builder.remember()
    [memory] = builder.files
    data = memory.read_bytes()
    spoilt = {"cut": data[:-9], "flipped": data.replace(b"main", b"mein"), "empty": b"", "not text": b"\xff\n\xff"}
    if damage == "folder":
        memory.unlink()
        memory.mkdir()
    else:
        memory.write_bytes(spoilt[damage])
    assert builder.recall() is None
    builder.remember()
    assert builder.recall() == (None if damage == "folder" else FACTS)


def test_a_memory_that_cannot_be_kept(builder: Builder) -> None:
    builder.state.mkdir()
    (builder.state / "flows").write_text("in the way")
    builder.remember()
    assert builder.recall() is None


def test_a_memory_is_for_its_owner_only(builder: Builder) -> None:
    builder.remember()
    [memory] = builder.files
    assert stat.S_IMODE(memory.stat().st_mode) == 0o600
    assert stat.S_IMODE(memory.parent.stat().st_mode) == 0o700


def test_few_are_kept_and_nothing_half_written(builder: Builder) -> None:
    builder.remember(entrypoint="other.py:main")
    other = builder.files
    builder.remember()
    [kept] = builder.files - other
    # As a build leaves it that is killed while it writes.
    scratch = kept.with_name(f"{kept.name.partition('-')[0]}-scratch")
    scratch.touch()
    os.utime(scratch, (1, 1))
    for number in range(KEPT + 2):
        (builder.folder / "a.py").write_text(str(number))
        builder.remember({"number": number})
    assert builder.recall() == {"number": number}
    assert len(builder.files - other) == KEPT
    assert other < builder.files
    assert not {kept, scratch} & builder.files


@pytest.fixture
def site_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "site-packages"
    (folder / "thing-1.0.dist-info").mkdir(parents=True)
    (folder / "thing").mkdir()
    (folder / "editable.pth").write_text("/somewhere")
    monkeypatch.setattr("site.getsitepackages", lambda: [str(folder), str(tmp_path / "missing")])
    return folder


def test_what_is_installed_is_not_looked_at_file_by_file(builder: Builder, site_folder: Path) -> None:
    builder.loaded = [Path(os.__file__), site_folder / "thing/__init__.py"]
    builder.search = [site_folder]
    builder.loaded[1].touch()
    builder.remember()
    os.utime(builder.loaded[1], (1, 1))
    assert builder.recall() == FACTS


def test_what_an_installed_link_leads_to_is(builder: Builder, site_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "source.py").touch()
    (site_folder / "linked.py").symlink_to(tmp_path / "source.py")
    builder.loaded = [site_folder / "linked.py"]
    settled(builder.loaded)
    builder.remember()
    assert builder.recall() == FACTS
    (tmp_path / "source.py").write_text("changed")
    assert builder.recall() is None


def upgraded(folder: Path) -> None:
    (folder / "thing-1.0.dist-info").rename(folder / "thing-1.1.dist-info")


def installed(folder: Path) -> None:
    (folder / "new").mkdir()


def installed_again(folder: Path) -> None:
    (folder / "thing").rmdir()
    (folder / "thing").mkdir()


def led_elsewhere(folder: Path) -> None:
    (folder / "editable.pth").write_text("/somewhere/else")


@pytest.mark.parametrize("change", [upgraded, installed, installed_again, led_elsewhere])
def test_a_change_of_the_environment(builder: Builder, site_folder: Path, change: Callable[[Path], None]) -> None:
    for path in (site_folder, site_folder / "editable.pth"):
        os.utime(path, (1, 1))
    builder.remember()
    assert builder.recall() == FACTS
    change(site_folder)
    assert builder.recall() is None


def test_an_upgrade_is_seen_where_every_file_has_one_time(site_folder: Path) -> None:
    os.utime(site_folder, (1, 1))
    before = environment.fingerprint()
    upgraded(site_folder)
    os.utime(site_folder, (1, 1))
    assert environment.fingerprint() != before


def test_another_search_path_is_another_environment(builder: Builder, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.remember()
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    assert builder.recall() is None


def test_the_environment_is_the_same_in_every_process() -> None:
    code = "from shipway.prefect import environment; print(environment.fingerprint())"
    argv = [sys.executable, "-c", code]
    found = [subprocess.run(argv, capture_output=True, text=True, check=True).stdout for _ in range(2)]
    assert found == [f"{environment.fingerprint()}\n"] * 2
