"""Plan -> server: make what the plan says true, all of it or none."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from shipway.deployment.history import check_usable, is_young, move_pointer, read_pointer
from shipway.deployment.plan import Plan, job_variables, plan, pull_steps
from shipway.deployment.spec import DeploymentSpec
from shipway.errors import DeploymentFileError, ObjectNotFoundError, ServerUnreachableError, ShipwayError
from shipway.manifest import read_manifest
from shipway.prefect.api import Api, quote
from shipway.prefect.pool import POOL_TYPE, base_job_template
from shipway.prefect.stores import store_of
from shipway.settings import Settings

FIELDS = (
    "version", "description", "tags", "parameters", "parameter_openapi_schema", "enforce_parameter_schema",
    "work_pool_name", "work_queue_name", "entrypoint", "pull_steps", "job_variables",
)  # fmt: skip
"""What `apply` writes of a deployment, beside its schedules and its concurrency limit."""

SCHEDULE_FIELDS = ("schedule", "active", "slug", "parameters", "max_scheduled_runs")


def make_plans(settings: Settings, specs: Sequence[DeploymentSpec]) -> list[Plan]:
    """Compare deployment files with the server; nothing is changed.

    Raises:
        DeploymentFileError: two files are of the same deployment, or a store lacks the release a file names.
        InputError: a release is too old to be given to its deployment.
        NotFoundError: a store's block does not exist.
        StoreError: a store does not answer.
    """
    names = [spec.full_name for spec in specs]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise DeploymentFileError(f"two of the files are of deployment {twice[0]}", hint="apply one of them")
    return [_make_plan(settings, spec) for spec in specs]


def _make_plan(settings: Settings, spec: DeploymentSpec) -> Plan:
    api = Api(settings)
    # Four questions that do not wait for each other's answers.
    with ThreadPoolExecutor(max_workers=4) as together:
        release = together.submit(_require_release, settings, spec)
        asked_pool = together.submit(api.pool, spec.work_pool)
        asked_queue = together.submit(api.queue, spec.work_pool, spec.work_queue)
        server = together.submit(api.find_deployment, spec.full_name)
        release.result()
    pool, queue = asked_pool.result(), asked_queue.result()
    stock = pool is not None and pool["type"] != POOL_TYPE
    return plan(spec, server.result(), pool_exists=pool is not None, queue_exists=queue is not None, stock=stock)


def apply(settings: Settings, plans: Sequence[Plan]) -> None:
    """Carry out plans: pools and queues, then the pointers in the stores, then the deployments.

    A failure undoes what was changed so far and is raised again; pools, queues and flows, which do no harm, stay.

    Raises:
        InputError: a release is too old to be given to its deployment.
    """
    api = Api(settings)
    moved: list[Callable[[], None]] = []
    changed: list[tuple[DeploymentSpec, dict[str, Any] | None]] = []
    try:
        for item in plans:
            _ensure_queue(api, item.spec)
        # The pointers move first: what a server may give to a run is in a history then, and safe from `gc`.
        for item in plans:
            moved.append(_move_pointer(settings, item.spec))
        for item in plans:
            if item.changes:
                # Noted before it is saved: a request whose answer is lost may have been carried out.
                changed.append((item.spec, api.find_deployment(item.spec.full_name) if item.existing else None))
                _save(api, item)
    except BaseException as error:
        with contextlib.suppress(ShipwayError):  # the first error is the one to be told
            for spec, before in reversed(changed):
                _restore(api, spec, before)
            # A server that stopped answering may know the release all the same: then it stays in the history.
            if isinstance(error, ShipwayError) and not isinstance(error, ServerUnreachableError):
                for take_back in reversed(moved):
                    take_back()
        raise


def ensure_pool(api: Api, name: str) -> None:
    """Make a work pool of our type unless there is one of that name."""
    if api.pool(name) is None:
        body = {"name": name, "type": POOL_TYPE, "base_job_template": base_job_template()}
        api.request("POST", "/work_pools/", body)


def ensure_queue(api: Api, pool: str, name: str) -> None:
    """Make a work queue in a pool unless there is one of that name."""
    if api.queue(pool, name) is None:
        api.request("POST", f"/work_pools/{quote(pool)}/queues", {"name": name})


def _require_release(settings: Settings, spec: DeploymentSpec) -> None:
    store = store_of(settings, spec.store)
    if not is_young(spec.version):
        check_usable(read_pointer(store, spec.flow, spec.name), spec.version, spec.full_name)
    try:
        read_manifest(store, spec.version)
    except ObjectNotFoundError:
        raise DeploymentFileError(
            f"release {spec.version.short} of {spec.full_name} is not in {store.address}",
            hint="run `shipway build` again",
        ) from None


def _move_pointer(settings: Settings, spec: DeploymentSpec) -> Callable[[], None]:
    return move_pointer(
        store_of(settings, spec.store),
        spec.flow,
        spec.name,
        spec.version,
        entrypoint=spec.entrypoint,
        schema=spec.parameter_openapi_schema,
    )


def _ensure_queue(api: Api, spec: DeploymentSpec) -> None:
    ensure_pool(api, spec.work_pool)
    ensure_queue(api, spec.work_pool, spec.work_queue)


def _save(api: Api, item: Plan) -> None:
    spec = item.spec
    body: dict[str, Any] = {
        "version": str(spec.version),
        "description": spec.description,
        "tags": list(spec.tags),
        "parameters": spec.parameters,
        "parameter_openapi_schema": spec.parameter_openapi_schema,
        "enforce_parameter_schema": True,
        "work_pool_name": spec.work_pool,
        "work_queue_name": spec.work_queue,
        "entrypoint": spec.entrypoint,
        "pull_steps": pull_steps(spec),
        "job_variables": job_variables(spec, stock=item.stock),
        "concurrency_limit": spec.concurrency_limit,
        "schedules": [_schedule(schedule, new=item.existing is None) for schedule in spec.schedules],
    }
    if item.existing is None:
        flow = api.request("POST", "/flows/", {"name": spec.flow})
        api.request("POST", "/deployments/", body | {"name": spec.name, "flow_id": flow["id"]})
        return
    # Schedules that left the file go first: the server refuses to mix named ones with others it does not know by name.
    for schedule_id in item.stale_schedules:
        api.request("DELETE", f"/deployments/{item.existing}/schedules/{schedule_id}")
    api.request("PATCH", f"/deployments/{item.existing}", body)


def _schedule(schedule: Any, *, new: bool) -> dict[str, Any]:
    rule: dict[str, Any] = {"timezone": schedule.timezone}
    if schedule.interval is not None:
        rule["interval"] = schedule.interval
    else:
        rule["cron" if schedule.cron is not None else "rrule"] = schedule.cron or schedule.rrule
    body = {"schedule": rule, "slug": schedule.slug, "parameters": schedule.parameters}
    # A schedule that the file says nothing about stays as somebody left it in the UI: paused or not.
    if schedule.active is not None or new:
        body["active"] = schedule.active is not False
    return body


def _restore(api: Api, spec: DeploymentSpec, before: dict[str, Any] | None) -> None:
    now = api.find_deployment(spec.full_name)
    if before is None:
        # One of another release is somebody else's, made meanwhile.
        if now and now["version"] == spec.release:
            api.request("DELETE", f"/deployments/{now['id']}")
        return
    route = f"/deployments/{before['id']}"
    limit = (before.get("global_concurrency_limit") or {}).get("limit")
    api.request("PATCH", route, {key: before[key] for key in FIELDS} | {"concurrency_limit": limit})
    # One by one: given with the rest, schedules without a name would be refused beside named ones.
    had = {item["id"]: item for item in before["schedules"]}
    have = {item["id"]: item for item in now["schedules"]} if now else {}
    for schedule_id in have.keys() - had.keys():
        api.request("DELETE", f"{route}/schedules/{schedule_id}")
    for schedule_id, item in had.items():
        body = {key: item[key] for key in SCHEDULE_FIELDS}
        if schedule_id not in have:
            api.request("POST", f"{route}/schedules", [body])
        elif have[schedule_id] != item:
            api.request("PATCH", f"{route}/schedules/{schedule_id}", body)
