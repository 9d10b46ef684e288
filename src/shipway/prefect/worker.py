"""The Prefect worker of pool type `shipway`: Prefect's process worker, which starts our engine for each run."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import threading
from contextlib import AsyncExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import anyio
from anyio.abc import TaskStatus
from prefect.client.schemas.objects import FlowRun
from prefect.runner._flow_run_executor import FlowRunExecutionResult, FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle
from prefect.runner._starter_engine import EngineCommandStarter
from prefect.settings import PREFECT_WORKER_QUERY_SECONDS, temporary_settings
from prefect.utilities.processutils import command_to_string, get_sys_executable
from prefect.workers.process import ProcessJobConfiguration, ProcessVariables, ProcessWorker, ProcessWorkerResult

from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.apply import ensure_pool, ensure_queue
from shipway.prefect.hooks import HooksInProcess
from shipway.prefect.pool import POOL_TYPE
from shipway.settings import Settings

QUERY_SECONDS = 1.0
"""Time between polls for scheduled runs; one second costs the server about 5 % of a core (Prefect's default is 10)."""

READY = "worker ready"
"""What the worker prints when it polls; the stack waits for it."""


class ShipwayJobConfiguration(ProcessJobConfiguration):
    """How one run is started: as Prefect's process worker does, with our engine unless a command is given."""

    def prepare_for_flow_run(self, *args: Any, **kwargs: Any) -> None:
        """Fill in what depends on the run; the command is this interpreter's, whatever `python` on the path is."""
        if self.command is None:
            self.command = command_to_string([get_sys_executable(), "-m", "shipway.prefect.engine"])
        # Idle OpenMP threads that spin make a training on a busy machine ten times slower (LightGBM issues 5039, 6728).
        self.env.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        # What a script prints is for whoever watches it run, and that is the UI and `run --watch` now.
        self.env.setdefault("PREFECT_LOGGING_LOG_PRINTS", "true")
        # People watch runs: lines that wait two seconds for company, Prefect's default, look like a run that hangs.
        self.env.setdefault("PREFECT_LOGGING_TO_API_BATCH_INTERVAL", "0.5")
        super().prepare_for_flow_run(*args, **kwargs)


class ShipwayWorker(ProcessWorker):
    """A worker whose runs execute exactly the release stamped on them, and whose data is committed to the store."""

    type = POOL_TYPE
    job_configuration = ShipwayJobConfiguration
    job_configuration_variables = ProcessVariables  # type: ignore[assignment] # the base says so too

    _display_name = "Shipway"
    _description = "Runs releases: verified code from S3, and every byte of run data back to it."
    _documentation_url = ""

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ProcessJobConfiguration,
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Start one run and look after it until it ended; what Prefect's worker does, but for where hooks run."""
        async with AsyncExitStack() as stack:
            folder = configuration.working_dir or stack.enter_context(TemporaryDirectory(prefix="shipway-run-"))
            folder = Path(folder).resolve()
            context = await stack.enter_async_context(FlowRunExecutorContext())
            starter = EngineCommandStarter(
                command=configuration.command,
                cwd=folder,
                env=configuration.env,
                stream_output=configuration.stream_output,
                control_channel=context.control_channel,
            )
            executor = context.create_executor(
                flow_run, starter, hook_runner=HooksInProcess(configuration.env, folder), propose_submitting=False
            )
            execution: FlowRunExecutionResult | None = None

            async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
                nonlocal execution
                execution = await executor.submit(task_status=task_status)

            async with anyio.create_task_group() as group:
                handle: ProcessHandle = await group.start(execute)
                if task_status is not None and handle.pid is not None:
                    task_status.started(handle.pid)
        if execution is None or execution.status_code is None:
            raise RuntimeError(f"run {flow_run.name} could not be started")
        return ProcessWorkerResult(status_code=execution.status_code, identifier=str(execution.handle.pid))


async def serve(pool: str, queues: list[str], limit: int | None, name: str | None = None) -> None:
    """Poll a pool's queues (all of them when none is named) until SIGTERM or SIGINT, at most `limit` runs at once."""
    with temporary_settings({PREFECT_WORKER_QUERY_SECONDS: QUERY_SECONDS}):
        worker = ShipwayWorker(
            work_pool_name=pool, work_queues=queues or None, limit=limit, name=name, create_pool_if_not_found=False
        )
        task = asyncio.create_task(worker.start(printer=lambda _text: print(READY, flush=True)))  # noqa: T201
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task


def main(argv: list[str] | None = None) -> int:
    """Start a worker from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shipway.prefect.worker")
    parser.add_argument("--pool", default="shipway", help="work pool, made when it does not exist")
    parser.add_argument(
        "--queue", action="append", default=[], help="queue to take runs from, made when it does not exist; repeatable"
    )
    parser.add_argument("--limit", type=int, default=None, help="most runs at once")
    parser.add_argument("--name", default=None, help="the worker's name in the UI")
    options = parser.parse_args(argv)
    settings = Settings.load()
    try:
        api = Api(settings)
        ensure_pool(api, options.pool)
        for queue in options.queue:
            ensure_queue(api, options.pool, queue)
    except ShipwayError as error:
        print(f"shipway: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    asyncio.run(serve(options.pool, options.queue, options.limit, options.name))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Runs hand their output to threads that may still wait for it; the worker has nothing left to say.
    os._exit(status) if threading.active_count() > 1 else sys.exit(status)
