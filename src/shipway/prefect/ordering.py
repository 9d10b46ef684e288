"""The order of events in the stack's server: Prefect's own, without waits for events from before its start.

Each event of a run's states names the one before it, and automations are shown no event before that one. Which ones
they have been shown is in the server's memory. After a restart an event would wait a quarter of an hour for one from
before, and be forgotten at the next restart: a run that died just then would not be run again.
"""

from __future__ import annotations

import time
from uuid import UUID

from prefect.server.events.ordering import memory
from prefect.server.events.schemas.events import ReceivedEvent

STARTED = time.time()

FLOW_RUNS = "prefect.flow-run."
"""What the server itself says; events of clients may be under way still."""


class CausalOrdering(memory.CausalOrdering):
    """What `PREFECT_SERVER_EVENTS_CAUSAL_ORDERING` asks a module for."""

    async def wait_for_leader(self, event: ReceivedEvent) -> None:
        """Wait until the event before this one was shown, or raise EventArrivedEarly where that would take too long."""
        if event.follows and event.resource.id.startswith(FLOW_RUNS) and made_before(event.follows, STARTED):
            return
        await super().wait_for_leader(event)


def made_before(event: UUID, moment: float) -> bool:
    """Tell whether an event's id is from before a moment, in seconds of the epoch: UUIDv7, RFC 9562, section 5.7."""
    return event.version == 7 and (event.int >> 80) / 1000 < moment
