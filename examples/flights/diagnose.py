"""Where the predictions of a month are wrong, what moved since training, and which rows took no part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import date

import numpy as np
import polars as pl

BINS = 10
MOVED, SHIFTED = 0.1, 0.25
"""PSI from which a feature counts as moved, and as shifted: the rule of thumb of N. Siddiqi, Credit Risk Scorecards,
Wiley 2006."""
SMALLEST = 0.0001
"""The least share of a bin: one row in ten thousand."""
FEWEST = 30
"""Flights that a slice must have to be shown: the error of a few says little."""
HOURS = (("night, 0 to 5", 5), ("morning, 6 to 9", 9), ("noon, 10 to 13", 13), ("afternoon, 14 to 17", 17))


def psi(training: pl.Series, holdout: pl.Series) -> float:
    """Return the population stability index of a feature.

    It is the sum over bins of (p - q) ln(p / q), where p and q are the shares of held-out and of training rows in the
    bin. Numbers fall between the deciles of training, every text is a bin of its own, and what is missing is one, too.
    A share below `SMALLEST` counts as that, so that an empty bin gives a number. The formula is in Siddiqi (see
    `MOVED`); as a divergence it is that of Jeffreys (1946).
    """
    if training.dtype == pl.String:
        bins = pl.concat([training, holdout]).unique().drop_nulls().sort().to_list()
        before, after = (_counts(series, bins) for series in (training, holdout))
    else:
        known = training.drop_nulls().to_numpy().astype(float)
        edges = np.unique(np.quantile(known, np.linspace(0, 1, BINS + 1)[1:-1])) if len(known) else np.empty(0)
        before, after = (_histogram(series, edges) for series in (training, holdout))
    p, q = (np.maximum(counts / counts.sum(), SMALLEST) for counts in (after, before))
    return float(((p - q) * np.log(p / q)).sum())


def drift(training: pl.DataFrame, holdout: pl.DataFrame, names: Sequence[str]) -> pl.DataFrame:
    """Return for each feature its PSI, what that means, and how much of it is missing; the largest first."""
    rows = []
    for name in names:
        value = psi(training[name], holdout[name])
        rows.append(
            {
                "feature": name,
                "psi": value,
                "reading": "shifted" if value >= SHIFTED else "moved" if value >= MOVED else "steady",
                "missing_training_percent": 100 * training[name].null_count() / len(training),
                "missing_holdout_percent": 100 * holdout[name].null_count() / len(holdout),
            }
        )
    return pl.DataFrame(rows).sort("psi", descending=True)


def new_categories(holdout: pl.DataFrame, known: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Return the values that training did not know, with the number of held-out flights that have them."""
    return pl.concat(
        holdout.filter(~pl.col(name).is_in(values))
        .group_by(pl.col(name).alias("value"))
        .agg(flights=pl.len())
        .select(pl.lit(name).alias("feature"), "value", "flights")
        for name, values in known.items()
    ).sort("flights", "feature", "value", descending=[True, False, False])


def slices(predictions: pl.DataFrame) -> pl.DataFrame:
    """Return the errors by carrier, airport, hours of the day and destination, the worst first.

    Slices of fewer than `FEWEST` flights are left out. `change_percent` is the RMSE against the baseline's.
    """
    band = pl.lit("evening, 18 to 23")
    for name, last in reversed(HOURS):
        band = pl.when(pl.col("hour") <= last).then(pl.lit(name)).otherwise(band)
    said = [name for name in ("prediction", "champion", "baseline") if name in predictions.columns]
    rmse = [((pl.col("actual") - pl.col(name)) ** 2).mean().sqrt().alias(f"rmse_{name}") for name in said]
    by = {"carrier": pl.col("carrier"), "origin": pl.col("origin"), "hours": band, "destination": pl.col("dest")}
    return (
        pl.concat(
            predictions.group_by(value.alias("value"))
            .agg(pl.len().alias("flights"), *rmse, (pl.col("prediction") - pl.col("actual")).mean().alias("bias"))
            .select(pl.lit(name).alias("slice"), pl.all())
            for name, value in by.items()
        )
        .filter(pl.col("flights") >= FEWEST)
        .with_columns(change_percent=100 * (pl.col("rmse_prediction") / pl.col("rmse_baseline") - 1))
        .sort("rmse_prediction", "slice", "value", descending=[True, False, False])
    )


def worst(predictions: pl.DataFrame, count: int = 20) -> pl.DataFrame:
    """Return the flights that were predicted worst."""
    return (
        predictions.with_columns(error=pl.col("prediction") - pl.col("actual"))
        .sort(pl.col("error").abs(), "day", "carrier", "flight", descending=[True, False, False, False])
        .head(count)
        .select("day", "hour", "carrier", "flight", "origin", "dest", "actual", "prediction", "baseline", "error")
    )


def dropped(flights: pl.DataFrame, month: date, history: Sequence[date]) -> pl.DataFrame:
    """Return how many flights of the month and of those to train on took no part, and why."""
    never = pl.col("dep_delay").is_null()
    reasons = {
        "cancelled: it never left": never,
        "diverted, or its arrival is not known": ~never & pl.col("arr_delay").is_null(),
    }
    training = flights.filter(pl.col("partition").is_in(pl.Series(history, dtype=pl.Date)))
    holdout = flights.filter(pl.col("partition") == month)
    return pl.DataFrame(
        [
            {
                "reason": reason,
                "training": training.select(rows.sum()).item(),
                "holdout": holdout.select(rows.sum()).item(),
                "holdout_percent": 100 * holdout.select(rows.mean()).item(),
            }
            for reason, rows in reasons.items()
        ]
    )


def _counts(series: pl.Series, bins: list[str]) -> np.ndarray:
    found = dict(series.value_counts().iter_rows())
    return np.array([found.get(value, 0) for value in (*bins, None)], dtype=float)


def _histogram(series: pl.Series, edges: np.ndarray) -> np.ndarray:
    known = series.drop_nulls().to_numpy().astype(float)
    counts = np.bincount(np.searchsorted(edges, known, side="right"), minlength=len(edges) + 1)
    return np.array([*counts, series.null_count()], dtype=float)
