"""A manifest is read back with suspicion."""

import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.blob import Location, release_key
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.manifest import MAX_BYTES, Entry, Manifest, Version, collision, folded, parse, read_manifest, unsafe
from shipway.store.folder import FolderStore

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
        "a\x7f",
        "a:b",
        "a./b",
        "a ",
        "what?",
        "CON",
        "lpt9.tar.gz",
        "aux .c",
        "com\u00b9",
        "\ud800",
    ],
)
def test_unsafe_paths_are_refused(path: str) -> None:
    assert unsafe(path)
    document = json.loads(manifest("a.py").to_bytes())
    document["tree"][0][0] = path
    with pytest.raises(IntegrityError, match="refused") as caught:
        parse(json.dumps(document).encode(), expected=SHA)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    "path", ["a", "a b/c.py", "ünï/código.py", "a.b.c", "console.py", "-x", "x" * 255, ".a/.b", "com0", "co/n"]
)
def test_ordinary_paths_are_taken(path: str) -> None:
    assert unsafe(path) is None


@pytest.mark.parametrize(
    ("path", "reason"),
    [
        ("/a", "it is not relative"),
        ("", "it is not relative"),
        ("a/../b", "it is not normalised"),
        ("a\0", "it holds a control character"),
        ("a\\b", "it means something else on Windows"),
        ("C:a", "it means something else on Windows"),
        ("a. /b", "it means something else on Windows"),
        ("a*", "it cannot be on Windows"),
        ("a/con.x", "it names a device on Windows"),
        ("\ud800", "it is not valid UTF-8"),
        ("\u00fc" * 128, "it is too long"),
    ],
)
def test_the_reason_is_said(path: str, reason: str) -> None:
    assert unsafe(path) == reason


pieces = st.sampled_from([*"ab1_-./\\: \0\n?*\u00e9", "..", "con", "AUX", "com1", "lpt0", "nul", ".py", "x" * 100])


@given(st.lists(pieces, max_size=8).map("".join))
def test_what_is_plain_at_first_sight_is_safe(path: str) -> None:
    """The first look only spares the others: behind it every path is looked at as it is beside a space."""
    assert unsafe(path) == unsafe(f"a b/{path}") or path.startswith("/") or not path


def test_paths_that_are_one_where_case_is_ignored() -> None:
    assert collision(["a", "b/a", "b/A.py", "c/a"]) is None
    for one, other in (("a", "A"), ("b/x", "B/y"), ("a", "A/b"), ("\u00e9", "e\u0301"), ("stra\u00dfe", "STRASSE")):
        for paths in ([one, other], [other, one]):
            assert "are one where case is ignored" in str(collision(paths))
    assert "both a file and a folder" in str(collision(["a/b/c", "a/b"]))


@given(st.text(st.characters(max_codepoint=127)))
def test_plain_text_folds_as_any_other_does(text: str) -> None:
    assert folded(text) == folded(f"{text}\u4e00")[:-1]


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
        (change("tree", [["a.py", "x" * 1_000_000, 5, SHA]]), "mode"),
        (change("tree", [["a.py", "100644", 5.0, SHA]]), "size 5.0"),
        (change("tree", [["a.py", "100644", "x" * 1_000_000, SHA]]), "size"),
        (change("tree", [["link", "120000", 4097, SHA]]), "size 4097"),
        (change("tree", [[7, "100644", 5, SHA]]), "not text"),
        (change("tree", [["a/x", "100644", 5, SHA], ["A/y", "100644", 5, SHA]]), "where case is ignored"),
        (change("tree", {"a.py": 1}), "malformed"),
        (change("tree", None), "malformed"),
        (change("version", "x" * 1_000_000), "version"),
        (change("contents", []), "malformed"),
        (change("contents", {SHA: None}), "malformed"),
        (change("contents", {SHA: [f"code/1/packs/{SHA}", -1]}), "refused"),
        (change("contents", {}), "lies nowhere"),
        (change("contents", {SHA: ["../../etc/passwd", 0]}), "refused"),
        (change("contents", {SHA: ["runs/x", 0]}), "refused"),
        (change("contents", {SHA: [f"code/1/releases/{SHA}", 0]}), "refused"),
        (change("tree", [["a", "100644", 5, SHA], ["A", "100644", 5, SHA]]), "where case is ignored"),
        (change("tree", [["b.py", "100644", 5, SHA]]), "another tree"),
    ],
)
def test_damage_is_named(data: bytes, words: str) -> None:
    release_id = manifest("a.py").release_id
    with pytest.raises(IntegrityError, match=words) as caught:
        parse(data, expected=release_id)
    error = caught.value
    assert error.message.startswith(f"the manifest of release {release_id[:12]} ")
    assert error.hint
    assert "\n" not in str(error)
    assert len(str(error)) < 300


def test_a_manifest_of_another_version_says_what_to_do() -> None:
    with pytest.raises(IntegrityError) as caught:
        parse(change("version", 2), expected=SHA)
    assert caught.value.hint == "upgrade Shipway on this machine"


def test_of_a_hundred_megabytes_not_all_is_read(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    file = tmp_path / release_key(1, SHA)
    file.parent.mkdir(parents=True)
    file.write_bytes(b'{"version":1,"tree":[')
    with file.open("ab") as writer:
        for _ in range(100):
            writer.write(b"[]," * 350_000)
    tracemalloc.start()
    try:
        with pytest.raises(IntegrityError, match="longer than"):
            read_manifest(store, Version(1, SHA))
        assert tracemalloc.get_traced_memory()[1] < 2 * MAX_BYTES
    finally:
        tracemalloc.stop()


def test_a_release_that_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ObjectNotFoundError, match=SHA[:12]) as caught:
        read_manifest(FolderStore(tmp_path), Version(1, SHA))
    assert caught.value.hint == "build and apply the deployment again"


def test_version_text_is_read_back() -> None:
    version = Version(1234, SHA)
    assert Version.parse(str(version)) == version


@pytest.mark.parametrize("text", [None, "", "1", SHA, f"x.{SHA}", f"1.{SHA[:-1]}", f"-1.{SHA}", f"1.{SHA.upper()}"])
def test_other_texts_are_no_version(text: object) -> None:
    with pytest.raises(IntegrityError, match="is not a Shipway release"):
        Version.parse(text)
