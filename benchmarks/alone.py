"""One piece of work in a process of its own: what it took of time, processor and memory.

A piece of work is a generator function that takes a `Job`. What stands before its first `yield` is preparation
(imports), what stands between the two is measured, what stands behind the second is not.
"""

from __future__ import annotations

import json
import os
import re
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

LIMIT = 600.0
"""Seconds after which a piece of work is given up."""


@dataclass(frozen=True)
class Job:
    """What a piece of work is to be done on.

    Attributes:
        folder: folder of code.
        target: folder that a checkout makes.
        state: folder for what a tool remembers on this machine.
        bucket: bucket to use.
        prefix: what every key in it begins with.
        endpoint_url: where to send requests.
        server: where to send those that are not part of the work.
    """

    folder: str
    target: str
    state: str
    bucket: str
    prefix: str
    endpoint_url: str
    server: str


@dataclass(frozen=True)
class Took:
    """What a piece of work took.

    Attributes:
        seconds: wall time.
        processor: seconds of processor time, of programs it started too.
        peak: most bytes of memory that its process, or a program it started, had at a time.
    """

    seconds: float
    processor: float
    peak: int


def measure(work: str, job: Job, environment: Mapping[str, str], python: str = sys.executable) -> Took:
    """Do a piece of work, named `module:function`, in a process of its own.

    Args:
        work: what to do.
        job: on what.
        environment: the process's environment variables.
        python: the interpreter, another one where the tool does not go along with ours.

    Raises:
        RuntimeError: it failed; nothing is concluded from the time of a failure.
    """
    done = subprocess.run(
        [python, "-m", "benchmarks.alone", work],
        input=json.dumps(asdict(job)),
        env={**environment, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{work} on {job.folder} exited with {done.returncode}:\n{done.stderr.strip()[-2000:]}")
    # The last line: what was measured may print too.
    return Took(*json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    module, _, function = sys.argv[1].partition(":")
    steps: Iterator[None] = getattr(import_module(module), function)(Job(**json.load(sys.stdin)))
    next(steps)
    processor, since = _processor(), time.perf_counter()
    next(steps)
    seconds, used, peak = time.perf_counter() - since, _processor() - processor, _peak()
    with suppress(StopIteration):
        next(steps)
    print(f"\n{json.dumps([seconds, used, peak])}")


def _processor() -> float:
    usages = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


def _peak() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    programs = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    try:
        # Not getrusage: its maximum is inherited from the process that started this one.
        found = re.search(r"VmHWM:\s*(\d+) kB", Path(f"/proc/{os.getpid()}/status").read_text())
        own = int(found[1]) * 1024 if found else 0
    except OSError:
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return max(own, programs)


if __name__ == "__main__":
    main()
