"""How long a worker and its runs go on while the Prefect API does not answer: through ten minutes of work on a server.

Prefect's client tries a request again five times, each pause twice the one before; then a run fails that could have
gone on. More tries alone would not do: the ninth pause is eight minutes, most of it after the server is back.
"""

from __future__ import annotations

from prefect.client import base
from prefect.events.clients import PrefectEventsClient
from prefect.events.worker import EventsWorker
from prefect.settings import PREFECT_API_KEY
from prefect.utilities.math import clamped_poisson_interval

OUTAGE_SECONDS = 900.0
"""How long nothing may answer before a request fails: ten minutes, and half as much again."""
LONGEST_PAUSE = 5.0
"""Seconds between two tries at most, so that a run goes on soon after the server is back; refusals cost nothing."""
TRIES = 2 + round(OUTAGE_SECONDS / LONGEST_PAUSE)
"""Pauses of 2 and 4 s come first."""


def be_patient() -> None:
    """Have this process's clients of the API, and its events, outlast an outage; `TRIES` belongs to it as a setting.

    Events wait in memory, in their order, and are sent when the server is back.
    """
    vars(base)["clamped_poisson_interval"] = _shorter_pause
    # A client that has never been answered does not try again. Whoever is patient has been answered: a worker when it
    # started, a run through its worker.
    for client in (base.PrefectHttpxAsyncClient, base.PrefectHttpxSyncClient):
        client._has_connected = property(lambda _client: True, lambda _client, _value: None)  # type: ignore[assignment]
    if not PREFECT_API_KEY.value():
        # One try a second.
        EventsWorker.set_client_override(PrefectEventsClient, reconnection_attempts=round(OUTAGE_SECONDS))


def _shorter_pause(average_interval: float, clamping_factor: float = 0.3) -> float:
    return clamped_poisson_interval(min(average_interval, LONGEST_PAUSE), clamping_factor)
