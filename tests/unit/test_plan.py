"""The plan: one line for each difference between a deployment file and the server, and none where there is none."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from shipway.deployment.plan import Plan, job_variables, plan, pull_steps
from shipway.deployment.spec import DeploymentSpec, Schedule

OLD, NEW = f"1484.{'a' * 64}", f"1485.{'b' * 64}"
DAILY = Schedule(cron="0 6 * * *", timezone="Europe/Berlin")
HOURLY = Schedule(interval=3600.0, parameters={"n": 1})

SPEC = DeploymentSpec(
    name="daily",
    flow="main",
    entrypoint="work.py:main",
    store="s3/block",
    release=OLD,
    parameter_openapi_schema={"type": "object", "properties": {"n": {"type": "integer"}}},
    tags=("a", "b"),
    work_queue="a",
    parameters={"month": "2013-02", "n": 3},
    schedules=(DAILY, HOURLY),
    concurrency_limit=2,
    job_variables={"env": {"A": "b"}},
)


def rule(schedule: Schedule) -> dict[str, Any]:
    """Return a schedule's rule as the API writes it back, with more than it was given."""
    if schedule.interval is not None:
        return {"interval": schedule.interval, "anchor_date": "2020-01-01T00:00:00Z", "timezone": schedule.timezone}
    return {"cron": schedule.cron, "timezone": schedule.timezone, "day_or": True}


def server(spec: DeploymentSpec, *, active: bool = True, stock: bool = False) -> dict[str, Any]:
    """Return the deployment as the API returns it once `spec` is applied, its schedules active or not."""
    return {
        "id": "of-the-deployment",
        "version": spec.release,
        "entrypoint": spec.entrypoint,
        "description": spec.description,
        "tags": list(reversed(spec.tags)),
        "work_pool_name": spec.work_pool,
        "work_queue_name": spec.work_queue,
        "concurrency_limit": None,
        "global_concurrency_limit": spec.concurrency_limit and {"limit": spec.concurrency_limit},
        "parameter_openapi_schema": spec.parameter_openapi_schema,
        "parameters": spec.parameters,
        "pull_steps": pull_steps(spec),
        "job_variables": job_variables(spec, stock=stock),
        "schedules": [
            {
                "id": f"id-{schedule.slug}",
                "slug": schedule.slug,
                "schedule": rule(schedule),
                "active": active,
                "parameters": schedule.parameters,
            }
            for schedule in spec.schedules
        ],
    }


def planned(spec: DeploymentSpec, had: dict[str, Any] | None, **there: bool) -> Plan:
    return plan(spec, had, **{"pool_exists": True, "queue_exists": True, **there})


def lines(spec: DeploymentSpec, had: dict[str, Any] | None, **there: bool) -> list[str]:
    return [str(change) for change in planned(spec, had, **there).changes]


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize("stock", [True, False])
def test_what_is_applied_is_nothing_to_do(active: bool, stock: bool) -> None:
    """A schedule that somebody paused is left alone where the file does not speak of it."""
    found = planned(SPEC, server(SPEC, active=active, stock=stock), stock=stock)
    assert (found.verb, found.changes, found.stale_schedules) == ("keep", (), ())


def test_a_new_deployment_is_all_lines_that_say_something() -> None:
    found = planned(SPEC, None, pool_exists=False, queue_exists=False)
    assert (found.verb, found.existing) == ("create", None)
    assert [str(change) for change in found.changes] == [
        "+ work pool to create: shipway",
        "+ work queue to create: shipway/a",
        f"+ release: {OLD}",
        "+ entrypoint: work.py:main",
        "+ tags: a, b",
        "+ store: s3/block",
        "+ work pool: shipway",
        "+ work queue: a",
        "+ concurrency limit: 2",
        "+ parameter schema: n (digest e84a7280)",
        '+ parameters.month: "2013-02"',
        "+ parameters.n: 3",
        '+ job variables.env: {"A": "b"}',
        f"+ schedule {DAILY.slug}: cron '0 6 * * *' in Europe/Berlin",
        f"+ schedule {HOURLY.slug}: every 1:00:00",
        f"+ schedule {HOURLY.slug} parameters.n: 1",
    ]


def test_the_default_queue_needs_no_making() -> None:
    assert lines(replace(SPEC, work_queue="default"), None, queue_exists=False)[0] == f"+ release: {OLD}"


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"release": NEW}, [f"~ release: {OLD} -> {NEW}"]),
        ({"entrypoint": "other.py:main"}, ["~ entrypoint: work.py:main -> other.py:main"]),
        ({"description": "Short."}, ["+ description: Short."]),
        ({"description": "First.\nSecond."}, ["+ description: First. ..."]),
        ({"description": "x" * 101}, [f"+ description: {'x' * 100} ..."]),
        ({"tags": ("b", "c")}, ["~ tags: a, b -> b, c"]),
        ({"tags": ()}, ["- tags: a, b"]),
        ({"tags": ("b", "a")}, []),
        ({"work_queue": "c"}, ["~ work queue: a -> c"]),
        ({"work_pool": "other"}, ["~ work pool: shipway -> other"]),
        ({"store": "s3/other"}, ["~ store: s3/block -> s3/other"]),
        ({"concurrency_limit": 3}, ["~ concurrency limit: 2 -> 3"]),
        ({"concurrency_limit": None}, ["- concurrency limit: 2"]),
        ({"job_variables": {}}, ['- job variables.env: {"A": "b"}']),
        (
            {"parameters": {"n": "3", "label": "x"}},
            ['~ parameters.n: 3 -> "3"', '+ parameters.label: "x"', '- parameters.month: "2013-02"'],
        ),
    ],
)
def test_what_differs_is_a_line_each(changed: dict[str, Any], expected: list[str]) -> None:
    found = planned(replace(SPEC, **changed), server(SPEC))
    assert [str(change) for change in found.changes] == expected
    assert found.verb == ("change" if expected else "keep")
    assert found.existing == "of-the-deployment"


def test_a_queue_that_is_missing_is_made() -> None:
    assert lines(replace(SPEC, work_queue="c"), server(SPEC), queue_exists=False) == [
        "+ work queue to create: shipway/c",
        "~ work queue: a -> c",
    ]


def test_a_schema_of_the_same_names_differs_in_its_digest() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer", "title": "N"}}}
    [line] = lines(replace(SPEC, parameter_openapi_schema=schema), server(SPEC))
    before, after = line.removeprefix("~ parameter schema: ").split(" -> ")
    assert before != after
    assert before.startswith("n (digest ")
    assert after.startswith("n (digest ")


def test_on_a_stock_pool_our_command_is_a_job_variable() -> None:
    assert lines(SPEC, server(SPEC), stock=True) == ['+ job variables.command: "python -m shipway.prefect.engine"']
    assert lines(replace(SPEC, job_variables={"command": "x"}), server(SPEC), stock=True)[0] == (
        '+ job variables.command: "x"'
    )


def test_a_schedule_is_added() -> None:
    more = Schedule(rrule="FREQ=DAILY;COUNT=3", active=False)
    assert lines(replace(SPEC, schedules=(DAILY, HOURLY, more)), server(SPEC, active=False)) == [
        f"+ schedule {more.slug}: rrule 'FREQ=DAILY;COUNT=3' in UTC",
        f"+ schedule {more.slug} active: false",
    ]


@pytest.mark.parametrize("active", [True, False])
def test_a_schedule_that_left_the_file_is_removed(active: bool) -> None:
    found = planned(replace(SPEC, schedules=(DAILY,)), server(SPEC, active=active))
    assert [str(change) for change in found.changes] == [
        f"- schedule {HOURLY.slug}: interval 3600.0 in UTC",
        f"- schedule {HOURLY.slug} active: {'true' if active else 'false'}",
        f"- schedule {HOURLY.slug} parameters.n: 1",
    ]
    assert found.stale_schedules == (f"id-{HOURLY.slug}",)


def test_a_schedule_made_in_the_ui_is_removed_and_named_by_its_id() -> None:
    had = server(SPEC)
    had["schedules"].append(
        {"id": "0123456789", "slug": None, "schedule": {"rrule": "FREQ=DAILY"}, "active": True, "parameters": {}}
    )
    found = planned(SPEC, had)
    assert [str(change) for change in found.changes] == [
        "- schedule 01234567: rrule 'FREQ=DAILY' in UTC",
        "- schedule 01234567 active: true",
    ]
    assert found.stale_schedules == ("0123456789",)


@pytest.mark.parametrize(
    ("says", "active", "expected"),
    [
        (None, False, []),
        (None, True, []),
        (True, False, ["~ schedule {} active: false -> true"]),
        (False, True, ["~ schedule {} active: true -> false"]),
        (False, False, []),
    ],
)
def test_only_a_file_that_says_so_pauses_or_resumes(says: bool | None, active: bool, expected: list[str]) -> None:
    daily = replace(DAILY, active=says)
    found = lines(replace(SPEC, schedules=(daily, HOURLY)), server(SPEC, active=active))
    assert found == [line.format(DAILY.slug) for line in expected]


def test_parameters_of_a_schedule_are_told_apart_from_the_deployments() -> None:
    hourly = replace(HOURLY, parameters={"n": 2})
    assert lines(replace(SPEC, schedules=(DAILY, hourly)), server(SPEC)) == [
        f"~ schedule {HOURLY.slug} parameters.n: 1 -> 2"
    ]
