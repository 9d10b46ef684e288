"""Models: versions that runs make, a champion that a passed gate moves, and what people do with both."""

from __future__ import annotations

import json
import math
import os
import pickle
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.unit.models import NAME, Training, champion_of, decision, flow, predict, run_id

import shipway
from shipway.errors import ConflictError, InputError, IntegrityError, NotFoundError, ShipwayError, StoreError
from shipway.model import promotion, registry
from shipway.model.commit import commit
from shipway.model.promotion import promote, promote_decided, roll_back
from shipway.model.registry import model_names, read_champion, read_line
from shipway.run import models as documents
from shipway.run.record import find_record, read_record
from shipway.run.upkeep import Collection, collect
from shipway.run.verify import verify
from shipway.store.base import Store
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore


@pytest.fixture
def training(folder_store: FolderStore, tmp_path: Path) -> Training:
    return Training(folder_store, tmp_path)


def statuses(store: Store) -> dict[int, str]:
    line = read_line(store, NAME)
    return {version.version: line.status(version) for version in line.versions}


def moves(store: Store) -> list[int]:
    return [move.version for move in read_champion(store, NAME).history]


# Versions and champions.


def test_a_year_of_training(training: Training, folder_store: FolderStore) -> None:
    first = training.train(1)
    training.train(2, promote=False)
    third = training.train(3)

    assert statuses(folder_store) == {3: "champion", 2: "kept", 1: "was champion"}
    assert moves(folder_store) == [3, 1]
    assert first.champions == {NAME: None}
    assert third.champions == {NAME: 1}
    champion = shipway.champion(NAME, store=folder_store)
    assert (champion.version, champion.run, champion.run_name) == (3, run_id(3), "run-3")
    assert champion.model == {"number": 3}
    assert champion.load("model") == {"number": 3}
    assert champion.metrics == {"number": 3}
    assert champion.decision == decision(True)
    assert champion.checked == {"rows": 1, "tolerance": 0.0}
    move = read_champion(folder_store, NAME).history[0]
    assert (move.by, move.reason) == (run_id(3), "It is better.")
    [entry] = third.models
    assert (entry["name"], entry["version"], entry["against"]) == (NAME, 3, 1)
    [model] = [artifact for artifact in third.artifacts if artifact.name == "model"]
    assert (entry["key"], entry["sha256"]) == (model.key, model.sha256)
    assert [(item["kind"], item["asked"], item["run"]) for item in third.inputs] == [("model", NAME, run_id(1))]
    assert read_record(folder_store, f"{training.order(3).folder}/run.json") == third


def test_a_champion_loads_anywhere_by_an_address(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    assert shipway.champion(NAME, store=folder_store.address).model == {"number": 1}


def test_a_version_travels_without_the_keys_of_its_store(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    here = shipway.champion(NAME, store=folder_store)
    assert here.model == {"number": 1}
    data = pickle.dumps(here)
    assert data == pickle.dumps(shipway.champion(NAME, store=folder_store))
    there = pickle.loads(data)  # noqa: S301 - our own
    assert there == here
    assert (there.store, here.store) == (None, folder_store)
    with pytest.raises(InputError, match="another process"):
        there.load("model")
    with training.run(2):
        assert there.model == {"number": 1}


def test_a_model_that_nobody_made(folder_store: FolderStore) -> None:
    assert shipway.champion(NAME, store=folder_store, default=None) is None
    with pytest.raises(NotFoundError, match="no champion"):
        shipway.champion(NAME, store=folder_store)
    with pytest.raises(InputError, match="store="):
        shipway.champion(NAME)
    with pytest.raises(InputError, match="cannot name"):
        shipway.champion("../x", store=folder_store)
    with pytest.raises(NotFoundError, match="no model"):
        read_line(folder_store, NAME)
    assert model_names(folder_store) == []


def test_names_may_be_anything_that_an_artifact_may_be_called(training: Training, folder_store: FolderStore) -> None:
    with training.run(1) as session:
        shipway.save("model", {"number": 1})
        for name in ("flüge/verspätung", "champion"):
            shipway.register(name, decision=decision(True), predict=predict, expected=[1])
        commit(session)
    assert model_names(folder_store) == ["champion", "flüge/verspätung"]
    assert shipway.champion("flüge/verspätung", store=folder_store).version == 1
    assert verify(folder_store).findings == ()


def test_a_run_sees_one_champion_from_its_first_question_to_its_end(training: Training) -> None:
    training.train(1)
    with training.run(2) as session:
        assert shipway.champion(NAME).version == 1
        promote(training.store, NAME, 1, by="me", reason="")
        training_elsewhere(training, 3)
        assert read_champion(training.store, NAME).current == 2
        assert shipway.champion(NAME).version == 1
        assert shipway.champion(NAME, store=training.store.address).version == 1
        session.journal.add({"champion": {"name": NAME, "version": 2}})  # the answer of a slower task
        assert shipway.champion(NAME).version == 1


def training_elsewhere(training: Training, number: int) -> None:
    """Train in the middle of another run."""
    from shipway.run.session import activate, current

    here = current()
    training.train(number)
    activate(here)


def test_a_champion_is_waited_for_and_its_other_data_is_an_input(training: Training) -> None:
    with training.run(1) as session:
        shipway.save("card", {"trained": "in March"})
        flow(1)
        commit(session)
    waited: list[str] = []
    module = __name__
    globals()["_turn"] = waited.append
    with training.run(2, after="another", turn=f"{module}:_turn") as session:
        champion = shipway.champion(NAME)
        assert champion.load("card") == {"trained": "in March"}
        with pytest.raises(NotFoundError, match="saved no 'cards'"):
            champion.load("cards")
        shipway.champion(NAME)
        record = commit(session)
    assert waited == ["another"]
    assert sorted((item["name"], item["kind"], item["asked"]) for item in record.inputs) == [
        ("card", "model", NAME),
        ("model", "model", NAME),
    ]


# Which promotions count.


def test_a_champion_that_came_after_the_decision_is_not_replaced(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    with training.run(2) as slow:
        flow(2)
        training_elsewhere(training, 3)
        told: list[str] = []
        record = commit(slow, told.append)

    # The slow run was numbered when it committed, after the one that overtook it.
    assert statuses(folder_store) == {3: "held", 2: "champion", 1: "was champion"}
    line = read_line(folder_store, NAME)
    assert line.reasons(line.versions[0])[-1] == "It was compared with version 1, and version 2 is champion by now."
    assert "not promoted. It was compared with version 1" in told[0]
    held = line.champion.held
    assert [move.version for move in held] == [3]

    # Once held it stays so, whatever is champion later.
    roll_back(folder_store, NAME, 1, by="me", reason="")
    training.train(4, promote=False)
    assert promote_decided(folder_store, line.versions[0])[0] == "held"
    assert champion_of(folder_store) == 1
    assert read_champion(folder_store, NAME).held == held
    assert record.models[0]["version"] == 3


def test_a_decision_made_without_asking_for_the_champion_does_not_replace_it(training: Training) -> None:
    training.train(1)
    training.train(2, ask=False)
    assert statuses(training.store) == {2: "held", 1: "champion"}
    line = read_line(training.store, NAME)
    assert "compared with no champion, and version 1 is champion" in line.reasons(line.versions[0])[-1]


def test_promoting_twice_moves_once(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    before = folder_store.read(documents.champion_key(NAME))
    version = registry.find_version(folder_store, NAME, 1)
    assert version is not None
    assert promote_decided(folder_store, version) == ("already", "It is better.")
    promotion.settle(folder_store, NAME)
    assert folder_store.read(documents.champion_key(NAME)) == before


def test_a_version_without_a_check_or_a_gate_is_registered_only(training: Training, folder_store: FolderStore) -> None:
    told: list[str] = []
    with training.run(1) as session:
        shipway.save("model", {"number": 1})
        version = shipway.register(NAME, decision=decision(True), facts={"months": ["2013-01"]})
        assert (version.version, version.promote, version.checked) == (0, False, None)
        assert version.model == {"number": 1}
        shipway.register("other", decision=None, predict=predict, expected=[1])
        commit(session, told.append)

    assert champion_of(folder_store) is None
    assert statuses(folder_store) == {1: "kept"}
    line = read_line(folder_store, NAME)
    assert line.versions[0].facts == {"months": ["2013-01"]}
    assert "predict= was not given" in line.reasons(line.versions[0])[-1]
    assert "no predict= was given" in told[0]
    other = read_line(folder_store, "other")
    assert other.reasons(other.versions[0])[0] == "No gate was asked."


def test_of_two_registrations_in_one_run_the_later_counts(training: Training, folder_store: FolderStore) -> None:
    with training.run(1) as session:
        flow(1)
        flow(1, facts={"second": True})
        commit(session)
    line = read_line(folder_store, NAME)
    assert [(version.version, version.facts) for version in line.versions] == [(1, {"second": True})]


# The model that was loaded again.


@pytest.mark.parametrize(
    ("predicted", "expected", "tolerance"),
    [
        ([1.0, math.nan], [1.0, math.nan], 0.0),
        ([1, 2], [1.0, 2.0], 0.0),
        (pl.Series([0.1, 0.2]), [0.1, 0.2], 0.0),
        (pl.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]}), [[1.0, 3.0], [2.0, 4.0]], 0.0),
        (["late", "early"], ("late", "early"), 0.0),
        (7.5, 7.5, 0.0),
        ([1.0], [1.0 + 1e-9], 1e-6),
    ],
)
def test_what_predicts_the_same(training: Training, predicted: Any, expected: Any, tolerance: float) -> None:
    with training.run(1):
        shipway.save("model", {"number": 1})
        version = shipway.register(
            NAME, decision=decision(True), predict=lambda _model: predicted, expected=expected, tolerance=tolerance
        )
    assert version.promote


@pytest.mark.parametrize(
    ("predicted", "expected", "tolerance", "word"),
    [
        ([1.0, 2.0, 3.0], [1.0, 2.0 + 2**-51, 3.5], 0.0, r"2 of 3 values otherwise; the first is value 1"),
        ([0.0], [-0.0], 0.0, "1 of 1"),
        ([1.0], [math.nan], 9.0, "1 of 1"),
        ([1.0, 2.0], [1.0], 0.0, "2 values instead of 1"),
        ([1.0], [1.1], 0.05, "1 of 1"),
        (["late"], ["early"], 0.0, "1 of 1"),
        (pl.DataFrame({"a": [1.0]}), [2.0], 0.0, "1 of 1"),
    ],
)
def test_what_predicts_otherwise_fails_the_run(
    training: Training, predicted: Any, expected: Any, tolerance: float, word: str
) -> None:
    with training.run(1) as session:
        shipway.save("model", {"number": 1})
        with pytest.raises(IntegrityError, match=word):
            shipway.register(
                NAME, decision=decision(True), predict=lambda _model: predicted, expected=expected, tolerance=tolerance
            )
        assert not any("model" in line for line in session.journal.lines())


def test_the_model_is_loaded_from_the_store(training: Training, folder_store: FolderStore) -> None:
    with training.run(1) as session:
        shipway.save("model", {"number": 1})
        own = session.own("model")
        assert own is not None
        folder_store.put(own.key, b'{"number": 2}\n')
        with pytest.raises(IntegrityError, match="damaged"):
            shipway.register(NAME, decision=decision(True), predict=predict, expected=[1])


def test_bad_input_of_register(training: Training) -> None:
    good = decision(True)
    with pytest.raises(InputError, match="inside a run"):
        shipway.register(NAME, decision=good)
    with training.run(1) as session:
        with pytest.raises(NotFoundError, match="saved no 'model'"):
            shipway.register(NAME, decision=good)
        shipway.save("model", {"number": 1})
        odd: list[tuple[dict[str, Any], str]] = [
            ({"decision": True}, "decision is a bool"),
            ({"decision": good, "predict": predict}, "go together"),
            ({"decision": good, "expected": [1]}, "go together"),
            ({"decision": good, "facts": {"x": math.nan}}, "not plain"),
            ({"decision": good, "facts": {"x": object()}}, "not plain"),
            ({"decision": good, "predict": predict, "expected": []}, "nothing is expected"),
            ({"decision": good, "predict": predict, "expected": {"a": 1}}, "compared as a dict"),
        ]
        for options, word in odd:
            with pytest.raises(InputError, match=word):
                shipway.register(NAME, **options)
        with pytest.raises(InputError, match="cannot name"):
            shipway.register("", decision=good)
        assert commit(session).models == ()


def test_a_model_saved_again_after_it_was_registered_fails_the_run(training: Training) -> None:
    with training.run(1) as session:
        flow(1)
        shipway.save("model", {"number": 2})
        with pytest.raises(InputError, match="saved again"):
            commit(session)
    assert find_record(training.store, training.order(1).folder) is None


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


# What people do.


def test_a_person_promotes_and_goes_back(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    training.train(2, promote=False)
    assert promote(folder_store, NAME, 2, by="ann", reason="checked by hand") == 1
    assert promote(folder_store, NAME, 2, by="ann", reason="again") == 2
    assert roll_back(folder_store, NAME, None, by="bob", reason="it was worse") == (1, 2)
    assert roll_back(folder_store, NAME, 1, by="bob", reason="twice") == (1, 1)
    history = read_champion(folder_store, NAME).history
    assert [(move.version, move.by, move.reason) for move in history] == [
        (1, "bob", "it was worse"),
        (2, "ann", "checked by hand"),
        (1, run_id(1), "It is better."),
    ]
    assert roll_back(folder_store, NAME, None, by="bob", reason="back") == (2, 1)
    assert verify(folder_store).findings == ()


def test_what_a_person_may_not_do(training: Training, folder_store: FolderStore) -> None:
    with pytest.raises(NotFoundError, match="no champion"):
        roll_back(folder_store, NAME, None, by="", reason="")
    training.train(1)
    with training.run(2) as session:
        shipway.save("model", {"number": 2})
        shipway.register(NAME, decision=decision(True))
        commit(session)
    with pytest.raises(NotFoundError, match="no version 3"):
        promote(folder_store, NAME, 3, by="", reason="")
    with pytest.raises(InputError, match="never loaded again"):
        promote(folder_store, NAME, 2, by="", reason="")
    with pytest.raises(NotFoundError, match="first champion"):
        roll_back(folder_store, NAME, None, by="", reason="")
    with pytest.raises(NotFoundError, match="never champion"):
        roll_back(folder_store, NAME, 2, by="", reason="")
    assert moves(folder_store) == [1]
    assert promote(folder_store, NAME, 2, by="", reason="", force=True) == 1


def test_damaged_bytes_are_not_promoted(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    training.train(2)
    key = read_line(folder_store, NAME).versions[1].artifact.key
    folder_store.put(key, b"odd")
    for harm in ("damaged", "gone"):
        if harm == "gone":
            folder_store.delete(key)
        with pytest.raises(IntegrityError, match="damaged or gone"):
            promote(folder_store, NAME, 1, by="", reason="")
        with pytest.raises(IntegrityError, match="damaged or gone"):
            roll_back(folder_store, NAME, None, by="", reason="")
    assert moves(folder_store) == [2, 1]


def test_a_folder_is_checked_file_by_file(training: Training, folder_store: FolderStore, tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights/a.bin").write_bytes(b"1")
    with training.run(1) as session:
        shipway.save("model", tmp_path / "weights")
        shipway.register(NAME, decision=None, predict=lambda path: (path / "a.bin").read_text(), expected="1")
        commit(session)
    promote(folder_store, NAME, 1, by="", reason="")
    version = shipway.champion(NAME, store=folder_store)
    assert (version.model / "a.bin").read_bytes() == b"1"
    folder_store.put(version.artifacts["model/a.bin"].key, b"2")
    with pytest.raises(IntegrityError, match="damaged"):
        promotion.check_bytes(folder_store, version)


def test_a_rollback_does_not_undo_what_it_has_not_seen(
    training: Training, folder_store: FolderStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.train(1)
    training.train(2)
    training.train(3, promote=False)
    look = promotion.check_bytes

    def slow(store: Store, version: Any) -> None:
        look(store, version)
        monkeypatch.setattr(promotion, "check_bytes", look)
        promote(store, NAME, 3, by="ann", reason="meanwhile")

    monkeypatch.setattr(promotion, "check_bytes", slow)
    with pytest.raises(ConflictError, match="version 3 became champion"):
        roll_back(folder_store, NAME, None, by="bob", reason="")
    assert moves(folder_store) == [3, 2, 1]


# What lies in the store.


@pytest.fixture
def damaged(training: Training) -> Training:
    training.train(1)
    training.train(2, promote=False)
    return training


@pytest.mark.parametrize("file", ["1.json", "2.json", "champion.json"])
def test_any_changed_byte_is_found_and_named(damaged: Training, file: str) -> None:
    key = f"models/{NAME}/{file}"
    data = damaged.store.read(key)
    for place in range(0, len(data), 29):
        changed = bytearray(data)
        changed[place] ^= 1
        damaged.store.put(key, bytes(changed))
        [finding] = [found for found in verify(damaged.store).findings if found.key == key]
        assert (finding.kind, finding.problem) == ("model", "damaged")
        assert NAME in finding.name
    damaged.store.put(key, data)
    assert verify(damaged.store).findings == ()


def test_readers_refuse_what_was_changed(damaged: Training) -> None:
    for file in ("1.json", "champion.json"):
        key = f"models/{NAME}/{file}"
        data = damaged.store.read(key)
        damaged.store.put(key, data.replace(b'"version": 1', b'"version": 2'))
        with pytest.raises(IntegrityError, match="damaged"):
            shipway.champion(NAME, store=damaged.store)
        with pytest.raises(IntegrityError, match="damaged"):
            read_line(damaged.store, NAME)
        damaged.store.put(key, data)


def test_a_version_that_disagrees_with_its_record_is_named(damaged: Training) -> None:
    key = documents.version_key(NAME, 2)
    document = documents.read_version(damaged.store, key)
    assert document is not None
    damaged.store.put(key, documents.version_bytes({**document, "facts": {"x": 1}}))
    [finding] = verify(damaged.store).findings
    assert (finding.name, finding.users) == (f"{NAME} 2", ("train/run-2",))
    assert finding.reason == "it and the record of train/run-2 differ"
    with pytest.raises(IntegrityError, match="differ in facts"):
        read_line(damaged.store, NAME)


@pytest.mark.parametrize("folder", ["runs/../../x", "runs/a/b", "code/a/b/c", ""])
def test_a_version_points_at_a_run_only(damaged: Training, folder: str) -> None:
    key = documents.version_key(NAME, 2)
    document = documents.read_version(damaged.store, key)
    assert document is not None
    damaged.store.put(key, documents.version_bytes({**document, "folder": folder}))
    [finding] = verify(damaged.store).findings
    assert "no run's folder" in str(finding.reason)


def test_what_is_missing_is_named(damaged: Training) -> None:
    damaged.store.delete(documents.version_key(NAME, 2))
    [finding] = verify(damaged.store).findings
    assert (finding.name, finding.problem) == (f"{NAME} 2", "missing")
    damaged.store.delete(f"{damaged.order(1).folder}/run.json")
    found = {finding.name: finding for finding in verify(damaged.store).findings}
    assert set(found) == {f"{NAME} 2", f"{NAME} 1"}
    assert "is or was champion" in str(found[f"{NAME} 1"].reason)
    with pytest.raises(IntegrityError, match="no longer in"):
        shipway.champion(NAME, store=damaged.store)


def test_a_record_with_a_malformed_model_is_named(damaged: Training) -> None:
    key = f"{damaged.order(2).folder}/run.json"
    document = json.loads(damaged.store.read(key))
    document["models"][0]["version"] = "x"
    damaged.store.put(key, json.dumps(document).encode())
    [finding] = verify(damaged.store).findings
    assert (finding.kind, finding.key) == ("run", key)
    assert "malformed model" in str(finding.reason)


def test_verify_counts_versions_and_ignores_what_did_not_commit(damaged: Training) -> None:
    registry.number(damaged.store, {"name": NAME, "folder": "runs/train/2026-01-02/gone-00000009"})
    report = verify(damaged.store)
    # A document that lacks what it should say is damaged all the same.
    assert [finding.name for finding in report.findings] == [f"{NAME} 3"]
    damaged.store.delete(documents.version_key(NAME, 3))
    document = documents.read_version(damaged.store, documents.version_key(NAME, 2))
    assert document is not None
    registry.number(damaged.store, {**document, "attempt": 7})
    assert verify(damaged.store).models == 2
    assert verify(damaged.store).findings == ()
    assert statuses(damaged.store) == {2: "kept", 1: "champion"}
    registry.number(damaged.store, {**document, "name": "nobody's"})
    assert [line.name for line in registry.read_lines(damaged.store)] == [NAME]
    assert damaged.train(4).models[0]["version"] == 4


def test_a_collection_keeps_models(damaged: Training, tmp_path: Path) -> None:
    old = time.time() - 400 * 86_400
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            os.utime(path, (old, old))
    keys = {info.key for info in damaged.store.list() if not info.key.startswith(".")}
    collect(Collection(damaged.store, keep_last=1, keep_days=0, epochs=0), grace=0)
    assert {info.key for info in damaged.store.list()} == keys
    assert verify(damaged.store).findings == ()


def test_a_damaged_champion_is_mended_by_promoting_one(damaged: Training) -> None:
    key = documents.champion_key(NAME)
    damaged.store.put(key, b"odd")
    with pytest.raises(IntegrityError, match="seal"):
        promote(damaged.store, NAME, 2, by="ann", reason="")
    damaged.store.delete(key)
    assert promote(damaged.store, NAME, 2, by="ann", reason="mended") is None
    assert damaged.train(3).models[0]["against"] == 2
    assert moves(damaged.store) == [3, 2]
    assert verify(damaged.store).findings == ()


def test_a_damaged_neighbour_stops_no_run(damaged: Training) -> None:
    damaged.store.put(documents.version_key(NAME, 2), b"{}")
    assert damaged.train(3).models[0]["version"] == 3
    assert champion_of(damaged.store) == 3


def test_every_error_is_of_the_tree(folder_store: FolderStore) -> None:
    folder_store.put(f"models/{NAME}/champion.json", b"\xff" * 10)
    with pytest.raises(ShipwayError, match="does not match its seal"):
        shipway.champion(NAME, store=folder_store)


def test_an_s3_store_by_its_object(s3_store: ObjectStore, tmp_path: Path) -> None:
    Training(s3_store, tmp_path).train(1)
    assert shipway.champion(NAME, store=s3_store).model == {"number": 1}
