"""What a backfill wants, and what it makes of what there is."""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from shipway.artifact import segment
from shipway.cli.backfill import _summary, _table
from shipway.deployment.backfill import AGAIN, CREATE, JOIN, SKIP, Step, Wanted, attempt_key, plan, wanted_runs
from shipway.deployment.ranges import expand
from shipway.errors import ParameterError
from shipway.prefect.backfill import Row

RELEASE = "a" * 64
SCHEMA = {
    "type": "object",
    "properties": {
        "month": {"type": "string"},
        "history": {"type": "integer"},
        "weights": {"type": "array", "items": {"type": "number"}},
        "note": {"type": "string"},
    },
    "required": ["month"],
}


def deployment(**rest: Any) -> dict[str, Any]:
    """Return a deployment as the API describes it."""
    base = {"version": f"1.{RELEASE}", "parameters": {"history": 12}, "parameter_openapi_schema": SCHEMA}
    return base | rest


def wanted(*pairs: str, **rest: Any) -> list[Wanted]:
    return wanted_runs("main/flights", deployment(**rest), pairs)


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("2012-11..2013-02", ["2012-11", "2012-12", "2013-01", "2013-02"]),
        ("2012-01..2015-01/1y", ["2012-01", "2013-01", "2014-01", "2015-01"]),
        ("2012-02-28..2012-03-01", ["2012-02-28", "2012-02-29", "2012-03-01"]),
        ("2013-01-01..2013-01-20/1w", ["2013-01-01", "2013-01-08", "2013-01-15"]),
        ("2013-01-01T23..2013-01-02T01", ["2013-01-01T23", "2013-01-02T00", "2013-01-02T01"]),
        ("2013-01-01T00:15..2013-01-01T01:00/30min", ["2013-01-01T00:15", "2013-01-01T00:45"]),
        ("2012..2014", ["2012", "2013", "2014"]),
        ("08..11", ["08", "09", "10", "11"]),
        ("-1..1", ["-1", "0", "1"]),
        ("7..7", ["7"]),
        ("b, a,2013-01..2013-02,a", ["b", "a", "2013-01", "2013-02"]),
        ("../data", ["../data"]),
        ("data/a..b/c", ["data/a..b/c"]),
        ("one", ["one"]),
    ],
)
def test_values_written_short(text: str, values: list[str]) -> None:
    assert expand(text) == values


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("2013-12..2013-02", "goes backwards; write 2013-02..2013-12"),
        ("2013-02..2013-12-01", "goes from months to days"),
        ("2013-01-01T00..2013-01-01T02:00", "goes from hours to hours and minutes"),
        ("2013-02..12", "goes from months to numbers"),
        ("2013-00..2013-02", "there is no 2013-00"),
        ("2013-02-28..2013-02-30", "there is no 2013-02-30"),
        ("a..c", "'a..c' is not a range; write 2013-02..2013-12"),
        ("1..", "'1..' is not a range"),
        ("0.5..1.5", "is not a range"),
        ("1..9/0", "has no step of numbers after the /; write for example /2"),
        ("2013-02..2013-12/1d", "has no step of months after the /; write for example /2, /2mo, /2y"),
        ("a,,b", "holds an empty value"),
        ("", "holds an empty value"),
        ("1..1000000", "these are 1,000,000 values, at most 10,000 can be"),
        ("1..6000,7001..12000", "these are 11,000 values"),
    ],
)
def test_values_that_are_refused(text: str, words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        expand(text)
    assert words in str(caught.value)


def test_runs_are_every_combination_in_order() -> None:
    runs = wanted("month=2013-02..2013-03", "history=3,6", "note=hot")
    assert [(run.name, dict(run.parameters)) for run in runs] == [
        ("month-2013-02_history-3", {"month": "2013-02", "history": 3, "note": "hot"}),
        ("month-2013-02_history-6", {"month": "2013-02", "history": 6, "note": "hot"}),
        ("month-2013-03_history-3", {"month": "2013-03", "history": 3, "note": "hot"}),
        ("month-2013-03_history-6", {"month": "2013-03", "history": 6, "note": "hot"}),
    ]
    assert all(segment(run.name) == run.name for run in runs)
    assert len({run.key for run in runs}) == 4


def test_a_single_value_names_its_run() -> None:
    assert [run.name for run in wanted("month=2013-02")] == ["month-2013-02"]


def test_json_stands_for_itself() -> None:
    [run] = wanted("month=2013-02", "weights=[1,2]", 'note="a,b"')
    assert dict(run.parameters) == {"month": "2013-02", "weights": [1, 2], "note": "a,b"}


def test_a_value_that_is_written_in_two_ways_is_one() -> None:
    assert len(wanted("month=2013-02", "history=3,3 , 3")) == 1


@pytest.mark.parametrize(
    ("pairs", "words"),
    [
        (("month",), "'month' is not KEY=VALUES"),
        (("moon=1",), "has no parameter 'moon'"),
        (("history=1..3",), "needs a value for parameter 'month'"),
        (("month=2013-02", "history=3,many"), "parameter history does not fit"),
        (("month=2013-02", "month=2013-03"), "parameter 'month' is given twice; write -p month=A,B"),
        (("month=1..5000", "history=1..3"), "these are 15,000 values"),
        (("month=2013-02", "weights=[NaN]"), "is not a value that JSON has"),
        (("month=2013-02", 'note="a'), "is not a JSON string"),
    ],
)
def test_runs_that_cannot_be(pairs: tuple[str, ...], words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        wanted(*pairs)
    assert words in str(caught.value)


def test_a_key_is_of_the_deployment_its_code_and_all_parameters() -> None:
    [run] = wanted("month=2013-02")
    # The same run, asked for in other words; a release is the same wherever and whenever it was stored.
    assert wanted("month=2013-02", "history=12")[0].key == run.key
    assert wanted("month=2013-02", version=f"7.{RELEASE}")[0].key == run.key
    others = [
        wanted("month=2013-03"),
        wanted("month=2013-02", "history=6"),
        wanted("month=2013-02", version=f"1.{'b' * 64}"),
        wanted("month=2013-02", version="of somebody else"),
        wanted("month=2013-02", parameters={"history": 6}),
        wanted_runs("main/other", deployment(), ("month=2013-02",)),
    ]
    keys = {one.key for [one] in others}
    assert len(keys) == 5, "six months of history are the same given here or by the deployment"
    assert run.key not in keys


def runs_of(*states: str) -> list[dict[str, Any]]:
    return [{"id": str(number), "state_type": state} for number, state in enumerate(states)]


@pytest.mark.parametrize(
    ("states", "action", "attempt", "again"),
    [
        ((), CREATE, 1, CREATE),
        (("COMPLETED",), SKIP, 1, AGAIN),
        (("SCHEDULED",), JOIN, 1, JOIN),
        (("PENDING",), JOIN, 1, JOIN),
        (("RUNNING",), JOIN, 1, JOIN),
        (("PAUSED",), JOIN, 1, JOIN),
        (("CANCELLING",), JOIN, 1, JOIN),
        (("FAILED",), AGAIN, 2, AGAIN),
        (("CRASHED",), AGAIN, 2, AGAIN),
        (("CANCELLED",), AGAIN, 2, AGAIN),
        (("FAILED", "CRASHED"), AGAIN, 3, AGAIN),
        (("FAILED", "RUNNING"), JOIN, 2, JOIN),
        (("FAILED", "COMPLETED"), SKIP, 2, AGAIN),
        (("COMPLETED", "FAILED"), AGAIN, 3, AGAIN),
    ],
)
def test_what_is_done_for_a_value(states: tuple[str, ...], action: str, attempt: int, again: str) -> None:
    one = Wanted("month-2013-02", {"month": "2013-02"}, "k")
    existing = {"k": runs_of(*states)} if states else {}
    [step] = plan([one], existing)
    assert (step.action, step.attempt) == (action, attempt)
    assert step.key == attempt_key("k", attempt) == ("k" if attempt == 1 else f"k#{attempt}")
    assert step.run == (existing["k"][-1] if states else None)
    [step] = plan([one], existing, again=True)
    assert step.action == again


def test_the_table_shows_those_that_go_on_and_what_is_around_them() -> None:
    done: dict[str, Any] = {"id": "a" * 32, "name": "n-0", "state_name": "Completed", "state_type": "COMPLETED"}
    done |= {"start_time": "2026-01-02T03:04:05+00:00", "total_run_time": 12.3}
    going = done | {"state_name": "Running", "state_type": "RUNNING"}
    many = [Wanted(f"n-{number}", {"n": number}, str(number)) for number in range(100)]
    rows = [
        Row(Step(one, SKIP if n < 3 else CREATE, 1, None), done if n < 50 else going if n == 50 else None)
        for n, one in enumerate(many)
    ]

    def drawn() -> str:
        console = Console(width=80, no_color=True)
        with console.capture() as capture:
            console.print(_table(rows, 12))
        return capture.get()

    lines = drawn().splitlines()
    assert lines[0].strip() == "50 of 100 done"
    assert [line.split()[0] for line in lines[2:]] == [f"n-{number}" for number in range(46, 58)]
    assert "Completed" in lines[5]
    assert lines[5].rstrip().endswith("12")
    assert "Running" in lines[6]
    rows[50:] = [Row(row.step, done) for row in rows[50:]]
    assert [line.split()[0] for line in drawn().splitlines()[2:]] == [f"n-{number}" for number in range(88, 100)]
    assert _summary("main/x", rows) == "main/x: 97 Completed, 3 completed before"
