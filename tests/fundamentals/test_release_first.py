"""What a release is, one idea per test. Read these first."""

from pathlib import Path

from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.scan import scan
from shipway.store.folder import FolderStore


def test_a_release_is_named_by_its_content(tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flow.py").write_text("print('hello')\n")
    store = FolderStore(tmp_path / "store")

    here = build(scan(tmp_path / "here"), store)
    there = build(scan(tmp_path / "there"), store)

    assert here.version == there.version


def test_a_release_comes_back_as_it_was(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    (folder / "package").mkdir(parents=True)
    (folder / "package" / "module.py").write_text("x = 1\n")
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "link").symlink_to("package/module.py")
    store = FolderStore(tmp_path / "store")

    release = build(scan(folder), store)
    checkout(store, release.version, tmp_path / "copy")

    assert (tmp_path / "copy/package/module.py").read_text() == "x = 1\n"
    assert (tmp_path / "copy/run.sh").stat().st_mode & 0o111
    assert (tmp_path / "copy/link").readlink() == Path("package/module.py")


def test_a_second_build_uploads_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "flow.py").write_text("x = 1\n")
    store = FolderStore(tmp_path / "store")

    first = build(scan(folder), store)
    second = build(scan(folder), store, previous=first.version)

    assert first.uploaded_bytes > 0
    assert second.uploaded_bytes == 0
