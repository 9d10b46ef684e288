"""What the warm worker leans on in Prefect and Python and that neither promises: pinned, name by name."""

from __future__ import annotations

import asyncio
import atexit
import inspect
import json
import threading
from typing import Any
from uuid import uuid4

import httpx
import prefect.results
from prefect import flow_engine
from prefect._internal.attempt_control import EngineOutcomeReceipt
from prefect._internal.observers import FlowRunSuspendingObserver
from prefect.client.orchestration import PrefectClient
from prefect.client.schemas.objects import FlowRun
from prefect.runner._cancellation_manager import CancellationManager
from prefect.runner._flow_run_executor import FlowRunExecutor, FlowRunExecutorContext, ProcessStarter
from prefect.runner._hook_runner import FlowRunHookRunner
from prefect.runner._process_manager import ProcessHandle, ProcessManager, create_isolated_termination_scope
from prefect.runner._state_proposer import StateProposer
from prefect.server.api.workers import get_scheduled_flow_runs
from prefect.settings import get_current_settings
from prefect.states import Pending
from prefect.types._datetime import now
from prefect.workers.base import BaseJobConfiguration, BaseWorker
from prefect.workers.process import ProcessJobConfiguration, ProcessWorker

from shipway.prefect.automations import HEARTBEAT
from shipway.prefect.configuration import ShipwayJobConfiguration
from shipway.prefect.executor import _Killer, _Proposer
from shipway.prefect.handover import Handover
from shipway.prefect.hooks import Hooks
from shipway.prefect.preload import build_models
from shipway.prefect.shortcuts import DUE, Due
from shipway.prefect.starter import Starter
from shipway.prefect.worker import ShipwayWorker
from shipway.worker.fork import Fork


def source_of(thing: Any) -> str:
    return inspect.getsource(thing)


def test_python_can_end_a_process_without_taking_it_apart() -> None:
    # As `multiprocessing` and `os._exit` users do.
    assert callable(threading._shutdown)  # type: ignore[attr-defined]
    assert callable(atexit._run_exitfuncs)


def test_the_steps_of_submitting_a_run_are_those_that_are_replaced() -> None:
    for name in (
        "setup",
        "teardown",
        "run",
        "get_and_submit_flow_runs",
        "_get_scheduled_flow_runs",
        "_submit_run",
        "_propose_pending_state",
        "_propose_submitting_state",
        "_give_worker_labels_to_flow_run",
    ):
        theirs, ours = getattr(ProcessWorker, name), getattr(ShipwayWorker, name)
        assert theirs is not ours
        assert inspect.iscoroutinefunction(theirs)
        assert len(inspect.signature(theirs).parameters) <= len(inspect.signature(ours).parameters)
    submit = source_of(BaseWorker._submit_run_and_capture_errors)
    # The labels and the Submitting state come before the run, and with nothing in between that needs their outcome.
    assert submit.index("_give_worker_labels_to_flow_run") < submit.index("_propose_submitting_state")
    assert submit.index("_propose_submitting_state") < submit.index("await self.run(")
    assert "ready_to_submit = await self._propose_pending_state(flow_run)" in source_of(BaseWorker._submit_run)


def test_the_job_configuration_takes_its_settings_from_one_method() -> None:
    base = source_of(BaseJobConfiguration.prepare_for_flow_run)
    assert "self._base_environment()" in base
    theirs = ProcessJobConfiguration._base_environment()
    assert ShipwayJobConfiguration._base_environment() == theirs


def test_the_executor_takes_its_parts_from_the_context() -> None:
    source = source_of(FlowRunExecutorContext)
    for part in ("self.process_manager", "self._state_proposer", "self._cancellation_manager", "self.control_channel"):
        assert f"{part} = " in source
    assert "state_proposer=self._state_proposer" in source_of(FlowRunExecutorContext.create_executor)
    assert "self._cancellation_manager._hook_runner = hook_runner" in source_of(FlowRunExecutorContext.create_executor)
    assert "self._state_proposer" in source_of(CancellationManager)
    # An instance's own `kill` is what everybody calls.
    assert "self._process_manager.kill(" in source_of(CancellationManager.cancel)
    assert (
        list(inspect.signature(ProcessManager.kill).parameters)[1:]
        == list(inspect.signature(_Killer.__call__).parameters)[1:]
    )
    assert inspect.signature(StateProposer.propose_crashed).parameters.keys() == (
        inspect.signature(_Proposer.propose_crashed).parameters.keys()
    )


def test_what_the_executor_calls_is_there() -> None:
    assert (
        inspect.signature(ProcessStarter.start).parameters.keys() == inspect.signature(Starter.start).parameters.keys()
    )
    for name in ("run_cancellation_hooks", "run_crashed_hooks"):
        theirs, ours = (inspect.signature(getattr(kind, name)).parameters for kind in (FlowRunHookRunner, Hooks))
        assert theirs.keys() == ours.keys()
    assert "self._starter.start(self._flow_run, task_status=task_status)" in source_of(FlowRunExecutor)


def test_an_engine_says_how_its_attempt_ended() -> None:
    assert {"state_type", "disposition"} <= set(EngineOutcomeReceipt.__dataclass_fields__)
    assert "self._get_attempt_conclusion(self._flow_run.id)" in source_of(FlowRunExecutor.submit)
    assert "get_attempt_conclusion=self.control_channel.get_conclusion" in source_of(FlowRunExecutorContext)
    assert "self._cancellation_manager.cancel_by_id" in source_of(FlowRunExecutorContext)


def test_a_handle_asks_a_process_for_no_more_than_a_fork_has() -> None:
    async def check() -> None:
        fork = Fork(2**22)
        handle = ProcessHandle(fork, termination_scope=create_isolated_termination_scope(fork.pid))  # type: ignore[arg-type]
        assert (handle.pid, handle.returncode) == (2**22, None)
        assert not handle.is_alive()
        fork.end(-9)
        assert handle.returncode == -9

    asyncio.run(check())


def test_a_runs_engine_looks_its_observer_up_when_it_starts() -> None:
    assert "observe_flow_run_suspension(" in source_of(flow_engine.BaseFlowRunEngine.setup_flow_run_suspension_request)
    assert hasattr(flow_engine, "observe_flow_run_suspension")


def test_an_observer_can_be_told_from_which_state_on_it_watches() -> None:
    async def check() -> None:
        seen: list[Any] = []
        observer = FlowRunSuspendingObserver(on_suspended=lambda *args: seen.append(args))
        observer._client = object()  # type: ignore[assignment]
        run = uuid4()
        observer._watches[run] = watch = observer._create_watch(run)
        watch.initialize(Pending())
        assert not seen
        observer.remove_in_flight_flow_run_id(run)
        assert not observer._watches

    asyncio.run(check())


def test_default_results_are_asked_for_by_two_functions() -> None:
    source = source_of(prefect.results)
    for name in ("_read_server_default_result_storage_block_id", "_aread_server_default_result_storage_block_id"):
        # Where it is defined, and where it is called, by its global name.
        assert f"def {name}()" in source
        assert source.count(f" {name}()") >= 2
    assert hasattr(PrefectClient, "read_server_default_result_storage")


def test_heartbeats_are_switched_by_a_setting_and_named_as_ours() -> None:
    assert "get_current_settings().flows.heartbeat_frequency" in source_of(flow_engine.BaseFlowRunEngine)
    assert f'event="{HEARTBEAT}"' in source_of(flow_engine.BaseFlowRunEngine._emit_flow_run_heartbeat)
    seconds = get_current_settings().flows.heartbeat_frequency
    assert seconds is None or seconds >= flow_engine.MINIMUM_HEARTBEAT_INTERVAL


def test_a_handed_over_run_comes_out_as_it_went_in() -> None:
    due: Any = now("UTC")
    run = FlowRun(
        flow_id=uuid4(),
        name="a",
        state=Pending(),
        parameters={"n": 1},
        tags=["t"],
        expected_start_time=due,
        run_count=2,
    )
    block = uuid4()
    again = Handover.from_json(Handover(run, None, block).to_json())
    assert (again.flow_run, again.results) == (run, block)


def test_models_can_be_built_ahead() -> None:
    build_models()
    assert FlowRun.__pydantic_complete__


def test_a_worker_with_a_limit_asks_for_as_many_runs_as_may_begin() -> None:
    ours, theirs = (
        list(inspect.signature(method).parameters)[1:]
        for method in (Due.runs, PrefectClient.get_scheduled_flow_runs_for_work_pool)
    )
    assert ours == theirs
    assert "limit" in inspect.signature(get_scheduled_flow_runs).parameters
    assert DUE in inspect.getsource(PrefectClient.get_scheduled_flow_runs_for_work_pool)
    # Without a limit Prefect's own method, which asks for two hundred.
    asked: list[dict[str, Any]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        if request.method == "GET":
            return httpx.Response(404)  # which version it is
        asked.append(json.loads(request.content))
        return httpx.Response(200, json=[])

    async def ask(room: int | None) -> None:
        async with PrefectClient(
            "http://nowhere/api", httpx_settings={"transport": httpx.MockTransport(answer)}
        ) as client:
            Due(client, lambda: room)
            assert await client.get_scheduled_flow_runs_for_work_pool("a pool", ["default"], now("UTC")) == []

    for room in (3, None):
        asyncio.run(ask(room))
    assert [body.get("limit") for body in asked] == [13, None]
    assert asked[0].keys() - asked[1].keys() == {"limit"}
