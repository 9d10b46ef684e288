"""What `shipway doctor` asks the Prefect API about slots of concurrency limits."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator
from typing import Any

from shipway.doctor import Finding
from shipway.prefect.api import PAGE, Api, quote
from shipway.prefect.doctor_runs import prefect_command
from shipway.prefect.runs import FINAL


def slots(api: Api) -> Iterator[Finding]:
    """Find slots of concurrency limits that are held by runs which have ended, as far as the API tells holders."""
    orphans = 0
    for finding in [*_tag_slots(api), *_deployment_slots(api)]:
        orphans += 1
        yield finding
    if not orphans:
        yield Finding("slots", "ok", "no slot is held by a run that has ended")


def held_by_ended(api: Api) -> Iterator[tuple[dict[str, Any], set[str]]]:
    """Yield each limit of a tag of which task runs that have ended hold slots, and the ids of these task runs."""
    for limit in api.pages("/concurrency_limits/filter", {}):
        if ended := _ended_tasks(api, limit.get("active_slots") or []):
            yield limit, ended


def _tag_slots(api: Api) -> Iterator[Finding]:
    for limit, ended in held_by_ended(api):
        tag = limit["tag"]
        # Looked at once more: a task that ends gives its slot back at about the time that its end is noted.
        if still := ended & _holders(api, tag):
            yield Finding(
                "slots",
                "error",
                f"{len(still)} of {limit['concurrency_limit']} slots of tag {tag!r} are held by ended tasks",
                "their processes were killed before they gave them back; tasks with this tag wait for them",
                prefect_command(api, f"concurrency-limit reset {shlex.quote(tag)}"),
            )


def _ended_tasks(api: Api, holders: Iterable[object]) -> set[str]:
    """Return those of some task runs that have ended, or whose flow run has, or was begun anew since.

    A task of a killed process stays Running. One that the server does not know yet is left out: task runs are noted
    a moment after they began.
    """
    asked = sorted(map(str, holders))[:PAGE]
    if not asked:
        return set()
    mine = {"id": {"any_": asked}}
    final = {"state": {"type": {"any_": list(FINAL)}}}
    tasks = api.pages("/task_runs/filter", {"task_runs": mine | final, "sort": "ID_DESC"})
    orphans = api.pages("/task_runs/filter", {"task_runs": mine, "flow_runs": final, "sort": "ID_DESC"})
    attempts = {run["id"]: run["run_count"] for run in api.pages("/flow_runs/filter", {"task_runs": mine})}
    earlier = (
        row
        for row in api.pages("/task_runs/filter", {"task_runs": mine, "sort": "ID_DESC"})
        # 0 until it is known which attempt of its flow run a task is of.
        if 0 < row["flow_run_run_count"] < attempts.get(row["flow_run_id"], 0)
    )
    return {row["id"] for rows in (tasks, orphans, earlier) for row in rows}


def _holders(api: Api, tag: str) -> set[str]:
    limit = api.find(f"/concurrency_limits/tag/{quote(tag)}") or {}
    return {str(holder) for holder in limit.get("active_slots") or []}


def _deployment_slots(api: Api) -> Iterator[Finding]:
    for row in api.deployments():
        if not (row.get("global_concurrency_limit") or {}).get("active_slots"):
            continue
        # Two looks: a run may begin or end between the two questions of one.
        looks = [_unheld(api, row["id"]) for _ in range(2)]
        extra, live, limit = min(looks, key=lambda look: look[0])
        if extra > 0:
            yield Finding(
                "slots",
                "error",
                f"{extra} of {limit['limit']} slots of deployment {row['flow_name']}/{row['name']} are held by no run",
                "the runs that held them have ended without giving them back; the next ones wait for them",
                prefect_command(api, f"gcl update {shlex.quote(limit['name'])} --active-slots {live}"),
            )


def _unheld(api: Api, deployment: str) -> tuple[int, int, dict[str, Any]]:
    """Return how many more slots of a deployment's limit are taken than it has runs, how many runs, and the limit."""
    where = {
        "deployment_id": {"any_": [deployment]},
        "state": {"type": {"any_": ["PENDING", "RUNNING", "CANCELLING"]}},
    }
    live = int(api.request("POST", "/flow_runs/count", {"flow_runs": where}))
    limit: dict[str, Any] = (api.find(f"/deployments/{deployment}") or {}).get("global_concurrency_limit") or {}
    return limit.get("active_slots", 0) - live, live, limit
