"""Automations of the Prefect server that take up again what a dead process left: runs that fell silent, or never began.

They are Prefect's own, live in the server and show in its UI, one set for each work pool of our type. A worker gives a
sign of life for every run that it has claimed, every `heartbeat_seconds`; three that do not come mean that run and
worker are dead.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from shipway.prefect.api import Api
from shipway.prefect.pool import POOL_TYPE
from shipway.settings import Settings

HEARTBEAT = "prefect.flow-run.heartbeat"
MISSED = 3
"""Signs of life that do not come before a run is taken for dead."""
LEAST_SECONDS = 10
"""Prefect accepts no shorter wait for an event."""
WAITING = (HEARTBEAT, "prefect.flow-run.Pending", "prefect.flow-run.Running")
"""Events after which more must be heard of a run."""
SETTLED = tuple(
    f"prefect.flow-run.{name}"
    for name in (
        *("Completed", "Failed", "Crashed", "Cancelled", "Cancelling", "Paused", "Suspended"),
        *("Scheduled", "AwaitingRetry", "Late", "Retrying"),
    )
)
"""Events after which a worker looks after it, or nobody has to. Each event that counts costs the server a write."""
ZOMBIE = "zombie: "
"""What the messages of runs begin with that were found dead; what runs them again goes by it."""
RUN_AGAIN = "Run again: "
"""What the messages of states begin with in which we, and no person, have a run begun again."""
AGAIN = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": f"{RUN_AGAIN}it had fallen silent"}
"""The state in which a worker takes it up."""
NOTE = "Kept up to date by Shipway, unless it is switched off here."


def ensure_automations(api: Api, settings: Settings, pool: str) -> None:
    """Make the automations of a pool, or bring them up to date; nothing where they are as they should be.

    One that somebody has switched off stays so. Pools of another type than ours are left alone: their runs give signs
    of life at another pace.
    """
    found = api.pool(pool)
    if found is None or found["type"] != POOL_TYPE:
        return
    for wanted in automations(found["id"], pool, settings):
        there = _named(api, wanted["name"])
        if not there:
            api.request("POST", "/automations/", wanted)
            there = _named(api, wanted["name"])
        elif not _covers(there[0], wanted):
            api.request("PUT", f"/automations/{there[0]['id']}", wanted | {"enabled": there[0]["enabled"]})
        # Two that did this at once have made two of them.
        for extra in there[1:]:
            api.request("DELETE", f"/automations/{extra['id']}")


def silence_seconds(settings: Settings) -> int:
    """Return after how many seconds without a sign of life a run is taken for dead."""
    return max(MISSED * settings.heartbeat_seconds, LEAST_SECONDS)


def automations(pool_id: str, pool: str, settings: Settings) -> Iterator[dict[str, Any]]:
    """Yield the automations of a pool as the API takes them."""
    within = silence_seconds(settings)
    yield _automation(
        _name_silent(pool),
        f"The worker that claimed the run is gone when nothing is heard of it for {within} s.",
        _trigger(pool_id, after=WAITING, expect=(*WAITING, *SETTLED), within=within),
        {"state": "CRASHED", "name": "Crashed", "message": f"{ZOMBIE}no sign of life for {within} s"},
    )
    # A run that its worker dies of must end some time; the count is of all the times that it was Running.
    counts = [str(count) for count in range(settings.crash_retries + 1)]
    yield _automation(
        _name_again(pool),
        f"Up to {settings.crash_retries} times; what it is about is told from the message that they crashed with.",
        _trigger(
            pool_id,
            expect=("prefect.flow-run.Crashed",),
            labels={"prefect.state-message": [f"{ZOMBIE}*"], "prefect.run-count": counts},
        ),
        {"state": AGAIN["type"], "name": AGAIN["name"], "message": AGAIN["message"]},
    )


def fell_silent(run: Mapping[str, Any]) -> bool:
    """Tell whether a run was found dead."""
    message = str((run.get("state") or {}).get("message"))
    return run["state_type"] == "CRASHED" and message.startswith(ZOMBIE)


def is_silent(run: Mapping[str, Any], retries: int) -> bool:
    """Tell whether a run was found dead and is to be run again."""
    return fell_silent(run) and bool(run["run_count"] <= retries)


def runs_again(api: Api, pool: str) -> bool:
    """Tell whether the runs of a pool that fell silent are run again, which somebody may have switched off."""
    return any(row["enabled"] for row in _named(api, _name_again(pool)))


def ends_silent(api: Api, pool: str) -> bool:
    """Tell whether the runs of a pool that fall silent become Crashed, which somebody may have switched off."""
    return any(row["enabled"] for row in _named(api, _name_silent(pool)))


def _name_silent(pool: str) -> str:
    return f"shipway: runs of pool {pool} that fell silent have crashed"


def _name_again(pool: str) -> str:
    return f"shipway: runs of pool {pool} that fell silent are run again"


def _automation(name: str, about: str, trigger: Mapping[str, Any], state: Mapping[str, str]) -> dict[str, Any]:
    actions = [{"type": "change-flow-run-state", **state}]
    return {"name": name, "description": f"{about} {NOTE}", "enabled": True, "trigger": trigger, "actions": actions}


def _trigger(
    pool_id: str,
    *,
    after: Sequence[str] = (),
    expect: Sequence[str],
    within: int = 0,
    labels: Mapping[str, list[str]] | None = None,
) -> dict[str, Any]:
    """Return what sets an automation off: an event or, where it waits for one `after` others, that it does not come."""
    return {
        "type": "event",
        "posture": "Proactive" if after else "Reactive",
        "match": {"prefect.resource.id": ["prefect.flow-run.*"], **(labels or {})},
        "match_related": {
            "prefect.resource.role": ["work-pool"],
            "prefect.resource.id": [f"prefect.work-pool.{pool_id}"],
        },
        "after": list(after),
        "expect": list(expect),
        "for_each": ["prefect.resource.id"],
        "threshold": 1,
        "within": within,
    }


def _named(api: Api, name: str) -> list[dict[str, Any]]:
    """Return the automations of a name, the oldest first."""
    rows = api.pages("/automations/filter", {"automations": {"name": {"any_": [name]}}})
    return sorted(rows, key=lambda row: (row["created"], row["id"]))


def _covers(there: Any, wanted: Any) -> bool:
    """Tell whether what the server has is what is wanted, whatever it adds of its own, and whether enabled or not."""
    if isinstance(wanted, Mapping):
        return isinstance(there, Mapping) and all(
            key == "enabled" or (key in there and _covers(there[key], value)) for key, value in wanted.items()
        )
    if isinstance(wanted, list):
        there = there if isinstance(there, list) else [there]
        return len(there) == len(wanted) and all(any(_covers(one, value) for one in there) for value in wanted)
    return bool(there == wanted)
