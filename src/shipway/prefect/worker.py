"""The Prefect worker of pool type `shipway`: Prefect's process worker, whose runs are forked from warm templates."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from uuid import UUID

import anyio
from anyio.abc import TaskStatus
from prefect._internal.observers import FlowRunSuspendingObserver
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.responses import WorkerFlowRunResponse
from prefect.runner._flow_run_executor import FlowRunExecutionResult
from prefect.runner._process_manager import ProcessHandle
from prefect.workers.process import ProcessWorker, ProcessWorkerResult

from shipway.prefect import imports
from shipway.prefect.alone import VARIABLE as WORKER
from shipway.prefect.claim import claim
from shipway.prefect.configuration import ShipwayJobConfiguration, ShipwayVariables, common_environment
from shipway.prefect.environment import fingerprint
from shipway.prefect.executor import Executors
from shipway.prefect.going_on import Live
from shipway.prefect.handover import Preparations
from shipway.prefect.hooks import Hooks, Place
from shipway.prefect.patience import be_patient
from shipway.prefect.pool import POOL_TYPE
from shipway.prefect.preload import CALLS, MODULES
from shipway.prefect.scratch import ENDING, Scratch
from shipway.prefect.scratch import VARIABLE as SCRATCH
from shipway.prefect.shortcuts import LATER_SECONDS, Due, Later, Reads, shortcuts
from shipway.prefect.starter import OWN_VARIABLES, Starter, run_environment
from shipway.prefect.vigil import Vigil
from shipway.prefect.wakeup import wake
from shipway.settings import Settings
from shipway.worker.cores import openmp
from shipway.worker.fork import Fork
from shipway.worker.pool import AVAILABLE, Pool

EXPECTED = 2
"""Deployments whose imports were learnt last get their templates when the worker starts, before their first run."""


class ShipwayWorker(ProcessWorker):
    """A worker whose runs execute exactly the release stamped on them, and whose data is committed to the store.

    Attributes:
        live: the runs that are going on, by their ids.
        draining: whether it takes up no more runs.
        on_started: told when a run has a process.
        on_ended: told when a run has ended.
    """

    type = POOL_TYPE
    job_configuration = ShipwayJobConfiguration
    job_configuration_variables = ShipwayVariables  # type: ignore[assignment] # the base says so too

    _display_name = "Shipway"
    _description = "Runs releases: verified code from S3, and every byte of run data back to it."
    _documentation_url = ""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """Take Prefect's arguments for workers."""
        super().__init__(*args, **kwargs)
        self.live: dict[UUID, Live] = {}
        self.draining = False
        self._over = False
        self.on_started: Callable[[Live], None] = lambda _live: None
        self.on_ended: Callable[[Live], None] = lambda _live: None
        self._pool: Pool | None = None
        self._vigil: Vigil | None = None
        self._polling = asyncio.Lock()
        self._asked = False
        self._tasks: list[asyncio.Task[None]] = []
        self._starters: dict[UUID, Starter] = {}
        self._claiming: dict[UUID, asyncio.Task[bool]] = {}
        self._submitting: dict[UUID, asyncio.Task[None]] = {}

    async def setup(self) -> None:
        """Connect, make the template that most runs need, then listen for runs."""
        await super().setup()
        # From here on: a server that does not answer at the start is told at once.
        be_patient()
        stack = self._exit_stack
        self._reads, self._later = Reads(self.client), Later(self.client)
        Due(self.client, self._room)
        self._claims = scratch = stack.enter_context(Scratch())
        self._scratch = scratch.folder
        # A runner makes a folder that nothing here uses, and that a worker which is killed would leave behind.
        self._runner._tmp_dir.rmdir()
        self._settings = settings = Settings.load()
        # What nobody has set: neither who started this worker nor the job of a run.
        self._defaults = {**openmp(self._limit), **await asyncio.to_thread(shortcuts, settings, self._scratch)}
        self._preparations = Preparations(settings, self.client, self._scratch)
        self._learnt = imports.Learnt(settings.cache_folder / "imports")
        if AVAILABLE:
            pool = Pool(
                MODULES, CALLS, OWN_VARIABLES, keep=(scratch.lock,), stamp=fingerprint, note=self._logger.warning
            )
            self._pool = await stack.enter_async_context(pool)
            environment = run_environment(self._defaults | common_environment())
            await pool.warm_up(environment)
            for modules in self._learnt.recent(EXPECTED):
                pool.expect(environment, modules)
        self._executors = await stack.enter_async_context(Executors())
        self._suspending = await stack.enter_async_context(FlowRunSuspendingObserver(on_suspended=self._suspend))
        self._hooks = Hooks(self._pool)
        self._tasks = [asyncio.create_task(wake(self._pool_id, self._woken, self._logger))]
        if self._work_pool:
            self._vigil = Vigil(
                settings, self._work_pool, self.name, self.live, self._executors, self._woken, self._logger
            )
            self._tasks += await self._vigil.begin()

    async def teardown(self, *exc_info: Any) -> None:
        """End the runs that are still there, then disconnect."""
        self.draining = self._over = True
        # Runs that are ended from here on have crashed: nobody waits for them any more.
        (self._scratch / ENDING).unlink(missing_ok=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(self._executors.process_manager.kill(run) for run in list(self.live)))
        with suppress(TimeoutError):
            async with asyncio.timeout(10):
                await asyncio.gather(*(each.ended.wait() for each in list(self.live.values())))
        self._preparations.close()
        if self._vigil:
            await self._vigil.end()
        await super().teardown(*exc_info)

    @property
    def templates(self) -> int:
        """How many templates are ready."""
        return self._pool.templates if self._pool else 0

    def _pool_id(self) -> UUID | None:
        return self._work_pool.id if self._work_pool else None

    def _woken(self) -> None:
        """Poll because a run is due; events that come during a poll are answered by one more."""
        if not self._asked and self._runs_task_group:
            self._asked = True
            self._runs_task_group.start_soon(self._look)

    def _room(self) -> int | None:
        return int(self._limiter.available_tokens) if self._limiter else None

    def _release_limit_slot(self, flow_run_id: UUID) -> None:
        """Let the next run begin when one has ended that kept it waiting; no event tells that it may."""
        full = self._limiter is not None and self._limiter.available_tokens < 1
        super()._release_limit_slot(flow_run_id)
        if full or (self._work_pool and self._work_pool.concurrency_limit):
            self._woken()

    async def _look(self) -> None:
        try:
            await self.get_and_submit_flow_runs()
        except Exception as error:  # noqa: BLE001 - the polling loop meets it too, and counts and reports it
            self._logger.debug("Could not ask for runs: %s", error)

    async def get_and_submit_flow_runs(self) -> list[FlowRun]:
        """Take up the runs that are due, one poll at a time; none when the worker is about to end."""
        async with self._polling:
            self._asked = False
            return [] if self.draining else await super().get_and_submit_flow_runs()

    async def run(
        self,
        flow_run: FlowRun,
        configuration: ShipwayJobConfiguration,  # type: ignore[override] # the base says so too
        task_status: TaskStatus[int] | None = None,
    ) -> ProcessWorkerResult:
        """Start one run and look after it until it ended."""
        flow = configuration._related_objects.get("flow")
        live = self.live[flow_run.id] = Live(flow_run, flow.name if flow else "")
        try:
            with TemporaryDirectory(prefix="run-", dir=self._scratch, ignore_cleanup_errors=True) as scratch:
                folder = Path(configuration.working_dir or scratch).resolve()
                return await self._run(live, configuration, folder, task_status)
        finally:
            await self._preparations.end(flow_run.id)
            self._claims.forget_claim(str(flow_run.id))
            del self.live[flow_run.id]
            live.ended.set()
            if self._vigil:
                self._vigil.ended(live)
            self.on_ended(live)

    async def _run(
        self, live: Live, configuration: ShipwayJobConfiguration, folder: Path, task_status: TaskStatus[int] | None
    ) -> ProcessWorkerResult:
        flow_run = live.flow_run
        wishes = self._scratch / f"imports-{flow_run.id}"
        own = {imports.VARIABLE: str(wishes), SCRATCH: str(self._scratch), WORKER: str(os.getpid())}
        configuration.env = {**self._defaults, **configuration.env, **own}
        deployment = str(flow_run.deployment_id or flow_run.flow_id)
        starter = Starter(
            None if configuration._command_configured else self._pool,
            imports.with_declared(self._learnt.modules(deployment), configuration.imports),
            configuration,
            folder,
            control=self._executors.control_channel,
            preparations=self._preparations,
            may_begin=self._submitting.pop(flow_run.id, None),
        )
        self._starters[flow_run.id] = starter
        self._hooks.places[flow_run.id] = Place(configuration.env, folder)
        executor = self._executors.create_executor(flow_run, starter, hook_runner=self._hooks, propose_submitting=False)
        execution: FlowRunExecutionResult | None = None

        async def execute(*, task_status: TaskStatus[ProcessHandle]) -> None:
            nonlocal execution
            execution = await executor.submit(task_status=task_status)

        try:
            async with anyio.create_task_group() as group:
                handle: ProcessHandle = await group.start(execute)
                live.handle = handle
                live.warm = isinstance(handle.raw_process, Fork)
                live.started = (datetime.now(UTC) - live.since).total_seconds()
                self.on_started(live)
                if live.warm:
                    self._watch(flow_run)
                if task_status is not None and handle.pid is not None:
                    task_status.started(handle.pid)
        finally:
            # A process that was told to end has ended before the hooks of its cancellation are run.
            await self._executors.cancellation(flow_run.id)
            self._hooks.places.pop(flow_run.id, None)
            self._starters.pop(flow_run.id, None)
            self._suspending.remove_in_flight_flow_run_id(flow_run.id)
            self._learnt.learn(deployment, wishes)
        if execution is None or execution.status_code is None:
            raise RuntimeError(f"run {flow_run.name} could not be started")
        live.outcome = self._executors.outcome(flow_run.id, execution.status_code)
        if self.draining and not self._over and live.outcome == "crashed":
            # A service manager asks all processes of a service to end, its runs too.
            await self._executors.begin_anew(flow_run, execution.status_code)
        status = 0 if self._executors.was_handed_back(flow_run.id) else execution.status_code
        return ProcessWorkerResult(status_code=status, identifier=str(execution.handle.pid))

    async def _get_scheduled_flow_runs(self) -> list[WorkerFlowRunResponse]:
        """Return the runs that are due and have no process here."""
        found = await super()._get_scheduled_flow_runs()
        for entry in found:
            if self._vigil and (live := self.live.get(entry.flow_run.id)):
                self._vigil.due_again(live)
        return [entry for entry in found if entry.flow_run.id not in self.live]

    async def _submit_run(self, flow_run: FlowRun) -> None:
        """Claim a run and start it, while its code is got ready."""
        self._reads.begin()
        # Prefect asks for the deployment first, in case that it is gone; a run of such a one is cancelled either way.
        logger = self.get_flow_run_logger(flow_run)
        self._claiming[flow_run.id] = asyncio.create_task(claim(self.client, flow_run, logger))
        if self._pool and self._pool.templates:
            self._preparations.begin(flow_run)
        try:
            await super()._submit_run(flow_run)
        finally:
            self._claiming.pop(flow_run.id, None)
            if flow_run.id not in self.live:
                await self._preparations.end(flow_run.id)
                self._claims.forget_claim(str(flow_run.id))

    async def _propose_pending_state(self, flow_run: FlowRun) -> bool:
        """Claim a run, which has been begun."""
        claimed = await self._claiming[flow_run.id]
        if claimed and flow_run.state:
            self._claims.note_claim(str(flow_run.id), str(flow_run.state.id))
        return claimed

    async def _propose_submitting_state(self, flow_run: FlowRun) -> None:
        # The run's process is made meanwhile; it begins when this is done.
        self._submitting[flow_run.id] = asyncio.create_task(super()._propose_submitting_state(flow_run))

    async def _give_worker_labels_to_flow_run(self, flow_run_id: UUID) -> None:
        # Nothing waits for the labels; the server has other things to do for this run first.
        if self._runs_task_group:
            self._runs_task_group.start_soon(self._label_later, flow_run_id)

    async def _label_later(self, flow_run_id: UUID) -> None:
        await asyncio.sleep(LATER_SECONDS)
        with suppress(Exception):
            await super()._give_worker_labels_to_flow_run(flow_run_id)

    def _watch(self, flow_run: FlowRun) -> None:
        """Listen whether a run is to be suspended, from the state on in which it was claimed."""
        # Prefect's own `watch_flow_run_id` asks the server for that state.
        self._suspending._watches[flow_run.id] = watch = self._suspending._create_watch(flow_run.id)
        watch.initialize(flow_run.state)

    def _suspend(self, flow_run_id: UUID, state: State) -> None:
        if starter := self._starters.get(flow_run_id):
            starter.suspend(state)

    async def drain(self, seconds: float) -> None:
        """Take up no more runs; let those that are going on finish, and hand back what has not after `seconds`."""
        self.draining = True
        (self._scratch / ENDING).touch()
        if not self.live:
            return
        self._logger.info("Ending: %d runs may go on for %g s", len(self.live), seconds)
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await asyncio.gather(*(live.ended.wait() for live in list(self.live.values())))
        left = [live for live in self.live.values() if live.handle]
        back = await asyncio.gather(*(self._executors.hand_back(live.flow_run) for live in left))
        if any(back):
            self._logger.info("Handed back %d runs; another worker starts them anew", sum(back))
