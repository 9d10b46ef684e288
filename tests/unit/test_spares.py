"""Workspaces made ahead: taken by the next run of a release that runs again, made anew by any other."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest

from shipway.errors import StoreError
from shipway.manifest import Version
from shipway.prefect import spares
from shipway.prefect.spares import Spares
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.run.workspace import Workspace, open_workspace
from shipway.store.folder import FolderStore


@pytest.fixture
def version(tmp_path: Path, folder_store: FolderStore) -> Version:
    code = tmp_path / "code"
    code.mkdir()
    (code / "flow.py").write_text("x = 1\n")
    return build(scan(code), folder_store).version


@pytest.fixture
def make(tmp_path: Path, folder_store: FolderStore, version: Version) -> Callable[[], Workspace]:
    return lambda: open_workspace(folder_store, version, parent=tmp_path, block="s3/it")


def made(folder: Path) -> int:
    return len([path for path in folder.iterdir() if path.name.startswith("shipway-")])


async def settled(ready: Spares) -> None:
    await asyncio.gather(*ready._ready.values(), return_exceptions=True)
    await asyncio.sleep(0)


def test_a_release_that_has_run_twice_has_one_lying_ready(
    tmp_path: Path, version: Version, make: Callable[[], Workspace]
) -> None:
    async def work() -> None:
        ready = Spares()
        for before in (0, 0, 1):
            await settled(ready)
            assert made(tmp_path) == before
            workspace = await ready.take(version, make)
            assert (workspace.folder / "flow.py").read_text() == "x = 1\n"
            assert made(tmp_path) == 1
            workspace.remove()
            ready.make(version, make)
        await settled(ready)
        ready.close()
        await settled(ready)
        assert made(tmp_path) == 0

    asyncio.run(work())


def test_two_runs_never_get_the_same_one(tmp_path: Path, version: Version, make: Callable[[], Workspace]) -> None:
    async def work() -> None:
        ready = Spares()
        for _ in range(2):
            ready.make(version, make)
        first, second = await asyncio.gather(ready.take(version, make), ready.take(version, make))
        assert first.root != second.root

    asyncio.run(work())


def test_few_lie_ready_and_none_that_is_large(
    tmp_path: Path, version: Version, make: Callable[[], Workspace], monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        ready = Spares()
        for epoch in range(version.epoch, version.epoch + 5):
            for _ in range(2):
                ready.make(Version(epoch, version.release_id), make)
            await settled(ready)
        await settled(ready)
        assert made(tmp_path) == spares.MOST
        ready.close()
        await settled(ready)
        monkeypatch.setattr(spares, "MOST_BYTES", 1)
        for _ in range(4):
            ready.make(version, make)
            await settled(ready)
            (await ready.take(version, make)).remove()
        assert not ready._ready
        assert made(tmp_path) == 0

    asyncio.run(work())


def test_what_could_not_be_made_ahead_is_tried_again_by_who_needs_it(version: Version) -> None:
    def broken() -> Workspace:
        raise StoreError("the store is broken")

    async def work() -> None:
        ready = Spares()
        for _ in range(2):
            ready.make(version, broken)
        await settled(ready)
        with pytest.raises(StoreError, match="broken"):
            await ready.take(version, broken)

    asyncio.run(work())
