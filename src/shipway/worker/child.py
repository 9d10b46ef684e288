"""A run's process, from the fork to its end: as if it had been started on its own."""

from __future__ import annotations

import atexit
import gc
import importlib
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from shipway.worker.wire import GO, Order

MOST_DESCRIPTORS = 1 << 20
STANDARD_DESCRIPTORS = 3


def run(order: Order, descriptors: Sequence[int]) -> NoReturn:
    """Execute an order in this process, just forked, and end the process.

    Args:
        order: what to execute.
        descriptors: its first descriptors, and a connection to its worker, where it says its number and hears `GO`.
    """
    status = 1
    try:
        be_apart()
        if not _may_begin(descriptors):
            # Its worker has heard of its template's end first, and starts the run in another way.
            os._exit(status)
        become(order)
        status = _execute(order)
    except BaseException:  # noqa: BLE001 - whatever happens, a child never goes on as a template
        traceback.print_exc()
    leave(status)


def _may_begin(descriptors: Sequence[int]) -> bool:
    leash = len(descriptors) - 1
    try:
        os.write(descriptors[leash], b"%d" % os.getpid())
        for target, descriptor in enumerate(descriptors):
            # As with `subprocess`, programs that the run starts get the first three only.
            os.dup2(descriptor, target, inheritable=target < STANDARD_DESCRIPTORS)
        # Before it waits: while it held the connection of the template, its worker would not hear of that one ending.
        os.closerange(len(descriptors), MOST_DESCRIPTORS)
        return bool(os.read(leash, len(GO)))
    except OSError:
        return False
    finally:
        os.close(leash)


def be_apart() -> None:
    """Take off what others reach the template by: its session and what it does at signals."""
    # A session of its own, so that a signal to the terminal or to the run reaches the whole of it and nothing else.
    os.setsid()
    signal.set_wakeup_fd(-1)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGPIPE):
        signal.signal(number, signal.SIG_DFL)
    # As Python itself sets them when it starts.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def become(order: Order) -> None:
    """Take off what else is the template's: environment, folder, random numbers.

    Raises:
        OSError: the folder of the order is not there.
    """
    os.environ.clear()
    os.environ.update(order.environment)
    time.tzset()
    os.chdir(order.folder)
    sys.argv = [order.entry, order.argument]
    if not sys.flags.safe_path:
        # What `python -m` does.
        sys.path.insert(0, str(Path.cwd()))
    # The folder for temporary files is looked up once in a process; the run's may be another.
    tempfile.tempdir = None
    _new_random_numbers()
    gc.enable()


def _new_random_numbers() -> None:
    """Give libraries other seeds and keys than the template's, as they had if they were imported here.

    Python's own `random` does this itself after a fork.
    """
    if numbers := sys.modules.get("numpy.random"):
        numbers.seed()
    if processes := sys.modules.get("multiprocessing.process"):
        processes.current_process().authkey = os.urandom(32)


def _execute(order: Order) -> int:
    module, _, name = order.entry.partition(":")
    try:
        getattr(importlib.import_module(module), name)(order.argument)
    except SystemExit as ending:
        return status_of(ending.code)
    except KeyboardInterrupt:
        traceback.print_exc()
        return 128 + signal.SIGINT
    except BaseException:  # noqa: BLE001 - what Python does with it at the end of a program
        traceback.print_exc()
        return 1
    return 0


def status_of(code: object) -> int:
    """Return the exit status of `sys.exit(code)`, by Python's rule."""
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)  # noqa: T201
    return 1


def leave(status: int) -> NoReturn:
    """End the process as Python does, but for taking its modules apart, which takes 0.1 to 0.4 s and helps nobody.

    `multiprocessing` ends the processes that it forks in the same way.
    """
    try:
        for last in (threading._shutdown, atexit._run_exitfuncs):  # type: ignore[attr-defined]
            try:
                last()
            except BaseException:  # noqa: BLE001 - what remains is done all the same
                traceback.print_exc()
        for stream in (sys.stdout, sys.stderr):
            # A program may have closed or replaced them.
            if stream and not getattr(stream, "closed", False):
                stream.flush()
    except BaseException:  # noqa: BLE001 - the process ends now
        status = status or 120  # Python's own status for output that could not be written
    finally:
        os._exit(status)
