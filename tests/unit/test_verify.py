"""`verify` finds what is missing or damaged, says whose it is, and is silent about the rest."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from tests.answering import Answer, answering

from shipway.artifact import Artifact
from shipway.blob import LARGE_FILE, Location, current_epoch, release_key
from shipway.deployment.history import move_pointer, pointer_key, read_pointer, read_pointer_at
from shipway.digest import sha256_bytes, unsealed
from shipway.errors import IntegrityError
from shipway.manifest import Entry, Manifest, Version, read_manifest
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.release.verify import Finding
from shipway.run.record import RunRecord, read_record, write_record
from shipway.run.verify import verify
from shipway.store.folder import FolderStore

LARGE = "large.bin"
EMPTY = "empty.py"


class Reading(FolderStore):
    """A store that counts how often each object is read."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads: Counter[str] = Counter()

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        self.reads[key] += 1
        return super().read(key, start=start, length=length)

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        self.reads[key] += 1
        return super().stream(key, start=start, length=length)


class Scene:
    """Two deployments of two releases that share files, and two runs."""

    def __init__(self, path: Path) -> None:
        self.store = Reading(path / "store")
        self.folder = path / "project"
        self.folder.mkdir()
        (self.folder / LARGE).write_bytes(b"\0" * LARGE_FILE)
        (self.folder / "both.py").write_text("both = 1\n")
        (self.folder / EMPTY).touch()
        (self.folder / "flow.py").write_text("x = 1\n")
        self.first = build(scan(self.folder), self.store).version
        (self.folder / "flow.py").write_text("x = 2\n")
        self.second = build(scan(self.folder), self.store, previous=self.first).version
        move_pointer(self.store, "train", "daily", self.first)
        move_pointer(self.store, "train", "daily", self.second)
        move_pointer(self.store, "score", "hourly", self.second)
        self.artifact = "runs/train/2026-01-02/otter-0000000a/1/model.txt"
        self.store.put(self.artifact, b"model")
        artifacts = (Artifact("model", self.artifact, sha256_bytes(b"model"), 5, "text"),)
        self.records = []
        for name, release, saved in (("otter", str(self.second), artifacts), ("heron", None, ())):
            folder = f"runs/train/2026-01-02/{name}-0000000a"
            write_record(self.store, folder, RunRecord("0a", name, "train", None, 1, release, {}, saved))
            self.records.append(f"{folder}/run.json")
        self.store.reads.clear()

    def location(self, version: Version, path: str) -> str:
        manifest = read_manifest(self.store, version)
        return next(manifest.contents[entry.sha256].key for entry in manifest.entries if entry.path == path)

    def flip(self, key: str) -> None:
        data = bytearray(self.store.read(key))
        data[0] ^= 1
        self.store.put(key, bytes(data))

    def findings(self) -> set[Finding]:
        return set(verify(self.store).findings)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return Scene(tmp_path)


def of_release(version: Version, problem: str, key: str, paths: tuple[str, ...], *users: str) -> Finding:
    return Finding("release", str(version), problem, key, paths, users)


def test_all_is_well(scene: Scene) -> None:
    steps: list[tuple[int, int]] = []
    report = verify(scene.store, lambda done, total: steps.append((done, total)))
    assert report.findings == ()
    assert (report.deployments, report.releases, report.runs, report.artifacts) == (2, 2, 2, 1)
    sizes = LARGE_FILE + len("both = 1\n") + 2 * len("x = 1\n")
    assert report.bytes == sizes + len(b"model")
    assert steps[-1] == (report.bytes, report.bytes)
    assert steps == sorted(steps)


def test_each_object_is_read_once(scene: Scene) -> None:
    verify(scene.store)
    read = {key: count for key, count in scene.store.reads.items() if key.startswith(("code/", "runs/"))}
    assert set(read) == {info.key for info in scene.store.list() if info.key.startswith(("code/", "runs/"))}
    assert set(read.values()) == {1}


@pytest.mark.parametrize(("harm", "problem"), [("flip", "damaged"), ("cut", "damaged"), ("remove", "missing")])
@pytest.mark.parametrize("path", [LARGE, "both.py"])
def test_a_content_that_two_releases_need(scene: Scene, harm: str, problem: str, path: str) -> None:
    key = scene.location(scene.first, path)
    if harm == "flip":
        scene.flip(key)
    elif harm == "cut":
        scene.store.put(key, scene.store.read(key)[: 3 if path == "both.py" else -1])
    else:
        scene.store.delete(key)
    # What else lay in the same pack, and behind the cut.
    also: dict[str, list[str]] = {"remove": [EMPTY, "flow.py"], "cut": ["flow.py"]} if path == "both.py" else {}
    lost = [path, *also.get(harm, [])]
    inherited = [name for name in lost if name != "flow.py"]
    assert scene.findings() == {
        of_release(scene.first, problem, key, tuple(sorted(lost)), "train/daily"),
        of_release(scene.second, problem, key, tuple(sorted(inherited)), *scene_users(scene), "train/otter"),
    }


def scene_users(scene: Scene) -> list[str]:
    """Return the deployments of the second release, in the store's order."""
    keys = [info.key for info in scene.store.list("deployments/")]
    return [key.removeprefix("deployments/").removesuffix(".json") for key in keys]


def test_an_empty_file_needs_no_bytes(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    (tmp_path / "project").mkdir()
    (tmp_path / "project/__init__.py").touch()
    move_pointer(store, "train", "daily", build(scan(tmp_path / "project"), store).version)
    assert verify(store).findings == ()


def test_a_manifest(scene: Scene) -> None:
    key = release_key(scene.first.epoch, scene.first.release_id)
    scene.store.delete(key)
    assert scene.findings() == {of_release(scene.first, "missing", key, (), "train/daily")}
    scene.store.put(key, b'{"version": 1}')
    (found,) = scene.findings()
    assert found.problem == "damaged"
    assert "malformed" in str(found.reason)


def test_a_manifest_that_asks_for_the_moon(scene: Scene) -> None:
    pack = scene.location(scene.first, "both.py")
    entries = tuple(
        Entry(name, "100644", size, digit * 64) for name, size, digit in (("a", 1 << 50, "a"), ("b", 1, "b"))
    )
    contents = {"a" * 64: Location(pack, 0), "b" * 64: Location(pack, 1 << 60)}
    manifest = Manifest(entries, contents)
    version = Version(current_epoch(), manifest.release_id)
    scene.store.put(release_key(version.epoch, version.release_id), manifest.to_bytes())
    move_pointer(scene.store, "odd", "odd", version)
    assert {(item.problem, item.paths) for item in scene.findings()} == {("damaged", ("a", "b"))}


def test_an_artifact(scene: Scene) -> None:
    scene.flip(scene.artifact)
    assert scene.findings() == {Finding("run", "train/otter", "damaged", scene.artifact, ("model",))}
    scene.store.delete(scene.artifact)
    assert scene.findings() == {Finding("run", "train/otter", "missing", scene.artifact, ("model",))}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"version": 1, "history": null}',
        b'{"version": 1, "history": []}',
        b'{"version": 1, "history": [[]]}',
        b'{"version": 1, "history": [{"release": "main", "at": ""}]}',
        b'{"version": 1, "release": "1.2"}',
        b'{"version": 1, "artifacts": [{}], "inputs": []}',
        b'{"version": 1, "artifacts": [], "inputs": []}',
        b"\xff\xfe",
    ],
)
def test_what_was_edited_by_hand_is_a_finding(scene: Scene, text: bytes) -> None:
    keys = [pointer_key("train", "daily"), scene.records[1]]
    for key in keys:
        scene.store.put(key, text)
    found = {item.key: item for item in scene.findings()}
    assert set(found) == set(keys)
    assert [found[key].kind for key in keys] == ["deployment", "run"]
    assert [found[key].name for key in keys] == ["train/daily", scene.records[1].removesuffix("/run.json")]
    assert all(item.problem == "damaged" and item.reason for item in found.values())


@pytest.mark.parametrize(
    ("field", "value"),
    [("key", "../outside"), ("key", "runs//x"), ("bytes", "5"), ("bytes", None), ("sha256", "0" * 64)],
)
def test_a_record_edited_by_hand(scene: Scene, field: str, value: object) -> None:
    document = unsealed(scene.store.read(scene.records[0]))
    document["artifacts"][0][field] = value
    scene.store.put(scene.records[0], json.dumps(document).encode())  # as one that was never sealed
    (found,) = scene.findings()
    assert (found.kind, found.problem) == ("run", "damaged")
    if field == "sha256":  # well-formed, and not what lies there
        assert (found.name, found.paths) == ("train/otter", ("model",))
    else:
        assert found.key == scene.records[0]
        assert found.reason
        assert "malformed" in found.reason


def test_any_flipped_byte_of_a_pointer_or_record_is_found(scene: Scene) -> None:
    ways: dict[str, Callable[..., object]] = {
        pointer_key("train", "daily"): read_pointer_at,
        scene.records[0]: read_record,
    }
    for key, read in ways.items():
        whole = scene.store.read(key)
        for place in range(0, len(whole), 7):
            scene.store.put(key, whole[:place] + bytes([whole[place] ^ 0b100]) + whole[place + 1 :])
            with pytest.raises(IntegrityError):
                read(scene.store, key)
        assert key in {item.key for item in scene.findings()}


def test_a_record_that_names_no_release(scene: Scene) -> None:
    document = unsealed(scene.store.read(scene.records[0]))
    scene.store.put(scene.records[0], json.dumps(document | {"release": ["x"]}).encode())
    (found,) = scene.findings()
    assert (found.kind, found.key) == ("run", scene.records[0])


def test_many_runs_of_a_release_are_counted(scene: Scene) -> None:
    for number in range(20):
        record = RunRecord(f"{number}", f"run-{number}", "train", None, 1, str(scene.first), {})
        write_record(scene.store, f"runs/train/2026-01-02/run-{number}-0000000b", record)
    scene.store.delete(release_key(scene.first.epoch, scene.first.release_id))
    (found,) = scene.findings()
    assert found.users[0] == "train/daily"
    assert len(found.users) == 7
    assert found.users[-1] == "15 more runs"


def test_what_is_collected_meanwhile_is_no_finding(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    key = release_key(scene.first.epoch, scene.first.release_id)
    read = scene.store.read

    def collected_first(wanted: str, *, start: int = 0, length: int | None = None) -> bytes:
        if wanted == key:
            for info in scene.store.list("deployments/train/"):
                scene.store.delete(info.key)
            scene.store.delete(key)
        return read(wanted, start=start, length=length)

    monkeypatch.setattr(scene.store, "read", collected_first)
    assert scene.findings() == set()


def test_memory_is_bounded(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "store")
    folder = tmp_path / "project"
    folder.mkdir()
    with (folder / "big.bin").open("wb") as file:
        for number in range(200):
            file.write(bytes([number]) * 1_000_000)
    move_pointer(store, "train", "daily", build(scan(folder), store).version)
    tracemalloc.start()
    try:
        assert verify(store).bytes == 200_000_000
        assert tracemalloc.get_traced_memory()[1] < 100_000_000
    finally:
        tracemalloc.stop()


def test_what_the_guide_says_mends_a_release(scene: Scene) -> None:
    key = scene.location(scene.second, "both.py")
    scene.flip(key)
    # docs/howto/reclaim-space.md, "Mend what is damaged".
    scene.store.delete(key)
    for version in (scene.first, scene.second):
        scene.store.delete(release_key(version.epoch, version.release_id))
    for flow, name in (("train", "daily"), ("score", "hourly")):
        scene.store.delete(pointer_key(flow, name))
        pointer = read_pointer(scene.store, flow, name)
        version = build(scan(scene.folder), scene.store, previous=pointer.current if pointer else None).version
        assert version == scene.second
        move_pointer(scene.store, flow, name, version)
    assert scene.findings() == set()


# The command.


@contextmanager
def api(basepath: Path) -> Iterator[str]:
    """Serve a block of a folder; yield the address."""

    block = json.dumps({"id": "b", "data": {"basepath": str(basepath)}}).encode()
    with answering(lambda _asked: Answer(200, block)) as address:
        yield f"{address}/api"


def test_the_command(scene: Scene, tmp_path: Path) -> None:
    with api(tmp_path / "store") as url:

        def call(*arguments: str) -> subprocess.CompletedProcess[str]:
            return subprocess.run(
                [sys.executable, "-m", "shipway", "verify", "-sb", "local-file-system/it", *arguments],
                cwd=tmp_path,
                env=os.environ | {"PREFECT_API_URL": url},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        done = call()
        assert done.returncode == 0, done.stderr
        assert done.stdout.splitlines()[0].endswith("2 deployments, 2 releases, 2 runs with 1 artifact, 262.2 kB")
        assert done.stdout.splitlines()[1:] == ["All is well."]
        assert done.stderr == "Read and compared: 262.2 kB\n"
        key = scene.location(scene.first, "flow.py")
        scene.store.delete(key)
        done = call()
        assert done.returncode == 9
        assert [line.split()[0] for line in done.stdout.splitlines()[1:]] == ["PROBLEM", "missing", "missing"]
        assert f"release {scene.first.short}" in done.stdout
        assert "both.py, empty.py, flow.py" in done.stdout
        assert done.stderr.splitlines()[-1].startswith("shipway: 2 things are missing or damaged in file://")
        done = call("--json")
        assert done.returncode == 9
        facts = json.loads(done.stdout)
        assert facts["runs"] == 2
        assert {finding["name"] for finding in facts["findings"]} == {str(scene.first), str(scene.second)}
        assert {finding["key"] for finding in facts["findings"]} == {key}
