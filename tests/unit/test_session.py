"""What a run saves: sent while the flow works, joined at its end, seen whole or not at all."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

import shipway
from shipway.codec import register
from shipway.errors import CodecError, InputError, NotFoundError, StoreError
from shipway.run import recent
from shipway.run import session as sessions
from shipway.run.growing import GivenUpError, Growing
from shipway.run.journal import Journal
from shipway.run.order import Order
from shipway.run.record import find_record
from shipway.run.session import VARIABLE, Session, activate
from shipway.run.uploads import LARGE
from shipway.store.folder import FolderStore

ORDER = Order(
    run_id="0197a000-0000-7000-8000-0000deadbeef",
    run_name="one",
    flow="train",
    deployment="train/daily",
    attempt=1,
    release=None,
    parameters={},
    scheduled="2026-01-02T03:04:05+00:00",
    store="",
    opener="tests.unit.test_session:open_folder",
)
SECONDS = 30


def open_folder(block: str) -> FolderStore:
    """Open the store as a child process does, by the name that the order gives."""
    return FolderStore(Path(block))


class Gate(FolderStore):
    """A store whose writes wait until they may go on, and fail when they are told to."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self.open = threading.Event()
        self.broken = False
        self.writing = 0

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        self.writing += 1
        assert self.open.wait(SECONDS)
        if self.broken:
            raise StoreError("the store is broken")
        return super().put(key, data)


@pytest.fixture
def gate(tmp_path: Path) -> Gate:
    return Gate(tmp_path / "store")


@pytest.fixture
def session(gate: Gate, tmp_path: Path) -> Iterator[Session]:
    begun = Session.begin(replace(ORDER, store=str(tmp_path / "store")), tmp_path, gate)
    activate(begun)
    yield begun
    gate.open.set()
    activate(None)
    begun.close()


def test_a_flow_goes_on_while_what_it_saved_is_sent(session: Session, gate: Gate) -> None:
    artifact = shipway.save("numbers", {"a": 1})  # returns although the store does not answer

    assert (artifact.name, artifact.bytes) == ("numbers", len(b'{\n  "a": 1\n}\n'))
    assert session.artifacts() == {}
    gate.open.set()
    assert session.record().artifacts == (artifact,)


def test_a_value_is_saved_as_it_was_when_it_was_saved(session: Session, gate: Gate) -> None:
    value = {"a": 1}
    shipway.save("numbers", value)
    value["a"] = 2
    gate.open.set()

    assert shipway.load("numbers") == {"a": 1}


def test_of_two_values_of_one_name_the_later_one_counts(session: Session, gate: Gate) -> None:
    for number in range(20):
        shipway.save("number", number)
    gate.open.set()

    record = session.record()
    assert [artifact.name for artifact in record.artifacts] == ["number"]
    assert gate.read(record.artifacts[0].key) == b"19\n"


def test_loading_waits_for_what_is_on_its_way(session: Session, gate: Gate) -> None:
    shipway.save("number", 7)
    threading.Timer(0.1, gate.open.set).start()

    assert shipway.load("number") == 7


def test_what_could_not_be_sent_keeps_the_record_from_being_written(session: Session, gate: Gate) -> None:
    shipway.save("number", 7)
    gate.broken = True
    gate.open.set()

    with pytest.raises(StoreError, match="broken"):
        session.record()
    with pytest.raises(StoreError, match="broken"):
        shipway.load("number")
    assert find_record(gate, session.order.folder) is None


def test_a_flow_hears_of_a_failed_upload_at_its_next_save(session: Session, gate: Gate) -> None:
    shipway.save("first", 1)
    gate.broken = True
    gate.open.set()

    def go_on() -> None:
        for number in range(10_000):
            shipway.save(f"next-{number}", 2)

    with pytest.raises(StoreError, match="broken"):
        go_on()


def test_nothing_is_left_on_the_disk_after_it_was_sent(session: Session, gate: Gate) -> None:
    gate.open.set()
    for number in range(10):
        shipway.save(f"number-{number}", number)
    session.record()

    assert sorted(path.name for path in session.scratch.iterdir()) == ["journal", "order.json"]


@pytest.mark.parametrize("size", [LARGE + 12345, 100])
def test_what_is_large_is_sent_while_it_is_written(session: Session, gate: Gate, size: int) -> None:
    """Sent in pieces of a file that grows; what looked large and is not is sent when it is whole."""
    gate.open.set()

    class Slow:
        """A codec that takes its time."""

        name, suffix = "slow", ".slow"

        def accepts(self, value: object) -> bool:
            return isinstance(value, Slow)

        def estimate(self, value: object) -> int:
            return LARGE

        def write(self, value: object, path: Path) -> int:
            with path.open("wb") as file:
                for piece in range(0, size, 5 << 20):
                    file.write(bytes([piece % 251]) * min(5 << 20, size - piece))
                    file.flush()
                    threading.Event().wait(0.01)
            return 3

        def read(self, path: Path) -> bytes:
            return path.read_bytes()

    register(Slow())
    artifact = shipway.save("slow", Slow())
    (recorded,) = session.record().artifacts

    assert recorded == artifact
    assert (artifact.bytes, artifact.rows, artifact.codec) == (size, 3, "slow")
    assert len(shipway.load("slow")) == size  # the digest was compared
    assert sorted(path.name for path in session.scratch.iterdir()) == ["journal", "order.json"]


def test_what_was_given_up_and_removed_before_anybody_looked_is_given_up(tmp_path: Path) -> None:
    growing = Growing(tmp_path / "removed")
    growing.end(whole=False)
    with pytest.raises(GivenUpError):
        growing.digest()


@pytest.mark.parametrize("written", [0, 2 * LARGE])
def test_what_is_given_up_half_written_was_not_saved(session: Session, gate: Gate, written: int) -> None:
    gate.open.set()

    class Broken:
        """A codec that fails at the end."""

        name, suffix = "broken", ".broken"

        def accepts(self, value: object) -> bool:
            return isinstance(value, Broken)

        def estimate(self, value: object) -> int:
            return LARGE

        def write(self, value: object, path: Path) -> int | None:
            path.write_bytes(bytes(written))
            raise CodecError("it cannot be written after all")

        def read(self, path: Path) -> bytes:
            return path.read_bytes()

    register(Broken())
    with pytest.raises(CodecError, match="after all"):
        shipway.save("broken", Broken())
    shipway.save("other", 1)

    assert [artifact.name for artifact in session.record().artifacts] == ["other"]
    assert [info.key.rpartition("/")[2] for info in gate.list("runs/")] == ["other.json"]
    with pytest.raises(StoreError, match="could not be saved"):
        shipway.load("broken")


def test_a_value_that_cannot_be_saved_leaves_nothing(session: Session, gate: Gate) -> None:
    with pytest.raises(shipway.ShipwayError):
        shipway.save("odd", {"a": object()})

    gate.open.set()
    assert session.record().artifacts == ()


def test_a_folder_is_saved_file_by_file(session: Session, gate: Gate, tmp_path: Path) -> None:
    gate.open.set()
    (tmp_path / "plots/deep").mkdir(parents=True)
    (tmp_path / "plots/a.txt").write_text("a")
    (tmp_path / "plots/deep/b.txt").write_text("b")
    shipway.save("plots", tmp_path / "plots")

    names = [artifact.name for artifact in session.record().artifacts]
    assert names == ["plots", "plots/a.txt", "plots/deep/b.txt"]
    assert (shipway.load("plots") / "deep/b.txt").read_text() == "b"


def test_a_folder_is_loaded_whole_though_its_list_arrives_first(
    session: Session, gate: Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.bin").write_bytes(b"1")
    gate.open.set()
    put, late = FolderStore.put, threading.Event()

    def put_files_late(store: FolderStore, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        assert key.endswith(".folder.json") or late.wait(60)
        return put(store, key, data)

    monkeypatch.setattr(FolderStore, "put", put_files_late)
    shipway.save("weights", tmp_path / "weights")
    while "weights" not in session.artifacts():
        time.sleep(0.01)
    threading.Timer(0.2, late.set).start()

    assert (shipway.load("weights") / "a.bin").read_bytes() == b"1"


def test_a_child_process_takes_part_and_its_data_has_arrived_when_save_returns(
    session: Session, gate: Gate, tmp_path: Path
) -> None:
    gate.open.set()
    code = "import shipway; shipway.save('from-child', 1); import os; os._exit(0)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], timeout=120)

    assert [artifact.name for artifact in session.record().artifacts] == ["from-child"]
    assert shipway.load("from-child") == 1


def _save_in_a_fork() -> None:
    shipway.save("from-fork", os.getpid())


def test_a_forked_child_uses_none_of_its_parents_threads(session: Session, gate: Gate) -> None:
    gate.open.set()
    shipway.save("from-parent", 1)
    session.record()  # there are threads now
    child = multiprocessing.get_context("fork").Process(target=_save_in_a_fork)
    child.start()
    child.join(SECONDS)

    assert child.exitcode == 0
    assert {artifact.name for artifact in session.record().artifacts} == {"from-fork", "from-parent"}


def test_an_attempt_that_commits_second_gets_the_first_ones_record(session: Session, gate: Gate) -> None:
    gate.open.set()
    shipway.save("number", 1)
    first = session.commit(session.record())
    second = Session.begin(replace(session.order, attempt=2), session.scratch, gate)
    second.save("number", 2)

    assert second.commit(second.record()) == first
    assert find_record(gate, session.order.folder) == first
    second.close()


def test_a_reader_sees_what_is_committed_after_it_looked_in_vain(
    tmp_path: Path, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recent, "FRESH_SECONDS", 600.0)
    with pytest.raises(NotFoundError):
        shipway.load("number", flow=ORDER.flow, store=gate)

    other = multiprocessing.get_context("spawn").Process(target=commit_elsewhere, args=(tmp_path,))
    other.start()
    other.join()

    assert shipway.load("number", flow=ORDER.flow, store=gate) == 7


def commit_elsewhere(folder: Path) -> None:
    """Save and commit as another process."""
    store = FolderStore(folder / "store")
    session = Session.begin(replace(ORDER, store=str(folder / "store")), folder, store)
    session.save("number", 7)
    session.commit(session.record())
    session.close()


def test_outside_a_run_there_is_nothing_to_save_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(sessions, "_current", None)
    monkeypatch.delitem(sys.modules, "prefect", raising=False)

    with pytest.raises(InputError, match="inside a run"):
        shipway.save("x", 1)


def test_a_journal_is_read_on_from_where_it_was_read(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    journal, other = Journal(path), Journal(path)
    assert journal.lines() == []
    journal.add({"a": "ä"})
    assert other.lines() == [{"a": "ä"}]
    other.add({"b": 2})
    with path.open("a") as file:
        file.write('{"half')
    assert journal.lines() == [{"a": "ä"}, {"b": 2}]
    with path.open("a") as file:
        file.write('": 3}\n')
    assert journal.lines() == [{"a": "ä"}, {"b": 2}, {"half": 3}]
