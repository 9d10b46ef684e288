"""A run that repeats another one gets what that one got, whatever has been saved since; and which runs cannot be."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

import shipway
from shipway.cli.reproduce import _start
from shipway.errors import InputError, NotFoundError
from shipway.prefect.api import Api
from shipway.run.order import Order
from shipway.run.record import RunRecord, run_folder
from shipway.run.session import Session, activate
from shipway.settings import Settings
from shipway.store.folder import FolderStore

ORDER = Order(
    run_id="",
    run_name="",
    flow="train",
    deployment=None,
    attempt=1,
    release=None,
    parameters={},
    scheduled="2026-01-02T03:04:05+00:00",
    store="",
    opener="",
)


def folder_of(record: RunRecord) -> str:
    due = datetime.fromisoformat(record.timings["scheduled"])
    return run_folder(record.flow, due, record.run_name, record.run_id)


class Runs:
    """Runs in a store, one after the other."""

    def __init__(self, store: FolderStore, folder: Path) -> None:
        self.store = store
        self.folder = folder
        self.count = 0
        self.last: RunRecord

    @contextmanager
    def __call__(self, flow: str, reproduces: RunRecord | None = None) -> Iterator[Session]:
        self.count += 1
        order = replace(
            ORDER,
            run_id=f"0197a000-0000-7000-8000-{self.count:012x}",
            run_name=f"run-{self.count}",
            flow=flow,
            reproduces=folder_of(reproduces) if reproduces else None,
        )
        session = Session.begin(order, self.folder, self.store)
        activate(session)
        try:
            yield session
            self.last = session.commit(session.record())
        finally:
            activate(None)
            session.close()


@pytest.fixture
def run(folder_store: FolderStore, tmp_path: Path) -> Runs:
    return Runs(folder_store, tmp_path)


def test_it_loads_what_was_loaded_then(run: Runs) -> None:
    with run("source"):
        shipway.save("numbers", [1])
    first = run.last
    with run("train"):
        assert shipway.load("numbers", flow="source") == [1]
        assert shipway.load("numbers", run="run-1", flow="source") == [1]
    original = run.last
    with run("source"):
        shipway.save("numbers", [2])
    newer = run.last

    with run("train"):
        assert shipway.load("numbers", flow="source") == [2]
    with run("train", original):
        assert shipway.load("numbers", flow="source") == [1]
        assert shipway.load("numbers", run="run-1", flow="source") == [1]
    assert run.last.inputs == original.inputs
    assert run.last.reproduces == folder_of(original)
    assert {item["run"] for item in run.last.inputs} == {first.run_id} != {newer.run_id}
    again = run.last
    with run("train", again):
        assert shipway.load("numbers", flow="source") == [1]


def test_what_was_not_there_then_is_not_there_now(run: Runs) -> None:
    with run("train"):
        with pytest.raises(NotFoundError):
            shipway.load("kept")
        shipway.save("kept", 1)
        assert shipway.load("kept") == 1  # its own
    original = run.last

    with run("train", original):
        with pytest.raises(NotFoundError, match="loaded no 'kept'"):
            shipway.load("kept")
        shipway.save("kept", 1)
        assert shipway.load("kept") == 1


def test_a_script_cannot_be_repeated(run: Runs) -> None:
    with run("train"):
        shipway.save("kept", 1)
    with pytest.raises(InputError, match="as a script"):
        _start(
            Api(Settings(project=run.folder, api_url="http://127.0.0.1:1/api")),
            run.store,
            folder_of(run.last),
            run.last,
        )
    assert (run.last.reads, run.last.reads_gap) == ((), None)


def test_the_last_that_was_noted_of_reads_counts(run: Runs) -> None:
    reads = [{"path": "a.csv", "sha256": "a" * 64}]
    with run("train") as session:
        session.note_reads([], "too many")
        session.note_reads(reads, None)
    assert (run.last.reads, run.last.reads_gap) == (tuple(reads), None)
