"""What `shipway doctor` asks the Prefect API about runs that do not go on."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from shipway.doctor import Finding
from shipway.doctor.surroundings import plain
from shipway.prefect.api import PAGE, Api, quote
from shipway.prefect.automations import HEARTBEAT
from shipway.prefect.pool import POOL_TYPE

SILENCE_SECONDS = 540.0
"""Three signs of life that did not come, at Prefect's default of one in 180 s."""

BEAT_SLACK_SECONDS = 30.0
"""How much later than a worker's own last sign the last sign of its runs may come."""

OVERDUE_SECONDS = 120.0
PENDING_SECONDS = 600.0
"""How long a run may be on its way to its process where a worker is there; images are pulled in this time."""

PENDING_ALONE_SECONDS = 120.0
"""The same where no worker is online, so that nobody can be about to start it."""

LOOKED_AT = 25
"""Runs of which signs of life are asked for one by one."""

NAMED = 5


def zombies(api: Api, now: datetime | None = None) -> Iterator[Finding]:
    """Find runs that are Running and give no sign of life.

    A run of our pool type dies with its worker (docs/explanation/warm-workers.md), so one whose worker is gone, and of
    which nothing was heard since, is one. Any other is one when it gave signs and has not for `SILENCE_SECONDS`.
    """
    now = now or datetime.now(UTC)
    rows = _runs(api, {"state": {"type": {"any_": ["RUNNING"]}}})
    workers = Workers(api)
    dead = 0
    for run in rows[:LOOKED_AT]:
        reason = _silent(api, run, workers, now)
        # It may have ended since it was listed.
        if reason and (api.find(f"/flow_runs/{run['id']}") or {}).get("state_type") == "RUNNING":
            dead += 1
            yield Finding(
                "running",
                "error",
                f"run {_name(run)} is Running, and {reason}",
                "its process and its worker were killed together, or their machine was; nobody will say that it ended",
                set_state(api, run["id"], "CRASHED", "Found without a sign of life"),
            )
    if len(rows) > LOOKED_AT:
        yield Finding("running", "note", f"only the {LOOKED_AT} oldest of {len(rows)} or more runs were looked at")
    if not dead:
        yield Finding(
            "running", "ok", f"{_count(rows)} going on, each with a sign of life" if rows else "no run is going on"
        )


def pending(api: Api, now: datetime | None = None) -> Iterator[Finding]:
    """Find runs that a worker has claimed and not started."""
    now = now or datetime.now(UTC)
    workers = Workers(api)
    stuck = 0
    for run in _runs(api, {"state": {"type": {"any_": ["PENDING"]}}}):
        age = (now - _time(run["state"]["timestamp"])).total_seconds()
        alone = not workers.online(run.get("work_pool_name"))
        if age <= (PENDING_ALONE_SECONDS if alone else PENDING_SECONDS):
            continue
        stuck += 1
        if stuck <= NAMED:
            yield Finding(
                "pending",
                "error",
                f"run {_name(run)} is Pending for {_age(age)}"
                + (", and no worker of its pool is online" if alone else ""),
                "its worker died after it had claimed the run; workers do not take a run that is Pending",
                set_state(api, run["id"], "SCHEDULED", "Taken up again", name="AwaitingRetry", due=now),
            )
    if stuck > NAMED:
        yield Finding(
            "pending", "error", f"{stuck - NAMED} more runs are Pending as long", "", "shipway runs --state pending"
        )
    if not stuck:
        yield Finding("pending", "ok", "no run is stuck on its way to a worker")


def overdue(api: Api, now: datetime | None = None) -> Iterator[Finding]:
    """Find runs that are due and that nobody takes, by queue: Late ones, and those that wait for another try."""
    now = now or datetime.now(UTC)
    before = now - timedelta(seconds=OVERDUE_SECONDS)
    rows = _runs(
        api,
        {
            "state": {"type": {"any_": ["SCHEDULED"]}},
            "next_scheduled_start_time": {"before_": before.isoformat()},
        },
    )
    places: dict[tuple[str | None, str | None], list[Mapping[str, Any]]] = defaultdict(list)
    for run in rows:
        places[run.get("work_pool_name"), run.get("work_queue_name")].append(run)
    workers = Workers(api)
    for (pool, queue), waiting in places.items():
        reason, mend = _why_untaken(api, workers, pool, queue, waiting)
        oldest = min(_time(run["next_scheduled_start_time"]) for run in waiting)
        where = f"queue {queue} of pool {pool}" if pool else "no queue at all"
        states = ", ".join(sorted({run["state_name"] for run in waiting}))
        yield Finding(
            "late",
            "warning",
            f"{_count(waiting)} in {where}: due for up to {_age((now - oldest).total_seconds())} ({states}), such as "
            f"{_name(waiting[0])}",
            reason,
            mend,
        )
    if not rows:
        yield Finding("late", "ok", "no run waits longer than it should")


def set_state(
    api: Api, run_id: str, kind: str, message: str, *, name: str | None = None, due: datetime | None = None
) -> str:
    """Return the command that forces a run into a state."""
    state: dict[str, Any] = {"type": kind, "message": message}
    state |= {"name": name} if name else {}
    state |= {"state_details": {"scheduled_time": due.isoformat(timespec="seconds")}} if due else {}
    body = shlex.quote(json.dumps({"state": state, "force": True}))
    return prefect_command(api, f"api POST /flow_runs/{run_id}/set_state --data {body}")


def prefect_command(api: Api, words: str) -> str:
    """Return a command of Prefect's that goes to this server, whatever the profile says."""
    return f"PREFECT_API_URL={plain(api.url)} prefect {words}"


class Workers:
    """The workers of pools, each pool asked for once."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._known: dict[str, list[dict[str, Any]]] = {}

    def of(self, pool: str | None) -> list[dict[str, Any]]:
        """Return all workers of a pool that the server knows, those that are gone included."""
        if not pool:
            return []
        if pool not in self._known:
            self._known[pool] = self._api.request("POST", f"/work_pools/{quote(pool)}/workers/filter", {})
        return self._known[pool]

    def online(self, pool: str | None) -> list[dict[str, Any]]:
        """Return those that have given a sign of life lately."""
        return [worker for worker in self.of(pool) if worker.get("status") == "ONLINE"]

    def named(self, pool: str | None, name: str) -> dict[str, Any] | None:
        """Return the worker of a name, or None."""
        return next((worker for worker in self.of(pool) if worker["name"] == name), None)


def _silent(api: Api, run: Mapping[str, Any], workers: Workers, now: datetime) -> str | None:
    """Say why a run that is Running gives no sign of life, or None where it may well live."""
    labels = run.get("labels") or {}
    name, kind = labels.get("prefect.worker.name"), labels.get("prefect.worker.type")
    if name and kind == POOL_TYPE:
        worker = workers.named(labels.get("prefect.work-pool.name") or run.get("work_pool_name"), str(name))
        if worker is None or worker.get("status") != "ONLINE":
            last = last_sign(api, run["id"], now)
            gone = worker and worker.get("last_heartbeat_time")
            if not last or not gone or last <= _time(gone) + timedelta(seconds=BEAT_SLACK_SECONDS):
                return f"its worker {name!r} is gone"
    since = _time(run.get("start_time") or run["state"]["timestamp"])
    if (now - since).total_seconds() <= SILENCE_SECONDS:
        return None
    last = last_sign(api, run["id"], now)
    # One that never gave a sign may be of an engine that gives none.
    if last and (silent := (now - max(last, since)).total_seconds()) > SILENCE_SECONDS:
        return f"its last sign of life came {_age(silent)} ago"
    return None


def last_sign(api: Api, run_id: str, now: datetime) -> datetime | None:
    """Return when a run has last given a sign of life; None where it gave none within a week."""
    body = {
        "filter": {
            "event": {"name": [HEARTBEAT]},
            "resource": {"id": [f"prefect.flow-run.{run_id}"]},
            "occurred": {"since": (now - timedelta(days=7)).isoformat()},
            "order": "DESC",
        },
        "limit": 1,
    }
    events = api.request("POST", "/events/filter", body)["events"]
    return _time(events[0]["occurred"]) if events else None


def _why_untaken(
    api: Api, workers: Workers, pool: str | None, queue: str | None, waiting: Iterable[Mapping[str, Any]]
) -> tuple[str, str]:
    """Say why nobody takes runs of a queue, and the command for it."""
    first = next(iter(waiting))
    if not pool or not queue:
        if first.get("deployment_id"):
            return "they wait for the program that serves their deployment (`serve` in its source): start it", ""
        return "without a deployment only the process that made them runs them", prefect_command(
            api, f"flow-run cancel {first['id']}"
        )
    if (api.pool(pool) or {}).get("is_paused"):
        return "the pool is paused", prefect_command(api, f"work-pool resume {shlex.quote(pool)}")
    if (api.queue(pool, queue) or {}).get("is_paused"):
        return "the queue is paused", prefect_command(
            api, f"work-queue resume {shlex.quote(queue)} --pool {shlex.quote(pool)}"
        )
    start = f"shipway worker start -q {shlex.quote(queue)} --pool {shlex.quote(pool)}"
    online = len(workers.online(pool))
    if not online:
        return "no worker of the pool is online", start
    return f"{online} online worker(s) may be full, at a concurrency limit, or take from other queues", start


def _runs(api: Api, where: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return up to a page of runs, the oldest first."""
    body = {"flow_runs": where, "sort": "EXPECTED_START_TIME_ASC", "limit": PAGE}
    rows: list[dict[str, Any]] = api.request("POST", "/flow_runs/filter", body)
    return rows


def _name(run: Mapping[str, Any]) -> str:
    return f"{run['name']} ({run['id']})"


def _count(rows: Iterable[object]) -> str:
    count = len(list(rows))
    return f"{count} run" if count == 1 else f"{count} runs"


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def _age(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
