"""A run that is begun again although it has committed: it completes by its record, and its flow is not executed again.

Its processes died between the commit and the word that it has completed; or it was taken for dead in the moment in
which it completed. Only what we have begun again is spared its work: who tries a run again by hand wants it done.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import FlowRun, State
from prefect.flows import Flow
from prefect.results import get_default_persist_setting
from prefect.states import Completed

from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.automations import RUN_AGAIN
from shipway.prefect.pages import kept_page, task_facts
from shipway.report.collect import page_key
from shipway.report.facts import TaskFacts
from shipway.run.record import RunRecord, read_record, run_folder
from shipway.store.base import Store

WAITS = ("Late", "AwaitingConcurrencySlot")
"""States of runs that are due, and by which nobody asked for them."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What an earlier attempt of a run has committed.

    Attributes:
        record: the run's record.
        folder: the run's folder in the store.
        tasks: its task runs, where nothing was published of it yet; else None.
    """

    record: RunRecord
    folder: str
    tasks: tuple[TaskFacts, ...] | None


def find_committed(api: Api, flow: Flow[..., Any], flow_run: FlowRun, store: Store) -> Committed | None:
    """Return that by which a run is to complete; None where its flow is to be executed.

    Args:
        api: the server.
        flow: the run's flow.
        flow_run: the run, before it is Running.
        store: where its data lies.
    """
    if not flow_run.run_count or flow_run.expected_start_time is None:
        return None  # it has never been Running, and nobody is asked
    persists = get_default_persist_setting() if flow.persist_result is None else flow.persist_result
    if persists:
        return None  # only the flow knows what it returned
    folder = run_folder(flow.name, flow_run.expected_start_time, flow_run.name, str(flow_run.id))
    try:
        record = read_record(store, f"{folder}/run.json")
        if not _is_begun_by_us(api, flow_run):
            return None
        # Once there is a page of how it completed all was published; there may be one of how an attempt crashed.
        published = kept_page(store, page_key(folder), {"state_type": "COMPLETED"}) is not None
        return Committed(record, folder, None if published else task_facts(api, record.run_id))
    except ShipwayError:
        return None  # there is no record, mostly; anything else is met, and told, when the attempt commits


def _is_begun_by_us(api: Api, flow_run: FlowRun) -> bool:
    states = api.request("GET", f"/flow_run_states/?flow_run_id={flow_run.id}")
    asked = [state for state in states if state["type"] == "SCHEDULED" and state["name"] not in WAITS]
    last: Mapping[str, Any] = max(asked, key=lambda state: str(state["timestamp"]), default={})
    return str(last.get("message")).startswith(RUN_AGAIN)


def complete_by(flow: Flow[..., Any], record: RunRecord, settle: Callable[[], None]) -> None:
    """Have a flow's next call complete without executing it; its states are gone through and its hooks called.

    Args:
        flow: the flow.
        record: what its earlier attempt has committed.
        settle: does what a commit is followed by.
    """
    state: State[Any] = Completed(message=f"Attempt {record.attempt} had committed all data, nothing was done again")

    @functools.wraps(flow.fn)
    def completed(*_args: Any, **_kwargs: Any) -> Any:
        settle()
        return state

    flow.fn = completed
    # However it is written, there is nothing to wait for in it.
    flow.isasync = flow.isgenerator = False
