"""The flows that processes are killed under."""

TAG = "gpu"
"""Of a task that holds a slot."""
FLOW = '''
import atexit
import os
import time
from contextlib import suppress
from pathlib import Path

from prefect import flow, task
from prefect.runtime import flow_run

import shipway

LIVES, POINTS = Path({lives!r}), Path({points!r})


def stay(point: str) -> None:
    """Stay at a point of the run's life for as long as somebody wants who asked for it: the first run that comes."""
    here = POINTS / f"{{point}} {{os.getpid()}}"
    with suppress(FileNotFoundError):
        (POINTS / point).rename(here)
        while here.exists():
            time.sleep(0.02)


def live() -> int:
    """Leave word of this process, and say which attempt of the run it is."""
    count = flow_run.run_count
    (LIVES / f"{{flow_run.id}}.{{count}}").write_text(str(os.getpid()))
    return count


@task(tags=["{tag}"])
def hold(seconds: float) -> None:
    stay("task")
    time.sleep(seconds)


@flow
def work(seconds: float = 0.0, first: float | None = None, linger: float = 0.0) -> None:
    """Save before and after some time, in which a slot is held; the first attempt may take another time than others.

    The process may live on after that.
    """
    atexit.register(time.sleep, linger)
    count = live()
    stay("running")
    shipway.save("begun", count)
    Path("left.txt").write_text(str(count))
    hold(first if count == 1 and first is not None else seconds)
    shipway.save("numbers", list(range(count, count + 5000)))


@flow(retries=1, retry_delay_seconds=12)
def stumble() -> None:
    """Fail once; Prefect tries it again in the same process, after a while."""
    if live() == 1:
        raise RuntimeError("once")
    shipway.save("begun", flow_run.run_count)


stay("loaded")
'''
