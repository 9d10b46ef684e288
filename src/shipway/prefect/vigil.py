"""What a worker does beside running runs: it gives signs of life of them, and mends what dead workers left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from uuid import UUID

from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.logging.loggers import flow_run_logger

from shipway.errors import ShipwayError
from shipway.prefect.alarms import Alarms
from shipway.prefect.api import Api
from shipway.prefect.automations import ensure_automations, silence_seconds
from shipway.prefect.endings import Endings
from shipway.prefect.executor import Executors
from shipway.prefect.going_on import Live
from shipway.prefect.healing import Healer
from shipway.prefect.heartbeats import beat
from shipway.prefect.scratch import sweep
from shipway.settings import Settings

ENDED = ("crashed", "cancelled", "not_started")
"""Outcomes of runs that had no time, or no process, to leave a page."""


class Vigil:
    """A worker's watch over its runs.

    Args:
        settings: whose server.
        pool: the worker's pool.
        name: the worker's name.
        live: the runs that go on, by their ids.
        executors: end processes of runs.
        look: asks for runs that are due.
        logger: the worker's.
    """

    def __init__(
        self,
        settings: Settings,
        pool: WorkPool,
        name: str,
        live: Mapping[UUID, Live],
        executors: Executors,
        look: Callable[[], None],
        logger: logging.Logger | logging.LoggerAdapter[logging.Logger],
    ) -> None:
        self._settings = settings
        self._pool = pool
        self._live = live
        self._executors = executors
        self._logger = logger
        self._api = Api(settings)
        self._endings = Endings(settings, logger)
        self._healer = Healer(
            self._api, pool.name, name, settings.crash_retries, silence_seconds(settings), self._endings.add
        )
        self._alarms = Alarms(executors, look, _goes_on)

    async def begin(self) -> Iterator[asyncio.Task[None]]:
        """Install the server's part, and return what goes on until it is cancelled."""
        try:
            await asyncio.to_thread(ensure_automations, self._api, self._settings, self._pool.name)
        except ShipwayError as error:
            self._logger.warning("Runs that fall silent will not be noticed: %s", error)
        seconds = self._settings.heartbeat_seconds
        return map(asyncio.create_task, (beat(self._beating, self._pool, seconds), self._heal(seconds)))

    def due_again(self, live: Live) -> None:
        """Look after a run that is due although it goes on."""
        self._alarms.ring(live)

    def ended(self, live: Live) -> None:
        """Have a page kept of a run that has ended here, where it could not leave one itself."""
        if live.outcome in ENDED:
            self._endings.add(str(live.flow_run.id))

    async def end(self) -> None:
        """Make the pages that are left to make."""
        await asyncio.to_thread(self._endings.close)

    def _beating(self) -> Iterable[tuple[FlowRun, str, int | None]]:
        """Return the runs for which the worker gives signs of life: from its claim on, until their states are settled.

        Later ones would have the server wait for more of them, and set off an automation for each run.
        """
        return [
            (live.flow_run, live.flow, live.handle.pid if live.handle else None)
            for run, live in self._live.items()
            if not (self._executors.cancelling(run) or self._executors.concluded(run))
        ]

    async def _heal(self, seconds: float) -> None:
        while True:
            try:
                said = await asyncio.to_thread(self._look_round, [str(run) for run in self._live])
            except ShipwayError as error:
                self._logger.debug("Could not look for stranded runs: %s", error)
            else:
                for words in said:
                    self._logger.warning("Mended: %s", words)
            await asyncio.sleep(seconds)

    def _look_round(self, live: Collection[str]) -> list[str]:
        self._healer.left |= sweep()
        return self._healer.round(live)


def _goes_on(live: Live) -> None:
    logger = flow_run_logger(live.flow_run)
    logger.warning("The server had not heard of the run for a while and took it for crashed; it goes on")
