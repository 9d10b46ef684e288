"""How good the predictions of the held-out month are, next to the baseline's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import polars as pl
from features import CATEGORIES, IDENTITY, TARGET

LATE_MINUTES = 15


@dataclass(frozen=True)
class Scores:
    """What a month came to, for the pages of the months after it.

    Attributes:
        month: the month, as 2013-02.
        verdict: whether its candidate was promoted or the champion kept.
        candidate: RMSE of the candidate, in minutes.
        baseline: RMSE of the baseline.
        champion: RMSE of the champion it met, or None.
    """

    month: str
    verdict: str
    candidate: float
    baseline: float
    champion: float | None


def holdout_predictions(
    holdout: pl.DataFrame, prediction: pl.Series, baseline: pl.Series, champion: pl.Series | None = None
) -> pl.DataFrame:
    """Return the held-out flights row by row: who it is, the actual delay, and what each of the three said.

    Without a champion there is no column `champion`.
    """
    said = {"prediction": prediction, "baseline": baseline} | ({} if champion is None else {"champion": champion})
    return holdout.select(*IDENTITY, *CATEGORIES, pl.col(TARGET).alias("actual")).with_columns(**said)


def scores(month: str, decision: Any) -> Scores:
    """Return what a month's decision was made on."""
    found = decision.scores
    return Scores(month, decision.verdict, found["candidate"], found["baseline"], found.get("champion"))


def metrics(predictions: pl.DataFrame) -> dict[str, float]:
    """Return the errors of the predictions in minutes, under the same names every month.

    `rmse_change_percent` is the RMSE against the baseline's: -8 means that the error is 8 % smaller. `auc_late` is how
    often a flight over 15 minutes late was predicted later than one that was not.
    """
    actual, prediction, baseline = (predictions[name] for name in ("actual", "prediction", "baseline"))
    rmse, baseline_rmse = _rmse(actual, prediction), _rmse(actual, baseline)
    return {
        "rows": float(len(predictions)),
        "rmse": rmse,
        "baseline_rmse": baseline_rmse,
        "rmse_change_percent": 100 * (rmse / baseline_rmse - 1),
        "mae": _mean((actual - prediction).abs()),
        "baseline_mae": _mean((actual - baseline).abs()),
        "bias": _mean(prediction - actual),
        "r2": 1 - rmse**2 / float(actual.var(ddof=0)),
        "auc_late": _auc(actual > LATE_MINUTES, prediction),
        "baseline_auc_late": _auc(actual > LATE_MINUTES, baseline),
    }


def _mean(values: pl.Series) -> float:
    return float(values.mean())


def _rmse(actual: pl.Series, predicted: pl.Series) -> float:
    return _mean((actual - predicted) ** 2) ** 0.5


def _auc(late: pl.Series, score: pl.Series) -> float:
    positive, negative = int(late.sum()), int((~late).sum())
    if not positive or not negative:
        return 0.5
    ranks = score.rank("average").filter(late).sum()
    return (float(ranks) - positive * (positive + 1) / 2) / (positive * negative)
