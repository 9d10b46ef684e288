"""The deployment file: what is written is read back, and a mistake is named with its line and column."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.deployment.parameters import check_parameters
from shipway.deployment.spec import DeploymentSpec, Schedule, read
from shipway.deployment.write import deployment_text
from shipway.errors import DeploymentFileError, ParameterError

SCHEMA = {
    "type": "object",
    "properties": {
        "month": {"type": "string", "description": "which month", "default": "2013-02"},
        "n": {"type": "integer"},
    },
    "required": ["n"],
}

SPEC = DeploymentSpec(
    name="daily",
    flow="main",
    entrypoint="flows/work.py:main",
    description="First line.\n\nMore: 'quotes' # no comment",
    tags=("a", "b"),
    store="s3/block",
    release=f"1484.{'a' * 64}",
    work_queue="a",
    parameters={"month": "2013-02", "n": 3},
    schedules=(
        Schedule(cron="0 6 * * *", timezone="Europe/Berlin"),
        Schedule(interval=5400.0, active=False),
        Schedule(rrule="FREQ=DAILY;COUNT=3", parameters={"n": 1}),
    ),
    parameter_openapi_schema=SCHEMA,
)
TEXT = deployment_text(SPEC, "main-deployment.yaml")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "main-deployment.yaml"
    path.write_text(text)
    return path


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    assert read(write(tmp_path, TEXT)) == SPEC


def test_the_file_explains_itself() -> None:
    assert '#   month (string, default "2013-02"): which month' in TEXT
    assert "#   n (integer, required)" in TEXT
    assert TEXT.startswith("# Shipway deployment main/daily")


@pytest.mark.parametrize(
    ("old", "new", "place", "words"),
    [
        ("work_queue: a", "work_kueue: a", "work_kueue", "unknown key 'work_kueue'"),
        ("name: daily\n", "", "# Shipway", "key 'name' is missing"),
        ("name: daily", "name: a/b", "name", "may not hold '/'"),
        ("cron: 0 6 * * *", "cron: 0 66 * * *", "cron: 0", "'0 66 * * *' is not a cron expression"),
        ("cron: 0 6 * * *", "cron: 0 6 * * * *", "cron: 0", "of five fields"),
        ("Europe/Berlin", "Mars/Olympus", "timezone: Mars", "is not a time zone"),
        ("interval: 5400", "interval: often", "interval: often", "is not an interval"),
        ("interval: 5400", "interval: 0", "interval: 0", "at least one second"),
        ("interval: 5400", "kron: 1", "kron", "unknown key 'schedules.1.kron'"),
        ("rrule: FREQ=DAILY", "rrule: FREQ=SOMETIMES", "rrule: F", "is not a recurrence rule"),
        ("rrule: FREQ=DAILY;COUNT=3", "active: true", "active: true", "exactly one of cron, interval and rrule"),
        ("  n: 3", "  n: three", "parameters:", "parameter n does not fit"),
        ("  n: 3", "  m: 3", "parameters:", "no parameter 'm'; it takes month, n"),
        ("store: s3/block", "store: block", "store", "does not name a storage block"),
        ("release: 1484", "release: x", "release", "is not a Shipway release"),
        ("entrypoint: flows/work.py:main", "entrypoint: work", "entrypoint", "does not name a flow"),
        ("concurrency_limit: null", "concurrency_limit: 0", "concurrency_limit", "is at least 1"),
        ("concurrency_limit: null", "concurrency_limit: many", "concurrency_limit", "it is not what it should be"),
        ("tags:\n", "tags: [\n", None, "expected"),
        ("tags:\n", "tags: 3\nlist:\n", None, "tags"),
    ],
)
def test_a_mistake_is_named_with_its_place(tmp_path: Path, old: str, new: str, place: str | None, words: str) -> None:
    assert old in TEXT
    text = TEXT.replace(old, new, 1)
    with pytest.raises(DeploymentFileError) as caught:
        read(write(tmp_path, text))
    assert words in str(caught.value)
    if place:
        row, line = next((row, line) for row, line in enumerate(text.splitlines(), 1) if place in line)
        column = 1 if line.startswith("#") else line.index(place) + 1
        if "exactly one" not in words:
            assert f"main-deployment.yaml:{row}:{column}: " in str(caught.value)


@pytest.mark.parametrize("text", ["", "[]", "3", "a: b: c", "\t", "&a [*a]", "!!python/object:os.system {}", "\0"])
def test_what_is_no_deployment_file_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(DeploymentFileError):
        read(write(tmp_path, text))


def test_a_slug_follows_from_the_rule_alone() -> None:
    one = Schedule(cron="0 6 * * *", active=False, parameters={"n": 1})
    assert one.slug == Schedule(cron="0 6 * * *").slug
    assert one.slug != Schedule(cron="0 6 * * *", timezone="Asia/Tokyo").slug


def test_a_run_needs_what_a_deployment_may_leave_open() -> None:
    check_parameters({}, SCHEMA, complete=False)
    with pytest.raises(ParameterError, match="needs a value for parameter 'n'"):
        check_parameters({}, SCHEMA, complete=True)
