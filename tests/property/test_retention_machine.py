"""`gc` never removes what is needed, and removes everything else in the end, whatever happens at the same time.

One machine builds, applies, rolls back, runs, pins and collects in any order. A collection goes on step by step between
the steps of the others, and within a build between its uploads; time is a number. Where no counterexample may exist the
machine looks for one, and where one must (a window of one epoch, or releases applied however old they are) it finds it.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from shipway.artifact import Artifact
from shipway.blob import EPOCH_SECONDS, current_epoch, epoch_of, release_key
from shipway.deployment import history
from shipway.deployment.history import Pointer, move_pointer, pin, read_pointer
from shipway.digest import sha256_bytes
from shipway.errors import ConflictError, InputError, ObjectExistsError, ObjectNotFoundError
from shipway.manifest import Manifest, Version, read_manifest
from shipway.release import build as build_module
from shipway.release.build import build
from shipway.release.checkout import checkout
from shipway.release.retention import EPOCHS_KEPT
from shipway.release.scan import scan
from shipway.run.record import RunRecord, read_record, run_folder, write_record
from shipway.run.references import is_record
from shipway.run.upkeep import Collection, Live
from shipway.run.verify import verify
from shipway.store.base import ObjectInfo, Store
from shipway.store.folder import FolderStore
from shipway.store.source import pieces

START = 100 * EPOCH_SECONDS + 1000.0
KEEP_LAST = 2
KEEP_DAYS = 3
DEPLOYMENTS = ("red", "blue")

names = st.sampled_from(DEPLOYMENTS)
trees = st.dictionaries(st.sampled_from("abc"), st.sampled_from([b"1", b"2", b"3" * 40, b"4" * 90]), min_size=1)
moments = st.lists(st.sampled_from(["nothing", "collect", "collect all", "later", "later"]), max_size=4)


class World:
    """Time, and what happens at a write."""

    def __init__(self) -> None:
        self.now = START
        self.at_write: Callable[[], None] = lambda: None


class MemoryStore:
    """A store in a dictionary, whose clock is the world's."""

    address = "memory:"

    def __init__(self, world: World) -> None:
        self.world = world
        self.objects: dict[str, tuple[bytes, float]] = {}

    def url(self, key: str) -> str:
        return f"memory:{key}"

    def read(self, key: str, *, start: int = 0, length: int | None = None) -> bytes:
        return self._at(key)[0][start : None if length is None else start + length]

    def read_tagged(self, key: str) -> tuple[bytes, str]:
        return self._at(key)[0], self._info(key).etag

    def read_changed(self, key: str, etag: str) -> tuple[bytes, str] | None:
        found = self.read_tagged(key)
        return None if found[1] == etag else found

    def stream(self, key: str, *, start: int = 0, length: int | None = None) -> Iterator[bytes]:
        yield self._at(key)[0][start:][:length]

    def head(self, key: str) -> ObjectInfo:
        return self._info(key)

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        self.world.at_write()
        self.objects[key] = (b"".join(pieces(data)), self.world.now)
        return self._info(key).etag

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        self.world.at_write()
        content = data if isinstance(data, bytes) else data.read_bytes()
        if self.objects.setdefault(key, (content, self.world.now))[0] != content:
            raise ObjectExistsError
        return self._info(key).etag

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        if key not in self.objects or self._info(key).etag != etag:
            raise ConflictError
        return self.put(key, data)

    def delete(self, key: str) -> None:
        self.objects.pop(key, None)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        for key in sorted(self.objects):
            if key.startswith(prefix) and key in self.objects:
                yield self._info(key)

    def _at(self, key: str) -> tuple[bytes, float]:
        try:
            return self.objects[key]
        except KeyError:
            raise ObjectNotFoundError(key) from None

    def _info(self, key: str) -> ObjectInfo:
        data, modified = self._at(key)
        return ObjectInfo(key, len(data), sha256_bytes(data), datetime.fromtimestamp(modified, UTC))


class TimedFolderStore(FolderStore):
    """A folder store whose objects are dated by the world's clock."""

    def __init__(self, world: World, path: Path) -> None:
        super().__init__(path)
        self.world = world

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        self.world.at_write()
        return self._dated(key, super().put(key, data))

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        self.world.at_write()
        there = self._path(key).exists()
        etag = super().create(key, data, sha256=sha256)
        return etag if there else self._dated(key, etag)

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        return self._dated(key, super().replace(key, data, etag=etag))

    def _dated(self, key: str, etag: str) -> str:
        os.utime(self._path(key), (self.world.now, self.world.now))
        return etag


class Machine(RuleBasedStateMachine):
    """The world as far as it concerns retention."""

    epochs: ClassVar[int] = EPOCHS_KEPT
    any_age: ClassVar[bool] = False

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.scratch = Path(tempfile.mkdtemp(prefix="shipway-machine-"))
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr(build_module, "current_epoch", lambda: self.epoch)
        self.patch.setattr(history, "current_epoch", lambda: 0 if self.any_age else self.epoch)
        self.patch.setattr(build_module, "LARGE_FILE", 64)
        # One upload after the other: what happens between two is then the same each time.
        self.patch.setattr(build_module, "AT_ONCE", 1)
        self.patch.setattr(
            history, "datetime", SimpleNamespace(now=lambda zone: datetime.fromtimestamp(self.now, zone))
        )
        self.store: Store = self.open()
        self.folders = 0
        self.began: dict[str, Version | None] = {}
        self.built: list[tuple[str, Version]] = []
        self.chosen: tuple[str, Version] | None = None
        self.server: dict[str, Version] = {}
        self.live: dict[str, tuple[Version, str, tuple[Artifact, ...]]] = {}
        self.run_number = 0
        self.collections: dict[int, Iterator[str]] = {}
        self.trees: dict[str, dict[str, bytes]] = {}

    def open(self) -> Store:
        return MemoryStore(self.world)

    @property
    def now(self) -> float:
        return self.world.now

    @property
    def epoch(self) -> int:
        return current_epoch(self.world.now)

    def pointer(self, name: str) -> Pointer | None:
        return read_pointer(self.store, "flow", name)

    # What people, workers and collectors do.

    @rule(epochs=st.sampled_from([0.2, 0.5, 0.9, 0.9, 1.1, 3.5]))
    def time_passes(self, epochs: float) -> None:
        self.world.now += epochs * EPOCH_SECONDS

    @rule(name=names, tree=trees, moments=moments, then=st.sampled_from(["begin", "build", "build", "apply", "apply"]))
    def build(self, name: str, tree: dict[str, bytes], moments: list[str], then: str) -> None:
        """Build on what was current when this build began, now or some time ago."""
        if name not in self.began:
            pointer = self.pointer(name)
            self.began[name] = pointer.current if pointer else None
            if then == "begin":
                return
        waiting = list(moments)

        def happen() -> None:
            what = waiting.pop() if waiting else "nothing"
            self.world.at_write = lambda: None  # the collector writes too
            if what == "later":
                self.world.now += 0.24 * EPOCH_SECONDS  # four times make less than an epoch
            elif what.startswith("collect"):
                self.collect(0, steps=100 if what.endswith("all") else 1)
            self.world.at_write = happen

        self.built.append((name, self.release(tree, self.began.pop(name), happen)))
        if then == "apply":
            self.apply(0)

    def release(
        self, tree: dict[str, bytes], previous: Version | None = None, at_write: Callable[[], None] = lambda: None
    ) -> Version:
        self.folders += 1
        folder = self.scratch / str(self.folders)
        folder.mkdir()
        for path, content in tree.items():
            (folder / path).write_bytes(content)
        self.world.at_write = at_write
        try:
            version = build(scan(folder), self.store, previous=previous).version
        finally:
            self.world.at_write = lambda: None
        self.trees[version.release_id] = tree
        return version

    @precondition(lambda self: self.built)
    @rule(which=st.integers(0, 4), killed=st.sampled_from([False, False, False, True]))
    def apply(self, which: int, killed: bool = False) -> None:
        name, version = self.built.pop(-1 - which % len(self.built))
        if version.epoch >= self.epoch - 1:
            read_manifest(self.store, version)  # promised to be there: a file can be applied for a fortnight
        self.move(name, version, killed=killed)

    def move(self, name: str, version: Version, *, killed: bool = False) -> None:
        """Move a pointer and tell the server, unless the rule closes this way to an old release."""
        pointer = self.pointer(name)
        known = {move.version for move in pointer.moves} if pointer else set()
        if self.any_age or version.epoch >= self.epoch - 1 or version in known:
            move_pointer(self.store, "flow", name, version)
            if not killed:
                self.server[name] = version
        else:
            with pytest.raises(InputError):
                move_pointer(self.store, "flow", name, version)

    @rule(name=names, which=st.integers(0, 4))
    def roll_back(self, name: str, which: int) -> None:
        """Choose a release of the history or, where one was chosen some time ago, go back to it."""
        if self.chosen:
            self.move(*self.chosen)
            self.chosen = None
        elif pointer := self.pointer(name):
            self.chosen = (name, pointer.moves[which % len(pointer.moves)].version)

    @rule(name=names, saves=st.booleans(), then=st.sampled_from(["start", "fail", "complete"]))
    def run(self, name: str, saves: bool, then: str) -> None:
        """Start a run of the release that the server knows, or end the one that was started first."""
        if then != "start" and self.live:
            run, (version, folder, artifacts) = next(iter(self.live.items()))
            if then == "complete":
                write_record(self.store, folder, RunRecord(run, "run", "flow", None, 1, str(version), {}, artifacts))
            del self.live[run]
        elif name in self.server:
            self.run_number += 1
            run = f"{self.run_number:08x}"
            folder = run_folder("flow", datetime.fromtimestamp(self.now, UTC), "run", run)
            self.live[run] = (self.server[name], folder, (self.save(f"{folder}/1/x"),) if saves else ())

    def save(self, key: str) -> Artifact:
        self.store.put(key, b"x")
        return Artifact("x", key, sha256_bytes(b"x"), 1, "bytes")

    @rule(name=names, which=st.integers(0, 4))
    def pin_or_unpin(self, name: str, which: int) -> None:
        if pointer := self.pointer(name):
            move = pointer.moves[which % len(pointer.moves)]
            pinned = self.pins(name)
            pin(self.store, "flow", name, move.version, pinned=move.version not in pinned)
            assert self.pins(name) == pinned ^ {move.version}

    def pins(self, name: str) -> set[Version]:
        pointer = self.pointer(name)
        return {move.version for move in pointer.moves if move.pinned} if pointer else set()

    @rule(which=st.integers(0, 1), steps=st.sampled_from([1, 2, 3, 100, 100]), epochs=st.sampled_from([0, 0, 0.9]))
    def collect_on(self, which: int, steps: int, epochs: float) -> None:
        self.time_passes(epochs)
        self.collect(which, steps)

    def collection(self) -> Collection:
        return Collection(
            self.store,
            keep_last=KEEP_LAST,
            keep_days=KEEP_DAYS,
            live=lambda: Live(frozenset(self.in_use()), frozenset(self.live)),
            epochs=self.epochs,
            clock=lambda: self.world.now,
        )

    def collect(self, which: int, steps: int) -> None:
        """Go on with one of two collections, beginning it where it has ended."""
        if which not in self.collections:
            self.collections[which] = self.collection().steps()
        for _ in range(steps):
            if next(self.collections[which], None) is None:
                del self.collections[which]
                break

    # What must be true.

    def in_use(self) -> set[Version]:
        """Return the releases that the server knows of."""
        return {version for version, _, _ in self.live.values()} | set(self.server.values())

    def needed(self) -> set[Version]:
        """Return the releases that somebody needs, found without the code that is tested."""
        versions = self.in_use()
        for name in DEPLOYMENTS:
            pointer = self.pointer(name)
            versions |= {move.version for move in pointer.moves} if pointer else set()
        return versions | {Version.parse(record.release) for record in self.records()}

    def records(self) -> list[RunRecord]:
        return [read_record(self.store, info.key) for info in self.store.list("runs/") if is_record(info.key)]

    def artifacts(self) -> list[Artifact]:
        """Return what is saved: by runs that have a record, or are going on."""
        found = [artifact for record in self.records() for artifact in record.artifacts]
        return found + [artifact for _, _, artifacts in self.live.values() for artifact in artifacts]

    @invariant()
    def what_is_needed_is_whole(self) -> None:
        for version in self.needed():
            self.check(read_manifest(self.store, version))
        for artifact in self.artifacts():
            assert sha256_bytes(self.store.read(artifact.key)) == artifact.sha256

    def check(self, manifest: Manifest) -> None:
        for entry in manifest.entries:
            where = manifest.contents[entry.sha256]
            assert sha256_bytes(self.store.read(where.key, start=where.offset, length=entry.size)) == entry.sha256

    @invariant()
    def a_manifest_that_is_there_has_its_contents(self) -> None:
        for info in self.store.list("code/"):
            if "/releases/" in info.key:
                self.check(read_manifest(self.store, Version(epoch_of(info.key) or 0, info.key.split("/")[3])))

    def teardown(self) -> None:
        try:
            self.the_rest_goes_in_the_end()
        finally:
            self.patch.undo()
            shutil.rmtree(self.scratch)

    def the_rest_goes_in_the_end(self) -> None:
        self.collections.clear()
        self.world.now += 5 * EPOCH_SECONDS
        pinned = {name: self.pins(name) for name in DEPLOYMENTS}
        for _ in self.collection().steps():
            pass
        needed = self.needed()
        keys = {release_key(version.epoch, version.release_id) for version in needed}
        for number, version in enumerate(needed):
            copy = self.scratch / f"copy-{number}"
            keys |= {where.key for where in checkout(self.store, version, copy).contents.values()}
            assert {path.name: path.read_bytes() for path in copy.iterdir()} == self.trees[version.release_id]
        assert {info.key for info in self.store.list("code/")} == keys
        data = {info.key for info in self.store.list("runs/") if not is_record(info.key)}
        assert data == {artifact.key for artifact in self.artifacts()}
        for name in DEPLOYMENTS:
            pointer = self.pointer(name)
            assert pointer is None or len(pointer.moves) <= KEEP_LAST + len(pinned[name])
            assert self.pins(name) == pinned[name]
        assert not verify(self.store).findings


class FolderMachine(Machine):
    """The same on a real store."""

    def open(self) -> Store:
        return TimedFolderStore(self.world, self.scratch / "store")


class OneEpochMachine(Machine):
    """The same with a window of one epoch, which is too little."""

    epochs = 1


class AnyAgeMachine(Machine):
    """The same where a release may be applied however old it is, seen before or not."""

    any_age = True


checks: list[HealthCheck] = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much]


def options(examples: int, steps: int, **more: Any) -> settings:
    return settings(
        max_examples=examples, stateful_step_count=steps, deadline=None, suppress_health_check=checks, **more
    )


def test_nothing_needed_is_removed() -> None:
    run_state_machine_as_test(Machine, settings=options(settings().max_examples, 40))


def test_nothing_needed_is_removed_from_a_folder() -> None:
    run_state_machine_as_test(FolderMachine, settings=options(12, 25))


@pytest.mark.long
@pytest.mark.parametrize("machine", [OneEpochMachine, AnyAgeMachine])
def test_the_machine_finds_what_is_wrong(machine: type[Machine]) -> None:
    wrong = options(1000, 40, phases=[Phase.generate], derandomize=True, database=None, report_multiple_bugs=False)
    with pytest.raises((AssertionError, ObjectNotFoundError)):
        run_state_machine_as_test(machine, settings=wrong)


# What chance would have to try for long.


@pytest.fixture
def machine() -> Iterator[Machine]:
    made = Machine()
    yield made
    made.teardown()


@pytest.mark.parametrize(("epochs", "harmed"), [(3, False), (2, True)])
def test_two_epochs_are_too_few(machine: Machine, epochs: int, harmed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Machine, "epochs", epochs)
    first = machine.release({"a": b"shared"})
    machine.move("red", first)
    machine.world.now += EPOCH_SECONDS
    others = iter((b"one", b"two"))

    def others_go_on() -> None:
        for content in others:
            machine.move("red", machine.release({"b": content}))
        # The build is of the epoch after the one its contents are of, and goes on into the next: that is allowed.
        machine.world.now += EPOCH_SECONDS - 500
        machine.collect(0, steps=100)

    machine.release({"a": b"shared", "c": b"new"}, first, others_go_on)
    if harmed:
        with pytest.raises(ObjectNotFoundError):
            machine.a_manifest_that_is_there_has_its_contents()
    else:
        machine.a_manifest_that_is_there_has_its_contents()


@pytest.mark.parametrize("after", ["listed", "marked"])
def test_what_is_gone_back_to_between_the_looks_stays(machine: Machine, after: str) -> None:
    versions = [machine.release({"a": content}) for content in (b"1", b"2", b"3", b"4", b"5")]
    for version in versions:
        machine.move("red", version)
    machine.world.now += 4 * EPOCH_SECONDS
    steps = machine.collection().steps()
    while next(steps) != after:
        pass
    machine.move("red", versions[0])
    pin(machine.store, "flow", "red", versions[1])
    assert "removed" in list(steps)
    machine.what_is_needed_is_whole()
    assert machine.needed() == {versions[0], versions[1], versions[4]}
    assert machine.server == {"red": versions[0]}
    with pytest.raises(ObjectNotFoundError):
        read_manifest(machine.store, versions[2])


@pytest.mark.parametrize("after", ["trimmed", "found", "looked again"])
def test_what_has_left_the_history_can_not_be_gone_back_to(machine: Machine, after: str) -> None:
    versions = [machine.release({"a": content}) for content in (b"1", b"2", b"3")]
    for version in versions:
        machine.move("red", version)
    machine.world.now += 4 * EPOCH_SECONDS
    steps = machine.collection().steps()
    while next(steps) != after:
        pass
    for change in (move_pointer, pin):
        with pytest.raises(InputError):
            change(machine.store, "flow", "red", versions[0])
    assert "removed" in list(steps)
    machine.what_is_needed_is_whole()
