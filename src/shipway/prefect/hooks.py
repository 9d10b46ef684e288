"""Hooks of runs that crashed or were cancelled, run in a process of their own and never in the worker.

Prefect's workers load the flow into themselves to run its `on_crashed` and `on_cancellation` hooks: user code in the
process that looks after every other run, and without the release stamped on the run. Here a hook gets what the run got:
its release, in a workspace, with its environment.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

import anyio
from prefect.client.schemas.objects import FlowRun, State
from prefect.flow_engine import load_flow, load_flow_run
from prefect.logging.loggers import flow_run_logger
from prefect.runner._hook_runner import _run_hooks

HOOK_SECONDS = 300
"""How long the hooks of one run may take together."""


class HooksInProcess:
    """What Prefect's executor calls when a run crashed or is being cancelled (its `FlowRunHookRunner`)."""

    def __init__(self, environment: Mapping[str, str | None], folder: Path) -> None:
        self._environment = {name: value for name, value in environment.items() if value is not None}
        self._folder = folder

    async def run_cancellation_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run the flow's `on_cancellation` hooks."""
        if state.is_cancelling():
            await self._run(flow_run, "on_cancellation_hooks")

    async def run_crashed_hooks(self, flow_run: FlowRun, state: State) -> None:
        """Run the flow's `on_crashed` hooks."""
        if state.is_crashed():
            await self._run(flow_run, "on_crashed_hooks")

    async def _run(self, flow_run: FlowRun, hooks: str) -> None:
        argv = [sys.executable, "-m", "shipway.prefect.hooks", str(flow_run.id), hooks]
        environment = {**self._environment, "PREFECT__FLOW_RUN_ID": str(flow_run.id)}
        logger = flow_run_logger(flow_run)
        try:
            with anyio.fail_after(HOOK_SECONDS):
                done = await anyio.run_process(argv, env=environment, cwd=self._folder, check=False)
        except TimeoutError:
            logger.warning("The hooks took over %d s and were stopped", HOOK_SECONDS)
        except OSError as error:
            logger.warning("The hooks could not be started: %s", error)
        else:
            if done.returncode:
                last = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
                logger.warning("The hooks could not be run: %s", "".join(last) or f"status {done.returncode}")


def main(run_id: UUID, hooks: str) -> None:
    """Run the hooks of one kind of a run's flow."""
    flow_run = load_flow_run(run_id)
    flow = load_flow(flow_run)
    found = getattr(flow, hooks) or []
    if found and flow_run.state is not None:
        asyncio.run(_run_hooks(found, flow_run, flow, flow_run.state))


if __name__ == "__main__":
    main(UUID(sys.argv[1]), sys.argv[2])
    sys.stdout.flush()
    os.chdir("/")
