"""Uploads in the background: a flow works on while what it saved is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from shipway.errors import ShipwayError
from shipway.store.base import Store

AT_ONCE = 8
MOST_WAITING_BYTES = 2 << 30
"""What may wait on the disk of a worker; whoever wants to save more waits until there is room."""


class Uploads:
    """Sends files to a store, several at a time, and says at the end whether all have arrived.

    Args:
        store: opens the store, when there is something to send.
    """

    def __init__(self, store: Callable[[], Store]) -> None:
        self._store = store
        self._pool: ThreadPoolExecutor | None = None
        self._last: dict[str, Future[None]] = {}
        self._changed = threading.Condition()
        self._waiting = 0
        self._failure: ShipwayError | None = None

    def send(self, key: str, path: Path, size: int, done: Callable[[bool], None]) -> None:
        """Have a file sent; one that is sent under a key that another one is on its way to comes after it.

        Args:
            key: where to.
            path: the file, which nobody else may change or remove until it was sent.
            size: its length in bytes.
            done: told in a thread of its own whether the file has arrived.

        Raises:
            StoreError: a file of before could not be sent; so the run is lost, and need not go on.
        """
        with self._changed:
            while self._waiting and self._waiting + size > MOST_WAITING_BYTES and not self._failure:
                self._changed.wait()
            self.check()
            self._waiting += size
            if self._pool is None:
                self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shipway-upload")
            # The pool begins with what came first, so the one waited for here is at work, or done.
            self._last[key] = self._pool.submit(self._send, key, path, size, done, self._last.get(key))

    def _send(self, key: str, path: Path, size: int, done: Callable[[bool], None], before: Future[None] | None) -> None:
        arrived = False
        try:
            if before:
                before.result()
            if not self._failure:
                self._store().put(key, path)
                arrived = True
        except ShipwayError as error:
            with self._changed:
                self._failure = self._failure or error
        finally:
            done(arrived)
            with self._changed:
                self._waiting -= size
                self._changed.notify_all()

    def check(self) -> None:
        """Raise what kept a file from being sent, if something did."""
        if self._failure:
            raise self._failure

    def join(self) -> None:
        """Wait until everything was sent.

        Raises:
            StoreError: a file could not be sent.
        """
        for job in list(self._last.values()):
            job.result()
        self.check()

    def close(self) -> None:
        """Send nothing more; what is under way ends first, as it reads files that are about to be removed."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)
