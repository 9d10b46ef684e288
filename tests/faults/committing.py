"""A process that saves a run's data and is killed at a given write: `python -m tests.faults.committing`."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import shipway
from shipway.run.capture import snapshot
from shipway.run.order import Order
from shipway.run.session import Session, activate
from shipway.store.object_store import ObjectStore
from shipway.store.url import StoreConfig

FLOW = "train"
LARGE = 24 << 20
"""Bytes of a file that goes up in several parts."""
WRITES = 5
"""Objects that one attempt writes, its record the last of them."""


def order(attempt: int) -> Order:
    """Return what the run is about."""
    run = "0197a000-0000-7000-8000-0000deadbeef"
    return Order(run, "one", FLOW, None, attempt, None, {}, "2026-01-02T03:04:05+00:00", "", "")


class Deadly(ObjectStore):
    """A store that kills its process at one of its writes: before it, during it, or after it."""

    def __init__(self, config: StoreConfig, number: int, when: str) -> None:
        super().__init__(config)
        self._left = number
        self._when = when
        self._lock = threading.Lock()

    def put(self, key: str, data: bytes | Path) -> str:
        return self._write(lambda: ObjectStore.put(self, key, data))

    def create(self, key: str, data: bytes | Path, *, sha256: str | None = None) -> str:
        return self._write(lambda: ObjectStore.create(self, key, data, sha256=sha256))

    def replace(self, key: str, data: bytes, *, etag: str) -> str:
        return self._write(lambda: ObjectStore.replace(self, key, data, etag=etag))

    def _write(self, write: Callable[[], str]) -> str:
        with self._lock:
            self._left -= 1
            mine = self._left == 0
        if not mine:
            return write()
        if self._when == "during":
            threading.Thread(target=lambda: (time.sleep(0.02), die()), daemon=True).start()
        elif self._when == "before":
            die()
        tag = write()
        die()
        return tag


def die() -> None:
    """End as when the machine is switched off."""
    os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Save by name and as a file, small and large, and commit."""
    told: dict[str, Any] = json.load(sys.stdin)
    store = Deadly(StoreConfig(**told["store"]), told["number"], told["when"])
    scratch = Path(told["scratch"])
    folder = scratch / "work"
    folder.mkdir(exist_ok=True)
    before = snapshot(folder)
    session = Session.begin(order(told["attempt"]), scratch, store)
    activate(session)
    shipway.save("numbers", {"attempt": told["attempt"]})
    shipway.save("large", bytes([told["attempt"]]) * LARGE)
    shipway.save("text", b"of attempt %d" % told["attempt"])
    (folder / "left.txt").write_text(f"of attempt {told['attempt']}")
    session.capture(folder, before, max_bytes=1 << 30, max_files=100)
    session.commit(session.record())
    session.close()
    print("committed", flush=True)


def tell(config: StoreConfig, scratch: Path, attempt: int, number: int, when: str) -> str:
    """Return what the process is told."""
    store = {name: value for name, value in asdict(config).items() if value is not None}
    return json.dumps({"store": store, "scratch": str(scratch), "attempt": attempt, "number": number, "when": when})


if __name__ == "__main__":
    main()
