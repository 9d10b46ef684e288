"""A run's data, kept by the flow's own call: committed after the function has returned, before the run completes."""

from __future__ import annotations

import asyncio
import functools
import inspect
import traceback
import types
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.flows import Flow
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger

from shipway.errors import StoreUnreachableError
from shipway.mlflow.mirror import mirror_committed
from shipway.model.commit import commit, settle_models
from shipway.prefect.api import Api
from shipway.prefect.committed import complete_by, find_committed
from shipway.prefect.handover import Code
from shipway.prefect.kept import find_kept
from shipway.prefect.labels import AFTER, REPRODUCES, RESUMES, label
from shipway.prefect.links import publish, publish_failed
from shipway.prefect.pages import ERROR_LINES, MAX_LINE
from shipway.prefect.results import TaskResults, keep_results, keeping
from shipway.prefect.stores import store_of
from shipway.release.cache import Cache
from shipway.report.documents import said_in
from shipway.report.facts import Said, TaskFacts
from shipway.run.order import Order
from shipway.run.record import RunRecord
from shipway.run.session import Session, activate
from shipway.run.workspace import Workspace
from shipway.settings import Settings
from shipway.store.opening import open_store

OPENER = "shipway.prefect.keeper:open_block"
TURN = "shipway.prefect.turn:wait_for_turn"
WHOSE = "shipway.prefect.kept:whose"


def open_block(block: str) -> Any:
    """Open a store by its block's name; a run's child processes call this."""
    return store_of(Settings.load(), block, known=True)


def keep_data(flow: Flow[..., Any], flow_run: FlowRun, workspace: Workspace, code: Code | None = None) -> _Keeper:
    """Wrap a flow's function so that its data is committed after it returned and before the run completes.

    Between these two lies the only moment that serves: earlier there is data to come, later a reader could see a
    Completed run without its data. A failed commit therefore fails the run.
    """
    settings = Settings.load()
    keeper = _Keeper(settings, flow, flow_run, workspace, code)
    if keeper.completes_at_once():
        return keeper
    keeper.results = keep_results(flow, flow_run, workspace.store, keeper.store, settings)
    fn = flow.fn
    aside = asyncio.to_thread

    if inspect.isasyncgenfunction(fn):

        @functools.wraps(fn)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            with keeper.attempt() as attempt:
                async for item in fn(*args, **kwargs):
                    yield item
                attempt.complete(None)

    elif inspect.iscoroutinefunction(fn):

        @functools.wraps(fn)
        async def wrapped(*args: Any, **kwargs: Any) -> Any:
            with keeper.attempt() as attempt:
                result = await fn(*args, **kwargs)
                await aside(attempt.complete, result)
                return result

    elif inspect.isgeneratorfunction(fn):

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with keeper.attempt() as attempt:
                result = yield from fn(*args, **kwargs)
                attempt.complete(None)
                return result

    else:

        @functools.wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with keeper.attempt() as attempt:
                result = fn(*args, **kwargs)
                attempt.complete(result)
                return result

    flow.fn = _at_home(wrapped, fn)
    return keeper


def _at_home(wrapper: Callable[..., Any], fn: Callable[..., Any]) -> Callable[..., Any]:
    """Return a wrapper that has the globals of what it wraps: Prefect looks up there what annotations name."""
    function: Any = wrapper
    home: dict[str, Any] = getattr(fn, "__globals__", function.__globals__)
    moved = types.FunctionType(function.__code__, home, function.__name__, None, function.__closure__)
    return functools.update_wrapper(moved, fn)


class _Keeper:
    """Begins an attempt for every call of the run's flow function; a flow that calls itself is one attempt."""

    def __init__(
        self, settings: Settings, flow: Flow[..., Any], flow_run: FlowRun, workspace: Workspace, code: Code | None
    ) -> None:
        self.settings = settings
        self.flow = flow
        self.flow_run = flow_run
        self.workspace = workspace
        self.results: TaskResults | None = None
        self.saved: tuple[RunRecord, str] | None = None
        self.said = Said()
        self.error: tuple[str, ...] | None = None
        self.tasks: dict[str, TaskFacts] = {}
        # The run's code came from it.
        self.store = (
            open_store(code.store, known=True, outage_seconds=settings.outage_seconds)
            if code
            else store_of(settings, workspace.store, known=True)
        )
        deployment = code.deployment if code else _deployment_name(settings, flow_run)
        self.deployment = f"{flow.name}/{deployment}" if deployment else None

    def __reduce__(self) -> tuple[type[_Elsewhere], tuple[()]]:
        # A flow travels with its tasks into the processes of a task runner; the run's data is kept here.
        return _Elsewhere, ()

    def completes_at_once(self) -> bool:
        """Have the run complete by what an attempt before this one has committed; tell whether one has."""
        found = find_committed(Api(self.settings), self.flow, self.flow_run, self.store)
        if found is None:
            return False

        def settle() -> None:
            settle_models(self.store, found.record, flow_run_logger(flow_run=self.flow_run).info)
            if found.tasks is not None:
                self.saved = found.record, found.folder
                self.tasks.update((str(number), task) for number, task in enumerate(found.tasks))

        complete_by(self.flow, found.record, settle)
        return True

    def attempt(self) -> _Attempt:
        context = FlowRunContext.get()
        run = context.flow_run if context and context.flow_run else self.flow_run
        # With the defaults of what nobody gave: a record says what the function was called with.
        called = context.parameters if context else self.flow_run.parameters
        parameters = self.flow.serialize_parameters(called or {})
        return _Attempt(self, run, parameters, nested=run.id != self.flow_run.id)

    def close(self) -> None:
        """Let nothing of the run go on in the background."""
        if kept := find_kept(str(self.flow_run.id)):
            kept.results.close()

    def failed(self, error: Exception) -> None:
        """Note that the run has ended with an error."""
        if isinstance(error, StoreUnreachableError):
            return  # nor would its page arrive
        lines = "".join(traceback.format_exception(error)).splitlines()
        self.error = tuple(line[:MAX_LINE] for line in lines[-ERROR_LINES:])

    def publish(self) -> None:
        """Show in the UI, and in MLflow, what was saved: when the run has ended, as nobody is to wait for that."""
        if self.error is not None and not self.saved:
            api, tasks = Api(self.settings), self.tasks.values()
            publish_failed(api, self.flow_run, self.flow.name, self.store, self.said, tasks, self.error)
        if self.saved:
            record, folder = self.saved
            publish(Api(self.settings), record, self.store, folder, self.tasks.values())
            logger = flow_run_logger(flow_run=self.flow_run)
            seconds = self.settings.mlflow_seconds
            mirror_committed(self.store, folder, record, logger, seconds=seconds)


class _Elsewhere:
    """A keeper in another process than the run's: the flow is known there, and is no run of its own."""

    def attempt(self) -> _Elsewhere:
        """Begin nothing."""
        return self

    def __enter__(self) -> _Elsewhere:
        return self

    def __exit__(self, *_exc: object) -> None:
        return

    def complete(self, result: object) -> None:
        """Commit nothing."""


class _Attempt:
    """One call of the flow function, from its first line to the commit of its data."""

    def __init__(self, keeper: _Keeper, run: FlowRun, parameters: dict[str, Any], *, nested: bool) -> None:
        self.keeper = keeper
        self.run = run
        self.parameters = parameters
        self.nested = nested
        self.session: Session | None = None
        self.stack = ExitStack()
        self.kept = None if nested else find_kept(str(run.id))

    def __enter__(self) -> _Attempt:
        if not self.nested:
            due = self.run.expected_start_time
            asked = {"labels": self.run.labels}
            order = Order(
                run_id=str(self.run.id),
                run_name=self.run.name,
                flow=self.keeper.flow.name,
                deployment=self.keeper.deployment,
                attempt=max(self.run.run_count, 1),
                release=str(self.keeper.workspace.version),
                parameters=self.parameters,
                scheduled=due.isoformat() if due else "1970-01-01T00:00:00+00:00",
                store=self.keeper.workspace.store,
                opener=OPENER,
                reproduces=label(asked, REPRODUCES),
                resumes=label(asked, RESUMES),
                after=label(asked, AFTER),
                turn=TURN,
                whose=WHOSE,
            )
            self.session = Session.begin(order, self.keeper.workspace.root, self.keeper.store)
            activate(self.session)
            if self.kept:
                self.kept.results.begin()
            self.stack.enter_context(keeping(self.keeper.results))
        return self

    def complete(self, result: object) -> None:
        """Commit the attempt's data, unless what the function returned makes the run fail."""
        if self.session is None or not _completes(result):
            return
        logger = flow_run_logger(flow_run=self.run)
        settings = self.keeper.settings
        cache = Cache.open(settings.cache_folder, settings.cache_max_bytes)
        self.session.note_reads(*self.keeper.workspace.read(self.keeper.store, cache))
        left_out = self.session.capture(
            self.keeper.workspace.folder,
            self.keeper.workspace.before,
            max_bytes=settings.capture_max_bytes,
            max_files=settings.capture_max_files,
        )
        for reason in left_out:
            logger.warning("Not saved: %s", reason)
        record = commit(self.session, logger.info)
        size = sum(artifact.bytes for artifact in record.artifacts)
        logger.info(
            "Saved %s, %d bytes, to %s",
            "1 object" if len(record.artifacts) == 1 else f"{len(record.artifacts)} objects",
            size,
            self.session.store.url(self.session.order.folder),
        )
        self.keeper.saved = record, self.session.order.folder
        if self.kept:
            self.kept.results.join(completes=True)

    def __exit__(self, kind: type[BaseException] | None, *_exc: object) -> None:
        self.stack.close()
        if self.session is not None:
            if self.keeper.saved is None and (kind is None or issubclass(kind, Exception)):
                self.keeper.said = said_in(self.session)
            if self.kept:
                # Of a run that failed its results are what is left; where it completed none is waited for here.
                self.kept.results.join(completes=False)
            activate(None)
            self.session.close()


def _completes(result: object) -> bool:
    """Tell whether a flow that returned `result` will be Completed, by Prefect's rule: no failed state among it."""
    items: Iterable[object] = result if isinstance(result, list | tuple | set) else [result]
    for item in items:
        state = item.state if isinstance(item, PrefectFuture) else item
        if isinstance(item, PrefectFuture):
            item.wait()
            state = item.state
        if isinstance(state, State) and not state.is_completed():
            return False
    return True


def _deployment_name(settings: Settings, flow_run: FlowRun) -> str | None:
    if flow_run.deployment_id is None:
        return None
    return str(Api(settings).request("GET", f"/deployments/{flow_run.deployment_id}")["name"])
