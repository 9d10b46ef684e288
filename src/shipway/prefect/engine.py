"""What a worker starts for each run: Prefect's engine, with the run's data committed before the run completes.

`python -m shipway.prefect.engine [FLOW_RUN_ID]`; any Prefect worker may start it through its `command` job variable.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID

from prefect import results
from prefect._internal.control_listener import configure_from_env
from prefect.client.schemas.objects import FlowRun
from prefect.engine import handle_engine_signals
from prefect.events import emit_event, related
from prefect.exceptions import MissingFlowError
from prefect.flow_engine import load_flow, load_flow_run, run_flow
from prefect.flows import Flow, load_flow_from_entrypoint, load_function_and_convert_to_flow
from prefect.logging.loggers import flow_run_logger
from prefect.settings import PREFECT_TASKS_DEFAULT_PERSIST_RESULT, get_current_settings, temporary_settings
from prefect.types._datetime import now

from shipway.deployment.step import PULL_STEP
from shipway.prefect import imports
from shipway.prefect.alone import belong_to, belong_to_parent, end_without
from shipway.prefect.handover import Code, Handover, Related
from shipway.prefect.keeper import keep_data
from shipway.prefect.line import Ear
from shipway.prefect.pull import workspaces
from shipway.prefect.results import leave_alone, unasked
from shipway.prefect.task_runs import watch
from shipway.run.workspace import Workspace


def run_supervised(argument: str) -> None:
    """Run what a worker of ours hands over, in a process forked from a template.

    The worker gives the run's signs of life, and listens whether it is to be suspended: what Prefect's engine has for
    that takes a run a second.

    Raises:
        SystemExit: as `main`.
    """
    before = tuple(sys.modules)
    handover = Handover.from_json(argument)
    ear = Ear(handover.flow_run.id, functools.partial(end_without, handover.worker, os.getppid()))
    know_default_results(handover.results)
    know_related(handover.related)
    belong_to(handover.worker)
    # Before any flow code is loaded: it could inherit the variables that let a process speak for the run's supervisor.
    configure_from_env()
    began = time.monotonic()
    loaded = began
    try:
        with handle_engine_signals(handover.flow_run.id):
            loader = functools.partial(load_prepared, handover.code) if handover.code else load_flow
            flow = _load(handover.flow_run, loader)
            loaded = time.monotonic()
            ear.wait()
            _run(flow, handover.flow_run, handover.code)
    finally:
        imports.write(before, loaded - began)


def know_default_results(block: UUID | None) -> None:
    """Spare Prefect the question for the server's default result block, which it asks for each flow and task."""

    async def answer() -> UUID | None:
        return block

    results._read_server_default_result_storage_block_id = lambda: block
    results._aread_server_default_result_storage_block_id = answer


def know_related(found: Iterable[Related]) -> None:
    """Spare Prefect the questions for what the run's events name beside it: flow, deployment, queue, pool."""
    for kind, asked, identity, name, tags in found:
        thing: Any = SimpleNamespace(id=identity, name=name, **({} if tags is None else {"tags": tags}))
        entry: Any = {"kind": kind, "object": thing}, now("UTC")
        related.RESOURCE_CACHE[f"{kind}.{asked}"] = entry


def main(run_id: UUID) -> None:
    """Run one flow run to its end.

    Raises:
        SystemExit: with the status that Prefect's workers expect.
    """
    belong_to_parent()
    configure_from_env()
    with ExitStack() as stack:
        if switches := unasked(os.environ | get_current_settings().to_environment_variables(exclude_unset=True)):
            # Another worker than ours has started this; child processes are told too.
            os.environ |= switches
            stack.enter_context(temporary_settings({PREFECT_TASKS_DEFAULT_PERSIST_RESULT: True}))
        stack.enter_context(handle_engine_signals(run_id))
        flow_run = load_flow_run(run_id)
        _run(_load(flow_run, load_flow), flow_run)


def _load(flow_run: FlowRun, load: Callable[[FlowRun], Flow[..., Any]]) -> Flow[..., Any]:
    try:
        return load(flow_run)
    except Exception as error:
        flow_run_logger(flow_run=flow_run).error("The flow could not be loaded: %s", error, exc_info=True)
        raise


def _run(flow: Flow[..., Any], flow_run: FlowRun, code: Code | None = None) -> None:
    workspace = workspaces.get(str(flow_run.id))
    error_logger: Any = flow_run_logger(flow_run=flow_run)
    if workspace is None:
        leave_alone()
        _drive(flow, run_flow(flow, flow_run=flow_run, error_logger=error_logger))
        return
    _complete_path(workspace, flow)
    keeper = keep_data(flow, flow_run, workspace, code)
    try:
        with watch(str(flow_run.id), keeper.tasks):
            _drive(flow, run_flow(flow, flow_run=flow_run, error_logger=error_logger))
    except Exception as error:
        # A run that is cancelled or loses its worker ends otherwise, and is to end at once.
        keeper.failed(error)
        raise
    finally:
        keeper.close()
        keeper.publish()
        os.chdir(workspace.root.parent)
        workspace.remove()


def _complete_path(workspace: Workspace, flow: Flow[..., Any]) -> None:
    """Let the flow import modules beside it at any time, as `python flow.py` does, and not while it is loaded only."""
    root = workspace.folder.resolve()
    script = Path(inspect.getfile(flow.fn)).resolve()
    for folder in (root, script.parent):
        if folder.is_relative_to(root) and str(folder) not in sys.path:
            sys.path.insert(0, str(folder))


def load_prepared(code: Code, flow_run: FlowRun) -> Flow[..., Any]:
    """Load the flow from the workspace that the worker has got ready, and say what Prefect says when it pulls code."""
    logger = flow_run_logger(flow_run=flow_run)
    workspaces[str(flow_run.id)] = workspace = code.workspace().watched()
    logger.info("Running 1 deployment pull step(s)")
    logger.info("Executing deployment step: release")
    os.chdir(workspace.folder)
    logger.info("Deployment step 'release' completed successfully")
    emit_pulled(flow_run, code)
    logger.info("All deployment steps completed successfully")
    try:
        return load_flow_from_entrypoint(code.entrypoint, use_placeholder_flow=False)
    except MissingFlowError:
        return load_function_and_convert_to_flow(code.entrypoint)


def emit_pulled(flow_run: FlowRun, code: Code) -> None:
    """Emit the event that Prefect emits after a pull step."""
    emit_event(
        event="prefect.flow-run.pull-step.executed",
        resource={"prefect.resource.id": f"prefect.flow-run.{flow_run.id}"},
        related=[
            {
                "prefect.resource.id": f"prefect.deployment.{flow_run.deployment_id}",
                "prefect.resource.role": "deployment",
            }
        ],
        payload={
            "index": 0,
            "qualified_name": PULL_STEP,
            "step_name": PULL_STEP.rpartition(".")[2],
            "id": None,
            "inputs": {"store": code.block, "release": code.release},
        },
    )


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
