"""Runs without a deployment: `python flow.py` on one's own machine keeps its data too.

There is no release and no workspace, so nothing is captured: what is saved by name goes to the default store, and its
record is written when the flow run completes.
"""

from __future__ import annotations

import atexit
import tempfile
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.context import FlowRunContext
from prefect.flows import Flow
from prefect.logging.loggers import flow_run_logger

from shipway.errors import ServerError
from shipway.mlflow.mirror import mirror_committed
from shipway.model.commit import commit
from shipway.prefect.pull import workspaces
from shipway.prefect.stores import LOCAL_BLOCK, default_block, is_local_default, store_of
from shipway.run.order import Order
from shipway.run.session import Session
from shipway.settings import Settings
from shipway.store.base import Store
from shipway.store.opening import open_store
from shipway.store.url import StoreConfig

_sessions: dict[str, Session] = {}


def session() -> Session | None:
    """Return the session of the flow run this code runs in, begun at its first use, or None outside a flow run."""
    context = FlowRunContext.get()
    if context is None or context.flow_run is None or context.flow is None:
        return None
    run = context.flow_run
    found = _sessions.get(str(run.id))
    if found is None or found.order.attempt != max(run.run_count, 1):
        found = _sessions[str(run.id)] = _begin(context.flow.name, run)
        if _commit not in context.flow.on_completion_hooks:
            context.flow.on_completion_hooks.append(_commit)
    return found


def open_block(block: str) -> Store:
    """Open the default store by its block's name; the folder in the project needs no server."""
    settings = Settings.load()
    if block == LOCAL_BLOCK and is_local_default(settings, block):
        return _folder(settings)
    try:
        return store_of(settings, block)
    except ServerError:
        return _folder(settings)


def _begin(flow: str, run: FlowRun) -> Session:
    # A worker that starts another engine than ours pulled a release all the same: its store is the run's.
    workspace = workspaces.get(str(run.id))
    try:
        block = workspace.store if workspace else default_block(Settings.load())
    except ServerError:
        block = LOCAL_BLOCK
    due = run.expected_start_time
    order = Order(
        run_id=str(run.id),
        run_name=run.name,
        flow=flow,
        deployment=None,
        attempt=max(run.run_count, 1),
        release=str(workspace.version) if workspace else None,
        parameters=run.parameters,
        scheduled=due.isoformat() if due else "1970-01-01T00:00:00+00:00",
        store=block,
        opener="shipway.prefect.local:open_block",
    )
    begun = Session.begin(order, Path(tempfile.gettempdir()), open_block(block))
    atexit.register(begun.close)
    return begun


def _commit(flow: Flow[Any, Any], flow_run: FlowRun, state: State) -> None:  # noqa: ARG001 - Prefect names its hooks' parameters
    done = _sessions.pop(str(flow_run.id), None)
    if done is not None:
        logger = flow_run_logger(flow_run=flow_run)
        if workspace := workspaces.get(str(flow_run.id)):
            done.note_reads(*workspace.read(done.store))
        record = commit(done, logger.info)
        logger.info("Saved %d objects to %s", len(record.artifacts), done.store.url(done.order.folder))
        done.close()
        mirror_committed(done.store, done.order.folder, record, logger, seconds=Settings.load().mlflow_seconds)


def _folder(settings: Settings) -> Store:
    return open_store(StoreConfig(kind="folder", path=settings.make_state() / "store"))
