"""The difference between two releases: which files, and their lines."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shipway.blob import LARGE_FILE
from shipway.errors import IntegrityError
from shipway.manifest import Manifest, read_manifest
from shipway.release import diff
from shipway.release.build import build
from shipway.release.diff import Difference, compare, text_lines
from shipway.release.scan import scan
from shipway.store.folder import FolderStore

Files = dict[str, bytes]


@pytest.fixture
def release(folder_store: FolderStore, tmp_path: Path) -> Callable[[Files], Manifest]:
    """Make releases of files."""
    folder = tmp_path / "flow"

    def make(files: Files) -> Manifest:
        folder.mkdir(exist_ok=True)
        for path in folder.iterdir():
            path.unlink()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return read_manifest(folder_store, build(scan(folder), folder_store).version)

    return make


def shown(store: FolderStore, old: Manifest, new: Manifest) -> list[str]:
    return [line for difference in compare(old, new) for line in text_lines(store, old, new, difference)]


def kinds(differences: list[Difference]) -> dict[str, str]:
    return {difference.path: difference.kind for difference in differences}


def test_the_same_files_do_not_differ(release: Callable[[Files], Manifest]) -> None:
    one, two = (release({"a.py": b"a\n", "b.py": b"b\n"}) for _ in range(2))
    assert compare(one, two) == []


def test_added_changed_and_removed(release: Callable[[Files], Manifest], folder_store: FolderStore) -> None:
    old = release({"z.py": b"gone\n", "b.py": b"one\ntwo\nthree\n", "same.py": b"same\n"})
    new = release({"a.py": b"new\n", "b.py": b"one\n2\nthree\n", "same.py": b"same\n"})
    found = compare(old, new)
    assert list(kinds(found).items()) == [("a.py", "added"), ("b.py", "changed"), ("z.py", "removed")]
    assert [(bool(each.old), bool(each.new)) for each in found] == [(False, True), (True, True), (True, False)]
    assert shown(folder_store, old, new) == [
        *("--- a/a.py", "+++ b/a.py", "@@ -0,0 +1 @@", "+new"),
        *("--- a/b.py", "+++ b/b.py", "@@ -1,3 +1,3 @@", " one", "-two", "+2", " three"),
        *("--- a/z.py", "+++ b/z.py", "@@ -1 +0,0 @@", "-gone"),
    ]
    assert kinds(compare(new, old)) == {"a.py": "removed", "b.py": "changed", "z.py": "added"}


def test_a_file_that_was_moved_is_removed_and_added(release: Callable[[Files], Manifest]) -> None:
    old, new = release({"a.py": b"x\n"}), release({"b.py": b"x\n"})
    assert kinds(compare(old, new)) == {"a.py": "removed", "b.py": "added"}


def test_a_mode_alone_has_no_lines(tmp_path: Path, folder_store: FolderStore) -> None:
    script = tmp_path / "flow/run.sh"
    script.parent.mkdir()
    script.write_text("true\n")
    manifests = []
    for mode in (0o644, 0o755):
        script.chmod(mode)
        manifests.append(read_manifest(folder_store, build(scan(script.parent), folder_store).version))
    assert kinds(compare(*manifests)) == {"run.sh": "mode"}
    assert shown(folder_store, *manifests) == []


@pytest.mark.parametrize("size", [2, LARGE_FILE])
def test_what_is_not_text_is_only_named(
    release: Callable[[Files], Manifest], folder_store: FolderStore, size: int
) -> None:
    text, binary = b"x" * size, b"\xff" * size
    for old, new in ((text, binary), (binary, text), (binary, b"\xfe" * size)):
        assert shown(folder_store, release({"model": old}), release({"model": new})) == ["model is not text"]
    assert shown(folder_store, release({"a": b""}), release({"a": b"", "model": binary})) == ["model is not text"]


def test_what_is_too_long_is_only_named(release: Callable[[Files], Manifest], folder_store: FolderStore) -> None:
    short, long = b"x\n" * (diff.TEXT_BYTES // 2), b"x\n" * (diff.TEXT_BYTES // 2) + b"y"
    one, two = release({"log": short}), release({"log": long})
    for old, new in ((one, two), (two, one)):
        assert shown(folder_store, old, new) == ["log is too long to be shown"]
    assert shown(folder_store, release({"log": b""}), one)[:2] == ["--- a/log", "+++ b/log"]


@pytest.mark.parametrize("harm", ["cut", "changed"])
def test_damage_is_named_and_not_shown(
    release: Callable[[Files], Manifest], folder_store: FolderStore, harm: str
) -> None:
    old, new = release({"a": b"a\n"}), release({"a": b"b\n"})
    key = next(iter(new.contents.values())).key
    folder_store.put(key, b"" if harm == "cut" else b"c\n")
    with pytest.raises(IntegrityError, match="a is damaged in "):
        shown(folder_store, old, new)
