"""Runs that are due again although their processes are here: the server has taken them for dead, or they are ending."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING
from uuid import UUID

from shipway.prefect.heartbeats import is_alive

if TYPE_CHECKING:
    from shipway.prefect.executor import Executors
    from shipway.prefect.going_on import Live

ENDING_SECONDS = 5.0
"""How long a run that is due again may be about to end: one that was suspended and goes on at once, for example."""


class Alarms:
    """What to do with each: one that goes on is left alone, its end settles it; one that is stopped is killed.

    Args:
        executors: end a run's process.
        look: asks for runs that are due.
        say: tells a person of a run that goes on.
    """

    def __init__(self, executors: Executors, look: Callable[[], None], say: Callable[[Live], None]) -> None:
        self._executors = executors
        self._look = look
        self._say = say
        self._going_on: dict[UUID, asyncio.Task[None]] = {}

    def ring(self, live: Live) -> None:
        """Look after a run; nothing where that is being done."""
        run = live.flow_run.id
        if run not in self._going_on:
            task = self._going_on[run] = asyncio.create_task(self._settle(live))
            task.add_done_callback(lambda _task: self._going_on.pop(run, None))

    async def _settle(self, live: Live) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(ENDING_SECONDS):
                await live.ended.wait()
        pid = live.handle.pid if live.handle else None
        if not live.ended.is_set() and (pid is None or is_alive(pid)):
            self._say(live)
        elif not live.ended.is_set():
            await self._executors.take_away(live.flow_run.id)
        # Until it ends, this worker starts it no second time.
        await live.ended.wait()
        self._executors.forget(live.flow_run.id)
        self._look()
