"""What is read back from a bucket that somebody else may write to: errors of ours, or a value that can be used."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.property.fuzzing import budget, documents, encoded, nearly, only

from shipway.artifact import Artifact
from shipway.deployment.history import move_pointer, pointer_key, read_pointer
from shipway.digest import canonical_json, seal, sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError, ShipwayError
from shipway.manifest import Manifest, Version, parse, tree_digest, unsafe
from shipway.model.decision import Decision
from shipway.model.version import version_of
from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.scan import scan
from shipway.run.data import read_artifact
from shipway.run.fetch import MAX_INDEX
from shipway.run.models import committed, read_champion, read_version
from shipway.run.record import RunRecord, read_record
from shipway.store.folder import FolderStore

SHA = sha256_bytes(b"hello")


@pytest.fixture(scope="module")
def store() -> Iterator[FolderStore]:
    with tempfile.TemporaryDirectory() as folder:
        yield FolderStore(Path(folder))


def put(store: FolderStore, key: str, data: bytes) -> None:
    """Write as an attacker does, without the store's checks."""
    path = Path(store.address.removeprefix("file://")) / key
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


TREE = [["a.py", "100644", 5, SHA], ["b/c.py", "100755", 5, SHA], ["link", "120000", 5, SHA]]
MANIFEST = {"version": 1, "tree": TREE, "contents": {SHA: [f"code/1/packs/{SHA}", 0]}}


def _described(store: FolderStore, record: RunRecord, entry: Mapping[str, Any]) -> object:
    return version_of(store, record, entry).to_json()


@budget
@given(documents(MANIFEST))
def test_manifest(data: bytes) -> None:
    expected = SHA
    with suppress(Exception):
        # With the right name, so that it gets as far as it can: whoever writes it may give it that.
        expected = sha256_bytes(_tree(json.loads(data)))
    manifest = only(IntegrityError, lambda: parse(data, expected=expected))
    if isinstance(manifest, Manifest):
        assert not [entry for entry in manifest.entries if unsafe(entry.path) or entry.size < 0]
        assert tree_digest(manifest.entries) == expected


def _tree(document: Any) -> bytes:
    return canonical_json({"version": 1, "tree": sorted(document["tree"], key=lambda row: row[0].encode())})


@budget
@given(st.data())
def test_a_release_with_a_wrong_index_of_packs(store: FolderStore, data: st.DataObject) -> None:
    """The tree is right and so is its name; where contents lie is anybody's guess."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch, "project")
        folder.mkdir()
        (folder / "a.py").write_text("hello")
        (folder / "b.py").write_text("world!")
        version = build(scan(folder), store).version
        key = f"code/{version.epoch}/releases/{version.release_id}"
        good = store.read(key)
        document = json.loads(good)
        document["contents"] = data.draw(nearly(document["contents"]))
        try:
            put(store, key, json.dumps(document).encode())
            done = only(ShipwayError, lambda: checkout(store, version, Path(scratch, "copy")))
        finally:
            put(store, key, good)
        if done:
            assert Path(scratch, "copy/a.py").read_text() == "hello"
        else:
            assert not Path(scratch, "copy").exists()
            assert {item.name for item in Path(scratch).iterdir()} == {"project"}


ARTIFACT = {
    "name": "plots/x", "key": "runs/f/2024-01-01/r-00000000/1/plots/x.svg", "sha256": SHA, "bytes": 5, "codec": "svg",
    "rows": None, "captured": False,
}  # fmt: skip
DECISION = Decision(True, "promoted", ("yes",), "rmse", {"candidate": 1.0}, 0.1, (0.0, 0.2), None, 0.005, 9, 3)
MODEL = {
    "name": "m", "version": 1, "at": "2024-01-01T00:00:00+00:00", "artifact": "plots/x", "key": ARTIFACT["key"],
    "sha256": SHA, "checked": {"rows": 1, "tolerance": 0.0}, "promote": True, "against": None, "facts": {"a": 1},
    "decision": DECISION.to_json(),
}  # fmt: skip
RECORD: dict[str, Any] = {
    "version": 1, "run_id": "0" * 8, "run_name": "r", "flow": "f", "deployment": "f/d", "attempt": 1,
    "release": f"1.{SHA}", "parameters": {"n": 1}, "artifacts": [ARTIFACT],
    "inputs": [{"kind": "artifact", "name": "x", "run": "r", "key": "k", "sha256": SHA, "asked": ""}],
    "metrics": {"a": 1.5}, "environment": {"python": "3"}, "timings": {"started": "2024-01-01T00:00:00+00:00"},
    "models": [MODEL], "champions": {"m": None}, "reads": [{"path": "a", "sha256": SHA}], "reproduces": None,
    "resumes": None,
}  # fmt: skip
FOLDER = "runs/f/2024-01-01/r-00000000"


def escaping(**changes: object) -> bytes:
    return json.dumps({**RECORD, "artifacts": [{**ARTIFACT, **changes}]}).encode()


@budget
@given(documents(RECORD))
@example(escaping(name="plots/../../../.bashrc"))
@example(escaping(name="plots//etc/passwd"))
@example(escaping(key="/etc/passwd"))
@example(escaping(bytes=True))
@example(json.dumps({**RECORD, "run_name": 7}).encode())
@example(json.dumps({**RECORD, "inputs": [{}]}).encode())
@example(b"[" * 100_000)
def test_run_record(store: FolderStore, data: bytes) -> None:
    put(store, f"{FOLDER}/run.json", data)
    record = only(IntegrityError, lambda: read_record(store, f"{FOLDER}/run.json"))
    if not isinstance(record, RunRecord):
        return
    # What readers do with one.
    assert record.run_name.lower() is not None
    assert record.to_bytes()
    for artifact in record.artifacts:
        assert isinstance(artifact, Artifact)
        base = Path("/base")
        for text in (artifact.name, artifact.key):
            assert not Path(text).is_absolute()
            assert ".." not in (base / text).parts
    assert all(item["key"] + item["name"] for item in record.inputs)
    for entry in record.models:
        only(ShipwayError, partial(_described, store, record, entry))


INDEX = ["plots/a.txt", "plots/deep/b.txt", "plots/deep/c.txt"]


@budget
@given(documents(INDEX), st.lists(st.sampled_from([*INDEX, "plots/a.txt/d", "plots/" + "x" * 256]), unique=True))
@example(encoded(["../../x"]), INDEX)
@example(encoded(["plots/a.txt", "plots/a.txt/d"]), ["plots/a.txt", "plots/a.txt/d"])
@example(encoded(["plots/a.txt"] * 2), INDEX)
@example(encoded(["other.txt"]), [*INDEX, "other.txt"])
@example(encoded(["plots/" + "x" * 256]), ["plots/" + "x" * 256])
@example(encoded({"plots/a.txt": 1}), INDEX)
@example(encoded([["plots/a.txt"]]), INDEX)
@example(b"[" * 100_000, INDEX)
@example(b"\xff", INDEX)
def test_index_of_a_folder(store: FolderStore, data: bytes, names: list[str]) -> None:
    """The index and the record are whatever they say they are: whoever writes one writes both."""
    index = Artifact("plots", f"{FOLDER}/1/plots.folder.json", sha256_bytes(data), len(data), "folder")
    files = {name: Artifact(name, f"{FOLDER}/1/file", SHA, 5, "file") for name in names}
    put(store, index.key, data)
    put(store, f"{FOLDER}/1/file", b"hello")
    place = only(ShipwayError, lambda: read_artifact(store, index, {"plots": index, **files}))
    if isinstance(place, Path):
        found = {f"plots/{path.relative_to(place).as_posix()}" for path in place.rglob("*") if path.is_file()}
        assert found == set(json.loads(data)) <= files.keys()


def test_an_index_that_is_too_long_is_not_read(store: FolderStore) -> None:
    index = Artifact("plots", f"{FOLDER}/1/none.folder.json", SHA, MAX_INDEX + 1, "folder")
    with pytest.raises(IntegrityError, match="longer than"):
        read_artifact(store, index, {})


def test_what_is_right_is_read(store: FolderStore) -> None:
    put(store, f"{FOLDER}/run.json", json.dumps(RECORD).encode())
    record = read_record(store, f"{FOLDER}/run.json")
    assert version_of(store, record, record.models[0]).decision
    assert parse(json.dumps(MANIFEST).encode(), expected=sha256_bytes(_tree(MANIFEST)))


VERSION_DOCUMENT = {
    **MODEL, "format": 1, "nonce": "00", "attempt": 1, "run": "0" * 8, "run_name": "r", "folder": FOLDER,
}  # fmt: skip
CHAMPION_DOCUMENT = {
    "format": 1, "nonce": "00", "name": "m",
    "history": [{"version": 1, "at": "2024", "by": "x", "reason": "y"}], "held": [],
}  # fmt: skip


def sealed(document: Any) -> bytes:
    """Seal as whoever writes to the bucket can: the seal is a checksum, not a signature."""
    try:
        return seal(document)
    except (TypeError, ValueError, AttributeError):
        return json.dumps(document).encode()


@budget
@given(st.one_of(nearly(VERSION_DOCUMENT).map(sealed), documents(VERSION_DOCUMENT)))
def test_version_of_a_model(store: FolderStore, data: bytes) -> None:
    put(store, "models/m/1.json", data)
    put(store, f"{FOLDER}/run.json", json.dumps(RECORD).encode())
    document = only(IntegrityError, lambda: read_version(store, "models/m/1.json"))
    if isinstance(document, dict):
        found = only(ShipwayError, lambda: committed(store, document))
        if isinstance(found, tuple):
            only(ShipwayError, lambda: version_of(store, *found))


@budget
@given(st.one_of(nearly(CHAMPION_DOCUMENT).map(sealed), documents(CHAMPION_DOCUMENT)))
def test_champion(store: FolderStore, data: bytes) -> None:
    put(store, "models/m/champion.json", data)
    only(IntegrityError, lambda: read_champion(store, "models/m/champion.json"))


POINTER = {
    "version": 1, "nonce": "00",
    "history": [{"release": f"1.{SHA}", "at": "2024", "entrypoint": "a.py:main", "schema": {}, "pinned": True}],
}  # fmt: skip


@budget
@given(documents(POINTER))
@example(json.dumps({**POINTER, "history": [{**POINTER["history"][0], "entrypoint": 7}]}).encode())  # type: ignore[index]
def test_pointer(store: FolderStore, data: bytes) -> None:
    put(store, pointer_key("f", "d"), data)
    pointer = only(IntegrityError, lambda: read_pointer(store, "f", "d"))
    if pointer is None:
        only(ShipwayError, lambda: move_pointer(store, "f", "d", Version(1, SHA)))
        assert store.read(pointer_key("f", "d")) == data


@budget
@given(nearly(MODEL["decision"]))
def test_decision(value: object) -> None:
    only(IntegrityError, lambda: Decision.from_json(value))


@budget
@given(st.text(max_size=80) | st.builds("{}.{}".format, st.integers(), st.just(SHA)))
def test_version_text(text: str) -> None:
    version = only(IntegrityError, lambda: Version.parse(text))
    assert version is None or str(version).partition(".")[2] == SHA


def test_a_missing_object_is_not_a_damaged_one(store: FolderStore) -> None:
    with pytest.raises(ObjectNotFoundError):
        read_record(store, "runs/f/2024-01-01/none-00000000/run.json")
