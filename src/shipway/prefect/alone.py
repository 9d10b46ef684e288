"""A run whose worker has died ends too, and says so: nobody gives its signs of life, so it is run again.

A run's template ends it when their worker is gone. Where both were killed the run does it itself. Where all are asked
to end at once, the server with them, the worker may find nobody to hand the run back to: that they were asked together
is in the run's last words, and whoever is there next goes by them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from contextlib import suppress
from typing import Any

from prefect import flow_engine
from prefect.client.schemas.objects import State
from prefect.exceptions import TerminationSignal

from shipway.prefect.automations import ZOMBIE
from shipway.prefect.heartbeats import is_alive
from shipway.prefect.scratch import hold, is_ending
from shipway.worker.orphans import end_with_parent
from shipway.worker.template import GRACE_SECONDS

VARIABLE = "SHIPWAY__WORKER"
"""Tells a run that has a process of its own which process its worker is."""
LOOK_SECONDS = 1.0
TOGETHER_SECONDS = 0.5
"""Within which two processes hear what both are told, one after the other."""


def belong_to(worker: int) -> None:
    """Keep the worker's folder as long as this run's process, and tell by its last state when its worker had died.

    Args:
        worker: the worker's process.
    """
    hold()
    describe = vars(flow_engine)["exception_to_crashed_state"]

    async def described(exc: BaseException, *args: Any, **kwargs: Any) -> State:
        state: State = await describe(exc, *args, **kwargs)
        # Rich ends a program whose output nobody takes any more, such as the dead worker.
        if isinstance(exc, TerminationSignal | SystemExit) and not is_alive(worker):
            state.message = f"{ZOMBIE}its worker died"
        elif isinstance(exc, TerminationSignal) and await _is_worker_asked():
            state.message = f"{ZOMBIE}it was asked to end with its worker"
        return state

    vars(flow_engine)["exception_to_crashed_state"] = described


async def _is_worker_asked() -> bool:
    """Tell whether the worker was asked to end, too, which it may hear a moment later."""
    with suppress(TimeoutError):
        async with asyncio.timeout(TOGETHER_SECONDS):
            while not is_ending():
                await asyncio.sleep(TOGETHER_SECONDS / 25)
    return is_ending()


def belong_to_parent() -> None:
    """Do the same in a process that a worker of ours has started, which ends with it; nothing in any other."""
    worker = int(os.environ.get(VARIABLE) or 0)
    if worker and worker == os.getppid():
        belong_to(worker)
        end_with_parent(signal.SIGTERM)
        if os.getppid() != worker:
            os.kill(os.getpid(), signal.SIGTERM)


def end_without(worker: int, template: int) -> None:
    """End this run's process once both others are gone; nothing while the worker is there.

    Args:
        worker: the worker's process.
        template: that from which this one was forked.
    """
    # A template that is there asks the run to end, and makes it.
    while is_alive(worker) or os.getppid() == template:
        time.sleep(LOOK_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(GRACE_SECONDS)
    with suppress(OSError):
        os.killpg(os.getpid(), signal.SIGKILL)
