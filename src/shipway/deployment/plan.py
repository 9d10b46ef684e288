"""The plan: what applying a deployment file would change on the server. A pure comparison."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipway.deployment.spec import DeploymentSpec
from shipway.deployment.step import ENGINE, PULL_STEP, block_of
from shipway.digest import sha256_bytes


@dataclass(frozen=True, slots=True)
class Change:
    """One difference.

    Attributes:
        field: what differs, such as `release` or `parameters.month`.
        before: what the server has, as text, or None where it has nothing.
        after: what it would have, as text, or None where it would be removed.
    """

    field: str
    before: str | None
    after: str | None

    def __str__(self) -> str:
        before, after = (value if value is None else _short(value) for value in (self.before, self.after))
        if before is None:
            return f"+ {self.field}: {after}"
        return f"- {self.field}: {before}" if after is None else f"~ {self.field}: {before} -> {after}"


@dataclass(frozen=True, slots=True)
class Plan:
    """What applying one deployment file would do.

    Attributes:
        spec: the deployment as its file says it.
        existing: the server's id of the deployment, or None where it is new.
        changes: the differences, empty when there is nothing to do.
        stale_schedules: ids of the server's schedules that are not in the file.
        stock: whether the work pool is of one of Prefect's own types, whose workers must be told our command.
    """

    spec: DeploymentSpec
    existing: str | None
    changes: tuple[Change, ...]
    stale_schedules: tuple[str, ...] = ()
    stock: bool = False

    @property
    def verb(self) -> str:
        """What will happen to the deployment: create, change, or nothing."""
        if self.existing is None:
            return "create"
        return "change" if self.changes else "keep"


def plan(
    spec: DeploymentSpec,
    server: Mapping[str, Any] | None,
    *,
    pool_exists: bool,
    queue_exists: bool,
    stock: bool = False,
) -> Plan:
    """Compare a deployment file with what the server has.

    Args:
        spec: the file.
        server: the deployment as the API returns it, or None where it has none of that name.
        pool_exists: whether the work pool is there.
        queue_exists: whether the queue is there.
        stock: whether the work pool is of one of Prefect's own types.
    """
    want, have = _wanted(spec, stock=stock), _had(server, spec) if server else {}
    fields = [*want, *(field for field in have if field not in want)]
    changes = [
        Change(field, have.get(field), want.get(field)) for field in fields if have.get(field) != want.get(field)
    ]
    if not queue_exists and spec.work_queue != "default":
        changes.insert(0, Change("work queue to create", None, f"{spec.work_pool}/{spec.work_queue}"))
    if not pool_exists:
        changes.insert(0, Change("work pool to create", None, spec.work_pool))
    slugs = {schedule.slug for schedule in spec.schedules}
    stale = tuple(item["id"] for item in (server or {}).get("schedules", []) if item.get("slug") not in slugs)
    return Plan(spec, str(server["id"]) if server else None, tuple(changes), stale, stock)


def pull_steps(spec: DeploymentSpec) -> list[dict[str, Any]]:
    """Return the deployment's pull steps: ours, which fetches the release stamped on the run."""
    return [{PULL_STEP: {"store": spec.store}}]


def job_variables(spec: DeploymentSpec, *, stock: bool) -> dict[str, Any]:
    """Return the job variables: the file's own, and on a stock pool our engine as the command unless it names another.

    Workers of our own pool type start the engine unasked.
    """
    return {"command": ENGINE, **spec.job_variables} if stock else dict(spec.job_variables)


def _wanted(spec: DeploymentSpec, *, stock: bool) -> dict[str, str]:
    values = {
        "release": spec.release,
        "entrypoint": spec.entrypoint,
        "description": spec.description or "",
        "tags": ", ".join(sorted(spec.tags)),
        "store": spec.store,
        "work pool": spec.work_pool,
        "work queue": spec.work_queue,
        "concurrency limit": _text(spec.concurrency_limit),
        "parameter schema": _schema(spec.parameter_openapi_schema),
        **_items("parameters", spec.parameters),
        **_items("job variables", job_variables(spec, stock=stock)),
    }
    for schedule in spec.schedules:
        values[f"schedule {schedule.slug}"] = schedule.text
        if schedule.active is not None:
            values[f"schedule {schedule.slug} active"] = _text(schedule.active)
        values |= _items(f"schedule {schedule.slug} parameters", schedule.parameters)
    return {field: value for field, value in values.items() if value not in ("", "null")}


def _had(server: Mapping[str, Any], spec: DeploymentSpec) -> dict[str, str]:
    limit = server.get("global_concurrency_limit") or {}
    values = {
        "release": server.get("version") or "",
        "entrypoint": server.get("entrypoint") or "",
        "description": server.get("description") or "",
        "tags": ", ".join(sorted(server.get("tags", []))),
        "store": block_of(server) or "",
        "work pool": server.get("work_pool_name") or "",
        "work queue": server.get("work_queue_name") or "",
        "concurrency limit": _text(server.get("concurrency_limit") or limit.get("limit")),
        "parameter schema": _schema(server.get("parameter_openapi_schema") or {}),
        **_items("parameters", server.get("parameters") or {}),
        **_items("job variables", server.get("job_variables") or {}),
    }
    ours = {schedule.slug: schedule for schedule in spec.schedules}
    for item in server.get("schedules", []):
        same = ours.get(item.get("slug"))
        label = f"schedule {item.get('slug') or item['id'][:8]}"
        # A slug follows from its rule, so an equal slug is an equal rule, however the server writes it back.
        values[label] = same.text if same else _rule(item["schedule"])
        if same is None or same.active is not None:
            values[f"{label} active"] = _text(item.get("active"))
        values |= _items(f"{label} parameters", item.get("parameters") or {})
    return {field: value for field, value in values.items() if value not in ("", "null")}


def _items(prefix: str, values: Mapping[str, Any]) -> dict[str, str]:
    return {f"{prefix}.{name}": _text(value) for name, value in values.items()}


def _rule(rule: Mapping[str, Any]) -> str:
    kind = next((name for name in ("cron", "interval", "rrule") if name in rule), "rule")
    return f"{kind} {rule.get(kind)!r} in {rule.get('timezone') or 'UTC'}"


def _short(text: str) -> str:
    first, *more = text.splitlines() or [""]
    return f"{first[:100]} ..." if more or len(first) > 100 else first


def _schema(schema: Mapping[str, Any]) -> str:
    """Say a schema as `n, label = "x"`, with a digest where more than that is in it."""
    rules = schema.get("properties", {})
    names = [f"{name} = {_text(rule['default'])}" if "default" in rule else str(name) for name, rule in rules.items()]
    return f"{', '.join(names) or 'none'} (digest {sha256_bytes(_text(schema).encode())[:8]})"


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)
