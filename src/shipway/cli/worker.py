"""`shipway worker start`: run what is in a queue."""

from __future__ import annotations

import os
import sys

import click

from shipway.cli.output import epilog, say
from shipway.errors import InputError
from shipway.settings import Settings


@click.group()
def command() -> None:
    """Run what is in a queue."""


@command.command(
    epilog=epilog(
        ["shipway worker start", "shipway worker start -t gpu --limit 2", "shipway worker start --metrics-port 9464"],
        [3, 5],
    )
)
@click.option(
    "-t",
    "--tag",
    "tags",
    multiple=True,
    help="Take runs of deployments with this tag, which is their queue. Repeatable.",
)
@click.option(
    "-q", "--work-queue", "queues", multiple=True, help="Take runs from this queue. Repeatable; without any, from all."
)
@click.option("--pool", help="Work pool; by default the setting work_pool.")
@click.option(
    "--limit",
    type=click.IntRange(min=1),
    help="Most runs at once; they share the cores. By default worker_limit.",
)
@click.option("--name", help="The worker's name in the UI.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65535),
    help="Answer /health and Prometheus' /metrics on this port of this machine; 0 takes a free one and says which.",
)
def start(
    tags: tuple[str, ...],
    queues: tuple[str, ...],
    pool: str | None,
    limit: int | None,
    name: str | None,
    metrics_port: int | None,
) -> None:
    """Start a worker in the foreground; Ctrl-C stops it.

    Pool and queues are made where missing. On a terminal a table shows what is going on, below what runs print. The
    first Ctrl-C or SIGTERM lets runs go on for the setting drain_seconds and then hands them back; a second one ends
    them.
    """
    from shipway.prefect.api import Api

    settings = Settings.load()
    _check_names(*tags, *queues, *([pool] if pool else []))
    Api(settings).request("GET", "/health")
    argv = [sys.executable, "-m", "shipway.prefect.serve", "--pool", pool or settings.work_pool]
    for queue in (*tags, *queues):
        argv += ["--queue", queue]
    argv += ["--limit", str(limit)] if limit else []
    argv += ["--name", name] if name else []
    argv += ["--metrics-port", str(metrics_port)] if metrics_port is not None else []
    say(f"Starting a worker for {', '.join((*tags, *queues)) or 'all queues'} of {settings.api_url}")
    sys.stderr.flush()
    # The worker takes this process's place: signals reach it directly, and nothing stays behind when it ends.
    # Prefect's statistics about its use are off, as they are in the stack, unless somebody has decided otherwise.
    environment = {"DO_NOT_TRACK": "1", **os.environ, **settings.prefect_environment()}
    os.execve(sys.executable, argv, environment)  # noqa: S606 - a list, no shell


def _check_names(*names: str) -> None:
    """Refuse names that no pool or queue can have, before the server is asked for them by an address."""
    from shipway.deployment.fields import check_name

    for name in names:
        try:
            check_name(name)
        except ValueError as error:
            raise InputError(str(error)) from None
