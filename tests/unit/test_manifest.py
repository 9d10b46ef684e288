"""A manifest is read back with suspicion."""

import json
from typing import Any

import pytest

from shipway.blob import Location
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import IntegrityError
from shipway.manifest import MAX_BYTES, Entry, Manifest, Version, parse, unsafe

CONTENT = b"hello"
SHA = sha256_bytes(CONTENT)


def manifest(*paths: str) -> Manifest:
    entries = tuple(Entry(path, "100644", len(CONTENT), SHA) for path in paths)
    return Manifest(entries, {SHA: Location(f"code/1/packs/{SHA}")})


def test_what_is_written_is_read_back() -> None:
    written = manifest("a.py", "b/c.py")
    assert parse(written.to_bytes(), expected=written.release_id) == written


def test_the_id_does_not_depend_on_order_or_place() -> None:
    one, other = manifest("a", "b"), manifest("b", "a")
    moved = Manifest(one.entries, {SHA: Location(f"code/9/packs/{SHA}", 7)})
    assert one.release_id == other.release_id == moved.release_id


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "../x",
        "a/../x",
        "a//b",
        "./a",
        "",
        "a\0b",
        "a\\b",
        "C:x",
        "nul",
        "a/COM1.txt",
        "x" * 256,
        "a/" * 600 + "a",
        "a\nb",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    assert unsafe(path)
    broken = manifest(path)
    with pytest.raises(IntegrityError, match="refused"):
        parse(broken.to_bytes(), expected=broken.release_id)


@pytest.mark.parametrize("path", ["a", "a b/c.py", "ünï/código.py", "a.b.c", "console.py", "-x", "x" * 255])
def test_ordinary_paths_are_taken(path: str) -> None:
    assert unsafe(path) is None


def change(key: str, value: Any) -> bytes:
    document = json.loads(manifest("a.py").to_bytes())
    document[key] = value
    return canonical_json(document)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b" " * (MAX_BYTES + 1), "longer than"),
        (b"[]", "malformed"),
        (change("version", 2), "version 2"),
        (change("tree", [["a.py", "100644", 5, SHA]] * 2), "appears twice"),
        (change("tree", [["a", "100644", 5, SHA], ["a/b", "100644", 5, SHA]]), "both a file and a folder"),
        (change("tree", [["a.py", "100644", -1, SHA]]), "size -1"),
        (change("tree", [["a.py", "100644", True, SHA]]), "size True"),
        (change("tree", [["a.py", "040000", 5, SHA]]), "mode"),
        (change("tree", [["a.py", "100644", 5, "00"]]), "not a sha256"),
        (change("tree", [["a.py", "100644"]]), "malformed"),
        (change("contents", {}), "lies nowhere"),
        (change("contents", {SHA: ["../../etc/passwd", 0]}), "refused"),
        (change("contents", {SHA: ["runs/x", 0]}), "refused"),
        (change("contents", {SHA: [f"code/1/releases/{SHA}", 0]}), "refused"),
        (change("tree", [["a", "100644", 5, SHA], ["A", "100644", 5, SHA]]), "where case is ignored"),
        (change("tree", [["b.py", "100644", 5, SHA]]), "another tree"),
    ],
)
def test_damage_is_named(data: bytes, words: str) -> None:
    with pytest.raises(IntegrityError, match=words):
        parse(data, expected=manifest("a.py").release_id)


def test_version_text_is_read_back() -> None:
    version = Version(1234, SHA)
    assert Version.parse(str(version)) == version


@pytest.mark.parametrize("text", [None, "", "1", SHA, f"x.{SHA}", f"1.{SHA[:-1]}", f"-1.{SHA}", f"1.{SHA.upper()}"])
def test_other_texts_are_no_version(text: object) -> None:
    with pytest.raises(IntegrityError, match="is not a Shipway release"):
        Version.parse(text)
