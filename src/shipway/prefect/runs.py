"""Runs over the API: create, find, follow."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from shipway.deployment.step import block_of
from shipway.errors import NotFoundError, ServerUnreachableError
from shipway.prefect.api import Api, quote
from shipway.prefect.stores import default_block
from shipway.run.record import run_folder
from shipway.settings import Settings

POLL_SECONDS = 0.4
LAST_LINE = "Finished in state"
"""How the last line of a run's log begins; a run that was killed has none."""

SETTLE_SECONDS = 5.0
"""How long after a final state `follow` waits for the last line; logs come in batches, two seconds apart."""

WORKER_SECONDS = 10.0
"""How long a run that is due may wait for a worker before `follow` says why it may wait."""

PATIENCE_SECONDS = 120.0
"""How long `follow` waits for a server that went away."""

LEVELS = {10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}
FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Happening:
    """One thing that happened to a run.

    Attributes:
        kind: `state`, `task`, `log` or `note`.
        text: what to show.
        level: of a log line: DEBUG to CRITICAL; of a state: its type.
    """

    kind: str
    text: str
    level: str


def create_run(
    api: Api,
    deployment: Mapping[str, Any],
    parameters: Mapping[str, Any],
    *,
    tags: Sequence[str] = (),
    name: str | None = None,
    labels: Mapping[str, str] | None = None,
    idempotency_key: str | None = None,
) -> dict[str, Any]:
    """Create a run of a deployment, due now.

    Args:
        api: where.
        deployment: as the API describes it.
        parameters: over those of the deployment.
        tags: beside those of the deployment.
        name: of the run; by default the server makes one up.
        labels: what else is asked for; see `shipway.prefect.labels`.
        idempotency_key: a run that was created with the same one is returned instead of a new one.
    """
    body: dict[str, Any] = {"parameters": dict(parameters), "tags": list(tags), "state": {"type": "SCHEDULED"}}
    body |= {"name": name} if name else {}
    body |= {"labels": dict(labels)} if labels else {}
    body |= {"idempotency_key": idempotency_key} if idempotency_key else {}
    created: dict[str, Any] = api.request("POST", f"/deployments/{deployment['id']}/create_flow_run", body)
    return created


def find_run(api: Api, wanted: str) -> dict[str, Any]:
    """Return the run of that id or name (the newest of that name), with its `flow_name`.

    Raises:
        NotFoundError: there is none.
    """
    if re.fullmatch(r"[0-9a-fA-F]{8}(-?[0-9a-fA-F]{4}){3}-?[0-9a-fA-F]{12}", wanted):
        where: dict[str, Any] = {"id": {"any_": [wanted]}}
    else:
        where = {"name": {"any_": [wanted]}}
    rows: list[dict[str, Any]] = api.request(
        "POST", "/flow_runs/filter", {"flow_runs": where, "sort": "START_TIME_DESC", "limit": 1}
    )
    if not rows:
        raise NotFoundError(f"there is no run {wanted!r}", hint="`shipway runs` lists them")
    rows[0]["flow_name"] = api.flow_names({rows[0]["flow_id"]}).get(rows[0]["flow_id"], "?")
    return rows[0]


def list_runs(api: Api, *, deployment: str | None, state: str | None, limit: int) -> list[dict[str, Any]]:
    """Return the newest runs, each with `flow_name` and `deployment` (`FLOW/NAME` or None)."""
    body: dict[str, Any] = {"sort": "START_TIME_DESC", "limit": limit}
    if deployment:
        body["deployments"] = {"id": {"any_": [api.deployment(deployment)["id"]]}}
    if state:
        body["flow_runs"] = {"state": {"type": {"any_": [state.upper()]}}}
    else:
        # A schedule's runs are made days ahead; unasked they would hide those that have happened.
        soon = datetime.now(UTC) + timedelta(seconds=60)
        body["flow_runs"] = {"expected_start_time": {"before_": soon.isoformat()}}
    rows: list[dict[str, Any]] = api.request("POST", "/flow_runs/filter", body)
    flows = api.flow_names({row["flow_id"] for row in rows})
    ids = sorted({row["deployment_id"] for row in rows if row.get("deployment_id")})
    found = (
        api.pages("/deployments/filter", {"deployments": {"id": {"any_": ids}}, "sort": "NAME_ASC"})
        if ids
        else iter(())
    )
    names = {row["id"]: row["name"] for row in found}
    for row in rows:
        row["flow_name"] = flows.get(row["flow_id"], "?")
        name = names.get(row.get("deployment_id"))
        row["deployment"] = f"{row['flow_name']}/{name}" if name else None
    return rows


def data_folder(run: Mapping[str, Any]) -> str:
    """Return the folder of a run's data in its store."""
    due = (
        datetime.fromisoformat(run["expected_start_time"])
        if run.get("expected_start_time")
        else datetime.fromtimestamp(0).astimezone()
    )
    return run_folder(run["flow_name"], due, run["name"], run["id"])


def store_block(api: Api, run: Mapping[str, Any], settings: Settings) -> str | None:
    """Return the block that a run's data is in: its deployment's, or the default one where it has no deployment."""
    if not run.get("deployment_id"):
        return default_block(settings)
    return block_of(api.find(f"/deployments/{run['deployment_id']}") or {})


def follow(api: Api, run_id: str, tell: Callable[[Happening], None]) -> dict[str, Any]:
    """Tell states, task states and logs of a run as they happen; return the run when it has ended.

    Raises:
        ServerUnreachableError: the server stayed away for `PATIENCE_SECONDS`.
    """
    state, tasks, names, seen_logs = "", dict[str, str](), dict[str, str](), 0
    away: float | None = None
    began, noted = time.monotonic(), False
    settled, complete = 0.0, False
    while True:
        try:
            run: dict[str, Any] = api.request("GET", f"/flow_runs/{run_id}")
            final = run["state_type"] in FINAL
            # Read after the state: what happened before a final state is then all here.
            for task in api.pages(
                "/task_runs/filter",
                {"task_runs": {"flow_run_id": {"any_": [run_id]}}, "sort": "EXPECTED_START_TIME_ASC"},
            ):
                names[task["id"]] = task["name"]
                if task.get("state_name") and tasks.get(task["id"]) != task["state_name"]:
                    tasks[task["id"]] = task["state_name"]
                    tell(Happening("task", f"{task['name']}: {task['state_name']}", str(task["state_type"])))
            for line in _logs(api, run_id, seen_logs):
                seen_logs += 1
                complete |= line.get("task_run_id") is None and line["message"].startswith(LAST_LINE)
                task_name = names.get(line.get("task_run_id") or "")
                text = f"{task_name}: {line['message']}" if task_name else line["message"]
                tell(Happening("log", text, LEVELS.get(line["level"] // 10 * 10, "INFO")))
            if run["state_name"] != state:
                state = run["state_name"]
                message = (run.get("state") or {}).get("message")
                tell(Happening("state", f"{state}{f': {message}' if message else ''}", run["state_type"]))
            if not noted and state == "Scheduled" and time.monotonic() - began > WORKER_SECONDS:
                noted = True
                tell(Happening("note", _why_waiting(api, run), "WARNING"))
            away = None
        except ServerUnreachableError:
            away = away or time.monotonic()
            if time.monotonic() - away > PATIENCE_SECONDS:
                raise
            final = False
        # A run sends its last lines in a batch after its last state.
        if final and (complete or settled >= SETTLE_SECONDS):
            return run
        settled += POLL_SECONDS if final else 0.0
        time.sleep(POLL_SECONDS)


def _why_waiting(api: Api, run: Mapping[str, Any]) -> str:
    """Say why nobody may have taken a run that is due."""
    pool, queue = run.get("work_pool_name"), run.get("work_queue_name")
    workers = api.request("POST", f"/work_pools/{quote(pool)}/workers/filter", {}) if pool else []
    online = sum(worker.get("status") == "ONLINE" for worker in workers)
    if not online:
        return f"No worker is online; start one with `shipway worker start -q {queue}`"
    return f"Still waiting in queue {queue}; {online} online worker(s) may be busy, or take from other queues"


def _logs(api: Api, run_id: str, offset: int) -> Iterator[dict[str, Any]]:
    while True:
        body = {"logs": {"flow_run_id": {"any_": [run_id]}}, "sort": "TIMESTAMP_ASC", "limit": 200, "offset": offset}
        rows = api.request("POST", "/logs/filter", body)
        yield from rows
        offset += len(rows)
        if len(rows) < 200:
            return
