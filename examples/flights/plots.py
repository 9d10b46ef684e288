"""Pictures of a month's predictions and of the months before; without pyplot they need no display, no global state."""

from __future__ import annotations

from collections.abc import Sequence

import lightgbm as lgb
import polars as pl
from evaluate import Scores
from matplotlib.figure import Figure

MODEL, BASELINE, CHAMPION = "#1f6f8b", "#c8553d", "#8a6d9e"


def calibration(predictions: pl.DataFrame) -> Figure:
    """Mean actual delay of flights predicted alike, in twenty groups of equal size."""
    groups = (
        predictions.with_columns(group=pl.col("prediction").rank("ordinal") * 20 // (len(predictions) + 1))
        .group_by("group")
        .agg(pl.col("prediction").mean(), pl.col("actual").mean())
        .sort("group")
    )
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    axes.axline((0, 0), slope=1, color="0.7", linewidth=1)
    axes.plot(groups["prediction"].to_numpy(), groups["actual"].to_numpy(), "o-", color=MODEL, markersize=4)
    axes.set(title="Calibration", xlabel="predicted arrival delay, min", ylabel="actual arrival delay, min")
    return figure


def residuals(predictions: pl.DataFrame) -> Figure:
    """How far off the model and the baseline are, between two hours too early and three hours too late."""
    figure = Figure(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for name, colour in (("baseline", BASELINE), ("prediction", MODEL)):
        off = (predictions["actual"] - predictions[name]).to_numpy()
        axes.hist(off, bins=60, range=(-120, 180), histtype="step", color=colour, label=name)
    axes.set(title="Residuals", xlabel="actual minus predicted, min", ylabel="flights")
    axes.legend()
    return figure


def importance(model: lgb.Booster) -> Figure:
    """How much of the model's gain each feature brought."""
    gain = pl.DataFrame({"feature": model.feature_name(), "gain": model.feature_importance("gain")})
    gain = gain.with_columns((100 * pl.col("gain") / pl.col("gain").sum()).alias("gain")).sort("gain", "feature")
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    axes.barh(gain["feature"].to_list(), gain["gain"].to_numpy(), color=MODEL)
    axes.set(title="Importance", xlabel="share of the gain, %")
    return figure


def history(scores: Sequence[Scores]) -> Figure:
    """The errors of each month's candidate, of the champion it met, and of the baseline; a ring is a promotion."""
    months = [score.month for score in scores]
    figure = Figure(figsize=(7, 3.5), layout="constrained")
    axes = figure.subplots()
    for name, colour in (("baseline", BASELINE), ("champion", CHAMPION), ("candidate", MODEL)):
        axes.plot(months, [getattr(score, name) for score in scores], "o-", color=colour, markersize=4, label=name)
    promoted = [score for score in scores if score.verdict == "promoted"]
    axes.plot(
        [score.month for score in promoted],
        [score.candidate for score in promoted],
        "o",
        color=MODEL,
        markerfacecolor="none",
        markersize=11,
        label="promoted",
    )
    axes.set(title="History", ylabel="RMSE, min")
    axes.tick_params("x", rotation=45)
    axes.legend()
    return figure
