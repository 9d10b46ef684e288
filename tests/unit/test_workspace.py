"""A workspace is the run's own: whatever happens in it stays in it."""

import os
import shutil
from pathlib import Path

import pytest

from shipway.blob import LARGE_FILE
from shipway.errors import IntegrityError
from shipway.manifest import Version
from shipway.release.build import build
from shipway.release.cache import Cache
from shipway.release.scan import scan
from shipway.run.capture import changed, snapshot
from shipway.run.workspace import Workspace, open_workspace
from shipway.store.folder import FolderStore


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "store")


@pytest.fixture
def version(tmp_path: Path, store: FolderStore) -> Version:
    project = tmp_path / "project"
    (project / "package").mkdir(parents=True)
    (project / "package/module.py").write_text("x = 1\n")
    (project / "package/empty.py").touch()
    (project / "run.sh").write_text("#!/bin/sh\n")
    (project / "run.sh").chmod(0o755)
    (project / "large.bin").write_bytes(os.urandom(LARGE_FILE))
    (project / "link").symlink_to("package/module.py")
    return build(scan(project), store).version


@pytest.fixture(params=["cached", "uncached"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Cache | None:
    return Cache.open(tmp_path / "cache", 1 << 40) if request.param == "cached" else None


def opened(store: FolderStore, version: Version, cache: Cache | None, tmp_path: Path) -> Workspace:
    (tmp_path / "runs").mkdir(exist_ok=True)
    return open_workspace(store, version, parent=tmp_path / "runs", block="s3/it", cache=cache)


def test_it_holds_the_release(store: FolderStore, version: Version, cache: Cache | None, tmp_path: Path) -> None:
    workspace = opened(store, version, cache, tmp_path)
    assert scan(workspace.folder).entries == scan(tmp_path / "project").entries
    assert (workspace.version, workspace.store) == (version, "s3/it")
    assert (workspace.folder / "link").readlink() == Path("package/module.py")
    workspace.remove()
    assert list((tmp_path / "runs").iterdir()) == []
    workspace.remove()


def test_files_can_be_written_and_run(
    store: FolderStore, version: Version, cache: Cache | None, tmp_path: Path
) -> None:
    workspace = opened(store, version, cache, tmp_path)
    modes = {path.name: path.lstat().st_mode & 0o700 for path in workspace.folder.rglob("*.*")}
    assert modes == {"module.py": 0o600, "empty.py": 0o600, "run.sh": 0o700, "large.bin": 0o600}
    assert workspace.root.stat().st_mode & 0o777 == 0o700
    workspace.remove()


def test_what_was_there_before_the_run_is_known(
    store: FolderStore, version: Version, cache: Cache | None, tmp_path: Path
) -> None:
    workspace = opened(store, version, cache, tmp_path)
    assert workspace.before == snapshot(workspace.folder)
    (workspace.folder / "package/module.py").write_text("x = 2\n")
    (workspace.folder / "new.txt").touch()
    found = changed(workspace.folder, workspace.before, max_bytes=1000, max_files=10)
    assert found.paths == ("new.txt", "package/module.py")
    workspace.remove()


def test_no_run_sees_what_another_wrote(
    store: FolderStore, version: Version, cache: Cache | None, tmp_path: Path
) -> None:
    first = opened(store, version, cache, tmp_path)
    for path in first.folder.rglob("*"):
        if path.is_file():
            assert path.stat().st_nlink == 1
            with path.open("r+b") as file:
                file.write(b"!")
    shutil.rmtree(first.folder / "package")
    second = opened(store, version, cache, tmp_path)
    assert scan(second.folder).entries == scan(tmp_path / "project").entries
    first.remove()
    second.remove()


def test_one_that_cannot_be_opened_leaves_nothing(
    store: FolderStore, version: Version, cache: Cache | None, tmp_path: Path
) -> None:
    for info in store.list("code/"):
        if "/blobs/" in info.key:
            store.delete(info.key)
    with pytest.raises(IntegrityError, match=r"large\.bin"):
        opened(store, version, cache, tmp_path)
    assert list((tmp_path / "runs").iterdir()) == []
