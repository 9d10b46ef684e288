"""A worker as a program: `python -m shipway.prefect.serve`."""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import threading
from contextlib import AbstractContextManager, ExitStack, suppress
from typing import Any

from prefect.settings import (
    PREFECT_CLIENT_MAX_RETRIES,
    PREFECT_WORKER_QUERY_SECONDS,
    get_current_settings,
    temporary_settings,
)

from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.apply import ensure_pool, ensure_queue
from shipway.prefect.patience import TRIES
from shipway.prefect.worker import ShipwayWorker
from shipway.settings import Settings

QUERY_SECONDS = 10.0
"""Time between polls for scheduled runs, Prefect's default, kept where somebody set it; events are sooner."""

READY = "worker ready"
"""What the worker prints when it polls; the stack waits for it."""


async def serve(worker: ShipwayWorker, drain_seconds: float) -> None:
    """Run a worker until SIGTERM or SIGINT: the first lets its runs finish, a second one does not."""
    task = asyncio.create_task(worker.start(printer=lambda _text: print(READY, flush=True)))  # noqa: T201
    loop = asyncio.get_running_loop()
    stopping: asyncio.Task[None] | None = None

    async def stop() -> None:
        await worker.drain(drain_seconds)
        task.cancel()

    def asked() -> None:
        nonlocal stopping
        if stopping is None:
            stopping = asyncio.create_task(stop())
        else:
            task.cancel()

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, asked)
    with suppress(asyncio.CancelledError):
        await task
    if stopping:
        stopping.cancel()


async def _serve_shown(worker: ShipwayWorker, drain_seconds: float) -> None:
    """Run a worker, with a table of what goes on where somebody sees it."""
    if not sys.stdout.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        await serve(worker, drain_seconds)
        return
    from shipway.prefect.table import Screen, watch

    with Screen() as screen:
        watching = asyncio.create_task(watch(worker, screen))
        try:
            await serve(worker, drain_seconds)
        finally:
            watching.cancel()


def _endpoint(worker: ShipwayWorker, port: int) -> AbstractContextManager[str]:
    """Answer about a worker's health and figures."""
    from shipway.prefect.metrics import Metrics, endpoint

    # Here: the thread that answers knows of no settings made for this program.
    query_seconds = get_current_settings().worker.query_seconds

    def healthy() -> bool:
        # One that is about to end polls no more, and that is as it should be.
        return worker.draining or worker.is_worker_still_polling(query_seconds)

    return endpoint(port, healthy, Metrics(worker).registry)


def main(argv: list[str] | None = None) -> int:
    """Start a worker from the command line; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m shipway.prefect.serve")
    parser.add_argument("--pool", default="shipway", help="work pool, made when it does not exist")
    parser.add_argument(
        "--queue", action="append", default=[], help="queue to take runs from, made when it does not exist; repeatable"
    )
    parser.add_argument("--limit", type=int, default=None, help="most runs at once")
    parser.add_argument("--name", default=None, help="the worker's name in the UI")
    parser.add_argument(
        "--metrics-port", type=int, default=None, help="answer /health and /metrics there, on loopback; 0: a free port"
    )
    options = parser.parse_args(argv)
    settings = Settings.load()
    try:
        api = Api(settings)
        ensure_pool(api, options.pool)
        for queue in options.queue:
            ensure_queue(api, options.pool, queue)
    except ShipwayError as error:
        print(f"shipway: {error}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    with ExitStack() as stack:
        # What somebody has set is kept.
        theirs = get_current_settings()
        wanted: dict[Any, Any] = {}
        if "query_seconds" not in theirs.worker.model_fields_set:
            wanted[PREFECT_WORKER_QUERY_SECONDS] = QUERY_SECONDS
        if "max_retries" not in theirs.client.model_fields_set:
            wanted[PREFECT_CLIENT_MAX_RETRIES] = TRIES
        stack.enter_context(temporary_settings(wanted))
        worker = ShipwayWorker(
            work_pool_name=options.pool,
            work_queues=options.queue or None,
            limit=options.limit or settings.worker_limit or None,
            name=options.name,
            create_pool_if_not_found=False,
        )
        try:
            if options.metrics_port is not None:
                address = stack.enter_context(_endpoint(worker, options.metrics_port))
                print(f"health and metrics at {address}/health and {address}/metrics", flush=True)  # noqa: T201
        except ShipwayError as error:
            print(f"shipway: {error}", file=sys.stderr)  # noqa: T201
            return error.exit_code
        asyncio.run(_serve_shown(worker, settings.drain_seconds))
    return 0


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    # Runs hand their output to threads that may still wait for it; the worker has nothing left to say.
    os._exit(status) if threading.active_count() > 1 else sys.exit(status)
