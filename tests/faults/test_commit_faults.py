"""A run that is killed at any step of saving its data: another process sees all of the data, or none."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests.faults.committing import FLOW, LARGE, WRITES, order, tell

import shipway
from shipway.errors import NotFoundError
from shipway.run.fetch import download
from shipway.run.record import find_record
from shipway.store.object_store import ObjectStore
from shipway.testing import S3Server

NAMES = ["large", "left.txt", "numbers", "text"]
STEPS = [(number, when) for number in range(1, WRITES + 1) for when in ("before", "after")]
STEPS += [(number, "during") for number in (2, WRITES)]


def attempt(server: S3Server, bucket: str, scratch: Path, number: int, *, write: int = 0, when: str = "") -> int:
    done = subprocess.run(
        [sys.executable, "-m", "tests.faults.committing"],
        input=tell(server.config(bucket), scratch, number, write, when),
        cwd=Path(__file__).parents[2],
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode in (0, -signal.SIGKILL), done.stderr
    return done.returncode


def check_seen(store: ObjectStore, folder: Path, *, committed: set[int]) -> None:
    """Read as any other process: one attempt's data, whole, and that of no other; or nothing."""
    record = find_record(store, order(1).folder)
    assert (record.attempt if record else 0) in committed
    if record is None:
        for name in NAMES:
            with pytest.raises(NotFoundError):
                shipway.load(name, flow=FLOW, store=store)
        return
    assert [artifact.name for artifact in record.artifacts] == NAMES
    for artifact in record.artifacts:
        download(store, artifact, folder / artifact.name)  # which compares digests
    assert shipway.load("numbers", flow=FLOW, store=store) == {"attempt": record.attempt}
    assert shipway.load("large", flow=FLOW, store=store) == bytes([record.attempt]) * LARGE
    assert shipway.load("left.txt", flow=FLOW, store=store).read_text() == f"of attempt {record.attempt}"


@pytest.mark.parametrize(
    ("number", "when"),
    # After one write is, but for the last, what before the next one is.
    [pytest.param(n, when, marks=[pytest.mark.long] if when == "after" and n < WRITES else []) for n, when in STEPS],
)
def test_killed_at_a_write(s3_server: S3Server, tmp_path: Path, number: int, when: str) -> None:
    bucket = s3_server.new_bucket()
    store = ObjectStore(s3_server.config(bucket))

    assert attempt(s3_server, bucket, tmp_path, 1, write=number, when=when) == -signal.SIGKILL
    # The record is the last of the writes; during it is the one moment of which nobody can say which side it fell on.
    outcomes = {"before": {0}, "during": {0, 1}, "after": {1}}[when] if number == WRITES else {0}
    check_seen(store, tmp_path / "first", committed=outcomes)
    seen = find_record(store, order(1).folder)

    assert attempt(s3_server, bucket, tmp_path, 2) == 0
    check_seen(store, tmp_path / "second", committed={1} if seen else {2})


def test_two_attempts_at_once(s3_server: S3Server, tmp_path: Path) -> None:
    """An attempt that was given up may still be at work: whoever commits first is the run, for both."""
    bucket = s3_server.new_bucket()
    processes = []
    for number in (1, 2):
        scratch = tmp_path / str(number)
        scratch.mkdir()
        processes.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.faults.committing"],
                stdin=subprocess.PIPE,
                cwd=Path(__file__).parents[2],
                text=True,
            )
        )
        stdin = processes[-1].stdin
        assert stdin
        with stdin:
            stdin.write(tell(s3_server.config(bucket), scratch, number, 0, ""))
    assert [process.wait(120) for process in processes] == [0, 0]
    check_seen(ObjectStore(s3_server.config(bucket)), tmp_path / "seen", committed={1, 2})
