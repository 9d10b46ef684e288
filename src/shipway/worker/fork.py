"""A run's process as its worker sees it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress

from shipway.worker.orphans import bury

BURIALS = 100
"""How many times to look for the ends of processes that were killed, 0.05 s apart."""


class TemplateLostError(Exception):
    """A template ended, or never began.

    Attributes:
        unfit: whether it said that no run can be forked from it.
    """

    def __init__(self, reason: str, *, unfit: bool = False) -> None:
        super().__init__(reason)
        self.unfit = unfit


class Fork:
    """One run's process, which a template forked.

    Attributes:
        pid: its process id, and that of its process group.
        returncode: how it ended: its exit status, or the number of the signal that ended it, negative; None before.
        seconds: processor time that it took, known when it has ended.
        bytes: the most memory that it had, likewise.
    """

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        self.seconds = 0.0
        self.bytes = 0
        self._ended = asyncio.Event()

    async def wait(self) -> int:
        """Wait for its end; return how it ended."""
        await self._ended.wait()
        return self.returncode or 0

    def end(self, status: int, seconds: float = 0.0, most_bytes: int = 0) -> None:
        """Note how it ended."""
        self.returncode, self.seconds, self.bytes = status, seconds, most_bytes
        self._ended.set()

    def send_signal(self, number: signal.Signals) -> None:
        """Send a signal to the run's process group."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, number)

    async def wait_without_template(self) -> None:
        """Wait for the end of a run whose template is gone, and end what it leaves behind.

        Its process has become a child of this one.
        """
        # Where nobody can tell, the run's server is asked to take it for a crash; what it has concluded itself stands.
        status, seconds, most = -int(signal.SIGKILL), 0.0, 0
        with suppress(ProcessLookupError, ChildProcessError):
            await self._wait_as_parent()
            # The number of its group is not given away before it is waited for.
            self.send_signal(signal.SIGKILL)
            _, code, usage = os.wait4(self.pid, 0)
            seconds, most = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
            status = os.waitstatus_to_exitcode(code)
        self.end(status, seconds, most)
        for _ in range(BURIALS):
            if not bury(self.pid):
                return
            await asyncio.sleep(0.05)

    async def _wait_as_parent(self) -> None:
        loop = asyncio.get_running_loop()
        ended = asyncio.Event()
        descriptor = os.pidfd_open(self.pid)
        loop.add_reader(descriptor, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
