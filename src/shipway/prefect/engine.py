"""What a worker starts for each run: Prefect's engine, with the run's data committed before the run completes.

`python -m shipway.prefect.engine [FLOW_RUN_ID]`; any Prefect worker may start it through its `command` job variable.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect._internal.control_listener import configure_from_env
from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.engine import handle_engine_signals
from prefect.flow_engine import load_flow, load_flow_run, run_flow
from prefect.flows import Flow
from prefect.futures import PrefectFuture
from prefect.logging.loggers import flow_run_logger

from shipway.prefect.api import Api
from shipway.prefect.links import publish
from shipway.prefect.pull import workspaces
from shipway.prefect.stores import store_of
from shipway.run.session import Order, Session, activate
from shipway.run.workspace import Workspace
from shipway.settings import Settings

OPENER = "shipway.prefect.engine:open_block"


def open_block(block: str) -> Any:
    """Open a store by its block's name; a run's child processes call this."""
    return store_of(Settings.load(), block)


def main(run_id: UUID) -> None:
    """Run one flow run to its end.

    Raises:
        SystemExit: with the status that Prefect's workers expect.
    """
    # Before any flow code is loaded: it could inherit the variables that let a process speak for the run's supervisor.
    configure_from_env()
    with handle_engine_signals(run_id):
        flow_run = load_flow_run(run_id)
        logger = flow_run_logger(flow_run=flow_run)
        try:
            flow = load_flow(flow_run)
        except Exception as error:
            logger.error("The flow could not be loaded: %s", error, exc_info=True)
            raise
        workspace = workspaces.get(str(run_id))
        if workspace is not None:
            _complete_path(workspace, flow)
            keep_data(flow, flow_run, workspace)
        try:
            _drive(flow, run_flow(flow, flow_run=flow_run, error_logger=logger.logger))
        finally:
            if workspace is not None:
                os.chdir(workspace.root.parent)
                workspace.remove()


def _complete_path(workspace: Workspace, flow: Flow[..., Any]) -> None:
    """Let the flow import modules beside it at any time, as `python flow.py` does, and not while it is loaded only."""
    root = workspace.folder.resolve()
    script = Path(inspect.getfile(flow.fn)).resolve()
    for folder in (root, script.parent):
        if folder.is_relative_to(root) and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def keep_data(flow: Flow[..., Any], flow_run: FlowRun, workspace: Workspace) -> None:
    """Wrap a flow's function so that its data is committed after it returned and before the run completes.

    Between these two lies the only moment that serves: earlier there is data to come, later a reader could see a
    Completed run without its data. A failed commit therefore fails the run.
    """
    settings = Settings.load()
    keeper = _Keeper(settings, flow, flow_run, workspace)
    fn = flow.fn

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
                await asyncio.to_thread(attempt.complete, result)
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

    flow.fn = wrapped


class _Keeper:
    """Begins an attempt for every call of the run's flow function; a flow that calls itself is one attempt."""

    def __init__(self, settings: Settings, flow: Flow[..., Any], flow_run: FlowRun, workspace: Workspace) -> None:
        self.settings = settings
        self.flow = flow
        self.flow_run = flow_run
        self.workspace = workspace
        self.store = store_of(settings, workspace.store)
        self.deployment = _deployment_name(settings, flow, flow_run)

    def attempt(self) -> _Attempt:
        context = FlowRunContext.get()
        run = context.flow_run if context and context.flow_run else self.flow_run
        # With the defaults of what nobody gave: a record says what the function was called with.
        called = context.parameters if context else self.flow_run.parameters
        parameters = self.flow.serialize_parameters(called or {})
        return _Attempt(self, run, parameters, nested=run.id != self.flow_run.id)


class _Attempt:
    """One call of the flow function, from its first line to the commit of its data."""

    def __init__(self, keeper: _Keeper, run: FlowRun, parameters: dict[str, Any], *, nested: bool) -> None:
        self.keeper = keeper
        self.run = run
        self.parameters = parameters
        self.nested = nested
        self.session: Session | None = None

    def __enter__(self) -> _Attempt:
        if not self.nested:
            due = self.run.expected_start_time
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
            )
            self.session = Session.begin(order, self.keeper.workspace.root, self.keeper.store)
            activate(self.session)
        return self

    def complete(self, result: object) -> None:
        """Commit the attempt's data, unless what the function returned makes the run fail."""
        if self.session is None or not _completes(result):
            return
        logger = flow_run_logger(flow_run=self.run)
        settings = self.keeper.settings
        left_out = self.session.capture(
            self.keeper.workspace.folder,
            self.keeper.workspace.before,
            max_bytes=settings.capture_max_bytes,
            max_files=settings.capture_max_files,
        )
        for reason in left_out:
            logger.warning("Not saved: %s", reason)
        record = self.session.commit()
        size = sum(artifact.bytes for artifact in record.artifacts)
        logger.info(
            "Saved %s, %d bytes, to %s",
            "1 object" if len(record.artifacts) == 1 else f"{len(record.artifacts)} objects",
            size,
            self.session.store.url(self.session.order.folder),
        )
        publish(Api(settings), record, self.session)

    def __exit__(self, *_exc: object) -> None:
        if self.session is not None:
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


def _deployment_name(settings: Settings, flow: Flow[..., Any], flow_run: FlowRun) -> str | None:
    if flow_run.deployment_id is None:
        return None
    deployment = Api(settings).request("GET", f"/deployments/{flow_run.deployment_id}")
    return f"{flow.name}/{deployment['name']}"


def _drive(flow: Flow[..., Any], result: Any) -> None:
    """Consume what `run_flow` leaves to its caller: coroutines and generators."""
    if inspect.iscoroutine(result):
        # On the main thread, as in Prefect's engine: only there can a SIGTERM become a cancellation.
        asyncio.run(result)
    elif inspect.isasyncgen(result):

        async def consume() -> None:
            async for _ in result:
                pass

        asyncio.run(consume())
    elif flow.isgenerator and inspect.isgenerator(result):
        for _ in result:
            pass


if __name__ == "__main__":
    main(UUID(sys.argv[1] if len(sys.argv) > 1 else os.environ["PREFECT__FLOW_RUN_ID"]))
