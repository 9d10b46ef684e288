"""How good the predictions of the held-out month are, next to the baseline's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from features import CATEGORIES, IDENTITY, TARGET

LATE_MINUTES = 15
LEVEL, SAMPLES, SEED = 0.95, 2000, 20130101
"""Of the intervals: which part of the samples lies in one, how many are drawn, and what they are drawn with."""


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


def intervals(predictions: pl.DataFrame) -> dict[str, tuple[float, float]]:
    """Return the bootstrap intervals of the metrics; what is drawn with replacement are whole days of the month.

    They are percentile intervals (Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13). Where
    there was a champion there are some of its errors, too.
    """
    said = {"": "prediction", "baseline_": "baseline"}
    said |= {"champion_": "champion"} if "champion" in predictions.columns else {}
    days, which = np.unique(predictions["day"].to_numpy(), return_inverse=True)
    actual = predictions["actual"].to_numpy()
    late = actual > LATE_MINUTES
    # How often each day was drawn, in each sample.
    drawn = np.random.default_rng(SEED).multinomial(len(days), np.full(len(days), 1 / len(days)), SAMPLES)

    def means(values: np.ndarray) -> np.ndarray:
        return drawn @ np.bincount(which, values) / (drawn @ np.bincount(which))

    found = {}
    for prefix, column in said.items():
        off = predictions[column].to_numpy() - actual
        found[f"{prefix}rmse"] = np.sqrt(means(off**2))
        found[f"{prefix}mae"] = means(np.abs(off))
        if late.any() and not late.all():
            found[f"{prefix}auc_late"] = _drawn_auc(drawn, which, late, predictions[column].to_numpy())
    found["rmse_change_percent"] = 100 * (found["rmse"] / found["baseline_rmse"] - 1)
    found["bias"] = means(predictions["prediction"].to_numpy() - actual)
    found["r2"] = 1 - found["rmse"] ** 2 / (means(actual**2) - means(actual) ** 2)
    ends = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    return {name: tuple(np.nanquantile(values, ends).tolist()) for name, values in found.items()}


def _drawn_auc(drawn: np.ndarray, which: np.ndarray, late: np.ndarray, score: np.ndarray) -> np.ndarray:
    """Return the AUC of each sample: of pairs of a late and another flight, the part in which the late one scored more.

    Pairs are counted once for each pair of days; a sample has those as often as it drew the one and the other day.
    """
    count = drawn.shape[1]
    won = np.empty((count, count))
    for day in range(count):
        others = np.sort(score[~late & (which == day)])
        below = np.searchsorted(others, score[late], "left") + np.searchsorted(others, score[late], "right")
        won[:, day] = np.bincount(which[late], below / 2, minlength=count)
    positive, negative = (drawn @ np.bincount(which[part], minlength=count) for part in (late, ~late))
    with np.errstate(invalid="ignore"):
        return np.einsum("sp,pn,sn->s", drawn, won, drawn) / (positive * negative)


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
