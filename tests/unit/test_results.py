"""What tasks return is kept and comes back equal, or is not kept; nothing that lies in the store is trusted."""

from __future__ import annotations

import json
import math
import os
import pickle
import time as clock
from collections.abc import Callable
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4
from zoneinfo import ZoneInfo

import lightgbm
import numpy
import pandas
import polars
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shipway.digest import seal_text, sha256_bytes, unseal_text
from shipway.errors import CodecError, IntegrityError, ObjectNotFoundError, ShipwayError
from shipway.run.effects import Effects, begin, effects, files_since
from shipway.run.order import Order
from shipway.run.results import Results, Returned, object_key
from shipway.run.session import Session
from shipway.run.upkeep import Collection, collect
from shipway.run.values import put_together, take_apart
from shipway.run.verify import verify
from shipway.run.verify_results import check_results
from shipway.store.base import Store
from shipway.store.folder import FolderStore

MIB = 1 << 20


def order(**more: Any) -> Order:
    facts: dict[str, Any] = {
        "run_id": str(uuid4()),
        "run_name": "brave-otter",
        "flow": "main",
        "deployment": "main/daily",
        "attempt": 1,
        "release": None,
        "parameters": {},
        "scheduled": "2013-02-01T00:00:00+00:00",
        "store": "s3/x",
        "opener": "",
    }
    return Order(**(facts | more))


@pytest.fixture
def session(tmp_path: Path, folder_store: FolderStore) -> Session:
    return Session.begin(order(), tmp_path, folder_store)


def there_and_back(value: Any, folder: Path) -> Any:
    def new_file() -> Path:
        return folder / uuid4().hex

    tree, parts = take_apart(value, new_file)
    # As it stands in the store.
    text = json.dumps(tree)
    return put_together(json.loads(text), [(part.codec.name, part.write()) for part in parts])


PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
    | st.dates()
    | st.times()
    | st.datetimes(timezones=st.none() | st.just(UTC) | st.just(ZoneInfo("America/New_York")))
    | st.timedeltas()
    | st.decimals(allow_nan=False)
    | st.uuids()
    | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner)
        | st.lists(inner).map(tuple)
        | st.dictionaries(st.text(), inner)
        | st.dictionaries(st.integers() | st.dates(), inner)
        | st.sets(st.integers() | st.text())
        | st.frozensets(st.integers())
    ),
    max_leaves=20,
)


def same(one: Any, other: Any) -> bool:
    """Compare types as well, all the way down: `1 == 1.0 == True`."""
    if type(one) is not type(other):
        return False
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, datetime):
        return bool(one == other) and one.tzinfo == other.tzinfo and bool(one.fold == other.fold)
    return bool(one == other)


@given(value=PLAIN)
def test_plain_values_come_back_equal_and_of_the_same_types(
    value: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    assert same(there_and_back(value, Path(os.devnull)), value)


def test_tables_arrays_and_models_come_back_equal(tmp_path: Path) -> None:
    frame = polars.DataFrame(
        {
            "n": [1, None],
            "when": [date(2013, 1, 1)] * 2,
            "kind": polars.Series(["a", "b"], dtype=polars.Categorical),
            "list": [[1], [2, 3]],
        }
    )
    table = pandas.DataFrame({"a": [1.5, 2], "b": ["x", "y"]}, index=pandas.Index([3, 4], name="i"))
    array = numpy.arange(6, dtype="float32").reshape(2, 3)
    rows = numpy.tile(array, (50, 1))
    model = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, rows[:, 0].copy()), 3)
    value = ({"frame": frame, "table": table}, array, [model, frame["n"]], numpy.float64(0.1), math.nan)
    back = there_and_back(value, tmp_path)
    assert type(back) is tuple
    assert back[0]["frame"].equals(frame, null_equal=True)
    assert back[0]["frame"].schema == frame.schema
    pandas.testing.assert_frame_equal(back[0]["table"], table)
    assert back[1].dtype == array.dtype
    assert (back[1] == array).all()
    assert (back[2][0].predict(rows) == model.predict(rows)).all()
    assert back[2][0].best_iteration == model.best_iteration
    assert back[2][1].equals(frame["n"])
    assert (type(back[3]), back[3]) == (numpy.float64, 0.1)
    assert math.isnan(back[4])


def test_a_value_is_protected_from_what_is_done_to_it_afterwards(tmp_path: Path) -> None:
    frame, array, plain = polars.DataFrame({"a": [1]}), numpy.array([1]), [1]
    tree, parts = take_apart((frame, array, plain), lambda: tmp_path / uuid4().hex)
    frame.insert_column(0, polars.Series("b", [2]))
    array[0] = 2
    plain.append(2)
    back = put_together(tree, [(part.codec.name, part.write()) for part in parts])
    assert back[0].columns == ["a"]
    assert (back[1].tolist(), back[2]) == ([1], [1])


class Own:
    """A class of the user's."""


def circle() -> list[Any]:
    value: list[Any] = []
    value.append(value)
    return value


def indexed() -> pandas.DataFrame:
    table = pandas.DataFrame({"a": [1]})
    table.attrs["unit"] = {"of": ("a", "tuple")}
    return table


NOT_KEPT: dict[str, Callable[[], Any]] = {
    "a class of one's own": Own,
    "one within": lambda: {"a": [Own()]},
    "a path": lambda: Path("x"),
    "a lazy frame": lambda: polars.LazyFrame({"a": [1]}),
    "an array of objects": lambda: numpy.array([Own()]),
    "a subclass": lambda: type("Text", (str,), {})("x"),
    "a circle": circle,
    "a function": lambda: lambda: 1,
    "an own time zone": lambda: datetime(2013, 1, 1, tzinfo=timezone(timedelta(hours=1), "mine")),
    "a time of a zone": lambda: time(1, tzinfo=UTC),
    "what Parquet loses": indexed,
}


@pytest.mark.parametrize("what", NOT_KEPT)
def test_what_would_not_come_back_equal_is_refused(what: str, tmp_path: Path) -> None:
    with pytest.raises(CodecError):
        there_and_back(NOT_KEPT[what](), tmp_path)


def keep(results: Results, session: Session, key: str, value: Any, done: Effects | None = None) -> None:
    tree, parts = take_apart(value, lambda: session.scratch / uuid4().hex)
    results.keep(key, Returned(tree, parts, lambda: done or Effects(), "work"), needed=True)


@pytest.mark.parametrize("background", [True, False])
def test_it_is_kept_and_found(folder_store: FolderStore, session: Session, background: bool) -> None:
    results = Results(lambda: folder_store, max_bytes=MIB, background=background)
    keep(results, session, "key/0", (polars.DataFrame({"a": [1]}), 2))
    # No wait for the moment at which it would be sent.
    found = results.find("key/0", session)
    assert found.value[0].equals(polars.DataFrame({"a": [1]}))
    assert found.value[1] == 2
    results.join(completes=False)
    results.close()
    with pytest.raises(ObjectNotFoundError):
        results.find("key/1", session)
    # Nothing stays on the disk.
    assert [path.name for path in session.scratch.iterdir()] == ["order.json"]


def test_a_run_that_completes_at_once_sends_nothing(folder_store: FolderStore, session: Session) -> None:
    results = Results(lambda: folder_store, max_bytes=MIB, background=True)
    for needed in (False, True):
        tree, parts = take_apart(polars.DataFrame({"a": [1]}), lambda: session.scratch / uuid4().hex)
        results.keep(f"needed {needed}", Returned(tree, parts, Effects, "work"), needed=needed)
    results.join(completes=True)
    results.close()
    assert {info.key for info in folder_store.list("results/") if info.key.endswith(".json")} == {
        object_key("needed True")
    }


class Broken:
    """A store that fails."""

    def __getattr__(self, name: str) -> Any:
        raise OSError("the disk is on fire")


def test_a_result_that_cannot_be_kept_is_said_and_is_no_error(folder_store: FolderStore, session: Session) -> None:
    said: list[str] = []
    broken: Any = Broken()
    for store, size in ((broken, MIB), (folder_store, 100)):
        opened: Store = store
        results = Results(
            lambda opened=opened: opened,  # type: ignore[misc]
            max_bytes=size,
            tell=lambda task, reason: said.append(reason),
            background=True,
        )
        keep(results, session, "key", "x" * 1000)
        results.join(completes=False)
        results.close()
    assert "on fire" in said[0]
    assert "over the limit of 100" in said[1]
    assert not list(folder_store.list("results/"))


SPRUNG: list[str] = []


def spring(what: str) -> None:
    SPRUNG.append(what)


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return spring, ("trapped",)


def document(folder_store: FolderStore, session: Session) -> dict[str, Any]:
    results = Results(lambda: folder_store, max_bytes=MIB)
    keep(results, session, "key", polars.DataFrame({"a": [1]}))
    return unseal_text(folder_store.read(object_key("key")))


def put_pickle(document: dict[str, Any], store: FolderStore) -> None:
    data = pickle.dumps(Trap())
    sha256 = sha256_bytes(data)
    document["parts"] = [{"codec": "pickle", "sha256": sha256, "bytes": len(data), "suffix": ".pkl"}]
    store.put(object_key("key").removesuffix(".json") + f"/{sha256}.pkl", data)


def put_effect(document: dict[str, Any], store: FolderStore) -> None:
    put_pickle(document, store)
    part = document["parts"][0]
    key = object_key("key").removesuffix(".json") + f"/{part['sha256']}.pkl"
    artifact = {"name": "model", "key": key, "sha256": part["sha256"], "bytes": part["bytes"], "codec": "pickle"}
    document["value"], document["parts"] = 1, []
    document["effects"]["artifacts"] = [artifact]


TAMPERED: dict[str, Callable[[dict[str, Any], FolderStore], None]] = {
    "a pickle": put_pickle,
    "a pickle that the task is said to have saved": put_effect,
    "a line that registers a model": lambda document, _store: document["effects"]["notes"].append({"model": "x"}),
    "a part elsewhere": lambda document, _store: document["parts"][0].update(suffix="/../../../x"),
    "a part of no digest": lambda document, _store: document["parts"][0].update(sha256="x"),
    "another part": lambda document, _store: document["parts"][0].update(bytes=1),
    "no value": lambda document, _store: document.update(value={"os.system": "x"}),
    "objects": lambda document, _store: document.update(value={"numpy": ["O", "AAAAAAAAAAA="]}),
    "a version": lambda document, _store: document.update(version=1),
}


@pytest.mark.parametrize("what", TAMPERED)
def test_what_somebody_put_into_the_store_is_not_trusted(
    what: str, folder_store: FolderStore, session: Session
) -> None:
    changed = document(folder_store, session)
    TAMPERED[what](changed, folder_store)
    folder_store.put(object_key("key"), seal_text((json.dumps(changed, indent=1) + "\n").encode()))
    with pytest.raises(ShipwayError):
        Results(lambda: folder_store, max_bytes=MIB).find("key", session)
    assert not SPRUNG
    pickle.loads(pickle.dumps(Trap()))  # noqa: S301 - the trap works
    assert SPRUNG.pop() == "trapped"


def test_a_result_of_which_any_byte_has_changed_is_not_used_and_is_found(
    folder_store: FolderStore, session: Session
) -> None:
    results = Results(lambda: folder_store, max_bytes=MIB)
    keep(results, session, "key", {"b": 1.5, "a": polars.DataFrame({"a": [1]})})
    assert list(results.find("key", session).value) == ["b", "a"]
    assert not list(check_results(folder_store))
    keys = [info.key for info in folder_store.list("results/")]
    assert len(keys) == 2
    for key in keys:
        data = folder_store.read(key)
        for at in range(0, len(data), 7):
            folder_store.put(key, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
            with pytest.raises(IntegrityError):
                results.find("key", session)
            [finding] = check_results(folder_store)
            assert (finding.kind, finding.name, finding.problem, finding.key) == ("result", "key", "damaged", key)
        folder_store.put(key, data)
    folder_store.delete(keys[0] if keys[1].endswith(".json") else keys[1])
    [finding] = verify(folder_store).findings
    assert (finding.problem, finding.paths) == ("missing", ("work",))


def test_what_is_no_json_is_malformed(folder_store: FolderStore, session: Session) -> None:
    folder_store.put(object_key("key"), b"\x80\x05.")
    with pytest.raises(IntegrityError):
        Results(lambda: folder_store, max_bytes=MIB).find("key", session)


def test_what_a_task_saved_is_saved_again_in_a_run_that_skips_it(
    folder_store: FolderStore, tmp_path: Path, session: Session
) -> None:
    mark = begin(session, "task", session.scratch / "order.json")
    session.journal._whose = lambda: ["inner", "task"]
    session.save("model/größe.json", {"a": 1})
    session.note_metrics({"rows": 3})
    session.journal._whose = lambda: ["another"]
    session.save("another's", 1)
    session.journal._whose = list
    session.save("the flow's", 1)
    done = effects(session, mark)
    assert [artifact.name for artifact in done.artifacts] == ["model/größe.json"]
    results = Results(lambda: folder_store, max_bytes=MIB)
    keep(results, session, "key", 1, done)
    other = Session.begin(order(), tmp_path, folder_store)
    results.find("key", other).noted.repeat(other)
    record = other.record()
    [artifact] = record.artifacts
    assert artifact.key.startswith(other.order.folder)
    assert folder_store.read(artifact.key) == folder_store.read(done.artifacts[0].key)
    assert dict(record.metrics) == {"rows": 3}
    # Without what it has saved a result is none.
    folder_store.delete(done.artifacts[0].key)
    with pytest.raises(ObjectNotFoundError):
        results.find("key", other)
    for one in (session, other):
        one.close()


def test_what_nobody_can_repeat_keeps_a_result_from_being_kept(session: Session) -> None:
    mark = begin(session, "task", session.scratch / "order.json")
    session.journal._whose = lambda: ["task"]
    session.save("pickled", {1}, codec="pickle")
    with pytest.raises(CodecError, match="pickle"):
        effects(session, mark)
    session.journal.add({"registered": "model"})
    with pytest.raises(CodecError, match="more than"):
        effects(session, mark)
    session.journal._whose = lambda: None
    session.note_metrics({"a": 1})
    with pytest.raises(CodecError, match="no task's"):
        effects(session, mark)
    session.close()


def test_files_written_since_are_found(session: Session, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "before").touch()
    stamp = (work / "before").stat().st_ctime_ns
    mark_file = session.scratch / "mark"
    while not mark_file.exists() or mark_file.stat().st_ctime_ns == stamp:
        mark_file.unlink(missing_ok=True)
        mark_file.touch()
    mark = begin(session, "task", mark_file)
    assert files_since(mark, work) == []
    (work / "after").touch()
    assert files_since(mark, work) == ["after"]
    session.close()


def test_old_results_are_collected(folder_store: FolderStore, session: Session, tmp_path: Path) -> None:
    results = Results(lambda: folder_store, max_bytes=MIB)
    keep(results, session, "key/0", polars.DataFrame({"a": [1]}))
    session.close()
    kept = collect(Collection(folder_store, keep_last=1, keep_days=30), grace=0)
    assert kept.removed["task results"].objects == 0
    names = [info.key for info in folder_store.list("results/")]
    for path in (tmp_path / "store" / "results").rglob("*"):
        if path.is_file():
            os.utime(path, (clock.time() - 31 * 86_400,) * 2)
    done = collect(Collection(folder_store, keep_last=1, keep_days=30), grace=0)
    # First what says what there is.
    assert done.removed["task results"].keys[0] == object_key("key/0")
    assert sorted(done.removed["task results"].keys) == sorted(names)
    assert not list(folder_store.list("results/"))


def test_a_uuid_is_no_text(tmp_path: Path) -> None:
    value = {"a": UUID(int=1), "b": Decimal("1.10")}
    assert same(there_and_back(value, tmp_path), value)
