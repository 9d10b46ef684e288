"""Models that runs make which are repeated, killed, or not alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models import NAME, Training, champion_of, flow, moves, statuses

import shipway
from shipway.errors import NotFoundError, StoreError
from shipway.model import registry
from shipway.model.commit import commit
from shipway.model.promotion import promote, promote_decided
from shipway.model.registry import read_champion, read_line
from shipway.run.record import find_record
from shipway.run.verify import verify
from shipway.store.base import Store
from shipway.store.folder import FolderStore


@pytest.fixture
def training(folder_store: FolderStore, tmp_path: Path) -> Training:
    return Training(folder_store, tmp_path)


# Runs that repeat others, and attempts.


def test_a_run_that_repeats_another_gets_what_that_one_got_and_registers_nothing(training: Training) -> None:
    original_first, original_third = training.train(1), None
    training.train(2, promote=False)
    original_third = training.train(3)
    for number, original in ((1, original_first), (3, original_third)):
        told: list[str] = []
        with training.run(number + 10, reproduces=training.order(number).folder) as session:
            flow(number)
            record = commit(session, told.append)
        assert record.champions == original.champions
        assert record.inputs == original.inputs
        assert record.models == ()
        assert "repeats another" in told[0]
    assert statuses(training.store) == {3: "champion", 2: "kept", 1: "was champion"}


class Killed(BaseException):
    """The process is gone."""


class Dying(FolderStore):
    """A store whose process is killed at its n-th write, before or after the write."""

    def __init__(self, root: Path, at: int, *, after: bool) -> None:
        super().__init__(root)
        self.left = at
        self.after = after

    def _write(self, write: Callable[..., str], *arguments: Any, **named: Any) -> str:
        self.left -= 1
        if self.left == 0 and not self.after:
            raise Killed
        done = write(*arguments, **named)
        if self.left == 0:
            raise Killed
        if self.left < 0:
            raise AssertionError("a killed process does not write")
        return done

    def put(self, key: str, data: bytes | Path | Iterator[bytes]) -> str:
        return self._write(super().put, key, data)

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        return self._write(super().create, key, data, sha256=sha256)

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        return self._write(super().replace, key, data, etag=etag)


WRITES = 4
"""Of the flow: its model, the version, the record, the champion."""


@pytest.mark.parametrize("champion", [False, True])
@pytest.mark.parametrize("next_is", ["the next attempt", "another run"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("step", range(1, WRITES + 1))
def test_killed_at_any_step_nothing_is_half_done_and_whoever_comes_next_finishes_it(
    training: Training, folder_store: FolderStore, tmp_path: Path, step: int, after: bool, next_is: str, champion: bool
) -> None:
    before: list[int] = []
    if champion:
        training.train(1)
        before = [1]
    dying = Dying(tmp_path / "store", step, after=after)
    # The first write is made by a thread, whose end the flow hears of as an upload that failed.
    with pytest.raises((Killed, StoreError)):
        training.train(2, store=dying)

    def seen() -> tuple[list[int], list[int]]:
        """Look as another process does, and see all or nothing."""
        reader = FolderStore(tmp_path / "store")
        record = find_record(reader, training.order(2).folder)
        try:
            line = read_line(reader, NAME)
        except NotFoundError:
            return [], []
        versions = [version.version for version in reversed(line.versions)]
        made = [entry["version"] for entry in record.models] if record else []
        assert versions == [*before, *made]
        for version in line.versions:
            assert version.model == {"number": 1 if version.version in before else 2}
        assert moves(reader) in ([*reversed(before)], [*made, *reversed(before)])
        assert all(version in versions for version in moves(reader))
        assert champion_of(reader) == (moves(reader)[0] if moves(reader) else None)
        assert verify(reader).findings == ()
        return versions, moves(reader)

    committed = (step, after) >= (3, True)
    versions, history = seen()
    assert (len(versions) - len(before) == 1) == committed
    assert (len(history) - len(before) == 1) == (committed and (step, after) == (4, True))
    if committed and not history[len(before) :]:
        assert statuses(folder_store)[versions[-1]] == "waiting"

    if next_is == "the next attempt":
        training.train(2, attempt=2)
    else:
        training.train(3, promote=False)
        if not committed:
            assert moves(folder_store) == before
            return
    versions, history = seen() if next_is == "the next attempt" else (list(statuses(folder_store)), moves(folder_store))
    assert len(history) == len(before) + 1
    assert statuses(folder_store)[history[0]] == "champion"
    assert shipway.champion(NAME, store=folder_store).model == {"number": 2}


def test_a_champion_that_cannot_be_moved_does_not_fail_a_run_that_has_committed(
    training: Training, folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: object) -> None:
        raise StoreError("the store is away")

    told: list[str] = []
    with training.run(1) as session:
        flow(1)
        with monkeypatch.context() as patch:
            patch.setattr("shipway.store.swap.change", refuse)
            commit(session, told.append)
    assert "could not be promoted yet: the store is away" in told[0]
    assert champion_of(folder_store) is None
    assert statuses(folder_store) == {1: "waiting"}
    training.train(2, promote=False)
    assert champion_of(folder_store) == 1


# Several at once.


@pytest.fixture(params=["folder", "s3"])
def shared(request: pytest.FixtureRequest) -> Store:
    store: Store = request.getfixturevalue(f"{request.param}_store")
    return store


def at_once(work: list[Callable[[], Any]]) -> list[Any]:
    barrier = threading.Barrier(len(work))

    def start(one: Callable[[], Any]) -> Any:
        barrier.wait(30)
        return one()

    with ThreadPoolExecutor(len(work)) as pool:
        return [job.result() for job in [pool.submit(start, one) for one in work]]


def test_versions_made_at_once_get_numbers_of_their_own(shared: Store) -> None:
    facts = {"name": NAME, "folder": "runs/x"}
    numbers = at_once([lambda: registry.number(shared, dict(facts))] * 6)
    assert sorted(numbers) == list(range(1, 7))


def test_of_two_decisions_against_one_champion_one_is_carried_out(shared: Store, tmp_path: Path) -> None:
    training = Training(shared, tmp_path)
    training.train(1)
    versions = []
    for number in (2, 3):
        with training.run(number) as session, pytest.MonkeyPatch.context() as patch:
            # Committed, and killed before the champion was moved; the second asked before anybody noticed.
            patch.setattr("shipway.model.commit._finish", lambda *_arguments: "")
            patch.setattr("shipway.model.use.settle", lambda *_arguments: None)
            flow(number)
            entry = commit(session).models[0]
        versions.append(registry.find_version(shared, NAME, entry["version"]))
    outcomes = at_once([lambda one=one: promote_decided(shared, one)[0] for one in versions])  # type: ignore[misc]

    assert sorted(outcomes) == ["held", "promoted"]
    champion = read_champion(shared, NAME)
    assert [move.version for move in champion.history] == [versions[outcomes.index("promoted")].version, 1]  # type: ignore[union-attr]
    assert [move.version for move in champion.held] == [versions[outcomes.index("held")].version]  # type: ignore[union-attr]


def test_people_who_promote_at_once_are_all_in_the_history(shared: Store, tmp_path: Path) -> None:
    training = Training(shared, tmp_path)
    for number in (1, 2, 3, 4):
        training.train(number, promote=False)
    at_once([lambda n=n: promote(shared, NAME, n, by="me", reason=str(n)) for n in (2, 3, 4)])  # type: ignore[misc]
    assert sorted(moves(shared)) == [2, 3, 4]
