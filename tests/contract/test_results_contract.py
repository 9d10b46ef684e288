"""What keeping task results leans on in Prefect: pinned, name by name, and tried with its own result store."""

from __future__ import annotations

import inspect
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pandas
import polars
import pytest
from prefect import cache_policies, flow, results, task, task_engine, transactions
from prefect._internal.result_records import ResultRecord, ResultRecordMetadata
from prefect.blocks.core import Block
from prefect.cache_policies import DEFAULT, INPUTS, RUN_ID, TASK_SOURCE, Inputs, RunId
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext, serialize_context
from prefect.filesystems import LocalFileSystem, WritableFileSystem
from prefect.results import ResultStore
from prefect.serializers import Serializer
from prefect.settings import PREFECT_TASKS_DEFAULT_PERSIST_RESULT, get_current_settings, temporary_settings
from prefect.states import Completed, Failed
from prefect.utilities.dispatch import get_registry_for_type

from shipway.errors import CodecError
from shipway.prefect import results as ours
from shipway.prefect.block_types import S3
from shipway.prefect.kept import Run, _staged, find_kept, kept, whose
from shipway.prefect.results import SWITCH, TaskResults, ValueSerializer, keeping, leave_alone, run_key, unasked
from shipway.prefect.stable import keep_keys_stable
from shipway.run.order import Order
from shipway.run.results import object_key
from shipway.run.session import Session, activate
from shipway.store.folder import FolderStore

MIB = 1 << 20


def source_of(thing: Any) -> str:
    return inspect.getsource(thing)


@pytest.fixture
def session(tmp_path: Path, folder_store: FolderStore) -> Iterator[Session]:
    (tmp_path / "work").mkdir()
    order = Order(
        str(uuid4()), "n", "main", None, 1, None, {}, "2013-02-01T00:00:00+00:00", "s3/x", "",
        whose="shipway.prefect.kept:whose",
    )  # fmt: skip
    session = Session.begin(order, tmp_path, folder_store)
    activate(session)
    yield session
    activate(None)
    session.close()


def storage(session: Session, *, of: str | None = None, unasked: bool = True) -> TaskResults:
    run = session.order.run_id
    made = TaskResults(run=run, of=of or run, block="s3/x", unasked=unasked, max_bytes=MIB)
    kept(Run(run, made.of, made.block, unasked, MIB), session.store)
    return made


@task
def work(n: int) -> int:
    return n


def context(session: Session, result_storage: TaskResults, of_task: Any = work, state: Any = None) -> TaskRunContext:
    store = ResultStore(result_storage=result_storage, serializer=ValueSerializer())
    run = TaskRun(
        id=uuid4(), name="w", flow_run_id=UUID(session.order.run_id), task_key="w", dynamic_key=str(uuid4()),
        state=state or Completed(),
    )  # fmt: skip
    client = SyncPrefectClient("http://127.0.0.1:1/api")
    facts: dict[str, Any] = {"task": of_task, "task_run": run, "parameters": {}, "result_store": store}
    return TaskRunContext(**facts, client=client, persist_result=True)


def call(session: Session, where: TaskResults, value: Any, **more: Any) -> Any:
    """Do what Prefect's engine does for a task run; return what it gets where there is a result, else None."""
    with context(session, where, **more) as entered:
        store = entered.result_store
        if store.exists("key"):
            return store.read("key").result
        store.persist_result_record(store.create_result_record(value, key="key"))
        return None


def again(session: Session) -> Session:
    """Begin a run that resumes that of `session`."""
    if work := find_kept(session.order.run_id):
        work.results.join(completes=False)
    facts = {**{name: getattr(session.order, name) for name in Order.__slots__}, "run_id": str(uuid4())}
    other = Session.begin(Order(**facts), session.scratch.parent, session.store)
    activate(other)
    return other


def test_calls_are_counted_where_nobody_asked_for_results(session: Session) -> None:
    """The second of two equal calls is executed, and in a resumed run each gets what it returned."""
    where = storage(session)
    assert [call(session, where, value) for value in ("first", "second")] == [None, None]
    other = again(session)
    resumed = storage(other, of=session.order.run_id)
    assert [call(other, resumed, "x") for _ in range(3)] == ["first", "second", None]
    # Nothing of it stays in memory.
    assert not _staged
    other.close()


def test_equal_calls_are_one_where_somebody_asked(session: Session) -> None:
    where = storage(session, unasked=False)
    assert [call(session, where, value) for value in ("first", "second")] == [None, "first"]
    asking = task(persist_result=True)(work.fn)
    other = again(session)
    where = storage(other)
    # By a key in which no run stands it is found in any run.
    assert [call(other, where, value, of_task=asking) for value in ("third", "fourth")] == ["first", "first"]
    other.close()


def test_a_task_that_did_not_complete_has_no_result(session: Session) -> None:
    where = storage(session, unasked=False)
    assert call(session, where, 1, state=Failed()) is None
    assert call(session, where, 2) is None


def test_what_another_serializer_wrote_is_not_kept(session: Session, folder_store: FolderStore) -> None:
    """Prefect would read a record back with the serializer that the record names."""
    where = storage(session, unasked=False)
    with context(session, where) as entered:
        store = entered.result_store.model_copy(update={"serializer": Serializer(type="pickle")})
        assert not store.exists("key")
        store.persist_result_record(store.create_result_record(1, key="key"))
    if work := find_kept(session.order.run_id):
        work.results.join(completes=False)
    assert not list(folder_store.list("results/"))
    # Nor is a record believed that somebody put there.
    pickled = ResultRecord(result=1, metadata=ResultRecordMetadata(serializer=Serializer(type="pickle")))
    folder_store.put(object_key("key"), pickled.serialize())
    assert call(session, where, 2) is None


def test_a_flows_tasks_keep_their_results_there_while_its_function_is_called(session: Session) -> None:
    """And the flow's own result and error go where they went."""
    where = storage(session)
    seen: list[bool] = []

    @flow
    def main() -> None:
        context = FlowRunContext.get()
        assert context
        before = context.result_store.result_storage, context.result_store.serializer
        with keeping(where):
            seen.append(results.get_result_store().result_storage is where)
            sent: Any = serialize_context()["flow_run_context"]["result_store"]
            seen.append(sent["result_storage"]["run"] == session.order.run_id)
            seen.append(sent["serializer"]["type"] == "shipway")
        assert (context.result_store.result_storage, context.result_store.serializer) == before

    client = SyncPrefectClient("http://127.0.0.1:1/api")
    store = ResultStore(result_storage=LocalFileSystem(basepath="x"))
    facts: dict[str, Any] = {"flow": main, "parameters": {}, "task_runner": main.task_runner, "result_store": store}
    with FlowRunContext(**facts, client=client, persist_result=False):
        main.fn()
    assert seen == [True, True, True]


def test_a_policy_that_keeps_its_keys_elsewhere_gets_nothing_from_here(session: Session, tmp_path: Path) -> None:
    where = storage(session, unasked=False)
    with context(session, where) as entered:
        elsewhere = LocalFileSystem(basepath=str(tmp_path / "keys"))
        entered.result_store.metadata_storage = elsewhere
        store = entered.result_store
        assert not store.exists("key")
        with pytest.raises(CodecError, match="key_storage"):
            store.persist_result_record(store.create_result_record(1, key="key"))
        # Nothing says that there is one.
        assert not store.exists("key")


def test_prefect_takes_any_error_for_no_result() -> None:
    for method in (ResultStore._exists, ResultStore._aexists):
        assert source_of(method).count("except Exception:\n                return False") == 2
    # It asks twice, and reads the second time.
    assert "self.store.exists(key=self.key)" in source_of(transactions.Transaction.begin)
    assert "transaction.read()" in source_of(task_engine.SyncTaskRunEngine.call_task_fn)


def test_a_store_without_a_document_is_asked_for_its_names() -> None:
    for method in (ResultStore.create_result_record, ResultStore._resolved_key_path):
        assert "_resolve_path" in source_of(method)
        assert "is not None" in source_of(method)
    writers: list[Any] = [ResultStore._persist_result_record, ResultStore._apersist_result_record]
    for method in writers:
        assert "base_key = key if basepath is None else" in source_of(method)


def test_storage_and_serializer_are_found_in_child_processes(session: Session) -> None:
    """Prefect sends them as what `model_dump` makes of them."""
    store = ResultStore(result_storage=storage(session), serializer=ValueSerializer())
    sent = store.model_dump(serialize_as_any=True, exclude_unset=True)
    back = ResultStore(**sent)
    assert isinstance(back.result_storage, TaskResults)
    assert back.result_storage.run == session.order.run_id
    assert isinstance(back.serializer, ValueSerializer)
    registry: Any = get_registry_for_type(Block)
    assert registry["shipway-task-results"] is TaskResults
    assert issubclass(TaskResults, WritableFileSystem)


def test_the_run_id_of_a_policy_can_be_another() -> None:
    cache_policies.RUN_ID.compute_key = run_key  # type: ignore[method-assign]
    assert any(policy is RUN_ID for policy in DEFAULT.policies)  # type: ignore[attr-defined]
    assert any(policy is RUN_ID for policy in (INPUTS + TASK_SOURCE + RUN_ID).policies)  # type: ignore[attr-defined]
    theirs = inspect.signature(RunId.compute_key).parameters
    assert list(theirs)[:2] == ["self", "task_ctx"]
    assert "policy.compute_key(\n                task_ctx=task_ctx," in source_of(cache_policies.CompoundCachePolicy)


def test_a_resumed_runs_tasks_have_the_keys_of_the_first_run(session: Session) -> None:
    first = context(session, storage(session))
    other = again(session)
    resumed = context(other, storage(other, of=session.order.run_id))
    keys = [DEFAULT.compute_key(task_ctx=each, inputs={"n": 1}, flow_parameters={}) for each in (first, resumed)]
    assert keys[0] == keys[1]
    fresh = context(other, storage(other))
    assert DEFAULT.compute_key(task_ctx=fresh, inputs={"n": 1}, flow_parameters={}) != keys[0]
    other.close()


def test_equal_tables_have_one_key_wherever_they_come_from(tmp_path: Path) -> None:
    assert source_of(Inputs.compute_key).count("_register_stable_transforms()") == 1
    assert "STABLE_TRANSFORMS.get(type(val))" in source_of(Inputs.compute_key)
    keep_keys_stable()

    def key(value: Any) -> str | None:
        return INPUTS.compute_key(task_ctx=None, inputs={"x": value}, flow_parameters={})  # type: ignore[arg-type]

    frame = polars.DataFrame({"a": [1, None], "b": ["x", "y"], "c": [[1], []]})
    frame.write_parquet(tmp_path / "a")
    parts = polars.concat([frame[:1], frame[1:]], rechunk=False)
    assert key(frame) == key(polars.read_parquet(tmp_path / "a")) == key(parts)
    assert key([frame]) == key([parts])
    different = [
        frame, frame.reverse(), frame.rename({"a": "d"}), frame.select("b", "a", "c"), frame[:1],
        frame.with_columns(polars.col("a").cast(polars.Int8)), frame.with_columns(polars.col("a").fill_null(0)),
    ]  # fmt: skip
    assert len({key(each) for each in different}) == len(different)
    table = frame.select("a", "b").to_pandas()
    table.to_parquet(tmp_path / "b")
    assert key(table) == key(pandas.read_parquet(tmp_path / "b"))
    assert key(table) != key(table[::-1]) != key(table.rename(columns={"a": "d"}))


def test_results_are_switched_on_by_a_setting_of_tasks_alone() -> None:
    """The flow's own result is not: Prefect would look for it where it is not."""
    assert PREFECT_TASKS_DEFAULT_PERSIST_RESULT.name == SWITCH
    for engine in (task_engine.SyncTaskRunEngine, task_engine.AsyncTaskRunEngine):
        assert "settings.tasks.default_persist_result" in source_of(engine.setup_run_context)
    assert unasked({}) == {SWITCH: "true", ours.UNASKED: "true"}
    for name in (SWITCH, *ours.OTHER_SWITCHES):
        assert unasked({name: "false"}) == {}
    assert task(work.fn).persist_result is None
    with temporary_settings({PREFECT_TASKS_DEFAULT_PERSIST_RESULT: True}):
        assert get_current_settings().tasks.default_persist_result is True
        os.environ[ours.UNASKED] = "true"
        leave_alone()
        assert get_current_settings().tasks.default_persist_result is None
        assert ours.UNASKED not in os.environ
        ours._for_good.close()
    assert task(cache_policy=INPUTS)(work.fn).persist_result is True
    assert task(persist_result=False)(work.fn).cache_policy == cache_policies.NO_CACHE


def test_a_line_of_the_journal_says_whose_it_is(session: Session) -> None:
    session.note_metrics({"a": 1})
    with context(session, storage(session)) as entered:
        session.note_metrics({"b": 1})
        assert whose() == [str(entered.task_run.id)]
    lines = session.journal.lines()
    assert ["task" in line for line in lines] == [False, True]


def test_a_block_of_ours_reads_and_writes_as_prefect_asks(folder_store: FolderStore) -> None:
    """Prefect calls both ways; a plain coroutine would not do."""
    from prefect._internal.compatibility.blocks import call_explicitly_sync_block_method

    class Local(S3):
        _block_type_slug = "s3-here"

        def store(self) -> Any:
            return folder_store

    block = Local(bucket_path="bucket")
    call_explicitly_sync_block_method(block, "write_path", ("a",), {"content": b"x"})
    assert call_explicitly_sync_block_method(block, "read_path", ("a",), {}) == b"x"
    assert hasattr(block, "aread_path")
    assert hasattr(block, "awrite_path")
    assert "_sync=True" in source_of(call_explicitly_sync_block_method)


def test_a_record_of_ours_is_one_of_prefects(session: Session) -> None:
    record = json.dumps({"metadata": {"serializer": {"type": "shipway"}, "expiration": None}, "result": "word"})
    with pytest.raises(KeyError):
        ResultRecord.deserialize(record.encode())
    assert results.ResultStore is ResultStore
