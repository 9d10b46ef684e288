"""What the page of a run says beyond what every page says: the decision, the data, the errors and where they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import diagnose
import evaluate
import features
import polars as pl
from validate import Check

import shipway


def stopped(reason: str, checks: Mapping[str, Sequence[Check]]) -> None:
    """Say that the data cannot be right."""
    shipway.report.verdict("stopped", reason, level="bad")
    validation(checks)


def decision(month: str, decided: Any, note: str) -> None:
    """Say what was decided and why: the first thing on the page, and candidate, champion and baseline side by side.

    Args:
        month: the month, as 2013-02.
        decided: what the gate said.
        note: why that was not carried out, if it was not.
    """
    promoted = decided.promote and not note
    reason = " ".join(part for part in (f"{month}.", *decided.reasons, note) if part)
    shipway.report.verdict("promoted" if promoted else "kept", reason, level="good" if promoted else "neutral")
    facts = {"gain asked for": _percent(decided.margin), "flights": decided.rows, "days resampled": decided.blocks}
    if decided.gain is not None and decided.interval is not None:
        low, high = map(_percent, decided.interval)
        facts |= {"gain": _percent(decided.gain), f"{decided.level:.0%} interval of the gain": f"{low} to {high}"}
    shipway.report.section(
        "Candidate, champion, baseline",
        "All of them predicted the same flights, of a month that none has seen.",
        [{"who": who, "rmse_minutes": score} for who, score in decided.scores.items()],
        facts,
    )


def measured(metrics: Mapping[str, float], intervals: Mapping[str, Sequence[float]]) -> None:
    """Show each metric with the interval that it lies in when other days of the month had happened."""
    shipway.report.section(
        "Metrics and their intervals",
        f"{evaluate.LEVEL:.0%} bootstrap intervals. Days are drawn as a whole: flights of one day share their weather.",
        [
            {"metric": name, "value": metrics.get(name), "low": low, "high": high}
            for name, (low, high) in intervals.items()
        ],
    )


def validation(checks: Mapping[str, Sequence[Check]]) -> None:
    """Show each check of the month with what failed it, those that failed first, and what failed of other months."""
    asked = next(iter(checks))
    rows = [
        {"month": month, **asdict(check), "examples": ", ".join(check.examples)}
        for month, found in checks.items()
        for check in sorted(found, key=lambda check: (check.passed, check.level))
        if month == asked or not check.passed
    ]
    shipway.report.section(
        "Checks of the data", "An error stops the run before training, a warning is only said.", rows
    )


def data(training: pl.DataFrame, holdout: pl.DataFrame, known: Mapping[str, Sequence[str]], lost: pl.DataFrame) -> None:
    """Show what moved between training and the held-out month, and which rows took no part."""
    shipway.report.section(
        "Drift",
        "Population stability index between training and the held-out month: "
        f"from {diagnose.MOVED} a feature has moved, from {diagnose.SHIFTED} it has shifted.",
        diagnose.drift(training, holdout, features.FEATURES),
        "Values that training did not know:",
        diagnose.new_categories(holdout, known),
    )
    shipway.report.section("Flights left out", "They have no arrival delay to learn or to compare with.", lost)


def errors(predictions: pl.DataFrame, pictures: Mapping[str, Any], scores: Sequence[evaluate.Scores]) -> None:
    """Show how far off the predictions are, and where."""
    shipway.report.section("How far off", *(pictures[name] for name in ("calibration", "residuals", "importance")))
    shipway.report.section(
        "Where it is wrong",
        "RMSE in minutes, the worst first; `bias` is above 0 where delays were overestimated.",
        diagnose.slices(predictions),
    )
    shipway.report.section("The twenty worst", diagnose.worst(predictions))
    shipway.report.section("Month by month", pictures["history"], [asdict(score) for score in scores])


def _percent(part: float) -> str:
    return f"{100 * part:.2f} %"
