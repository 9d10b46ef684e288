"""Task results in the run's own store, through what Prefect has for it: a storage block and a serializer.

Prefect writes a result down as a record that names the serializer to read it with, and believes what it reads. Here the
record is made anew when it is read, so that nobody who can write to the store can have a pickle loaded.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

from prefect import cache_policies, results
from prefect.client.schemas.objects import FlowRun
from prefect.context import FlowRunContext, TaskRunContext
from prefect.filesystems import WritableFileSystem
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger
from prefect.serializers import Serializer
from prefect.settings import PREFECT_TASKS_DEFAULT_PERSIST_RESULT, get_current_settings, temporary_settings
from pydantic import Field

from shipway.errors import CodecError
from shipway.prefect.kept import Kept, Run, discard, kept, stage, staged
from shipway.prefect.labels import RESULTS, label
from shipway.prefect.stable import keep_keys_stable
from shipway.settings import Settings
from shipway.store.base import Store

KIND = "shipway"

SWITCH = "PREFECT_TASKS_DEFAULT_PERSIST_RESULT"
OTHER_SWITCHES = ("PREFECT_RESULTS_PERSIST_BY_DEFAULT", "PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK")
UNASKED = "SHIPWAY_KEEPS_RESULTS"
"""Environment variable that says that results are kept because we have switched that on, and nobody else has."""


def unasked(environment: Mapping[str, str | None]) -> dict[str, str]:
    """Return the variables with which results are kept, unless somebody has said whether they are to be."""
    if any(environment.get(name) for name in (SWITCH, *OTHER_SWITCHES)):
        return {}
    return {SWITCH: "true", UNASKED: "true"}


class TaskResults(WritableFileSystem):
    """Where the results of one run's tasks are kept: below `results/` in the run's store.

    Attributes:
        run: id of the run.
        of: id of the run under which its results are kept: that of the first one that it resumes, else its own.
        block: block of the store.
        unasked: whether results are kept without anybody having asked for it.
        max_bytes: size over which a result is not kept.
    """

    _block_type_name = "Shipway task results"
    _block_type_slug = "shipway-task-results"

    run: str
    of: str
    block: str
    unasked: bool
    max_bytes: int

    def block_initialization(self) -> None:
        """See that keys come out alike in this process, which may be a child of the run's."""
        keep_keys_stable()
        cache_policies.RUN_ID.compute_key = run_key  # type: ignore[method-assign]

    def read_path(self, path: str, _sync: bool | None = None) -> bytes:  # type: ignore[override]
        """Return the record of a result: Prefect asks once whether there is one, and again when there is.

        Raises:
            ShipwayError: there is none that can be read; Prefect takes any error for that.
        """
        word, expires = self._kept().look(path)
        metadata = {"serializer": {"type": KIND}, "storage_key": path, "expiration": expires}
        return json.dumps({"metadata": metadata, "result": word}).encode()

    async def aread_path(self, path: str) -> bytes:
        """As `read_path`."""
        return await asyncio.to_thread(self.read_path, path)

    def write_path(self, path: str, content: bytes, _sync: bool | None = None) -> None:  # type: ignore[override]
        """Keep a result, unless it cannot be; that is no error."""
        if not content.startswith(b"{"):
            self._refuse(content)
            return
        record = json.loads(content)
        metadata = record["metadata"]
        kind = metadata["serializer"]["type"]
        word = record["result"] if kind == KIND else None
        self._kept().keep(path, word, expires=metadata["expiration"], serializer=kind)

    async def awrite_path(self, path: str, content: bytes) -> None:
        """As `write_path`."""
        await asyncio.to_thread(self.write_path, path, content)

    @staticmethod
    def _refuse(content: bytes) -> None:
        """Refuse what Prefect keeps in two places: what a sub-flow returned, and what a task's policy puts elsewhere.

        Raises:
            CodecError: of a task, of which the other place would otherwise say that it is here.
        """
        discard(content.decode(errors="replace"))
        task = TaskRunContext.get()
        if task and task.result_store.metadata_storage is not None:
            raise CodecError("a policy with `key_storage` needs a task with `result_storage`")

    def _resolve_path(self, path: str) -> str | None:
        """Return under which name a result is kept; Prefect asks for it when it makes a record or remembers one."""
        return self._kept().name(path) if path else None

    def _kept(self) -> Kept:
        return kept(Run(self.run, self.of, self.block, self.unasked, self.max_bytes))


class ValueSerializer(Serializer):
    """Takes values apart for `TaskResults`; what it writes is a word, of use to nothing else.

    The base has no type argument here: with one Prefect would take it for two serializers.
    """

    type: str = Field(default=KIND, frozen=True)

    def dumps(self, obj: Any) -> bytes:
        """Take a value apart and return a word for what came of it."""
        return stage(obj).encode()

    def loads(self, blob: bytes) -> Any:
        """Return the value that a word stands for, which has been read already.

        Raises:
            KeyError: it stands for none in this process.
        """
        return staged(blob.decode())


def keep_results(
    flow: Flow[..., Any], flow_run: FlowRun, block: str, store: Store, settings: Settings
) -> TaskResults | None:
    """Return where the results of a flow's tasks are to be kept, or None where somebody has said where else.

    Args:
        flow: the flow that is about to run.
        flow_run: its run.
        block: the block of the run's store.
        store: the same, open.
        settings: the project's.
    """
    said = flow.persist_result is not None or flow.result_storage is not None
    said = said or get_current_settings().results.default_storage_block is not None
    if said or settings.result_max_bytes <= 0 or results._read_server_default_result_storage_block_id():
        leave_alone()
        return None
    of = label({"labels": flow_run.labels}, RESULTS) or str(flow_run.id)
    run = Run(str(flow_run.id), of, block, os.environ.get(UNASKED) == "true", settings.result_max_bytes)
    logger = flow_run_logger(flow_run=flow_run)
    kept(run, store, lambda text: logger.info("%s", text))
    return TaskResults(run=run.id, of=of, block=block, unasked=run.unasked, max_bytes=run.max_bytes)


@contextmanager
def keeping(storage: TaskResults | None) -> Iterator[None]:
    """Have what tasks return kept there while the flow's function is called.

    Only then: what the flow itself returns or raises, which is written down after that, goes where Prefect puts it.
    """
    context = FlowRunContext.get()
    if storage is None or context is None:
        yield
        return
    store = context.result_store
    before = store.result_storage, store.serializer
    store.result_storage, store.serializer = storage, ValueSerializer()
    try:
        yield
    finally:
        store.result_storage, store.serializer = before


_for_good = ExitStack()


def leave_alone() -> None:
    """Have Prefect keep what it keeps by itself, for the rest of this process and in its children."""
    if os.environ.pop(UNASKED, None) == "true":
        os.environ.pop(SWITCH, None)
        # Costs a tenth of a second, and few runs need it.
        _for_good.enter_context(temporary_settings(restore_defaults={PREFECT_TASKS_DEFAULT_PERSIST_RESULT}))


def run_key(task_ctx: TaskRunContext, *_args: Any, **_kwargs: Any) -> str | None:
    """Stand in for `RunId.compute_key`: tasks of a resumed run have the keys they had in the run that it resumes."""
    if not task_ctx:
        return None
    run = str(task_ctx.task_run.flow_run_id or task_ctx.task_run.id)
    storage = task_ctx.result_store.result_storage
    return storage.of if isinstance(storage, TaskResults) and storage.run == run else run
