"""Hooks of runs that crashed or were cancelled, run in processes of their own and never in the worker.

Prefect's workers load the flow into themselves to run its `on_crashed` and `on_cancellation` hooks: user code in the
process that looks after every other run, and without the release stamped on the run. Here a hook gets what the run got:
its release, in a workspace, with its environment.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import anyio
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import load_flow, load_flow_run
from prefect.logging.loggers import flow_run_logger
from prefect.runner._hook_runner import _run_hooks

from shipway.prefect.results import leave_alone
from shipway.prefect.starter import run_environment
from shipway.worker.pool import Pool

ENTRY = "shipway.prefect.hooks:run"

HOOK_SECONDS = 300
"""How long the hooks of one run may take together."""


@dataclass(frozen=True)
class Place:
    """Where the hooks of a run are to run.

    Attributes:
        environment: environment variables of the run.
        folder: folder of the run, which is there until its hooks have run.
    """

    environment: Mapping[str, str | None]
    folder: Path


class Hooks:
    """What Prefect's executor calls when a run crashed or is being cancelled (its `FlowRunHookRunner`).

    Attributes:
        places: where the hooks of each run that is going on are to run.
    """

    def __init__(self, pool: Pool | None) -> None:
        self.places: dict[UUID, Place] = {}
        self._pool = pool

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run the flow's `on_cancellation` hooks."""
        if state.is_cancelling():
            await self._run(flow_run, "on_cancellation_hooks")

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run the flow's `on_crashed` hooks."""
        if state.is_crashed():
            await self._run(flow_run, "on_crashed_hooks")

    async def _run(self, flow_run: FlowRun, hooks: str) -> None:
        place = self.places.get(flow_run.id)
        if place is None:
            return
        environment = run_environment(place.environment) | {"PREFECT__FLOW_RUN_ID": str(flow_run.id)}
        logger = flow_run_logger(flow_run)
        with tempfile.TemporaryFile() as output:
            try:
                with anyio.fail_after(HOOK_SECONDS):
                    status = await self._process(f"{flow_run.id} {hooks}", environment, place.folder, output.fileno())
            except TimeoutError:
                logger.warning("The hooks took over %d s and were stopped", HOOK_SECONDS)
                return
            except OSError as error:
                logger.warning("The hooks could not be started: %s", error)
                return
            if status:
                output.seek(0)
                last = output.read().decode(errors="replace").strip().splitlines()[-1:]
                logger.warning("The hooks could not be run: %s", "".join(last) or f"status {status}")

    async def _process(self, argument: str, environment: dict[str, str], folder: Path, output: int) -> int:
        """Run hooks in a fork of a template, else in a new process; return how it ended."""
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            descriptors = (nothing, output, output)
            fork = self._pool and await self._pool.fork(ENTRY, argument, environment, str(folder), descriptors)
            if fork:
                try:
                    return await fork.wait()
                except BaseException:
                    with suppress(ProcessLookupError):
                        os.killpg(fork.pid, signal.SIGKILL)
                    raise
        finally:
            os.close(nothing)
        argv = [sys.executable, "-m", "shipway.prefect.hooks", argument]
        done = await anyio.run_process(argv, env=environment, cwd=folder, stdout=output, stderr=output, check=False)
        return done.returncode


def run(argument: str) -> None:
    """Run the hooks of a run's flow: `<flow run id> <attribute of the flow that holds them>`."""
    leave_alone()
    run_id, _, hooks = argument.partition(" ")
    flow_run = load_flow_run(UUID(run_id))
    flow = load_flow(flow_run)
    found = getattr(flow, hooks) or []
    if found and flow_run.state is not None:
        asyncio.run(_run_hooks(found, flow_run, flow, flow_run.state))


if __name__ == "__main__":
    run(sys.argv[1])
    sys.stdout.flush()
    os.chdir("/")
