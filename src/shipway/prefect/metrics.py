"""A worker's `/health` and `/metrics`, for whoever watches machines: a supervisor, Prometheus."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

from shipway.errors import InputError
from shipway.prefect.going_on import Live
from shipway.prefect.worker import ShipwayWorker
from shipway.worker.fork import Fork

HOST = "127.0.0.1"
"""Who may ask: this machine. The figures are nobody else's business, and there is no password."""

_START_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_CPU_BOUNDS = (0.1, 0.25, 0.5, 1, 5, 15, 60, 300, 1800, 7200, 36000)
_BYTES_BOUNDS = tuple(float(2**power) for power in range(26, 39))


class Metrics:
    """Counts what a worker does.

    Attributes:
        registry: what Prometheus gets.
    """

    def __init__(self, worker: ShipwayWorker) -> None:
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        going_on = Gauge("shipway_runs", "Runs that are going on.", registry=registry)
        going_on.set_function(lambda: len(worker.live))
        templates = Gauge("shipway_templates", "Templates that runs can be forked from.", registry=registry)
        templates.set_function(lambda: worker.templates)
        self._starts = Histogram(
            "shipway_run_start_seconds",
            "Time from taking up a run until it has a process, by kind: forked, own.",
            ["kind"],
            buckets=_START_BOUNDS,
            registry=registry,
        )
        self._started = Counter(
            "shipway_runs_started", "Runs that got a process, by kind: forked, own.", ["kind"], registry=registry
        )
        self._ended = Counter("shipway_runs_ended", "Runs that ended here, by outcome.", ["outcome"], registry=registry)
        self._cpu = Histogram(
            "shipway_run_cpu_seconds",
            "Processor time of forked runs that have ended.",
            buckets=_CPU_BOUNDS,
            registry=registry,
        )
        self._peak = Histogram(
            "shipway_run_peak_bytes",
            "Most memory of forked runs that have ended, with what they shared with their template.",
            buckets=_BYTES_BOUNDS,
            registry=registry,
        )
        for kind in ("forked", "own"):
            # So that what has not happened yet is 0, and not missing.
            self._started.labels(kind)
            self._starts.labels(kind)
        worker.on_started = self._on_started
        worker.on_ended = self._on_ended

    def _on_started(self, live: Live) -> None:
        kind = "forked" if live.warm else "own"
        self._started.labels(kind).inc()
        self._starts.labels(kind).observe(live.started)

    def _on_ended(self, live: Live) -> None:
        self._ended.labels(live.outcome).inc()
        process = live.handle and live.handle.raw_process
        # One whose template is gone was not measured.
        if isinstance(process, Fork) and process.bytes:
            self._cpu.observe(process.seconds)
            self._peak.observe(process.bytes)


@contextmanager
def endpoint(port: int, healthy: Callable[[], bool], registry: CollectorRegistry) -> Iterator[str]:
    """Answer `/health` and `/metrics` on this machine's loopback; yield the address.

    Args:
        port: where to listen; 0 for a free port.
        healthy: tells whether `/health` is 200 rather than 503.
        registry: what `/metrics` tells.

    Raises:
        InputError: nobody can listen on that port.
    """

    class Handler(BaseHTTPRequestHandler):
        timeout = 10

        def do_GET(self) -> None:
            path = self.path.partition("?")[0]
            if path == "/metrics":
                self._answer(200, CONTENT_TYPE_LATEST, generate_latest(registry))
            elif path == "/health":
                good = healthy()
                self._answer(200 if good else 503, "text/plain", b"OK\n" if good else b"no poll for too long\n")
            else:
                self._answer(404, "text/plain", b"/health and /metrics are here\n")

        def _answer(self, status: int, kind: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_args: object) -> None:
            """Say nothing: whoever watches asks every few seconds."""

    try:
        server = ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise InputError(
            f"the worker cannot listen on {HOST}:{port}: {error.strerror}",
            hint="choose another --metrics-port; 0 stands for a free one",
        ) from None
    with server:
        thread = threading.Thread(target=server.serve_forever, name="metrics", daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_address[1]}"
        finally:
            server.shutdown()
            thread.join()
