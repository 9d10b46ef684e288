"""Processes whose parent died: they come to the nearest ancestor that has asked for them, instead of to the system."""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
"""From linux/prctl.h."""


def adopt_orphans() -> None:
    """Make this process the new parent of descendants whose own dies (Linux; see prctl(2))."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_with_parent(number: int) -> None:
    """Have the system send this process a signal when its parent dies (Linux; elsewhere nothing)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, number, 0, 0, 0)


def bury(group: int) -> bool:
    """Wait for children of a process group that have ended, so that they are no zombies; tell whether any are left."""
    try:
        while os.waitpid(-group, os.WNOHANG) != (0, 0):
            pass
    except ChildProcessError:
        return False
    return True
