"""Pages of runs that could not leave one themselves: they crashed or were cancelled. Their worker makes them.

In a thread of its own, one after the other, when the run's state is settled: a store that is away keeps nothing else
waiting, and no state depends on a page. What is not made here is made when somebody asks for it.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from contextlib import suppress

from shipway.prefect.api import Api
from shipway.settings import Settings

SETTLE_SECONDS = 4.0
"""How long a run's last lines and task states are on their way: they come in batches, two seconds apart."""

CLOSE_SECONDS = 5.0
"""How long a worker that ends waits for the last pages."""

MOST = 1000
"""Runs that wait for their pages; those beyond get none from here."""


class Endings:
    """Makes pages of runs that have ended, in the background.

    Args:
        settings: whose server.
        logger: the worker's.
    """

    def __init__(self, settings: Settings, logger: logging.Logger | logging.LoggerAdapter[logging.Logger]) -> None:
        self._settings = settings
        self._logger = logger
        self._ended: queue.Queue[tuple[float, str] | None] = queue.Queue(MOST)
        self._closing = threading.Event()
        # The process does not wait for it: its store may be away for long.
        self._thread = threading.Thread(target=self._work, name="endings", daemon=True)
        self._thread.start()

    def add(self, run_id: str) -> None:
        """Have a page made of a run if it has crashed or was cancelled, once that is settled."""
        with suppress(queue.Full):
            self._ended.put_nowait((time.monotonic() + SETTLE_SECONDS, run_id))

    def close(self) -> None:
        """Make the pages that are left, as far as there is time."""
        self._closing.set()
        with suppress(queue.Full):
            self._ended.put_nowait(None)
            self._thread.join(CLOSE_SECONDS)

    def _work(self) -> None:
        api = Api(self._settings)
        while entry := self._ended.get():
            due, run_id = entry
            self._closing.wait(max(0.0, due - time.monotonic()))
            try:
                # What draws pages is imported for the first of them: most workers make none.
                from shipway.prefect.links import publish_ended

                publish_ended(api, run_id, self._settings)
            except Exception as error:  # noqa: BLE001 - the run has ended; `shipway report` makes the page
                self._logger.debug("The page of run %s was not kept: %s", run_id, error)
