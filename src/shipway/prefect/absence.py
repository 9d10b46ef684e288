"""What the stack's server does about the time in which it heard nobody: it was not there, or it was stopped.

Our automations wait for signs of life. A server that was away for longer than a run may be silent, or stopped, as with
a suspended machine, or whose clock has jumped, would take every run for dead before it heard of any: the waits of such
a one begin anew.
"""

from __future__ import annotations

import asyncio
import functools
import math
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import sqlalchemy as sa
from prefect.server.database.dependencies import provide_database_interface
from prefect.server.events import triggers
from prefect.server.events.schemas.automations import EventTrigger
from sqlalchemy.exc import DBAPIError

from shipway.prefect.automations import LEAST_SECONDS

SHARE = 0.6
"""Of a wait, which is three signs of life: a server that was away for longer may have missed two of them, or more.

It looks at the waits every five seconds, and the shortest wait is ten seconds."""

OURS = "shipway: "
"""What the names of our automations begin with."""
LOOKS = ("evaluate_proactive_triggers", "reactive_evaluation", "periodic_evaluation")
"""Prefect's functions that conclude something from waits, or forget them."""
BEGINS = ("ensure_bucket", "start_new_bucket")
"""Those that begin one."""


async def forgive_silence(away: float = math.inf) -> None:
    """Begin the waits of our automations anew that a server may have missed much of, which was away so many seconds."""
    db = provide_database_interface()
    now = datetime.now(UTC)
    ours = sa.select(db.Automation.id).where(db.Automation.name.startswith(OURS))
    buckets = sa.select(db.AutomationBucket).where(db.AutomationBucket.automation_id.in_(ours))
    # A database that is new or old gets its tables when the server starts; what is wrong otherwise is told then.
    with suppress(DBAPIError):
        async with db.session_context(begin_transaction=True) as session:
            for bucket in await session.scalars(buckets):
                wait: timedelta = bucket.end - bucket.start
                if away > SHARE * wait.total_seconds():
                    bucket.end = max(bucket.end, now + wait)


async def begin_waits_anew() -> None:
    """Begin all waits anew, before the server serves."""
    await forgive_silence()
    await (await provide_database_interface().engine()).dispose()


class Presence:
    """Notices whether the server was away, before anything is concluded from what it has not heard.

    Args:
        forgive: told for how many seconds it was away.
        now: the time; on the clock by which waits end.
    """

    def __init__(self, forgive: Callable[[float], Coroutine[Any, Any, None]], now: Callable[[], float]) -> None:
        self._forgive = forgive
        self._now = now
        self._seen = self._back = now()
        self._lock = asyncio.Lock()

    async def notice(self) -> None:
        """Look at the clock; all who ask wait until waits have begun anew where the server was away."""
        async with self._lock:
            away = self._now() - self._seen
            if away > LEAST_SECONDS * SHARE:
                self._back = self._now()
                await self._forgive(away)
            self._seen = self._now()

    def before(self, function: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., Coroutine[Any, Any, None]]:
        """Return a function that looks at the clock first."""

        @functools.wraps(function)
        async def looked(*args: Any, **named: Any) -> None:
            await self.notice()
            await function(*args, **named)

        return looked

    def lasting(self, begin: Callable[..., Coroutine[Any, Any, Any]]) -> Callable[..., Coroutine[Any, Any, Any]]:
        """Return a function that begins a wait of ours as `begin` does, but has it last as long after an absence too.

        What it begins with may have been on its way since before.
        """

        @functools.wraps(begin)
        async def began(session: Any, trigger: EventTrigger, *args: Any, end: datetime, **named: Any) -> Any:
            if trigger.within and trigger.automation.name.startswith(OURS):
                end = max(end, datetime.fromtimestamp(self._back, UTC) + trigger.within)
            return await begin(session, trigger, *args, end=end, **named)

        return began


def notice_absence() -> None:
    """Have this server look at the clock before it looks at waits, every five seconds, and at each event."""
    presence = Presence(forgive_silence, time.time)
    for name in LOOKS:
        setattr(triggers, name, presence.before(getattr(triggers, name)))
    for name in BEGINS:
        setattr(triggers, name, presence.lasting(getattr(triggers, name)))
