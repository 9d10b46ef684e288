"""What every template imports: all that a run of Prefect needs before and after the flow's own code.

Prefect imports much of it late, in the run; a test fails when a run of a flow without imports has to import more.
"""

from __future__ import annotations

import io
import logging
from contextlib import ExitStack

from prefect.logging.handlers import PrefectConsoleHandler
from pydantic import BaseModel

MODULES = (
    "shipway.prefect.engine",
    "shipway.prefect.hooks",
    "anyio._backends._asyncio",
    "encodings.idna",
    "fastapi",
    "prefect._internal.states",
    "prefect.concurrency._asyncio",
    "prefect.concurrency._sync",
    "prefect.concurrency.services",
    "prefect.deployments.steps",
    "prefect.task_engine",
    "prefect.utilities.visualization",
    "pydantic.v1",
    "rich._emoji_codes",
    "shipway.report.collect",
    "shipway.report.render",
    "shipway.store.object_store",
)

CALLS = (
    "mimetypes:init",
    "shipway.run.environment:environment",
    "shipway.prefect.preload:build_models",
    "shipway.report.render:prepare",
    "shipway.prefect.preload:log_once",
    "shipway.prefect.preload:leave_heartbeats_to_worker",
    "shipway.run.capture:patterns",
    "shipway.prefect.patience:be_patient",
)
"""What every template does once for all of its runs."""


def build_models() -> None:
    """Build the validators of all models that Prefect left to be built when they are first used."""
    waiting: list[type[BaseModel]] = [BaseModel]
    while waiting:
        for model in waiting.pop().__subclasses__():
            waiting.append(model)
            if not model.__pydantic_complete__:
                # One that lacks a type it names is left to whoever gives it that.
                model.model_rebuild(raise_errors=False)


def log_once() -> None:
    """Format a line of a run's log, to nowhere: what is compiled for that is compiled for all."""
    handler = PrefectConsoleHandler(stream=io.StringIO())
    handler.emit(
        logging.LogRecord("prefect.flow_runs", logging.INFO, "", 0, "Flow run 'a' - %s in 0.5 s", ("b",), None)
    )


_for_good = ExitStack()


def leave_heartbeats_to_worker() -> None:
    """Keep Prefect's engine from giving signs of life: its thread for it takes a run a second to end.

    The setting that says so cannot be given in the environment, and to change it in a run takes 0.1 s.
    """
    from prefect.settings import PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    _for_good.enter_context(temporary_settings({PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}))
