"""Signs of life of runs, sent by the worker that looks after them.

Prefect's engine sends them from a thread in each run, which costs the run a second at its end. Automations that take
silent runs for crashed ones hear the same events from here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

import psutil
from prefect import __version__
from prefect.client.schemas.objects import FlowRun
from prefect.events import RelatedResource, emit_event
from prefect.events.related import tags_as_related_resources
from prefect.flow_engine import MINIMUM_HEARTBEAT_INTERVAL
from prefect.settings import get_current_settings

EVENT = "prefect.flow-run.heartbeat"


def heartbeat_seconds() -> int | None:
    """Return the seconds between signs of life of a run, by Prefect's settings; None where there are to be none."""
    seconds = get_current_settings().flows.heartbeat_frequency
    return None if seconds is None else max(int(seconds), MINIMUM_HEARTBEAT_INTERVAL)


async def beat(live: Callable[[], Iterable[tuple[FlowRun, str, int]]], seconds: float) -> None:
    """Send a sign of life for every live run, again and again until cancelled.

    Args:
        live: returns the runs, each with the name of its flow and its process id.
        seconds: time between two signs of a run.
    """
    while True:
        await asyncio.sleep(seconds)
        for flow_run, flow, pid in list(live()):
            if is_alive(pid):
                send(flow_run, flow)


def send(flow_run: FlowRun, flow: str) -> None:
    """Send one sign of life."""
    related = [_related(f"prefect.flow.{flow_run.flow_id}", "flow", flow)]
    if flow_run.deployment_id:
        related.append(_related(f"prefect.deployment.{flow_run.deployment_id}", "deployment"))
    emit_event(
        event=EVENT,
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
