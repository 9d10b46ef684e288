"""What patience, orphans and automations lean on in Prefect."""

from __future__ import annotations

import asyncio
import inspect
import signal
import subprocess
import sys
from typing import Any

import pytest
from prefect import flow_engine
from prefect.client import base
from prefect.events import worker as events_worker
from prefect.events.clients import PrefectEventsClient
from prefect.exceptions import TerminationSignal
from prefect.server.concurrency.lease_storage import filesystem
from prefect.server.events.actions import ChangeFlowRunState
from prefect.server.events.schemas.automations import EventTrigger
from prefect.server.models.events import flow_run_state_change_event
from prefect.states import exception_to_crashed_state

from shipway.prefect.alone import belong_to
from shipway.prefect.automations import LEAST_SECONDS, automations
from shipway.prefect.executor import TERMINATED
from shipway.prefect.patience import LONGEST_PAUSE, OUTAGE_SECONDS, TRIES
from shipway.settings import Settings
from shipway.stack.service import _SERVER_TUNING

PATIENT = """
import random
from prefect.client import base
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_URL, temporary_settings
from shipway.prefect.patience import be_patient
be_patient()
pauses = [base.clamped_poisson_interval(2**n, 0.2) for n in range(1, 60)]
assert max(pauses) < 7, max(pauses)
assert base.PrefectHttpxAsyncClient()._has_connected
assert base.PrefectHttpxSyncClient()._has_connected
kind, options = EventsWorker._client_override
assert kind is PrefectEventsClient and dict(options)["reconnection_attempts"] >= 600
"""


def test_clients_try_again_as_long_as_it_is_said() -> None:
    for client in (base.PrefectHttpxAsyncClient, base.PrefectHttpxSyncClient):
        source = inspect.getsource(client)
        assert "retry_seconds = 2**try_count" in source
        assert "clamped_poisson_interval(" in source
        assert "PREFECT_CLIENT_MAX_RETRIES.value()" in source
        assert "if self._has_connected:" in source
    subprocess.run([sys.executable, "-c", PATIENT], check=True, timeout=120)
    # 2 and 4 s, then the longest pause each time, a fifth shorter at worst.
    assert 600 < (TRIES - 2) * LONGEST_PAUSE * 0.8 < OUTAGE_SECONDS


def test_events_wait_in_memory_for_as_many_tries() -> None:
    assert "reconnection_attempts" in inspect.signature(PrefectEventsClient).parameters
    assert "asyncio.sleep(1)" in inspect.getsource(PrefectEventsClient._emit)
    assert "_client_override" in inspect.getsource(events_worker.EventsWorker.instance)


@pytest.mark.parametrize("dead", [True, False])
def test_a_run_says_that_its_worker_has_died(monkeypatch: pytest.MonkeyPatch, dead: bool) -> None:
    assert inspect.getsource(flow_engine).count("exception_to_crashed_state(exc)") == 2
    worker = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    monkeypatch.setattr(flow_engine, "exception_to_crashed_state", exception_to_crashed_state)
    belong_to(worker.pid)
    if dead:
        worker.kill()
        worker.wait()
    try:
        describe: Any = vars(flow_engine)["exception_to_crashed_state"]
        state = asyncio.run(describe(TerminationSignal(signal.SIGTERM)))
        assert state.message == ("zombie: its worker died" if dead else TERMINATED)
        assert not asyncio.run(describe(KeyboardInterrupt())).message.startswith("zombie")
    finally:
        worker.kill()
        worker.communicate()


def test_automations_are_what_the_server_takes() -> None:
    settings = Settings.load(environ={"SHIPWAY_HEARTBEAT_SECONDS": "1"})
    made = list(automations("0197a000-0000-7000-8000-00000000beef", "shipway", settings))
    assert len({automation["name"] for automation in made}) == len(made)
    for automation in made:
        trigger = EventTrigger.model_validate(automation["trigger"])
        assert trigger.for_each == {"prefect.resource.id"}
        for action in automation["actions"]:
            ChangeFlowRunState.model_validate(action)
        if automation["trigger"]["within"]:
            assert trigger.within.total_seconds() == LEAST_SECONDS
    source = inspect.getsource(flow_run_state_change_event)
    assert '"prefect.run-count"' in source
    assert '"prefect.state-message"' in source


def test_leases_survive_a_restart_of_the_server() -> None:
    assert _SERVER_TUNING["PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE"] == filesystem.__name__
