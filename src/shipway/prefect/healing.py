"""What a worker looks for, besides runs that are due: runs that nobody would take up again, slots that nobody holds.

A run that its own process is about to try again is marked so that no worker takes it; when the process dies in that
pause, the mark stays. A run that its worker was about to cancel stays so when the worker dies. A task that was killed
keeps its place among those of its tag. A run that fell silent stays as it was, or crashed, where the server was killed
before its automation had heard of it. Prefect mends none of these. Each round mends what it finds for the second time:
what is seen once may just be going on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any

from shipway.errors import ShipwayError
from shipway.prefect.api import PAGE, Api
from shipway.prefect.automations import AGAIN, ZOMBIE, ends_silent, fell_silent, is_silent, runs_again
from shipway.prefect.doctor_runs import Workers, last_sign
from shipway.prefect.doctor_slots import held_by_ended

UNHEARD = timedelta(hours=1)
"""How long ago a run may have fallen silent that is run again still; nobody expects older ones any more."""

NOTICE_SECONDS = 5.0
"""How often the server looks for runs that are silent."""

BEGUN = {"PENDING", "RUNNING"}

RETRYING = "in_process"
"""Prefect's mark of a run that its own process tries again."""


class Healer:
    """A worker's rounds.

    Attributes:
        left: runs that dead workers of this machine had, whose processes have ended too, by id, each with the id of the
            state by which it was claimed; mended in the next round.

    Args:
        api: the server.
        pool: name of the worker's pool.
        worker: name of the worker.
        retries: how many times a run that fell silent is run again.
        silence: after how many seconds without a sign of life a run is taken for dead.
        ended: told which runs have ended whose workers cannot say so.
    """

    def __init__(
        self, api: Api, pool: str, worker: str, retries: int, silence: int, ended: Callable[[str], None]
    ) -> None:
        self._api = api
        self._retries = retries
        self._pool = pool
        self._worker = worker
        self._silence = silence
        self._ended = ended
        self._told: set[str] = set()
        self._answers_since: float | None = None
        self.left: dict[str, str] = {}
        self._seen: set[tuple[str, str]] = set()

    def round(self, live: Collection[str]) -> list[str]:
        """Mend what this round finds as the one before it did.

        Args:
            live: ids of the runs that go on in this worker.

        Returns:
            What was mended, in words.

        Raises:
            ServerError: the server refused something; the next round begins anew.
        """
        try:
            return self._round(live)
        except ShipwayError:
            self._answers_since = None
            raise

    def _round(self, live: Collection[str]) -> list[str]:
        said = self._mend_left()
        found = (*self._orphans(live), *self._unheard(), *self._silent(live))
        self._answers_since = self._answers_since or time.monotonic()
        stranded = {("run", run["id"]): run for run in found}
        held = {(limit["tag"], holder) for limit, holders in held_by_ended(self._api) for holder in holders}
        again = self._seen & (stranded.keys() | held)
        self._seen = (stranded.keys() | held) - again
        for key in sorted(again):
            if run := stranded.get(key):
                said.append(self._mend(run))
            else:
                said.append(self._free(*key))
        return said

    def _free(self, tag: str, task_run: str) -> str:
        self._api.request("POST", "/concurrency_limits/decrement", {"names": [tag], "task_run_id": task_run})
        return f"a place of tag {tag!r} was held by a task that has ended; it is free"

    def _mend_left(self) -> list[str]:
        """Mend what dead workers of this machine left: nobody has to be waited for, as no process of it is there."""
        said = []
        for run, claim in list(self.left.items()):
            found = self._api.find(f"/flow_runs/{run}")
            if found and found["state_type"] in BEGUN and self._is_noticed(found):
                continue
            if found and self._is_as_left(found, claim):
                # First: its next attempt may want one.
                said += [self._free(*held) for held in self._held_by(run)]
                said.append(self._mend(found))
            del self.left[run]
        return said

    def _held_by(self, run: str) -> list[tuple[str, str]]:
        """Return the places that tasks of a run hold, each by its tag and the id of the task run."""
        limits = [limit for limit in self._api.pages("/concurrency_limits/filter", {}) if limit.get("active_slots")]
        if not limits:
            return []
        body = {"task_runs": {"flow_run_id": {"any_": [run]}}, "sort": "ID_DESC"}
        tasks = {row["id"] for row in self._api.pages("/task_runs/filter", body)}
        return [(limit["tag"], task) for limit in limits for task in tasks & set(map(str, limit["active_slots"]))]

    def _is_noticed(self, run: dict[str, Any]) -> bool:
        """Tell whether the server notices just about now that a run is silent.

        It would say so of one that has crashed here a moment before, and may have begun again.
        """
        now, begun = datetime.now(UTC), datetime.fromisoformat(run["state"]["timestamp"])
        silent = (now - max(last_sign(self._api, run["id"], now) or begun, begun)).total_seconds()
        return self._silence - NOTICE_SECONDS < silent < self._silence + 2 * NOTICE_SECONDS

    def _is_as_left(self, run: dict[str, Any], claim: str) -> bool:
        """Tell whether only the dead worker would go on with a run: nobody has claimed it since."""
        if run["state_type"] in BEGUN:
            if not ends_silent(self._api, run["work_pool_name"]):
                return False
        elif run["state_type"] != "CANCELLING" and not is_retrying(run):
            return False
        states = self._api.request("GET", f"/flow_run_states/?flow_run_id={run['id']}")
        claims = [state for state in states if (state["type"], state["name"]) == ("PENDING", "Pending")]
        return bool(claims) and max(claims, key=lambda state: str(state["timestamp"]))["id"] == claim

    def _mend(self, run: dict[str, Any]) -> str:
        if run["state_type"] == "CANCELLING":
            state = {"type": "CANCELLED", "message": "Its worker died before it had ended the run"}
            self._api.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": state})
            self._ended(run["id"])
            return f"run {run['name']} was to be cancelled by a worker that is gone; it is"
        if run["state_type"] in BEGUN:
            state = {"type": "CRASHED", "name": "Crashed", "message": f"{ZOMBIE}its worker is gone and unheard of"}
            self._api.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": state})
            return f"run {run['name']} was {run['state_name']}, without its worker; it has crashed"
        if run["state_type"] == "CRASHED":
            self._api.request("POST", f"/flow_runs/{run['id']}/set_state", {"state": AGAIN})
            return f"run {run['name']} fell silent, and nothing ran it again; it is run again"
        unmark(self._api, run)
        return f"run {run['name']} was to be tried again by a process that is gone; workers may take it"

    def _orphans(self, live: Collection[str]) -> list[dict[str, Any]]:
        """Return the runs that only a process or worker would go on with that is gone."""
        body = {
            "flow_runs": {"state": {"type": {"any_": ["SCHEDULED", "CANCELLING"]}}},
            "work_pools": {"name": {"any_": [self._pool]}},
            # Those that were due, not the many that are scheduled for later.
            "sort": "EXPECTED_START_TIME_ASC",
            "limit": PAGE,
        }
        workers = Workers(self._api)
        return [
            row
            for row in self._api.request("POST", "/flow_runs/filter", body)
            if (row["state_type"] == "CANCELLING" or is_retrying(row))
            and row["id"] not in live
            and self._is_orphan(row, workers)
        ]

    def _unheard(self) -> list[dict[str, Any]]:
        """Return the runs of late that fell silent and that the server was to run again."""
        body = {
            "flow_runs": {
                "state": {"type": {"any_": ["CRASHED"]}},
                "end_time": {"after_": (datetime.now(UTC) - UNHEARD).isoformat()},
            },
            "work_pools": {"name": {"any_": [self._pool]}},
            "limit": PAGE,
        }
        rows = self._api.request("POST", "/flow_runs/filter", body)
        # Nobody runs these again: they have ended.
        given_up = {row["id"] for row in rows if fell_silent(row) and not is_silent(row, self._retries)}
        for run in given_up - self._told:
            self._ended(run)
        self._told = given_up
        found = [row for row in rows if is_silent(row, self._retries)]
        return found if found and runs_again(self._api, self._pool) else []

    def _silent(self, live: Collection[str]) -> list[dict[str, Any]]:
        """Return the runs that a dead worker had, and whose end the server does not wait for."""
        # A server that was away has heard nobody; whoever lives has said so by then.
        if self._answers_since is None or time.monotonic() - self._answers_since < 2 * self._silence:
            return []
        body = {
            "flow_runs": {"state": {"type": {"any_": sorted(BEGUN)}}},
            "work_pools": {"name": {"any_": [self._pool]}},
            "limit": PAGE,
        }
        now = datetime.now(UTC)
        long_ago = now - timedelta(seconds=2 * self._silence)
        workers = Workers(self._api)
        found = [
            row
            for row in self._api.request("POST", "/flow_runs/filter", body)
            if row["id"] not in live
            and datetime.fromisoformat(row["state"]["timestamp"]) < long_ago
            and self._is_orphan(row, workers)
            and (last_sign(self._api, row["id"], now) or long_ago) <= long_ago
        ]
        return found if found and ends_silent(self._api, self._pool) else []

    def _is_orphan(self, run: dict[str, Any], workers: Workers) -> bool:
        name = (run.get("labels") or {}).get("prefect.worker.name")
        if name == self._worker:
            return True  # it is not among the live ones
        return (workers.named(self._pool, str(name)) or {}).get("status") != "ONLINE"


def is_retrying(run: dict[str, Any]) -> bool:
    """Tell whether a run waits for its own process to try it again."""
    return run["state_type"] == "SCHEDULED" and (run.get("empirical_policy") or {}).get("retry_type") == RETRYING


def unmark(api: Api, run: dict[str, Any]) -> None:
    """Let workers take a run that a retry has left to its own process; nothing where it is not marked so."""
    policy = run.get("empirical_policy") or {}
    if not policy.get("retry_type"):
        return
    api.request("PATCH", f"/flow_runs/{run['id']}", {"empirical_policy": policy | {"retry_type": None}})
