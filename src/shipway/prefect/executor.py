"""Prefect's executor of runs, shared by all runs of a worker, that ends processes promptly and hands runs back.

`FlowRunExecutorContext` is made for one run: a client, a connection for events and a listening socket each time. It
serves any number at once, and for less.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress
from typing import Self
from uuid import UUID

from prefect._internal.attempt_control import AttemptConclusion, EngineOutcomeReceipt
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, Pause
from prefect.logging.loggers import flow_run_logger
from prefect.runner._cancellation_manager import CancellationManager
from prefect.runner._control_channel import ControlChannel, ControlSignalStatus
from prefect.runner._flow_run_executor import FlowRunExecutorContext
from prefect.runner._process_manager import ProcessHandle, ProcessManager
from prefect.runner._state_proposer import StateProposer
from prefect.states import AwaitingRetry
from prefect.utilities.engine import propose_state

from shipway.prefect.automations import RUN_AGAIN, ZOMBIE

GRACE_SECONDS = 30.0
"""How long a run may take to end when it is asked to; Prefect's own."""

LOOK_SECONDS = 0.05

HANDED_BACK = f"{RUN_AGAIN}its worker was asked to end"

TERMINATED = "Execution was aborted by a termination signal."
"""What a run's last state says that was asked to end and had time to say so (`exception_to_crashed_state`)."""


class Executors(FlowRunExecutorContext):
    """Looks after the processes of runs, and takes them from their runs when somebody says so."""

    async def __aenter__(self) -> Self:
        """Connect, and put our own parts where Prefect's do not serve."""
        await super().__aenter__()
        self._state_proposer = self._handed_back = _Proposer(client=self.client)
        self._cancellation_manager._state_proposer = self._state_proposer
        # Asked for each process that has ended, before it is forgotten.
        self._conclusions = _Conclusions(self.control_channel)
        self.control_channel.get_conclusion = self._conclusions  # type: ignore[method-assign]
        self._cancellations = _Cancellations(self._cancellation_manager)
        self._cancellation_manager.cancel_by_id = self._cancellations  # type: ignore[method-assign]
        # An attribute of this one instance, which Prefect's parts hold already.
        self.process_manager.kill = _Killer(self.process_manager)  # type: ignore[method-assign]
        return self

    async def cancellation(self, run: UUID) -> None:
        """Wait until a run that is being cancelled has been, its hooks included; no time for one that is not."""
        if await self._cancellations.end(run):
            # A process that concluded before it heard of it has said something else.
            self._conclusions.said.setdefault(run, "cancelled")

    def cancelling(self, run: UUID) -> bool:
        """Tell whether a run is being cancelled."""
        return self._cancellations.has(run)

    def concluded(self, run: UUID) -> bool:
        """Tell whether a run's process has said its last, or was taken from it; it may live on for a while."""
        return self.was_handed_back(run) or self.control_channel.get_conclusion(run) is not None

    async def hand_back(self, flow_run: FlowRun) -> bool:
        """End a run's process and have the run started again by whoever is there; tell whether that came about.

        What the run has done so far is done again, as after a crash: nothing of it was committed.
        """
        status = await self.control_channel.signal(flow_run.id, "reschedule")
        if status is ControlSignalStatus.ALREADY_CONCLUDED:
            return False
        # Before the process ends: a process that is gone would be taken for a crash.
        self._handed_back.runs.add(flow_run.id)
        given = await self._give(flow_run)
        if given is None:
            self._handed_back.runs.discard(flow_run.id)
        await self.process_manager.kill(flow_run.id, force=status is ControlSignalStatus.NOT_ACKNOWLEDGED)
        # A process that was about to begin may have said until its end that it did.
        if given and await self._begun_after(flow_run, given):
            given = await self._give(flow_run)
        return given is not None

    async def _give(self, flow_run: FlowRun) -> State | None:
        """Have a run started anew by whoever is there; return the state that it waits in, None where it does not."""
        try:
            await self._unmark(flow_run.id)
            state = await propose_state(self.client, AwaitingRetry(message=HANDED_BACK), flow_run_id=flow_run.id)
        except (Abort, Pause, Exception) as error:  # noqa: BLE001 - the worker ends all the same
            flow_run_logger(flow_run).warning("The run could not be handed back: %s", error)
            return None
        return state if state.is_scheduled() else None

    async def _begun_after(self, flow_run: FlowRun, given: State) -> bool:
        """Tell whether a run that was handed back is Running without anybody having claimed it since."""
        try:
            state = (await self.client.read_flow_run(flow_run.id)).state
            if state is None or not state.is_running():
                return False
            states = await self.client.read_flow_run_states(flow_run.id)
        except Exception as error:  # noqa: BLE001 - the worker ends all the same
            flow_run_logger(flow_run).warning("Nobody knows whether the run that was handed back is: %s", error)
            return False
        return not any(each.is_pending() and each.timestamp > given.timestamp for each in states)

    async def begin_anew(self, flow_run: FlowRun, status: int) -> None:
        """Have a run that has crashed started again if it was asked to end, as its worker was.

        Args:
            flow_run: the run.
            status: how its process ended.
        """
        logger = flow_run_logger(flow_run)
        try:
            state = (await self.client.read_flow_run(flow_run.id)).state
            message = (state and state.message) or ""
            if message.startswith(ZOMBIE) or (status != -signal.SIGTERM and message != TERMINATED):
                return  # the server has it run again, or it ended of itself
            await self._unmark(flow_run.id)
            await propose_state(self.client, AwaitingRetry(message=HANDED_BACK), flow_run_id=flow_run.id)
        except Exception as error:  # noqa: BLE001 - the worker ends all the same
            logger.warning("The run was asked to end with its worker, and could not be handed back: %s", error)
        else:
            logger.info("The run was asked to end with its worker; another worker starts it anew")

    async def take_away(self, run: UUID) -> None:
        """Kill the process of a run that is due again, which is no crash of the run; tell `forget` when it is gone."""
        self._handed_back.runs.add(run)
        await self.process_manager.kill(run, force=True)

    def forget(self, run: UUID) -> None:
        """Take a run's next end for what it is."""
        self._handed_back.runs.discard(run)

    async def _unmark(self, run: UUID) -> None:
        """Take off the mark that a retry within its process has left on a run: no worker takes one that has it."""
        policy = (await self.client.read_flow_run(run)).empirical_policy
        if policy.retry_type:
            cleared = policy.model_copy(update={"retry_type": None})
            await self.client.update_flow_run(run, empirical_policy=cleared)

    def outcome(self, run: UUID, status: int) -> str:
        """Say in a word how a run's process ended: the state that it has left the run in, as far as it said so."""
        said = self._conclusions.said.pop(run, None)
        if self.was_handed_back(run):
            return "handed_back"
        return said or ("crashed" if status else "ended")

    def was_handed_back(self, run: UUID) -> bool:
        """Tell whether a run's end here is not the end of the run."""
        return run in self._handed_back.runs


class _Proposer(StateProposer):
    """Does not call a crash what was done on purpose."""

    def __init__(self, **arguments: object) -> None:
        super().__init__(**arguments)  # type: ignore[arg-type]
        self.runs: set[UUID] = set()

    async def propose_crashed(self, flow_run: FlowRun, message: str) -> State | None:
        if flow_run.id in self.runs:
            return None
        return await super().propose_crashed(flow_run, message)


class _Conclusions:
    """Looks up what a run's process has said about its end, and remembers the state."""

    def __init__(self, channel: ControlChannel) -> None:
        self._find = channel.get_conclusion
        self.said: dict[UUID, str] = {}

    def __call__(self, flow_run_id: UUID) -> AttemptConclusion | None:
        conclusion = self._find(flow_run_id)
        if isinstance(conclusion, EngineOutcomeReceipt):
            self.said[flow_run_id] = (conclusion.state_type or conclusion.disposition.value).lower()
        elif conclusion and conclusion.intent == "cancel":
            self.said[flow_run_id] = "cancelled"
        return conclusion


class _Cancellations:
    """Cancels runs one attempt at a time, and knows which are under way: they outlast the processes of their runs."""

    def __init__(self, manager: CancellationManager) -> None:
        self._cancel = manager.cancel_by_id
        self._locks: dict[UUID, asyncio.Lock] = {}

    async def __call__(self, flow_run_id: UUID) -> None:
        async with self._locks.setdefault(flow_run_id, asyncio.Lock()):
            await self._cancel(flow_run_id)

    def has(self, run: UUID) -> bool:
        """Tell whether a run's cancellation is under way."""
        return run in self._locks

    async def end(self, run: UUID) -> bool:
        """Wait for the end of a run's cancellation; tell whether there was one."""
        if lock := self._locks.pop(run, None):
            async with lock:
                return True
        return False


class _Killer:
    """Ends processes as Prefect's manager does, but looks at once whether they have ended, not every third second."""

    def __init__(self, manager: ProcessManager) -> None:
        self._manager = manager

    async def __call__(self, flow_run_id: UUID, grace_seconds: float = GRACE_SECONDS, *, force: bool = False) -> None:
        handle = self._manager.get(flow_run_id)
        if handle is None or handle.pid is None:
            return
        for end in (handle.hard_kill,) if force else (handle.graceful_kill, handle.hard_kill):
            with suppress(ProcessLookupError, PermissionError, TimeoutError):
                end()
                async with asyncio.timeout(grace_seconds):
                    await _end(handle)
                return


async def _end(handle: ProcessHandle) -> None:
    while handle.returncode is None and handle.is_alive():
        await asyncio.sleep(LOOK_SECONDS)
