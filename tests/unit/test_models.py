"""Models: versions that runs make, and a champion that a passed gate moves."""

from __future__ import annotations

import math
import pickle
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.unit.models import NAME, Training, champion_of, decision, flow, moves, predict, run_id, statuses

import shipway
from shipway.errors import InputError, IntegrityError, NotFoundError
from shipway.model import promotion, registry
from shipway.model.commit import commit
from shipway.model.promotion import promote, promote_decided, roll_back
from shipway.model.registry import model_names, read_champion, read_line
from shipway.run import models as documents
from shipway.run.record import find_record, read_record
from shipway.run.verify import verify
from shipway.store.folder import FolderStore


@pytest.fixture
def training(folder_store: FolderStore, tmp_path: Path) -> Training:
    return Training(folder_store, tmp_path)


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
