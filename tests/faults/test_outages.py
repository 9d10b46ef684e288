"""Outages at their full length: ten minutes without the server, five without the store; and longer than that.

`OUTAGE_SHARE=0.1` makes them a tenth as long.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from tests.faults.proxy import FaultyProxy, faulty_proxy, nothing
from tests.faults.stage import Stage, audit, kill, staged, wait
from tests.faults.store_scenarios import (
    Play,
    build_and_move,
    check,
    check_out,
    config_of,
    furnish,
    load_latest,
    save_and_commit,
)

from shipway.errors import StoreUnreachableError
from shipway.store.object_store import OUTAGE_SECONDS, RETRY_SECONDS, ObjectStore
from shipway.testing import S3Server

SHARE = float(os.environ.get("OUTAGE_SHARE") or 1)
SERVER_SECONDS = 600 * SHARE
STORE_SECONDS = 300 * SHARE
MOST_SECONDS = 2 * SHARE * (RETRY_SECONDS + OUTAGE_SECONDS) + 60
"""After which nobody may wait any more."""
CLIENTS = (build_and_move, check_out, save_and_commit, load_latest)

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("o")) as found:
        yield found


@contextmanager
def away(stage: Stage, service: str) -> Iterator[float]:
    """Kill a service, and hold the supervisor back from starting it again meanwhile; say since when it is away."""
    supervisor = stage.service("supervisor")
    os.kill(supervisor, signal.SIGSTOP)
    try:
        kill(stage.service(service))
        yield time.monotonic()
    finally:
        os.kill(supervisor, signal.SIGCONT)


def sleep_until(moment: float) -> None:
    time.sleep(max(0.0, moment - time.monotonic()))


def test_ten_minutes_without_the_server(stage: Stage) -> None:
    """Runs go on, end, and try again; the worker waits; what became due meanwhile is run afterwards."""
    through = stage.start(seconds=1.1 * SERVER_SECONDS)
    within = stage.start(seconds=0.3 * SERVER_SECONDS)
    again = stage.start("stumble")
    due = (datetime.now(UTC) + timedelta(seconds=0.5 * SERVER_SECONDS)).isoformat()
    body = {"parameters": {}, "state": {"type": "SCHEDULED", "state_details": {"scheduled_time": due}}}
    later = stage.api.request("POST", f"/deployments/{stage.deployments['work']}/create_flow_run", body)["id"]
    pids = [stage.pid(run) for run in (through, within, again)]
    stage.wait_for(again, "AwaitingRetry")
    worker = stage.service("worker")
    with away(stage, "server") as since:
        sleep_until(since + SERVER_SECONDS)
        assert not stage.answers()
    runs = [through, within, again, later]
    audit(stage, runs)
    assert [stage.run(run)["run_count"] for run in runs] == [1, 1, 2, 1], [stage.history(run) for run in runs]
    assert [stage.pid(run) for run in (through, within, again)] == pids
    assert stage.service("worker") == worker


def test_five_minutes_without_the_store(stage: Stage) -> None:
    """A run that saves and one whose code is to be fetched wait for it, and so does what was begun before them."""
    saving = stage.start(seconds=2)
    stage.pid(saving)
    with away(stage, "store") as since:
        # Neither has the worker the code of a new release, nor is it in the machine's cache.
        shutil.rmtree(stage.shell.folder / "cache")
        fetching = [stage.start() for _ in range(2)]
        sleep_until(since + STORE_SECONDS)
        assert {stage.run(run)["state_type"] for run in (saving, *fetching)} <= {"PENDING", "RUNNING"}
        assert "Completed" not in stage.history(saving)
    audit(stage, [saving, *fetching])
    assert [stage.run(run)["run_count"] for run in (saving, *fetching)] == [1, 1, 1]


@pytest.mark.parametrize("beyond", [False, True], ids=["five minutes", "longer"])
def test_builds_checkouts_and_saves_without_the_store(s3_server: S3Server, tmp_path: Path, beyond: bool) -> None:
    """Each outlasts five minutes, and ends with one error when it is longer; nothing is half-written."""
    with faulty_proxy(s3_server.endpoint_url) as proxy, ThreadPoolExecutor(len(CLIENTS)) as pool:
        plays = [one_client(s3_server, proxy, tmp_path / f"{number}-{beyond}") for number in range(len(CLIENTS))]
        proxy.befall(lambda _request: "reset")
        try:
            jobs = [pool.submit(act, action, it) for action, it in zip(CLIENTS, plays, strict=True)]
            if not beyond:
                time.sleep(STORE_SECONDS)
                assert not any(job.done() for job in jobs)
            else:
                wait(lambda: all(job.done() for job in jobs), "all have given up", MOST_SECONDS)
        finally:
            proxy.befall(nothing)
        for job, it in zip(jobs, plays, strict=True):
            said, seconds = job.result()
            assert (said is not None) == beyond, said
            assert "\n" not in (said or "")
            assert seconds > STORE_SECONDS
            check(it)


def one_client(server: S3Server, proxy: FaultyProxy, folder: Path) -> Play:
    """Return a store with something in it, for somebody who has been answered before, and is as patient as usual."""
    folder.mkdir()
    config = config_of(server, folder.name)
    faulty = ObjectStore(
        replace(config, endpoint_url=proxy.url),
        retry_seconds=RETRY_SECONDS * SHARE,
        outage_seconds=OUTAGE_SECONDS * SHARE,
    )
    return furnish(config, faulty, proxy, folder / "project", folder, Random(folder.name))  # noqa: S311


def act(action: Callable[[Play], None], it: Play) -> tuple[str | None, float]:
    """Do something; return what was said when it was given up, if it was, and the seconds that it took."""
    began, said = time.monotonic(), None
    try:
        action(it)
    except StoreUnreachableError as error:
        said = str(error)
    return said, time.monotonic() - began
