"""Signs of life of runs, sent by the worker that looks after them.

Prefect's engine sends them from a thread in each run, which costs the run a second at its end. Automations that take
silent runs for crashed ones hear the same events from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import psutil
from prefect import __version__
from prefect.client.schemas.objects import FlowRun, WorkPool
from prefect.events import RelatedResource, emit_event
from prefect.events.related import tags_as_related_resources

from shipway.prefect.automations import HEARTBEAT


async def beat(live: Callable[[], Iterable[tuple[FlowRun, str, int | None]]], pool: WorkPool, seconds: float) -> None:
    """Send a sign of life for every live run, again and again until cancelled.

    Args:
        live: returns the runs, each with the name of its flow and its process id, None where it has no process yet.
        pool: the work pool that they are of.
        seconds: time between two signs of a run.
    """
    while True:
        await asyncio.sleep(seconds)
        for flow_run, flow, pid in list(live()):
            if pid is None or is_alive(pid):
                send(flow_run, flow, pool)


def send(flow_run: FlowRun, flow: str, pool: WorkPool) -> None:
    """Send one sign of life."""
    related = [
        _related(f"prefect.flow.{flow_run.flow_id}", "flow", flow),
        # As in the events of the run's states: automations tell by it whose pool's a run is.
        _related(f"prefect.work-pool.{pool.id}", "work-pool", pool.name),
    ]
    if flow_run.deployment_id:
        related.append(_related(f"prefect.deployment.{flow_run.deployment_id}", "deployment"))
    emit_event(
        event=HEARTBEAT,
        resource={
            "prefect.resource.id": f"prefect.flow-run.{flow_run.id}",
            "prefect.resource.name": flow_run.name or "",
            "prefect.version": __version__,
        },
        related=related + tags_as_related_resources(set(flow_run.tags or [])),
    )


def is_alive(pid: int) -> bool:
    """Tell whether a process goes on: one that is stopped or dead gives no sign of life."""
    try:
        return psutil.Process(pid).status() not in (psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
    except psutil.Error:
        return False


def _related(identity: str, role: str, name: str | None = None) -> RelatedResource:
    labels = {"prefect.resource.id": identity, "prefect.resource.role": role}
    return RelatedResource.model_validate(labels | ({} if name is None else {"prefect.resource.name": name}))
