"""What a worker tells about itself over http."""

from __future__ import annotations

import http.client
import re
import socket
import sys
from pathlib import Path
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.runner._process_manager import ProcessHandle
from prometheus_client import CollectorRegistry

from shipway.errors import InputError
from shipway.prefect.going_on import Live
from shipway.prefect.metrics import Metrics, endpoint
from shipway.prefect.worker import ShipwayWorker
from shipway.worker.fork import Fork

PAGE = Path(__file__).parents[2] / "docs/howto/run-workers.md"


def get(address: str, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection(address.removeprefix("http://"), timeout=30)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def ended(outcome: str, fork: Fork | None = None) -> Live:
    live = Live(FlowRun(flow_id=uuid4(), name="fox"), "flow", warm=fork is not None, started=0.03, outcome=outcome)
    live.handle = ProcessHandle(fork) if fork else None  # type: ignore[arg-type]
    return live


def test_runs_are_counted_by_kind_and_outcome() -> None:
    worker = ShipwayWorker("pool")
    value = Metrics(worker).registry.get_sample_value
    fork = Fork(4711)
    warm, cold = ended("completed", fork), ended("handed_back")
    worker.live[warm.flow_run.id] = warm
    worker.on_started(warm)
    worker.on_started(cold)
    assert value("shipway_runs") == 1
    assert value("shipway_runs_started_total", {"kind": "forked"}) == 1
    assert value("shipway_runs_started_total", {"kind": "own"}) == 1
    assert value("shipway_run_start_seconds_sum", {"kind": "forked"}) == 0.03
    fork.end(0, 1.5, 64 << 20)
    worker.on_ended(warm)
    worker.on_ended(cold)
    assert value("shipway_runs_ended_total", {"outcome": "completed"}) == 1
    assert value("shipway_runs_ended_total", {"outcome": "handed_back"}) == 1
    assert value("shipway_run_cpu_seconds_sum") == 1.5
    assert value("shipway_run_peak_bytes_sum") == 64 << 20
    assert value("shipway_run_cpu_seconds_count") == 1
    assert value("shipway_templates") == 0


def test_one_that_does_not_poll_is_not_healthy() -> None:
    health = True
    with endpoint(0, lambda: health, CollectorRegistry()) as address:
        assert get(address, "/health") == (200, "OK\n")
        health = False
        assert get(address, "/health") == (503, "no poll for too long\n")
        assert get(address, "/metrics?x=y") == (200, "")
        assert get(address, "/")[0] == 404
    with pytest.raises(ConnectionRefusedError):
        get(address, "/health")


def test_they_are_told_on_the_loopback_address_only() -> None:
    with endpoint(0, lambda: True, CollectorRegistry()) as address:
        host, port = address.removeprefix("http://").split(":")
        assert host == "127.0.0.1"
        others = {str(each[4][0]) for each in socket.getaddrinfo(socket.gethostname(), None, socket.AF_INET)}
        for other in (others | ({"127.0.0.2"} if sys.platform == "linux" else set())) - {host}:
            with pytest.raises(OSError), socket.create_connection((other, int(port)), timeout=5):  # noqa: PT011
                pass


def test_nobody_else_listens_on_its_port() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InputError, match=f":{port}.*--metrics-port"), endpoint(port, bool, CollectorRegistry()):
            pass


def test_the_page_names_every_figure() -> None:
    names = {metric.name for metric in Metrics(ShipwayWorker("pool")).registry.collect()}
    ours = {name for name in names if name.startswith("shipway_")}
    told = {name.removesuffix("_total") for name in re.findall(r"^\| `(shipway_\w+)", PAGE.read_text(), re.MULTILINE)}
    assert told == ours
