"""A run's turn: it has come when the run before it has ended.

Waiting takes up a place (of a worker, a queue, a pool, a deployment), and the run that is waited for needs one as well.
Should it lose its own, because its worker stopped and handed it back or because it was turned away for a while, those
that wait for it could hold all the places there are, for ever. So nobody waits for long for a run that waits for a
place: it goes back into the queue itself, behind that run, and begins anew when a place is free.

That is why runs in a row cannot lock each other out, whatever limits there are and whoever stops meanwhile:

- A run waits for one that was there before it was created. There is no circle, and of the runs that have not ended the
  first waits for nobody.
- If the first has a place it ends, and the next one is the first.
- If it waits for a place, the one after it gives up its own, then the one after that, and so on. They are due later
  than the first, and places are given away by when runs are due: the next free one is for the first. Runs that belong
  to no row wait for nobody and free theirs in the end.
- A run that has failed, or was cancelled or deleted, has ended. One that is retried by its own process keeps its place.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from shipway.errors import ServerUnreachableError
from shipway.prefect.api import Api
from shipway.prefect.healing import RETRYING, unmark
from shipway.prefect.runs import FINAL, PATIENCE_SECONDS, POLL_SECONDS
from shipway.run.session import current
from shipway.settings import Settings

PLACE_SECONDS = 45.0
"""How long a run is waited for that waits for a place. One that meets its deployment's limit comes back after 30 s."""

BEHIND = timedelta(seconds=60)
"""How much later than the run before it a run is due that gave up its place; more than those 30 s, too."""


def wait_for_turn(run_id: str) -> None:
    """Wait until a run has ended, however; one that is not there any more has.

    Raises:
        ServerUnreachableError: the server stayed away for `PATIENCE_SECONDS`.
        prefect.exceptions.Pause: this run has gone back into its queue; it is no error, and not to be caught.
    """
    api = Api(Settings.load())
    answered = time.monotonic()
    without_place: float | None = None
    while True:
        try:
            run = api.find(f"/flow_runs/{run_id}")
            answered = time.monotonic()
            if run is None or run["state_type"] in FINAL:
                return
            without_place = (without_place or answered) if _waits_for_a_place(run) else None
            if without_place and answered - without_place > PLACE_SECONDS:
                _give_up_place(api, run)
                without_place = None
        except ServerUnreachableError:
            if time.monotonic() - answered > PATIENCE_SECONDS:
                raise
        time.sleep(POLL_SECONDS)


def _waits_for_a_place(run: Mapping[str, Any]) -> bool:
    """Tell whether a run needs somebody to take it up; one that is retried by its own process does not."""
    return bool(run["state_type"] == "SCHEDULED" and (run.get("empirical_policy") or {}).get("retry_type") != RETRYING)


def _give_up_place(api: Api, before: Mapping[str, Any]) -> None:
    """End this process's part in its run, which is due again after the run before it; return if that cannot be."""
    from prefect.client.orchestration import get_client
    from prefect.exceptions import Pause
    from prefect.states import AwaitingRetry
    from prefect.utilities.engine import propose_state_sync

    session = current()
    if session is None:
        return
    run_id = session.order.run_id
    unmark(api, api.request("GET", f"/flow_runs/{run_id}"))
    due = max(datetime.now(UTC), _due(before)) + BEHIND
    message = f"Gave up its place for run {before['name']}, which comes first and waits for one"
    with get_client(sync_client=True) as client:
        state = propose_state_sync(client, AwaitingRetry(scheduled_time=due, message=message), flow_run_id=UUID(run_id))
    if state.is_scheduled():
        # As when a run is suspended: the process ends, nothing of it is committed, and it is not taken for a crash.
        raise Pause(message, state=state)


def _due(run: Mapping[str, Any]) -> datetime:
    due = run.get("next_scheduled_start_time") or run.get("expected_start_time")
    return datetime.fromisoformat(due) if due else datetime.now(UTC)
