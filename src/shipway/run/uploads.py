"""Uploads in the background: a flow works on while what it saved is on its way."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from shipway.errors import ShipwayError, StoreUnreachableError
from shipway.run.growing import GivenUpError, Growing
from shipway.store.base import Store

AT_ONCE = 8
LARGE = 32 << 20
"""Bytes from which a file is sent while it is being written; a smaller one is whole before much of it has gone."""
MOST_WAITING_BYTES = 2 << 30
"""What may wait on the disk of a worker; whoever wants to save more waits until there is room."""

Done = Callable[[bool], None]
"""Told in a thread of its own whether a file has arrived."""

_T = TypeVar("_T")


class Uploads:
    """Sends files to a store, several at a time, and says at the end whether all have arrived.

    A file that is sent under a key that another one is on its way to comes after that one.

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

    def send(self, key: str, path: Path, size: int, done: Done) -> None:
        """Have a file sent.

        Args:
            key: where to.
            path: the file, which nobody else may change or remove until it was sent.
            size: its length in bytes.
            done: told of its arrival.

        Raises:
            StoreError: a file of before could not be sent; so the run is lost, and need not go on.
        """
        with self._changed:
            while self._waiting and self._waiting + size > MOST_WAITING_BYTES and not self._failure:
                self._changed.wait()
            self.check()
            self._waiting += size
            put = partial(self._put, key, path)
            self._last[key] = self._start(self._send, put, size, done, self._last.get(key))

    def send_growing(self, key: str, growing: Growing, done: Done) -> Future[tuple[str, int]]:
        """Have a file sent while it is being written, if it gets large.

        Args:
            key: where to.
            growing: the file; whoever writes it says when it is whole, or that it was given up.
            done: told of its arrival.

        Returns:
            Its sha256 and size in bytes, when it is whole.

        Raises:
            StoreError: as `send`.
        """

        def put() -> None:
            if growing.reaches(LARGE):
                try:
                    self._store().put(key, growing.pieces())
                except StoreUnreachableError:
                    # Pieces that have passed cannot be sent again; the file can, once it is whole.
                    growing.digest()
                else:
                    return
            self._store().put(key, growing.path)

        with self._changed:
            self.check()
            self._last[key] = self._start(self._send, put, 0, done, self._last.get(key))
            return self._start(growing.digest)

    def _start(self, work: Callable[..., _T], *arguments: Any) -> Future[_T]:
        if self._pool is None:
            self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shipway-upload")
        return self._pool.submit(work, *arguments)

    def _put(self, key: str, path: Path) -> None:
        self._store().put(key, path)

    def _send(self, put: Callable[[], None], size: int, done: Done, before: Future[None] | None) -> None:
        arrived = False
        try:
            if before:
                # The pool begins with what came first, so this one is at work, or done.
                before.result()
            if not self._failure:
                put()
                arrived = True
        except ShipwayError as error:
            with self._changed:
                self._failure = self._failure or error
        except GivenUpError:
            pass  # whoever was writing it has heard why
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
