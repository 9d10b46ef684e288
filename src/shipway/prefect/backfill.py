"""A backfill over the API: which runs there are, and seeing to it that there are all that are wanted.

Nothing is kept anywhere but in the server: a run's idempotency key says which value it is of, so a command that
was killed is gone on with by the same command.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from shipway.deployment.backfill import AGAIN, CREATE, FINAL, JOIN, Step, Wanted, attempt_key
from shipway.errors import IntegrityError, ServerUnreachableError
from shipway.manifest import Version
from shipway.prefect.api import Api
from shipway.prefect.labels import AFTER, RELEASE
from shipway.prefect.runs import PATIENCE_SECONDS, POLL_SECONDS, create_run

TAG = "backfill"
CHUNK = 200
"""How many runs are asked for at once."""

_Answer = TypeVar("_Answer")


@dataclass(slots=True)
class Row:
    """A value, and how far its run is.

    Attributes:
        step: what is to be done for it.
        run: its run as the API has described it last, or None where none was made yet.
        deleted: whether somebody has deleted the run meanwhile.
    """

    step: Step
    run: Mapping[str, Any] | None
    deleted: bool = False

    @property
    def state(self) -> str:
        """The run's state in a word, `Deleted` where it is gone, empty where there is none yet."""
        return "Deleted" if self.deleted else str(self.run["state_name"]) if self.run else ""

    @property
    def state_type(self) -> str:
        """The type of that state; that of a deleted run is `DELETED`."""
        return "DELETED" if self.deleted else str(self.run["state_type"]) if self.run else ""

    @property
    def ended(self) -> bool:
        """Whether the run has come to its end."""
        return self.deleted or self.state_type in FINAL

    @property
    def seconds(self) -> float | None:
        """How long the run has taken so far, or None where it has not begun."""
        if not self.run or not self.run.get("start_time"):
            return None
        if self.ended:
            return float(self.run["total_run_time"])
        return max(0.0, (datetime.now(UTC) - datetime.fromisoformat(self.run["start_time"])).total_seconds())


def existing_runs(api: Api, wanted: Sequence[Wanted]) -> dict[str, list[dict[str, Any]]]:
    """Return the runs that there are of each value, by the value's key, the oldest first."""
    found: dict[str, list[dict[str, Any]]] = {}
    keys, attempt = [one.key for one in wanted], 1
    # Nobody knows how many runs a value has had: those that have had one may have had another.
    while keys:
        rows: dict[str, dict[str, Any]] = {}
        for start in range(0, len(keys), CHUNK):
            asked = [attempt_key(key, attempt) for key in keys[start : start + CHUNK]]
            rows |= {row["idempotency_key"]: row for row in _filter(api, "idempotency_key", asked)}
        keys = [key for key in keys if attempt_key(key, attempt) in rows]
        for key in keys:
            found.setdefault(key, []).append(rows[attempt_key(key, attempt)])
        attempt += 1
    return found


def allowed_at_once(api: Api, deployment: Mapping[str, Any]) -> tuple[int, str] | None:
    """Return how many runs of a deployment the server lets run at once and whose limit that is, or None."""
    limits = [((deployment.get("global_concurrency_limit") or {}).get("limit"), "the deployment")]
    pool, queue = deployment.get("work_pool_name"), deployment.get("work_queue_name")
    if pool:
        limits.append(((api.pool(pool) or {}).get("concurrency_limit"), f"work pool {pool}"))
        if queue:
            limits.append(((api.queue(pool, queue) or {}).get("concurrency_limit"), f"queue {queue}"))
    known = [(max(limit, 1), whose) for limit, whose in limits if limit is not None]
    return min(known) if known else None


def drive(
    api: Api,
    deployment: Mapping[str, Any],
    rows: Sequence[Row],
    *,
    parallel: int,
    keep_going: bool,
    tell: Callable[[Row | None], None],
) -> None:
    """Have every value run, in order and at most so many at once; return when none is going on any more.

    Args:
        api: where.
        deployment: as the API describes it.
        rows: what is to be done, in order; each is kept up to date.
        parallel: how many may go on at once. Those that go on already count.
        keep_going: whether values are begun after a run that did not complete.
        tell: called for each row whose run was made or is in another state, and with None after each look.

    Raises:
        ServerUnreachableError: the server stayed away for `PATIENCE_SECONDS`.
    """
    going = {row.run["id"]: row for row in rows if row.run and row.step.action == JOIN}
    to_do = deque(row for row in rows if row.step.action in (CREATE, AGAIN))
    # Each run has its turn after the one that was made before it, so that no two have theirs at once. A value that is
    # tried again takes its turn after those that were begun before: they may have had theirs.
    before = max((row.run for row in going.values() if row.run), key=lambda run: str(run["created"]), default=None)
    failed = False
    while True:
        while to_do and len(going) < parallel and (keep_going or not failed):
            row = to_do.popleft()
            row.run = before = _create(api, deployment, row.step, before)
            going[row.run["id"]] = row
            tell(row)
        if not going:
            return
        time.sleep(POLL_SECONDS)
        found = _look(api, list(going))
        for run_id, row in list(going.items()):
            last, run = row.state, found.get(run_id)
            row.deleted, row.run = run is None, run or row.run
            if row.state != last:
                tell(row)
            if row.ended:
                failed |= row.state_type != "COMPLETED"
                del going[run_id]
        tell(None)


def _create(api: Api, deployment: Mapping[str, Any], step: Step, before: Mapping[str, Any] | None) -> dict[str, Any]:
    labels = {AFTER: before["id"]} if before else {}
    with suppress(IntegrityError):  # it may not be deployed with Shipway
        # A backfill is of one release, that which its keys are made of, whatever is deployed while it goes on.
        labels[RELEASE] = str(Version.parse(deployment.get("version")))

    def create() -> dict[str, Any]:
        wanted = step.wanted
        return create_run(
            api, deployment, wanted.parameters, tags=[TAG], name=wanted.name, labels=labels, idempotency_key=step.key
        )

    return _patiently(create)


def _look(api: Api, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    def look() -> dict[str, dict[str, Any]]:
        chunks = (ids[start : start + CHUNK] for start in range(0, len(ids), CHUNK))
        return {row["id"]: row for chunk in chunks for row in _filter(api, "id", chunk)}

    return _patiently(look)


def _filter(api: Api, field: str, values: Sequence[str]) -> list[dict[str, Any]]:
    body = {"flow_runs": {field: {"any_": list(values)}}, "limit": CHUNK}
    rows: list[dict[str, Any]] = api.request("POST", "/flow_runs/filter", body)
    return rows


def _patiently(ask: Callable[[], _Answer]) -> _Answer:
    """Ask until there is an answer: what was asked for twice is there once."""
    patience = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            return ask()
        except ServerUnreachableError:
            if time.monotonic() > patience:
                raise
            time.sleep(POLL_SECONDS)
