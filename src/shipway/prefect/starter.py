"""Starting the process of a run: forked from a template, or on its own where there is none."""

from __future__ import annotations

import os
from collections.abc import Awaitable, Mapping
from contextlib import ExitStack
from pathlib import Path

import anyio
from anyio.abc import TaskStatus
from httpx import HTTPError
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import PrefectException
from prefect.logging.loggers import flow_run_logger
from prefect.runner._control_channel import ControlChannel
from prefect.runner._process_manager import ProcessHandle, create_isolated_termination_scope
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.settings import Settings, get_current_settings
from prefect.workers.process import ProcessJobConfiguration

from shipway.errors import ShipwayError
from shipway.prefect.handover import Handover, Preparations, Related
from shipway.prefect.line import Line
from shipway.worker.fork import Fork
from shipway.worker.pool import Pool

ENTRY = "shipway.prefect.engine:run_supervised"
OWN_VARIABLES = ("PREFECT__", "SHIPWAY__")
"""Environment variables whose names begin so belong to one run; Prefect's own convention, and ours after it."""


_settings: tuple[Settings, dict[str, str]] | None = None


def settings_environment() -> dict[str, str]:
    """Return this process's Prefect settings as environment variables; written down once, as that takes 60 ms."""
    global _settings  # noqa: PLW0603 - a cache
    settings = get_current_settings()
    if _settings is None or _settings[0] is not settings:
        _settings = settings, settings.to_environment_variables(exclude_unset=True)
    return dict(_settings[1])


def run_environment(environment: Mapping[str, str | None]) -> dict[str, str]:
    """Return all of the environment of a run whose job configuration has `environment`."""
    whole: dict[str, str | None] = {
        **os.environ,
        **environment,
        **settings_environment(),
        # Whoever looks after a run, and not the run, runs its hooks when it was killed.
        "PREFECT__ENABLE_CANCELLATION_AND_CRASHED_HOOKS": "false",
    }
    return {name: value for name, value in whole.items() if value is not None}


class Starter:
    """Starts one run; what Prefect's executor calls (its `ProcessStarter`).

    Args:
        pool: templates to fork from; None where the run gets a process of its own.
        modules: what runs of this deployment import.
        configuration: the run's job configuration.
        folder: where it starts.
        control: where the run learns why it is ended.
        preparations: where the run's code is got ready.
        may_begin: done when the server knows that the run is about to begin; None when it does already.
    """

    def __init__(
        self,
        pool: Pool | None,
        modules: tuple[str, ...],
        configuration: ProcessJobConfiguration,
        folder: Path,
        *,
        control: ControlChannel,
        preparations: Preparations,
        may_begin: Awaitable[None] | None,
    ) -> None:
        self._pool = pool
        self._modules = modules
        self._configuration = configuration
        self._folder = folder
        self._control = control
        self._preparations = preparations
        self._may_begin = may_begin
        self._line: Line | None = None

    async def start(
        self, flow_run: FlowRun, task_status: TaskStatus[ProcessHandle] = anyio.TASK_STATUS_IGNORED
    ) -> None:
        """Start the run's process, say which it is, and wait for its end."""
        with ExitStack() as stack:
            fork = await self._fork(self._pool, flow_run, stack) if self._pool else None
            if self._may_begin:
                await self._may_begin
            if fork and self._line:
                scope = create_isolated_termination_scope(fork.pid)
                task_status.started(ProcessHandle(fork, termination_scope=scope))  # type: ignore[arg-type]
                self._line.go()
                await fork.wait()
                return
        await self._own_process().start(flow_run, task_status)

    def suspend(self, state: State) -> None:
        """Tell the run that it is to be suspended; one with a process of its own listens for it itself."""
        if self._line:
            self._line.suspend(state)

    async def _fork(self, pool: Pool, flow_run: FlowRun, stack: ExitStack) -> Fork | None:
        try:
            code = await self._preparations.code(flow_run.id)
            results = await self._preparations.results()
        except (ShipwayError, PrefectException, HTTPError, OSError) as error:
            flow_run_logger(flow_run).warning("The run could not be got ready, it starts on its own: %s", error)
            return None
        port, token = self._control.register(flow_run.id)
        environment = run_environment(self._configuration.env) | {
            "PREFECT__FLOW_RUN_ID": str(flow_run.id),
            "PREFECT__CONTROL_PORT": str(port),
            "PREFECT__CONTROL_TOKEN": token,
        }
        argument = Handover(flow_run, code, results, related=self._related(flow_run)).to_json()
        self._line = line = Line()
        stack.callback(line.close)
        with ExitStack() as ours:
            ours.callback(os.close, line.ear)
            nothing = os.open(os.devnull, os.O_RDWR)
            ours.callback(os.close, nothing)
            out, err = (1, 2) if self._configuration.stream_output else (nothing, nothing)
            descriptors = (nothing, out, err, line.ear)
            return await pool.fork(ENTRY, argument, environment, str(self._folder), descriptors, self._modules)

    def _related(self, flow_run: FlowRun) -> tuple[Related, ...]:
        """Return what the worker knows of what a run's events name."""
        known = self._configuration._related_objects
        found: list[Related] = [
            (kind, str(thing.id), str(thing.id), thing.name, list(thing.tags))
            for kind in ("flow", "deployment")
            if (thing := known.get(kind))
        ]
        if flow_run.work_queue_id and flow_run.work_queue_name:
            queue = str(flow_run.work_queue_id)
            found.append(("work-queue", queue, queue, flow_run.work_queue_name, None))
        if flow_run.work_pool_name and flow_run.work_pool_id:
            found.append(
                ("work-pool", flow_run.work_pool_name, str(flow_run.work_pool_id), flow_run.work_pool_name, None)
            )
        return tuple(found)

    def _own_process(self) -> EngineCommandStarter:
        return EngineCommandStarter(
            command=self._configuration.command,
            cwd=self._folder,
            env=dict(self._configuration.env),
            stream_output=self._configuration.stream_output,
            control_channel=self._control,
            isolate_process_group=True,
        )
