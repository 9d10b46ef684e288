"""Whatever the tree, and whatever is done to workspaces and to the cache, a workspace is what was released."""

import os
import shutil
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.property.test_release_properties import consistent, trees

from shipway.manifest import Version
from shipway.release.build import build
from shipway.release.cache import Cache
from shipway.release.scan import scan
from shipway.run.capture import snapshot
from shipway.run.workspace import open_workspace
from shipway.store.base import Store
from shipway.store.counting import CountingStore
from shipway.store.folder import FolderStore

Seen = dict[str, tuple[str, bytes]]
HARMS = ("overwrite", "append", "empty", "mode", "delete", "folder", "link", "extra")
ordinary = settings(
    max_examples=settings().max_examples // 2, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def seen(folder: Path) -> Seen:
    """Return what a folder holds: kind, and content or target, by path."""
    found: Seen = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            found[str(path.relative_to(folder))] = "link", os.fsencode(path.readlink())
        elif path.is_dir():
            found[str(path.relative_to(folder))] = "folder", b""
        else:
            kind = "program" if path.stat().st_mode & 0o100 else "file"
            found[str(path.relative_to(folder))] = kind, path.read_bytes()
    return found


def make(tree: dict[str, bytes], folder: Path, kinds: list[int]) -> None:
    """Write a tree, some of it as programs, and some links into it."""
    for n, (path, content) in enumerate(tree.items()):
        full = folder / path
        full.parent.mkdir(parents=True, exist_ok=True)
        full.write_bytes(content)
        kind = kinds[n % len(kinds)]
        if kind == 1:
            full.chmod(0o755)
        link = full.with_name(f"link {n}")
        if kind == 2 and not os.path.lexists(link):
            link.symlink_to(os.path.relpath(full.parent if n % 2 else full, full.parent))


def harm(path: Path, how: str) -> None:
    """Change one thing in a folder."""
    if how == "extra":
        os.close(tempfile.mkstemp(dir=path.parent)[0])
        return
    if path.is_symlink() or path.is_dir() or how in ("delete", "folder", "link"):
        shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        if how == "folder":
            path.mkdir()
        elif how == "link":
            path.symlink_to("..")
        return
    mode = path.stat().st_mode
    path.chmod(0o755 if how == "mode" else 0o644)
    if how != "mode":
        with path.open("ab" if how == "append" else "r+b") as file:
            if how == "empty":
                file.truncate(0)
            file.write(b"!" if how != "empty" else b"")
        path.chmod(mode)


def workspace(store: Store, version: Version, cache: Cache, runs: Path, harms: list[tuple[int, str]]) -> Seen:
    """Return what a workspace holds, after which the run does its worst in it."""
    opened = open_workspace(store, version, parent=runs, block="s3/it", cache=cache)
    try:
        assert opened.before == snapshot(opened.folder)
        found = seen(opened.folder)
        for n, how in harms:
            paths = sorted(opened.folder.rglob("*"))
            if paths:
                harm(paths[n % len(paths)], how)
        return found
    finally:
        opened.remove()


harms = st.lists(st.tuples(st.integers(0, 1000), st.sampled_from(HARMS)), min_size=1, max_size=6)
kinds = st.lists(st.integers(0, 2), min_size=1, max_size=4)


@ordinary
@given(trees.filter(consistent), kinds, harms)
def test_no_run_changes_what_the_next_one_gets(
    tree: dict[str, bytes], kinds: list[int], harms: list[tuple[int, str]]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make(tree, root / "project", kinds)
        store = FolderStore(root / "store")
        version = build(scan(root / "project"), store).version
        cache = Cache.open(root / "cache", 1 << 40)
        assert cache
        for _ in range(3):
            assert workspace(store, version, cache, root, harms) == seen(root / "project")
            shutil.rmtree(root / "store", ignore_errors=True)


@ordinary
@given(trees.filter(consistent), kinds, st.lists(harms, min_size=1, max_size=3))
def test_whatever_is_done_to_the_cache_is_found_and_mended(
    tree: dict[str, bytes], kinds: list[int], rounds: list[list[tuple[int, str]]]
) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        make(tree, root / "project", kinds)
        store = CountingStore(FolderStore(root / "store"))
        version = build(scan(root / "project"), store).version
        cache = Cache.open(root / "cache", 1 << 40)
        assert cache
        workspace(store, version, cache, root, [])
        for harms in rounds:
            for n, how in harms:
                paths = sorted(
                    path for area in ("files", "releases", "stamps") for path in (cache.folder / area).iterdir()
                )
                if paths:
                    harm(paths[n % len(paths)], how)
            assert workspace(store, version, cache, root, []) == seen(root / "project")
            store.requests = 0
            assert workspace(store, version, cache, root, []) == seen(root / "project")
            assert store.requests == 0
