"""How many of this machine's cores there are for one run, and what OpenMP is told of it.

LightGBM, scikit-learn, OpenBLAS and others start a thread for each core of the machine, in each run, and do not see
what a container may use of it. Runs at the same time then have more threads than there are cores, and these wait for
each other.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def cores(root: Path = Path("/")) -> int:
    """Return how many cores this process may use: those it may run on, and no more than its control groups allow.

    Args:
        root: where `proc` and `sys` are. A quota (`cpu.max`, control groups of version 2) is read there; see
            https://docs.kernel.org/admin-guide/cgroup-v2.html.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with suppress(OSError, ValueError, StopIteration):
        lines = (root / "proc/self/cgroup").read_text().splitlines()
        place = next(line.removeprefix("0::/") for line in lines if line.startswith("0::/"))
        group = root / "sys/fs/cgroup" / place
        for folder in (group, *group.parents):
            # The root of all groups has no quota, and in a container the path may be one of the machine outside.
            with suppress(OSError, ValueError):
                quota, period = (folder / "cpu.max").read_text().split()
                allowed = min(allowed, int(quota) // int(period))
    return max(allowed, 1)


def openmp(limit: int | None) -> dict[str, str]:
    """Return environment variables under which runs at the same time do not get in each other's way.

    Libraries read them when they are loaded, so that they belong to a template: they stay as they are as long as the
    worker does, however many runs there are at a moment.

    Args:
        limit: most runs that the worker has at once; None where nobody can say, and a run may use all cores.
    """
    return {
        # Idle threads that spin make a training on a busy machine ten times slower (LightGBM issues 5039, 6728).
        "OMP_WAIT_POLICY": "PASSIVE",
        "OMP_NUM_THREADS": str(max(cores() // max(limit or 1, 1), 1)),
    }
