"""Models on a real stack: a flow decides, registers and promotes; people list, promote and go back."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.acceptance.conftest import Shell, one_line

FLOW = """
from prefect import flow, task
import shipway

@task
def champion_predicts(rows):
    # From a task, in a thread of its own.
    champion = shipway.champion("braking", default=None)
    return [champion.model["slope"] * row for row in rows] if champion else None

@flow
def train(slope: float, checked: bool = True):
    rows = [float(row) for row in range(1, 40)]
    shipway.save("model", {"slope": slope})
    predictions = {
        "actual": [2 * row + (row % 3) / 10 for row in rows],
        "prediction": [slope * row for row in rows],
        "champion": champion_predicts(rows),
        "baseline": [40.0] * len(rows),
        "day": [row % 5 for row in rows],
    }
    decision = shipway.gate(predictions, blocks="day")
    check = {"predict": lambda model: model["slope"] * 7, "expected": slope * 7} if checked else {}
    shipway.register("braking", decision=decision, facts={"slope": slope}, **check)
    shipway.log_metrics({"gain": decision.gain})
"""

OUTSIDE = """
import shipway, sys
champion = shipway.champion("braking", store=sys.argv[1])
print(champion.version, champion.model["slope"])
"""


def run(project: Shell, name: str, slope: float, *more: str) -> str:
    done = project("run", "train/braking", "-p", f"slope={slope}", *more, "--name", name, "--watch")
    assert done.returncode == 0, done.stderr
    return done.stderr


def test_from_the_first_model_to_a_rollback(project: Shell) -> None:
    (project.folder / "work.py").write_text(FLOW)
    project.ok("deploy", "./work.py:train", "-n", "braking")
    assert "braking: version 1 is champion. RMSE is" in run(project, "first", 2.2)
    assert "braking: version 2 is registered, the champion is kept" in run(project, "worse", 2.3)
    assert "no predict= was given" in run(project, "unchecked", 2.1, "-p", "checked=false")
    assert "braking: version 4 is champion" in run(project, "better", 2.05)

    shown = project.json("show", "better")
    [entry] = shown["models"]
    assert (entry["name"], entry["version"], entry["against"]) == ("braking", 4, 1)
    assert [(item["kind"], item["asked"]) for item in shown["inputs"]] == [("model", "braking")]
    assert "braking  4        promoted  model" in project.ok("show", "better")

    [listed] = [line for line in project.json("models") if line["name"] == "braking"]
    assert (listed["champion"], listed["count"], listed["metric"]) == (4, 4, "rmse")
    assert ["braking", "4", "4"] in [row.split()[:3] for row in project.ok("models").splitlines()]
    line = project.json("models", "braking")
    assert [(version["version"], version["status"], version["run_name"]) for version in line["versions"]] == [
        (4, "champion", "better"),
        (3, "kept", "unchecked"),
        (2, "kept", "worse"),
        (1, "was champion", "first"),
    ]
    assert all(version["release"] == shown["release"] for version in line["versions"])
    text = project.ok("models", "braking")
    assert "better than the champion's" in text
    assert "not loaded again and checked" in text

    assert "never loaded again" in one_line(project("promote", "braking", "3"), 3)
    assert "no version 9" in one_line(project("promote", "braking", "9"), 4)
    assert project.ok("promote", "braking", "2", "--reason", "to try it") == (
        "Version 2 of braking is champion (was 4)\n"
    )
    assert project.ok("promote", "braking", "2") == "Version 2 of braking is champion already\n"
    assert project.ok("rollback", "--model", "braking") == "Version 4 of braking is champion again (was 2)\n"
    assert project.ok("rollback", "--model", "braking", "1") == "Version 1 of braking is champion again (was 4)\n"
    history = project.json("models", "braking")["history"]
    assert [move["version"] for move in history] == [1, 4, 2, 4, 1]
    assert history[2]["reason"] == "to try it"
    assert history[0]["by"].endswith("shipway rollback")
    assert history[-1]["by"] == line["versions"][-1]["run"]
    assert "was never champion" in one_line(project("rollback", "--model", "braking", "3"), 4)
    assert "no model 'brakes'" in one_line(project("models", "brakes"), 4)
    one_line(project("rollback", "--model", "braking", "x"), 2)
    one_line(project("rollback"), 2)

    report = project.json("verify")
    assert report["findings"] == []
    assert report["models"] >= 4


def test_a_script_run_by_hand_registers_too_and_anybody_loads_its_champion(project: Shell) -> None:
    (project.folder / "work.py").write_text(FLOW + "\nfor slope in (2.1, 2.05):\n    train(slope)\n")
    environment = {**os.environ, **project.environment, "SHIPWAY_STORE": "local-file-system/shipway"}
    script = [sys.executable, "work.py"]
    done = subprocess.run(
        script, cwd=project.folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "braking: version 2 is champion" in done.stderr

    address = (project.folder / ".shipway/store").as_uri()
    outside = [sys.executable, "-c", OUTSIDE, address]
    assert subprocess.run(outside, capture_output=True, text=True, timeout=60, check=True).stdout == "2 2.05\n"
