"""What is in use as far as the Prefect API knows: the releases and data of runs that have not ended."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from shipway.deployment.history import pointer_key
from shipway.errors import IntegrityError
from shipway.manifest import Version
from shipway.prefect.api import PAGE, Api
from shipway.prefect.labels import release_of
from shipway.run.upkeep import Live

NOT_ENDED = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "CANCELLING"]
"""Types of the states of a run that may still want its release: waiting, late, paused or to be tried again, too."""


def live(api: Api) -> Live:
    """Ask what is in use.

    Raises:
        ServerError: the API does not answer; nothing may be taken for unused then.
    """
    stamps: set[object] = set()
    runs: set[str] = set()
    for run in _runs(api):
        stamps |= {run.get("deployment_version"), release_of(run)}
        runs.add(run["id"].replace("-", "")[-8:])
    # After the runs: one that is created meanwhile is stamped with what its deployment has, or had a moment ago.
    deployments = api.deployments()
    stamps |= {deployment.get("version") for deployment in deployments}
    pointers = frozenset(pointer_key(deployment["flow_name"], deployment["name"]) for deployment in deployments)
    return Live(frozenset(_versions(stamps)), frozenset(runs), pointers)


def _runs(api: Api) -> Iterator[dict[str, Any]]:
    """Yield every run that has not ended; none is passed over because others end meanwhile, as by counting pages."""
    # When a run was to start first never changes: pages go by that, and leave out what is known of the last instant.
    since: str | None = None
    seen: set[str] = set()
    while True:
        where: dict[str, Any] = {"state": {"type": {"any_": NOT_ENDED}}, "id": {"not_any_": sorted(seen)}}
        if since:
            where["expected_start_time"] = {"after_": since}
        body = {"flow_runs": where, "sort": "EXPECTED_START_TIME_ASC", "limit": PAGE}
        rows = api.request("POST", "/flow_runs/filter", body)
        if not rows:
            return
        yield from rows
        last = rows[-1]["expected_start_time"]
        seen = {row["id"] for row in rows if row["expected_start_time"] == last} | (seen if last == since else set())
        since = last


def _versions(stamps: set[object]) -> Iterator[Version]:
    for stamp in stamps:
        try:
            yield Version.parse(stamp)
        except IntegrityError:
            continue  # not deployed with Shipway
