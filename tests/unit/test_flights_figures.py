"""The figures that a replay of the flights example is compared with: those known pass, others do not."""

from __future__ import annotations

import copy
import importlib.util
import math
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def figures() -> Any:
    spec = importlib.util.spec_from_file_location("flights_figures", ROOT / "scripts" / "flights_figures.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def year() -> dict[str, dict[str, float]]:
    """What the docs say of the year."""
    page = (ROOT / "docs/explanation/flights.md").read_text(encoding="utf-8")
    found: dict[str, dict[str, float]] = {}
    for line in page.splitlines():
        if re.match(r"\| 2013-", line):
            month, rmse, _, baseline, change, r2, auc, verdict, _ = (cell.strip() for cell in line.split("|")[1:-1])
            late, base_late = re.findall(r"\.\d+", auc)
            found[month] = {
                "rmse": float(rmse),
                "baseline_rmse": float(baseline),
                "rmse_change_percent": float(change.removesuffix(" %")),
                "r2": float(r2),
                "auc_late": float(late),
                "baseline_auc_late": float(base_late),
                "mae": 25.7,
                "promoted": float(verdict == "promoted"),
            }
    assert len(found) == 11
    return found


def test_what_the_docs_say_is_within_the_tolerance(figures: Any, year: dict[str, dict[str, float]]) -> None:
    assert figures.differences(year) == []
    assert figures.leak_differences(figures.KNOWN["trial"]["leaks"]) == []


@pytest.mark.parametrize(
    ("name", "off"), [("rmse", 0.2), ("rmse", -0.2), ("baseline_rmse", 0.1), ("r2", 0.01), ("auc_late", math.nan)]
)
@pytest.mark.parametrize("month", ["2013-02", "2013-08", "2013-12"])
def test_a_figure_of_one_month_that_has_moved_is_named(
    month: str, name: str, off: float, figures: Any, year: dict[str, dict[str, float]]
) -> None:
    other = copy.deepcopy(year)
    other[month][name] += off
    assert any(text.startswith(f"{name} of {month} is ") for text in figures.differences(other))


def test_a_month_that_is_missing_a_worse_month_and_a_dull_gate_are_named(
    figures: Any, year: dict[str, dict[str, float]]
) -> None:
    missing = {month: metrics for month, metrics in year.items() if month != "2013-05"}
    assert "2013-05 is missing" in figures.differences(missing)
    year["2013-04"]["rmse_change_percent"] = 0.4
    assert any("rmse_change_percent of 2013-04 is 0.4" in text for text in figures.differences(year))
    dull = {month: {**metrics, "promoted": 0.0} for month, metrics in year.items()}
    assert any("the number of promotions is 0" in text for text in figures.differences(dull))
    known = figures.KNOWN["trial"]["leaks"]
    assert figures.leak_differences({**known, "honest": 0.25}) == [
        "R2 of December, honest is 0.25, not 0.164 within 0.02"
    ]
