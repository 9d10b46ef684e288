"""Hearing of runs at once: a subscription to the server's events, beside the polling that goes on in any case."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from uuid import UUID

from prefect.events.clients import get_events_subscriber
from prefect.events.filters import EventAnyResourceFilter, EventFilter, EventNameFilter

EVENTS = ["prefect.flow-run.Scheduled", "prefect.flow-run.Late", "prefect.flow-run.AwaitingRetry"]
"""What makes a run due: it was created or handed back, its time has passed, it is to be tried again."""

RECONNECT_SECONDS = 2.0


Logger = logging.Logger | logging.LoggerAdapter[logging.Logger]


async def wake(pool: Callable[[], UUID | None], look: Callable[[], None], logger: Logger) -> None:
    """Call `look` whenever a run of the work pool becomes due, until cancelled.

    While there is no connection nobody is woken, and polling finds the runs.

    Args:
        pool: returns the work pool's id, once it is known.
        look: has the worker ask for runs; returns at once.
        logger: told once when events stop coming.
    """
    said = False
    while True:
        try:
            if identity := pool():
                async with get_events_subscriber(filter=_due(identity)) as events:
                    said = False
                    # What became due between the last poll and the subscription made no event for us.
                    look()
                    async for _ in events:
                        look()
        except Exception as error:  # noqa: BLE001 - whatever it is, the worker goes on polling
            if not said:
                logger.warning("Runs are found by polling only, as no events arrive: %s", error)
                said = True
        await asyncio.sleep(RECONNECT_SECONDS)


def _due(pool: UUID) -> EventFilter:
    resource = EventAnyResourceFilter(id=[f"prefect.work-pool.{pool}"])
    return EventFilter(event=EventNameFilter(name=EVENTS), any_resource=resource)
