"""A template: a process with one thread and the heavy imports done, from which runs are forked.

`python -m shipway.worker.template DESCRIPTOR`, where the descriptor is one end of a pair of sockets. When the other end
closes, the worker is gone: the runs are asked to end, then made to.
"""

from __future__ import annotations

import gc
import importlib
import os
import resource
import select
import selectors
import signal
import socket
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from shipway.worker import child
from shipway.worker.orphans import adopt_orphans
from shipway.worker.wire import Ended, Forked, Order, Preload, Ready, Refused, Retire, Unfit, receive, send

GRACE_SECONDS = 30.0
"""How long runs may take to end after their worker is gone; Prefect's own grace when a run is cancelled."""

BURY_SECONDS = 1.0
"""How long to wait at the end for processes that runs have left behind; those with a session of their own go on."""

APART_SECONDS = 5.0
"""How long a run that was just forked may take until it is a process group of its own; usually a millisecond."""

HARMLESS_THREADS = {
    "jemalloc_bg_thd": "jemalloc stops its background threads for a fork and starts them again when they are needed",
    "polars-ooc-clea": "it sleeps until there is something to clean up that polars has spilled to disk",
}
"""Threads that imports start and that a fork may leave behind, and why it may. Names as Linux cuts them off."""


class Template:
    """The loop of a template: forks what is ordered, tells what has ended."""

    def __init__(self, link: socket.socket) -> None:
        self.link = link
        self.runs: dict[int, int] = {}
        self.retired = False
        self.deadline: float | None = None

    def serve(self) -> int:
        """Preload, then fork until there is nothing left to do; return the exit status."""
        wishes, _ = receive(self.link)
        if not isinstance(wishes, Preload):
            return 2
        began = time.monotonic()
        before = open_files()
        without = preload(wishes.modules, wishes.calls)
        if reason := unfit(before):
            send(self.link, Unfit(reason))
            return 0
        # What is left in them would be written by every run.
        for stream in (sys.stdout, sys.stderr):
            if stream:
                with suppress(OSError):
                    stream.flush()
        gc.collect()
        # Nothing of the heap is looked at by a later collection, so that runs go on sharing its pages.
        gc.freeze()
        wakeup, self._notify = os.pipe()
        for descriptor in (wakeup, self._notify):
            os.set_blocking(descriptor, False)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGTERM, lambda _number, _frame: self._retire())
        signal.set_wakeup_fd(self._notify, warn_on_full_buffer=False)
        with selectors.DefaultSelector() as selector:
            selector.register(self.link, selectors.EVENT_READ, self._take)
            selector.register(wakeup, selectors.EVENT_READ, lambda: self._reap(wakeup))
            send(self.link, Ready(time.monotonic() - began, memory(), without))
            while self.runs or not self.retired:
                for key, _ in selector.select(1.0 if self.deadline else None):
                    action: Callable[[], None] = key.data
                    try:
                        action()
                    except (EOFError, OSError):
                        self._orphaned(selector)
                if self.deadline and time.monotonic() > self.deadline:
                    self._signal(signal.SIGKILL)
            self._bury()
        return 0

    def _take(self) -> None:
        message, descriptors = receive(self.link)
        if isinstance(message, Retire):
            self._retire()
        elif isinstance(message, Order):
            try:
                self._fork(message, descriptors)
            finally:
                for descriptor in descriptors:
                    os.close(descriptor)

    def _fork(self, order: Order, descriptors: Sequence[int]) -> None:
        with ExitStack() as stack:
            try:
                apart, end = os.pipe()
                stack.callback(os.close, apart)
                with os.fdopen(end, "w"):
                    pid = _fork()
                    if pid == 0:
                        child.run(order, descriptors)
            except OSError as error:
                send(self.link, Refused(order.number, f"no process could be made: {error}"))
                return
            self.runs[pid] = order.number
            # Told of a run, the worker may send signals to its group at once. It has one when it lets go of this pipe.
            select.select([apart], [], [], APART_SECONDS)
        send(self.link, Forked(order.number, pid))

    def _reap(self, wakeup: int) -> None:
        with suppress(BlockingIOError):
            os.read(wakeup, 4096)
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            number = self.runs.pop(pid, None)
            if number is None:
                continue
            # What a run started and left behind ends with it; the number of its group is not given away meanwhile.
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            seconds, most = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
            ended = Ended(number, os.waitstatus_to_exitcode(status), seconds, most)
            with suppress(OSError):
                send(self.link, ended)

    def _bury(self) -> None:
        """Wait for what was killed with the last runs, which would stay as zombies with the worker."""
        deadline = time.monotonic() + BURY_SECONDS
        with suppress(ChildProcessError):
            while time.monotonic() < deadline:
                if os.waitpid(-1, os.WNOHANG) == (0, 0):
                    time.sleep(0.01)

    def _retire(self) -> None:
        self.retired = True

    def _orphaned(self, selector: selectors.BaseSelector) -> None:
        """Nobody can be told any more how runs end: they end now, and say it to their server themselves."""
        with suppress(KeyError):
            selector.unregister(self.link)
        self.retired = True
        self.deadline = time.monotonic() + GRACE_SECONDS
        self._signal(signal.SIGTERM)

    def _signal(self, number: signal.Signals) -> None:
        for pid in self.runs:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, number)


def preload(modules: Iterable[str], calls: Iterable[str] = ()) -> tuple[str, ...]:
    """Import modules, then call functions; return the modules that cannot be imported."""
    without = []
    gc.disable()
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:  # noqa: BLE001 - a flow may import it in another way, and says so if not
            without.append(name)
    for entry in calls:
        module, _, function = entry.partition(":")
        getattr(importlib.import_module(module), function)()
    return tuple(without)


def _fork() -> int:
    """Fork without Python's warning of threads: those that are there may be left behind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def unfit(before: Collection[int]) -> str | None:
    """Say why no run can be forked from this process, or None.

    Threads do not live on in a forked process, and the locks that they hold stay locked there. A connection or a device
    that two processes use at once serves neither; an open file has one position for all of them.

    Args:
        before: descriptors that were open before the imports.
    """
    # Some libraries end their threads when they hear of a fork (OpenBLAS); so there is one before they are counted.
    pid = _fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    threads = sorted(name for name in _threads() if name not in HARMLESS_THREADS)
    if threads:
        return f"an import started threads ({', '.join(threads)})"
    for descriptor, target in sorted(open_files().items()):
        if descriptor not in before:
            return f"an import opened {'a socket' if target.startswith('socket:') else target}"
    return None


def open_files() -> dict[int, str]:
    """Return what this process's descriptors lead to."""
    files = {}
    for link in Path("/proc/self/fd").iterdir():
        with suppress(OSError):  # the folder itself was open while it was read
            files[int(link.name)] = str(link.readlink())
    return files


def _threads() -> list[str]:
    """Return the names of this process's threads other than the main one."""
    names = []
    for thread in Path("/proc/self/task").iterdir():
        if thread.name != str(os.getpid()):
            with suppress(OSError):
                names.append((thread / "comm").read_text().strip())
    return names


def memory() -> int:
    """Return the memory of this process, in bytes."""
    # Not `ru_maxrss`: that of a new program begins with what the process that started it had.
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def main(argv: list[str]) -> int:
    """Serve the connection whose descriptor is the only argument."""
    if not sys.flags.safe_path:
        # The folder that `python -m` puts first is where the worker happens to be; a run puts its own there.
        del sys.path[0]
    adopt_orphans()
    with socket.socket(fileno=int(argv[0])) as link:
        # Runs are not to inherit it across an exec.
        os.set_inheritable(link.fileno(), False)
        try:
            return Template(link).serve()
        except EOFError:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
