"""The process of a service."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import IO

from shipway.stack import ProcessFacts
from shipway.stack.course import Seen
from shipway.stack.service import Service

LOG_LIMIT = 10 * 1024 * 1024
"""A log of this size is put aside, replacing the one put aside before, when its service starts."""
OUTPUT_LIMIT = 64 * 1024
LISTENS_SECONDS = 5.0
"""How often a service that is ready is asked whether all of it listens: each time takes a port of every connection."""
GONE_SECONDS = 10.0
"""How long a killed process may take to be gone; only one that the kernel itself holds up takes longer."""


class Child:
    """The process of a service, in a session of its own so that a terminal's Ctrl-C reaches only the supervisor."""

    def __init__(self, service: Service, log: Path) -> None:
        self._service = service
        self._log = log
        self._closed, self._ask_next = False, 0.0
        with open_log(log) as output:
            self._start_of_output = output.tell()
            self._process = subprocess.Popen(
                service.argv,
                env=dict(service.env),
                cwd=service.cwd,
                stdin=subprocess.PIPE if service.held else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # The S3 server makes sockets in /tmp, whose mode is all that keeps other users from them.
                umask=service.umask,
            )
        self.facts = ProcessFacts(self._process.pid, created_at(self._process.pid))

    def look(self, *, starting: bool) -> Seen:
        """See whether the process ended and, where it does not, whether it can be used or listens no more."""
        status = self._process.poll()
        if status is not None:
            # What it started must not outlive it: it would keep ports, files and runs that nobody watches.
            _signal_group(self._process.pid, signal.SIGKILL)
            return Seen(status=status)
        if starting:
            return Seen(ready=self._service.ready(self.output()))
        if time.monotonic() >= self._ask_next:
            self._closed = not self._service.listens()
            self._ask_next = time.monotonic() + LISTENS_SECONDS
        return Seen(closed=self._closed)

    def release(self) -> None:
        """Tell a process that was held that its turn has come."""
        if self._process.stdin:
            with contextlib.suppress(BrokenPipeError), self._process.stdin as words:
                words.write(b"go\n")

    def terminate(self) -> None:
        """Ask the process to end. Only itself: it knows in which order to end what it started."""
        if self._process.poll() is None:
            self._process.terminate()

    def kill(self) -> None:
        """End the process and everything it started."""
        _signal_group(self._process.pid, signal.SIGKILL)

    def output(self) -> str:
        """Return the last of what the process wrote since it started."""
        with self._log.open("rb") as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(max(self._start_of_output, end - OUTPUT_LIMIT))
            return file.read().decode(errors="replace")


def created_at(pid: int) -> float:
    """Return when a process was created, in seconds since the epoch."""
    import psutil

    try:
        return float(psutil.Process(pid).create_time())
    except psutil.Error:
        return time.time()


def this_process() -> ProcessFacts:
    """Describe the process that asks."""
    return ProcessFacts(os.getpid(), created_at(os.getpid()))


def stop_leftover(process: ProcessFacts, grace: float) -> bool:
    """End a process of an earlier supervisor and everything it started; tell whether there was anything to end.

    Nothing but that very process is touched: a later one that got the same number was created at another time.
    """
    if not process.alive:
        # The process is gone, but what it started may not be: its group's number is not given away while one is left.
        return _pid_is_free(process.pid) and _signal_group(process.pid, signal.SIGKILL)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, signal.SIGTERM)
    deadline = time.monotonic() + grace
    while process.alive and time.monotonic() < deadline:
        time.sleep(0.05)
    _signal_group(process.pid, signal.SIGKILL)
    # A signal is only on its way when it has been sent: whoever comes next needs the ports of all that got it.
    deadline = time.monotonic() + GONE_SECONDS
    while (process.alive or _group_lives(process.pid)) and time.monotonic() < deadline:
        time.sleep(0.01)
    return True


def open_log(path: Path) -> IO[bytes]:
    """Open a log to add to; one that has grown too large is put aside first."""
    if path.exists() and path.stat().st_size >= LOG_LIMIT:
        path.rename(path.with_suffix(".log.1"))
    return path.open("ab")


def _pid_is_free(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def _group_lives(number: int) -> bool:
    """Whether a process group has a process that is more than a zombie."""
    import psutil

    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.Error):
            if os.getpgid(process.pid) == number and process.status() != psutil.STATUS_ZOMBIE:
                return True
    return False


def _signal_group(pid: int, number: signal.Signals) -> bool:
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):
        return False
    return True
