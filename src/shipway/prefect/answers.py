"""The Prefect API's answers, checked where they arrive: as far as commands rely on them, and no further.

What answers may be another program, a proxy in between, or a server of another time; what it says is used in many
places, which need not doubt it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shipway.deployment.step import PULL_STEP

Check = Callable[[Any], bool]


def _text(value: Any) -> bool:
    return isinstance(value, str)


def _whole(value: Any) -> bool:
    return type(value) is int and abs(value) < 1 << 63


def _number(value: Any) -> bool:
    return isinstance(value, float) or _whole(value)


def _moment(value: Any) -> bool:
    try:
        moment = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return False
    # What lies at either end of the calendar is in no year at all in another time zone.
    return moment.tzinfo is not None and 1970 <= moment.year < 9999


def _list(check: Check) -> Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


class _Row:
    """An object with these fields, of which the second may be missing or null."""

    def __init__(self, needed: Mapping[str, Check], nullable: Mapping[str, Check]) -> None:
        self._needed = needed
        self._nullable = nullable

    def __call__(self, value: Any) -> bool:
        return isinstance(value, dict) and self.fault(value) is None

    def fault(self, row: dict[str, Any]) -> str | None:
        """Return the field that is not as it should be, or None."""
        for name, check in self._needed.items():
            if name not in row or not check(row[name]):
                return name
        for name, check in self._nullable.items():
            if row.get(name) is not None and not check(row[name]):
                return name
        return None

    def fill(self, row: dict[str, Any]) -> None:
        """Let what is missing be null."""
        for name in self._nullable:
            row.setdefault(name, None)


_object = _Row({}, {})
_state = _Row({}, {"message": _text, "timestamp": _moment})
_schedule = _Row({"schedule": _Row({}, {"interval": _number})}, {"id": _text, "active": lambda _value: True})
_limit = _Row({}, {"limit": _whole, "active_slots": _whole, "name": _text})
_step = _Row({}, {PULL_STEP: _Row({}, {"store": _text})})

_ID: dict[str, Check] = {"id": _text}
_NAMED: dict[str, Check] = {**_ID, "name": _text}
_STATE: dict[str, Check] = {
    "state_type": _text,
    "state_name": _text,
    "state": _state,
    "start_time": _moment,
    "run_count": _whole,
}

_ROWS = {
    "flows": _Row(_NAMED, {}),
    "flow_runs": _Row(
        {**_NAMED, "flow_id": _text, "parameters": _object, "total_run_time": _number},
        {
            **_STATE,
            **dict.fromkeys(("expected_start_time", "end_time", "next_scheduled_start_time"), _moment),
            **dict.fromkeys(("deployment_id", "deployment_version", "idempotency_key"), _text),
            **dict.fromkeys(("work_pool_name", "work_queue_name"), _text),
            **dict.fromkeys(("labels", "empirical_policy"), _object),
        },
    ),
    "task_runs": _Row(
        _NAMED, {**_STATE, "total_run_time": _number, "flow_run_id": _text, "flow_run_run_count": _whole}
    ),
    "logs": _Row({"message": _text, "level": _whole, "timestamp": _moment}, {"task_run_id": _text}),
    "deployments": _Row(
        {**_NAMED, "flow_id": _text, "tags": _list(_text), "parameters": _object, "schedules": _list(_schedule)},
        {
            **dict.fromkeys(("version", "description", "entrypoint", "work_pool_name", "work_queue_name"), _text),
            "pull_steps": _list(_step),
            "paused": lambda value: isinstance(value, bool),
            "parameter_openapi_schema": _object,
            "job_variables": _object,
            "global_concurrency_limit": _limit,
        },
    ),
    "work_pools": _Row({"name": _text}, {"type": _text, "concurrency_limit": _whole}),
    "queues": _Row({}, {"name": _text, "concurrency_limit": _whole}),
    "workers": _Row({"name": _text}, {"status": _text, "last_heartbeat_time": _moment}),
    "block_types": _Row(_ID, {"slug": _text}),
    "block_schemas": _Row(_ID, {"block_type_id": _text}),
    "block_documents": _Row({**_ID, "data": _object}, {"name": _text, "block_type": _Row({"slug": _text}, {})}),
    "concurrency_limits": _Row({}, {"tag": _text, "concurrency_limit": _whole, "active_slots": _list(_text)}),
    "automations": _Row({**_ID, "created": _text}, {"name": _text}),
    "events": _Row({"events": _list(_Row({"resource": _object}, {"occurred": _moment}))}, {}),
}

_MANY = re.compile(r"/(?:work_pools/[^/]+/(?=workers/)|(?!events/))(\w+)/filter")
_ONE = tuple(
    (re.compile(pattern), kind)
    for pattern, kind in (
        (r"/(flow_runs|deployments|work_pools)/[^/]+", None),
        (r"/(flows|block_types|block_schemas)/", None),
        (r"/(events)/filter", None),
        (r"/deployments/name/[^/]+/[^/]+", "deployments"),
        (r"/deployments/[^/]+/create_flow_run", "flow_runs"),
        (r"/work_pools/[^/]+/(queues)/[^/]+", None),
        (r"/(block_types)/slug/[^/]+", None),
        (r"/block_types/slug/[^/]+/(block_documents)/name/[^/]+", None),
        (r"/(block_schemas)/checksum/[^/]+", None),
        (r"/(concurrency_limits)/tag/[^/]+", None),
    )
)


def fault(method: str, path: str, answer: Any) -> str | None:
    """Say what is wrong with the answer to a request, without what was in it, or return None.

    Args:
        method: of the request.
        path: of the request, below the API's address.
        answer: its JSON.
    """
    path = path.partition("?")[0]
    if path == "/flow_runs/count":
        return None if _whole(answer) else "a number is missing"
    if method not in ("GET", "POST"):
        return None
    if match := _MANY.fullmatch(path):
        return _of_rows(match[1], answer)
    for pattern, kind in _ONE:
        if match := pattern.fullmatch(path):
            return _of_row(kind or match[1], answer)
    return None


def _of_rows(kind: str, answer: Any) -> str | None:
    if not isinstance(answer, list):
        return "a list is missing"
    return next((found for found in (_of_row(kind, row) for row in answer) if found), None)


def _of_row(kind: str, row: Any) -> str | None:
    if not isinstance(row, dict):
        return f"one of the {kind.replace('_', ' ')} is no object"
    # Of what commands do not read nothing is asked.
    rule = _ROWS.get(kind, _object)
    found = rule.fault(row)
    if found is None:
        rule.fill(row)
    return f"{found!r} of one of the {kind.replace('_', ' ')} is not as it should be" if found else None
