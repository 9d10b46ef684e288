"""What `gc` keeps, what it removes, and when it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.answering import Answer, Asked, answering

from shipway.artifact import Artifact
from shipway.blob import current_epoch, release_key
from shipway.deployment.history import move_pointer, pin, pointer_key, read_pointer
from shipway.digest import sha256_bytes
from shipway.errors import InputError, IntegrityError, ObjectNotFoundError, StoreError
from shipway.manifest import Version, read_manifest
from shipway.prefect.api import Api
from shipway.prefect.live import live
from shipway.release import build as build_module
from shipway.release.build import build
from shipway.release.retention import store_time
from shipway.release.scan import scan
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.run.upkeep import Collected, Collection, Live, collect
from shipway.run.verify import verify
from shipway.settings import Settings
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore

EPOCH = current_epoch()
OLD = EPOCH - 3
DAY = 86_400
LIVE = "0190d000-0000-7000-8000-0000000000aa"


class Place:
    """A store, and a folder to build from."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.store = FolderStore(path / "store")
        self.folder = path / "project"
        self.folder.mkdir()

    def release(self, text: str, epoch: int = OLD) -> Version:
        """Build a release in an epoch, as old as it says."""
        (self.folder / "flow.py").write_text(text)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(build_module, "current_epoch", lambda: epoch)
            version = build(scan(self.folder), self.store).version
        if epoch < EPOCH:
            self.date("code/", 45)
        return version

    def move(self, version: Version, *, days_ago: float = 0, name: str = "daily") -> None:
        """Move a pointer, some time ago; whether the release may be applied today is not asked."""
        key = pointer_key("train", name)
        pointer = read_pointer(self.store, "train", name)
        at = (datetime.now(UTC) - timedelta(days=days_ago)).isoformat()
        history = [(str(version), at), *((str(move.version), move.at) for move in (pointer.moves if pointer else ()))]
        self.write_history(key, history)

    def write_history(self, key: str, moves: list[tuple[str, str]]) -> None:
        history = [{"release": release, "at": at} for release, at in moves]
        self.store.put(key, json.dumps({"version": 1, "history": history}).encode())

    def save(self, run_id: str, path: str, *, name: str = "run") -> str:
        """Save something for a run and return its key."""
        key = f"{run_folder('train', datetime(2026, 1, 2, tzinfo=UTC), name, run_id)}/{path}"
        self.store.put(key, b"data")
        return key

    def record(self, run_id: str, *keys: str, release: str | None = None) -> str:
        """Commit a run and return the key of its record."""
        folder = run_folder("train", datetime(2026, 1, 2, tzinfo=UTC), "run", run_id)
        artifacts = tuple(Artifact(key, key, sha256_bytes(b"data"), 4, "bytes") for key in keys)
        write_record(self.store, folder, RunRecord(run_id, "run", "train", None, 2, release, {}, artifacts))
        return f"{folder}/run.json"

    def date(self, prefix: str, days: float) -> None:
        """Make objects as old as that."""
        when = time.time() - days * DAY
        for info in self.store.list(prefix):
            os.utime(self.path / "store" / info.key, (when, when))

    def names(self, prefix: str = "") -> set[str]:
        return {info.key for info in self.store.list(prefix)}

    def collect(self, **options: Any) -> Collected:
        return collect(Collection(self.store, **{"keep_last": 2, "keep_days": 10, **options}), grace=0)

    def has(self, version: Version) -> bool:
        try:
            manifest = read_manifest(self.store, version)
        except ObjectNotFoundError:
            return False
        return all(self.store.head(where.key) for where in manifest.contents.values())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def removed(done: Collected) -> dict[str, int]:
    return {kind: tally.objects for kind, tally in done.removed.items() if tally.objects}


def test_what_nothing_needs_goes_once_it_is_three_epochs_old(place: Place) -> None:
    versions = {epoch: place.release(f"of {epoch}", epoch) for epoch in range(EPOCH - 5, EPOCH + 1)}
    assert removed(place.collect()) == {"releases": 3, "packs": 3}
    assert [place.has(version) for version in versions.values()] == [False] * 3 + [True] * 3


def test_a_release_with_a_young_manifest_keeps_its_old_contents(place: Place) -> None:
    first = place.release("shared")
    (place.folder / "more.py").write_text("new")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build_module, "current_epoch", lambda: OLD + 1)
        second = build(scan(place.folder), place.store, previous=first).version
    place.date(f"code/{OLD + 1}/", 31)
    assert removed(place.collect()) == {"releases": 1}
    assert place.has(second)


def test_a_dry_run_says_the_same_and_removes_nothing(place: Place) -> None:
    for number in range(4):
        place.move(place.release(f"x = {number}"), days_ago=40 - number)
    place.save("1" * 32, "1/model.txt")
    place.store.put(".shipway-probe/left", b"")
    place.date("runs/", 11)
    place.date(".shipway-probe/", 11)
    before = {key: place.store.read(key) for key in place.names()}
    dry = place.collect(dry_run=True)
    assert {key: place.store.read(key) for key in place.names()} == before
    assert removed(dry) == {"releases": 2, "packs": 2, "run data": 1, "leftovers": 1}
    assert dry.removed["run data"].bytes == 4
    assert dry.trimmed == {"train/daily": 2}
    assert place.collect() == dry
    assert removed(place.collect()) == {}


@pytest.mark.parametrize(
    ("moves", "kept"),
    [
        # Letters are releases, numbers the days since; the newest move comes first.
        ("a0 b1 c2 d3 e4", "abcde"),
        ("a0 b20 c30 d40 e50", "ab"),
        # A release is in use until the next one comes: replaced five days ago.
        ("a5 b20 c30", "ab"),
        ("a5 b6 c30 d40", "abc"),
        # What was gone back to does not push the others out.
        ("a20 b21 a22 b23 a24 c25", "ab"),
        ("a20 b21 b22 b23", "ab"),
        # Nobody can say how old this one is.
        ("a20 b? c30 d40", "abc"),
        ("a90", "a"),
    ],
)
def test_histories(place: Place, moves: str, kept: str) -> None:
    names = sorted({move[0] for move in moves.split()})
    versions = {name: place.release(name) for name in names}
    now = datetime.now(UTC)
    history = [
        (str(versions[move[0]]), "lately" if move[1:] == "?" else (now - timedelta(days=int(move[1:]))).isoformat())
        for move in moves.split()
    ]
    place.write_history(pointer_key("train", "daily"), history)
    place.collect()
    pointer = read_pointer(place.store, "train", "daily")
    assert pointer
    assert pointer.current == versions[moves[0]]
    assert "".join(sorted({name for name in names for m in pointer.moves if m.version == versions[name]})) == kept
    assert {name for name in names if place.has(versions[name])} == set(kept)


def test_a_deployment_with_a_name_that_is_cut_in_its_key_keeps_its_release(place: Place) -> None:
    version = place.release("x")
    place.move(version, name="very long, " * 20)
    assert removed(place.collect()) == {}
    assert place.has(version)


def test_the_release_of_a_record_stays_as_long_as_the_record(place: Place) -> None:
    version = place.release("x")
    key = place.record("1" * 32, release=str(version))
    place.collect()
    assert place.has(version)
    place.store.delete(key)
    place.collect()
    assert not place.has(version)


def test_what_the_server_uses_stays(place: Place) -> None:
    version = place.release("x")
    data = place.save(LIVE, "1/model.txt")
    place.date("runs/", 50)
    live = Live(frozenset([version, Version(1, "0" * 64)]), frozenset([LIVE[-8:]]))
    done = place.collect(live=lambda: live)
    assert removed(done) == {}
    # A run of another store is none of this one's business.
    assert done.missing == ()
    assert place.has(version)
    assert removed(place.collect()) == {"releases": 1, "packs": 1, "run data": 1}
    assert data not in place.names()


def test_data_without_a_record_goes_after_the_days_kept(place: Place) -> None:
    old, recent, late = (digit * 32 for digit in "123")
    gone = {place.save(old, "1/a.json"), place.save(old, "1/files/b/c.txt"), place.save(old, "2/a.json")}
    place.date("runs/", 11)
    kept = {place.save(recent, "1/a.json")}
    place.date(f"{next(iter(kept)).rpartition('/')[0]}/", 9)
    # A run that has written something since is still at work.
    kept.add(place.save(late, "1/a.json"))
    place.date(run_folder("train", datetime(2026, 1, 2, tzinfo=UTC), "run", late) + "/", 40)
    kept.add(place.save(late, "1/b.json"))
    assert removed(place.collect()) == {"run data": 3}
    assert place.names("runs/") == kept
    assert gone.isdisjoint(place.names())


def test_the_page_of_a_run_that_failed_goes_after_the_days_kept(place: Place) -> None:
    completed, failed, recent = (digit * 32 for digit in "123")
    record = place.record(completed)
    pages = []
    for run_id in (completed, failed, recent):
        folder = run_folder("train", datetime(2026, 1, 2, tzinfo=UTC), "run", run_id)
        pages.append(f"reports/{folder.removeprefix('runs/')}.html")
        place.store.put(pages[-1], b"<html>")
    for key in (record, *pages[:2]):
        place.date(key, 40)
    live = Live(runs=frozenset({failed[-8:]}))
    assert place.collect(live=lambda: live).removed["run data"].keys == []
    assert place.collect().removed["run data"].keys == [pages[1]]
    assert place.names("reports/") == {pages[0], pages[2]}


def test_what_a_record_does_not_name_goes_and_the_rest_stays(place: Place) -> None:
    run = "1" * 32
    failed, replaced, saved = (place.save(run, path) for path in ("1/a.json", "2/a.txt", "2/a.json"))
    record = place.record(run, saved)
    # Somebody's own, in no attempt's folder.
    notes = place.save(run, "notes.txt")
    place.store.put("runs/readme.txt", b"")
    assert removed(place.collect()) == {}
    place.date("runs/", 11)
    assert removed(place.collect()) == {"run data": 2}
    assert place.names("runs/") == {saved, record, notes, "runs/readme.txt"}
    assert failed != replaced


def test_no_days_kept_still_spare_the_runs_of_today(place: Place) -> None:
    place.save("1" * 32, "1/a.json")
    place.date("runs/", 0.9)
    assert removed(place.collect(keep_days=0)) == {}
    place.date("runs/", 1.1)
    assert removed(place.collect(keep_days=0)) == {"run data": 1}


def test_a_builder_whose_clock_was_set_back_is_safe(place: Place) -> None:
    version = place.release("x", OLD)
    place.date("code/", 0)
    assert removed(place.collect()) == {}
    assert place.has(version)


@pytest.mark.parametrize(("hours", "which"), [(2, "ahead of"), (-2, "behind")])
def test_a_wrong_clock_is_refused(place: Place, hours: int, which: str) -> None:
    version = place.release("x")
    with pytest.raises(StoreError, match=rf"2.0 hours {which} that of .*nothing was removed"):
        place.collect(clock=lambda: time.time() + hours * 3600)
    assert place.has(version)
    assert place.names(".shipway-probe/") == set()
    assert abs(store_time(place.store, lambda: time.time() + 3000) - time.time()) < 60


@pytest.mark.parametrize("what", ["pointer", "release in pointer", "record", "release in record", "manifest"])
def test_nothing_is_removed_on_the_strength_of_what_cannot_be_read(place: Place, what: str) -> None:
    version = place.release("kept")
    place.move(version)
    unneeded = place.release("unneeded")
    key = place.record("1" * 32, release="main" if what == "release in record" else str(version))
    pointer = pointer_key("train", "daily")
    harm: dict[str, Callable[[], object]] = {
        "pointer": lambda: place.store.put(pointer, b'{"version": 1, "history": {}}'),
        "release in pointer": lambda: place.store.put(
            pointer, b'{"version": 1, "history": [{"release": "main", "at": "now"}]}'
        ),
        "record": lambda: place.store.put(key, b"{"),
        "release in record": lambda: None,
        "manifest": lambda: place.store.put(release_key(OLD, version.release_id), b"{}"),
    }
    harm[what]()
    before = place.names()
    with pytest.raises(IntegrityError) as caught:
        place.collect()
    assert place.names() == before
    assert place.has(unneeded)
    assert caught.value.hint


def test_a_release_that_is_missing_is_said(place: Place) -> None:
    version = place.release("x")
    place.move(version)
    place.store.delete(release_key(OLD, version.release_id))
    assert place.collect().missing == (version,)


def test_what_is_pinned_stays_in_the_history(place: Place) -> None:
    old, other, current = (place.release(text) for text in "abc")
    for days, version in ((90, old), (80, other), (70, current)):
        place.move(version, days_ago=days)
    pin(place.store, "train", "daily", old)
    place.collect(keep_last=1)
    pointer = read_pointer(place.store, "train", "daily")
    assert pointer
    assert [(move.version, move.pinned) for move in pointer.moves] == [(current, False), (old, True)]
    assert [place.has(version) for version in (old, other, current)] == [True, False, True]
    # It can be gone back to, however old it is, and going back changes nothing about the pin.
    move_pointer(place.store, "train", "daily", old)
    pin(place.store, "train", "daily", old, pinned=False)
    with pytest.raises(InputError, match="no longer in the history of train/daily"):
        pin(place.store, "train", "daily", other)
    place.collect(keep_last=1, keep_days=0)
    pointer = read_pointer(place.store, "train", "daily")
    assert pointer
    assert [move.version for move in pointer.moves] == [old]


def test_an_old_release_is_given_only_to_whom_it_belongs(place: Place) -> None:
    old = place.release("old", EPOCH - 2)
    with pytest.raises(InputError, match=r"over a fortnight old and not in the history of train/daily.*; build again"):
        move_pointer(place.store, "train", "daily", old)
    assert read_pointer(place.store, "train", "daily") is None
    young = place.release("young", EPOCH - 1)
    move_pointer(place.store, "train", "daily", young)
    with pytest.raises(InputError):
        move_pointer(place.store, "train", "daily", old)
    place.move(old)
    place.move(young)
    move_pointer(place.store, "train", "daily", old)
    with pytest.raises(InputError):
        move_pointer(place.store, "train", "other", old)


def test_a_move_is_taken_back_unless_somebody_moved_on(place: Place) -> None:
    first, second, third = (place.release(text, EPOCH) for text in "abc")
    move_pointer(place.store, "train", "daily", first)
    before = read_pointer(place.store, "train", "daily")
    move_pointer(place.store, "train", "daily", second)()
    after = read_pointer(place.store, "train", "daily")
    assert before
    assert after
    assert after.moves == before.moves
    take_back = move_pointer(place.store, "train", "daily", second)
    move_pointer(place.store, "train", "daily", third)
    take_back()
    pointer = read_pointer(place.store, "train", "daily")
    assert pointer
    assert [move.version for move in pointer.moves] == [third, second, first]


def test_on_s3(s3_store: ObjectStore, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text("x = 1\n")
    needed = build(scan(tmp_path), s3_store).version
    move_pointer(s3_store, "train", "daily", needed)
    (tmp_path / "flow.py").write_text("x = 2\n")
    build(scan(tmp_path), s3_store)
    # Nothing here can be old; a window of no epochs makes everything old enough.
    done = collect(Collection(s3_store, keep_last=1, keep_days=0, epochs=0), grace=0)
    assert removed(done) == {"releases": 1, "packs": 1}
    assert (done.epoch, done.trimmed) == (current_epoch(), {})
    report = verify(s3_store)
    assert (report.releases, report.bytes, report.findings) == (1, len("x = 1\n"), ())
    assert {info.key.split("/")[0] for info in s3_store.list()} == {"code", "deployments"}


# The command, with a Prefect API of a few answers and a real store.


class Server:
    """What the Prefect API answers.

    Attributes:
        basepath: folder of its block `local-file-system/it`.
        runs: those that have not ended; once it has shown a page of them, every other one has.
        deployments: all of them, of flow `train`.
        fails: whether asking for runs is an error.
    """

    def __init__(self, basepath: Path) -> None:
        self.basepath = basepath
        self.runs: list[dict[str, Any]] = []
        self.deployments: list[dict[str, Any]] = []
        self.fails = False

    def answer(self, path: str, body: dict[str, Any]) -> Any:
        if path == "/block_types/slug/local-file-system/block_documents/name/it":
            return {"id": "b", "data": {"basepath": str(self.basepath)}}
        if path == "/flow_runs/filter":
            return self.page(body)
        return {"/deployments/filter": self.deployments, "/flows/filter": [{"id": "f", "name": "train"}]}.get(path)

    def page(self, body: dict[str, Any]) -> list[dict[str, Any]] | None:
        where = body["flow_runs"]
        assert set(where["state"]["type"]["any_"]) == {"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"}
        assert body["sort"] == "EXPECTED_START_TIME_ASC"
        since = where.get("expected_start_time", {}).get("after_", "")
        found = [run for run in self.runs if run["expected_start_time"] >= since]
        found = [run for run in found if run["id"] not in where["id"]["not_any_"]]
        rows = sorted(found, key=lambda run: str(run["expected_start_time"]))[: body["limit"]]
        ended = [run["id"] for run in rows if run["id"] != LIVE][::2]
        self.runs = [run for run in self.runs if run["id"] not in ended]
        return None if self.fails else rows


@contextmanager
def api(answers: Server) -> Iterator[str]:
    """Serve the answers; yield the address."""

    def answer(asked: Asked) -> Answer:
        found = answers.answer(asked.path.partition("?")[0].removeprefix("/api"), json.loads(asked.body or b"{}"))
        return Answer(500 if found is None else 200, json.dumps(found).encode())

    with answering(answer) as address:
        yield f"{address}/api"


def run(number: int, *, minute: int, stamp: str = "1.0", id: str | None = None) -> dict[str, Any]:  # noqa: A002
    """Return a run as the API does."""
    due = f"2026-01-02T03:{minute:02}:00.000000Z"
    needed = {"name": "it", "flow_id": "f", "parameters": {}, "total_run_time": 0.0}
    return {"id": id or f"{number:032x}", "deployment_version": stamp, "expected_start_time": due, **needed}


def test_no_run_is_passed_over_because_others_end(tmp_path: Path) -> None:
    server = Server(tmp_path)
    # Of the same instant are more than fit on two pages, and about as many come one after the other.
    server.runs = [run(n, minute=0) for n in range(500)] + [run(n, minute=n // 10) for n in range(500, 590)]
    stay = {row["id"][-8:] for row in server.runs}
    server.runs.append(run(0, minute=59, id=LIVE))
    with api(server) as url:
        found = live(Api(Settings(project=tmp_path, api_url=url)))
    assert LIVE[-8:] in found.runs
    # Half of each page have ended since; all the others, and those seen before they ended, are there.
    assert {row["id"][-8:] for row in server.runs} <= found.runs <= stay | {LIVE[-8:]}


def test_the_command(place: Place, tmp_path: Path) -> None:
    stamped, deployed, unneeded = (place.release(text) for text in "abc")
    server = Server(tmp_path / "store")
    needed: dict[str, Any] = {"tags": [], "parameters": {}, "schedules": []}
    server.deployments = [{"id": "d", "flow_id": "f", "name": "daily", "version": str(deployed), **needed}]
    move_pointer(place.store, "train", "elsewhere", place.release("d", EPOCH))
    with api(server) as url:

        def gc(*arguments: str) -> subprocess.CompletedProcess[str]:
            server.runs = [run(0, minute=0, stamp="main"), run(1, minute=0, stamp=str(stamped), id=LIVE)]
            return subprocess.run(
                [sys.executable, "-m", "shipway", "gc", *arguments],
                cwd=tmp_path,
                env=os.environ | {"PREFECT_API_URL": url, "SHIPWAY_STORE": "local-file-system/it"},
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )

        done = gc("--dry-run")
        assert done.returncode == 0, done.stderr
        assert [line.split() for line in done.stdout.splitlines()] == [
            ["TO", "REMOVE", "OBJECTS", "SIZE"],
            ["releases", "1", str(place.store.head(release_key(OLD, unneeded.release_id)).size), "B"],
            ["packs", "1", "1", "B"],
            ["Would", "free", *done.stdout.split()[-2:]],
        ]
        assert done.stderr.splitlines()[-1].startswith("Note: this server has no deployment train/elsewhere; ")
        assert place.has(unneeded)
        # Who cannot be asked may need anything.
        server.fails = True
        done = gc("--grace", "0")
        assert done.returncode == 5
        assert place.has(unneeded)
        server.fails = False
        facts = json.loads(gc("--grace", "0", "--json").stdout)
        assert facts["removed"]["releases"]["keys"] == [release_key(OLD, unneeded.release_id)]
        assert (facts["store"], facts["epoch"], facts["dry_run"]) == (place.store.address, EPOCH, False)
        assert [place.has(version) for version in (stamped, deployed, unneeded)] == [True, True, False]
        assert "Nothing was removed" in gc("--grace", "0").stdout
        place.store.put("deployments/train/daily.json", b"{")
        done = gc("--dry-run")
        assert done.returncode == 9
        assert "daily.json is malformed" in done.stderr
        assert "nothing was removed" in done.stderr
        assert done.stderr.count("shipway: ") == 1
    done = gc("--grace", "0")
    assert done.returncode == 5
    assert "no Prefect API answers" in done.stderr
