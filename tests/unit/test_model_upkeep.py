"""Models: what people do with versions and champions, and what lies in the store."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.models import NAME, Training, champion_of, decision, moves, run_id, statuses

import shipway
from shipway.digest import unsealed
from shipway.errors import ConflictError, InputError, IntegrityError, NotFoundError, ShipwayError
from shipway.model import promotion, registry
from shipway.model.commit import commit
from shipway.model.promotion import promote, roll_back
from shipway.model.registry import read_champion, read_line
from shipway.run import models as documents
from shipway.run.upkeep import Collection, collect
from shipway.run.verify import verify
from shipway.store.base import Store
from shipway.store.folder import FolderStore
from shipway.store.object_store import ObjectStore


@pytest.fixture
def training(folder_store: FolderStore, tmp_path: Path) -> Training:
    return Training(folder_store, tmp_path)


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


class Deadly:
    """What ends the process that loads it, as a forged model can."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[int]]:
        return os._exit, (7,)


def test_what_ends_whoever_loads_it_does_not_end_who_promotes_it(training: Training, folder_store: FolderStore) -> None:
    training.train(1)
    with training.run(2) as session:
        shipway.save("model", Deadly(), codec="pickle")
        shipway.register(NAME, decision=decision(True))
        commit(session)
    assert promote(folder_store, NAME, 2, by="ann", reason="", force=True) == 1
    assert roll_back(folder_store, NAME, None, by="ann", reason="") == (1, 2)
    assert roll_back(folder_store, NAME, 2, by="ann", reason="") == (2, 1)
    assert verify(folder_store).findings == ()
    assert statuses(folder_store) == {2: "champion", 1: "was champion"}
    child = os.fork()
    if child == 0:
        _ = shipway.champion(NAME, store=folder_store).model
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


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
    document = unsealed(damaged.store.read(key))
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
