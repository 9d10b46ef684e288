"""Builders and collectors race as processes of their own, with epochs of under a second: nothing needed is lost."""

from __future__ import annotations

import random
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from shipway.deployment import history
from shipway.deployment.history import move_pointer, read_pointer
from shipway.errors import InputError
from shipway.release import build as build_module
from shipway.release import retention
from shipway.release.build import build
from shipway.release.scan import scan
from shipway.run import upkeep
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.run.upkeep import Collection, collect
from shipway.run.verify import verify
from shipway.store.folder import FolderStore

SECONDS = 4.0
"""And longer where it takes that for as much as there must be for a race to speak of."""
REMOVED = 20
PUBLISHED = 10
EPOCH_SECONDS = 0.6
BUILDERS = 2


def test_builders_and_a_collector(tmp_path: Path) -> None:
    # Counted from lately: an epoch has few digits.
    zero = time.time() - 100 * EPOCH_SECONDS

    def start(role: str) -> subprocess.Popen[bytes]:
        argv = [sys.executable, __file__, role, str(tmp_path), str(SECONDS), str(EPOCH_SECONDS), str(zero)]
        return subprocess.Popen(argv)

    processes = [start(role) for role in ("collector", *(f"builder-{n}" for n in range(BUILDERS)))]
    try:
        for process in processes:
            process.wait(timeout=120)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert [process.returncode for process in processes] == [0] * len(processes)
    report = verify(FolderStore(tmp_path))
    assert report.findings == ()
    assert report.deployments == BUILDERS + 1
    assert report.runs > 0


def _build(name: str, store: FolderStore, until: float) -> None:
    """Publish changing releases of a deployment of one's own and of one shared with the others."""
    published = 0
    chance = random.Random(name)  # noqa: S311 - for variety
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        while time.monotonic() < until or published <= PUBLISHED:
            (folder / chance.choice("abcdef")).write_text(chance.choice("0123456789") * 40)
            deployment = chance.choice([name, "shared"])
            pointer = read_pointer(store, "flow", deployment)
            release = build(scan(folder), store, previous=pointer.current if pointer else None)
            # Some people think before they apply, though for less than an epoch.
            time.sleep(chance.choice([0, 0, 0, chance.random() * EPOCH_SECONDS]))
            try:
                move_pointer(store, "flow", deployment, release.version)
            except InputError:
                continue  # what took too long is built again
            published += 1
            if chance.random() < 0.1:
                run = f"{chance.getrandbits(32):08x}"
                folder_ = run_folder("flow", datetime.now(UTC), "run", run)
                write_record(store, folder_, RunRecord(run, "run", "flow", None, 1, str(release.version), {}))


def _collect(store: FolderStore, until: float) -> None:
    removed = 0
    while time.monotonic() < until or removed <= REMOVED:
        done = collect(Collection(store, keep_last=2, keep_days=0), grace=0)
        removed += sum(tally.objects for tally in done.removed.values())


if __name__ == "__main__":
    role, path = sys.argv[1:3]
    seconds, length, zero = map(float, sys.argv[3:])

    def short_epoch(now: float | None = None) -> int:
        return int(((time.time() if now is None else now) - zero) // length)

    for module in (build_module, history, retention, upkeep):
        vars(module)["current_epoch"] = short_epoch
    work = _collect if role == "collector" else lambda store, until: _build(role, store, until)
    work(FolderStore(Path(path)), time.monotonic() + seconds)
