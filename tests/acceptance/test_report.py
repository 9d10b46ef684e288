"""The page of a run on a real stack: made when the run has completed, kept, fetched, made anew; and the overview."""

from __future__ import annotations

import json
import uuid
from pathlib import Path

from shipway.prefect.api import Api
from shipway.prefect.pages import find_page
from shipway.prefect.runs import find_run
from shipway.settings import Settings
from tests.acceptance.conftest import Shell, one_line, wait_until
from tests.unit.pages import read

FLOW = """
from prefect import flow, task
import shipway

@task
def measure(n: int) -> int:
    if n < 0:
        shipway.report.verdict("stopped", "what it was given cannot be right", level="bad")
        shipway.report.section("Checks", "One of them failed.", [{"check": "n is positive", "result": "failed"}])
        shipway.log_metrics({"checked": 7})
        raise ValueError("n is <b>negative</b>")
    shipway.report.section("How good it is", "Measured in a task.", [{"n": n, "result": "passed"}])
    return n

@task
def side(n: int) -> None:
    shipway.report.section("By the side", "Submitted.")

@flow(name="NAME")
def main(n: int = 1):
    side.submit(n).wait()
    measure(n)
    shipway.save("numbers", {"n": n})
    shipway.log_metrics({"score": 41.2577})
    shipway.report.verdict("Promoted", "41.26 against 41.64", level="good")
"""


def test_the_page_of_a_run(project: Shell, tmp_path: Path) -> None:
    flow = f"report-{uuid.uuid4().hex[:8]}"
    (project.folder / "report_flow.py").write_text(FLOW.replace("NAME", flow))
    project.ok("deploy", "./report_flow.py:main", "-n", "daily")
    name = f"good-{flow}"
    facts = project.json("run", f"{flow}/daily", "--name", name, "--watch")
    api = Api(Settings.load(project.folder, project.environment))
    wanted = {"artifacts": {"flow_run_id": {"any_": [facts["id"]]}}}
    # It is made when the run has completed, which `--watch` does not wait for.
    wait_until(lambda: len(api.request("POST", "/artifacts/filter", wanted)) == 2)
    rows = {row["type"]: row["data"] for row in api.request("POST", "/artifacts/filter", wanted)}
    for words in ("**Promoted 41.26 against 41.64**", "| score | 41.26 |", f"shipway report {name}\n", "/run.json"):
        assert words in rows["markdown"]

    path = tmp_path / "page.html"
    found = project.json("report", name, "--output", str(path))
    assert (found["made"], found["path"]) == (False, str(path))
    assert found["address"].startswith(f"s3://shipway/reports/{flow}/")
    assert found["address"] in rows["markdown"]
    reader = read(path.read_text())
    text = reader.text
    for words in (
        "Promoted",
        "41.26 against 41.64",
        "Measured in a task.",
        "numbers.json",
        "s3://shipway/runs/",
        "measure-",
    ):
        assert words in text, words
    assert text.index("Measured in a task.") < text.index("Submitted.")  # of another thread, so it comes after
    assert text.count("passed") == 1
    names = [item["name"] for item in facts["artifacts"] if item["name"].startswith("report/")]
    assert [name.partition("By")[0] for name in names] == [
        "report/01-how-good-it-is",
        "report/tasks/",
        "report/verdict",
    ]

    anew = project.json("report", name, "--fresh")
    assert anew["made"]
    assert Path(anew["path"]).is_relative_to(project.folder / ".shipway/reports")
    assert "Measured in a task." in read(Path(anew["path"]).read_text()).text

    assert project("run", f"{flow}/daily", "-p", "n=-1", "--name", f"bad-{flow}", "--watch").returncode == 1
    bad = project.json("show", f"bad-{flow}")["id"]
    wanted = {"artifacts": {"flow_run_id": {"any_": [bad]}, "type": {"any_": ["markdown"]}}}
    # It is kept when the run has failed, which `--watch` does not wait for.
    wait_until(lambda: len(api.request("POST", "/artifacts/filter", wanted)) == 1)
    [link] = api.request("POST", "/artifacts/filter", wanted)
    for words in ("**stopped what it was given cannot be right**", "| checked | 7 |", f"shipway report bad-{flow}\n"):
        assert words in link["data"]
    failed = project.json("report", f"bad-{flow}")
    assert (failed["state"], failed["made"]) == ("Failed", False)
    assert failed["address"] in link["data"]
    reader = read(Path(failed["path"]).read_text())
    for words in ("stopped", "what it was given cannot be right", "n is positive", "ValueError: n is <b>negative</b>"):
        assert words in reader.text, words
    assert "Nothing of it was committed" in reader.text
    assert not reader.all("b")
    # A page of an attempt before is not that of the run as it failed.
    found = find_run(api, bad)
    settings = Settings.load(project.folder, project.environment)
    assert not find_page(api, found, settings, fresh=False).made
    assert find_page(api, {**found, "run_count": 2}, settings, fresh=False).made

    overview = json.loads(project.ok("report", "--json"))
    reader = read(Path(overview["path"]).read_text())
    assert f"{flow}/daily" in reader.text
    pages = {attributes["href"] for attributes in reader.all("a") if attributes["href"].startswith(f"{flow}/")}
    assert len(pages) == 2
    assert all((Path(overview["path"]).parent / page).is_file() for page in pages)

    assert "there is no run" in one_line(project("report", "nobody"), 4)
    assert "--fresh" in one_line(project("report", "--fresh"), 2)
