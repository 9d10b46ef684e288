"""Can the store do what Shipway needs, and do its clock and ours agree?"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from shipway.doctor import Finding
from shipway.errors import AccessDeniedError, BucketNotFoundError, ShipwayError, StoreError, UnsupportedStoreError
from shipway.release.retention import SKEW_SECONDS, store_time
from shipway.store.base import Store
from shipway.store.probe import probe

SKEW = 5.0
"""Seconds that clocks may differ by: stores and HTTP tell whole seconds, and an answer may take a while."""

SET_CLOCK = "sudo timedatectl set-ntp true"
CLOCK_WHY = "what is due, late, silent or old enough to be removed is told by clocks"
STACK = "/stack"
RESTART = "shipway down && shipway up --detach"
RETRY_SECONDS = 2.0


def store(opened: Store, block: str, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Try a store out with one small object, which is removed again, and compare its clock with ours.

    Args:
        opened: the store.
        block: the block that describes it, `TYPE/NAME`.
        clock: this machine's time, in seconds since 1970.
    """
    try:
        report = probe(opened)
    except UnsupportedStoreError as error:
        why = "two deployments at the same moment could overwrite each other; " + (error.hint or "")
        yield Finding("store", "error", error.message, why.rstrip("; "), _new_block(block))
        return
    except (AccessDeniedError, BucketNotFoundError) as error:
        yield Finding(
            "store", "error", error.message, error.hint or "runs can neither load nor save", _new_block(block)
        )
        return
    except ShipwayError as error:
        again = RESTART if block.endswith(STACK) else ""
        yield Finding("store", "error", error.message, error.hint or "runs can neither load nor save", again)
        return
    took = f"{report.seconds * 1000:.0f} ms for all steps"
    yield Finding("store", "ok", f"{block} ({report.address}): conditional writes work, {took}")
    yield from _clock(opened, clock)


def skew(whose: str, apart: float, name: str = "clock") -> Finding:
    """Judge by how many seconds this machine's clock is ahead of another one."""
    if abs(apart) <= SKEW:
        return Finding(name, "ok", f"this machine's clock agrees with that of {whose}")
    which = "ahead of" if apart > 0 else "behind"
    return Finding(
        name,
        "error" if abs(apart) > SKEW_SECONDS else "warning",
        f"this machine's clock is {abs(apart):.0f} s {which} that of {whose}",
        f"{CLOCK_WHY}; set the one that is wrong",
        SET_CLOCK,
    )


def _clock(opened: Store, clock: Callable[[], float]) -> Iterator[Finding]:
    try:
        yield skew(opened.address, clock() - store_time(opened, clock), "store clock")
    except StoreError as error:
        # Told by `store_time` itself where the clocks are hours apart.
        yield Finding("store clock", "error", error.message, CLOCK_WHY, SET_CLOCK)


def _new_block(block: str) -> str:
    """Return the command that saves a block anew; that of the stack is saved by each start."""
    if block.endswith(STACK):
        return RESTART
    name = block.partition("/")[2] or "NAME"
    return f"shipway block s3 {name} --bucket-path BUCKET"
