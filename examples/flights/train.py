"""The model: gradient boosted trees, trained so that the same months give the same bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
from features import CATEGORIES, FEATURES, HOURS_AHEAD, TARGET

ROUNDS = 80
PARAMETERS = {
    "objective": "regression",
    "learning_rate": 0.1,
    "num_leaves": 31,
    "min_data_in_leaf": 100,
    "lambda_l2": 10.0,
    "feature_fraction": 0.7,
    "bagging_fraction": 0.8,
    "bagging_freq": 1,
    "cat_smooth": 50.0,
    "max_bin": 127,
    "seed": 20130101,
    # The three that make a model the same on every machine; the number of threads is written into it.
    "deterministic": True,
    "force_row_wise": True,
    "num_threads": 2,
    "verbosity": -1,
}
BASELINE_KEY = ["carrier", "hour"]


def categories(training: pl.DataFrame) -> dict[str, list[str]]:
    """Return the values of each categorical feature; their order is their number in the model."""
    return {name: training[name].unique().sort().to_list() for name in CATEGORIES}


def card(training: pl.DataFrame, known: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """Return what one needs to know of a model to use it, and to judge it."""
    return {
        "target": TARGET,
        "hours_ahead": HOURS_AHEAD,
        "trained_on": training["partition"].dt.strftime("%Y-%m").unique().sort().to_list(),
        "rows": len(training),
        "rounds": ROUNDS,
        "parameters": PARAMETERS,
        "features": FEATURES,
        "categories": known,
    }


def matrix(frame: pl.DataFrame, names: Sequence[str], known: Mapping[str, Sequence[str]]) -> np.ndarray:
    """Return features as LightGBM takes them: categories as numbers, one not seen in training as missing.

    Raises:
        ValueError: the frame lacks one of them; a model made before features changed cannot be asked any more.
    """
    if missing := [name for name in names if name not in frame.columns]:
        raise ValueError(f"the model needs {', '.join(missing)}, which the features do not have any more")
    numbers = [
        pl.col(name).replace_strict(values, range(len(values)), default=None, return_dtype=pl.Float32)
        for name, values in known.items()
    ]
    return frame.with_columns(numbers).select(pl.col(names).cast(pl.Float32)).to_numpy()


def train(training: pl.DataFrame, known: Mapping[str, Sequence[str]], names: Sequence[str] = FEATURES) -> lgb.Booster:
    """Train on every row of `training`."""
    data = lgb.Dataset(
        matrix(training, names, known),
        training[TARGET].to_numpy(),
        feature_name=list(names),
        categorical_feature=CATEGORIES,
        params=PARAMETERS,
    )
    return lgb.train(PARAMETERS, data, ROUNDS)


def predict(model: lgb.Booster, frame: pl.DataFrame, known: Mapping[str, Sequence[str]]) -> pl.Series:
    """Return the predicted arrival delay of each row, in minutes.

    Args:
        model: of this or of an earlier run; it knows the names of its features.
        frame: with these features.
        known: the categories that it was trained with, from its card.
    """
    rows = matrix(frame, model.feature_name(), known)
    return pl.Series("prediction", model.predict(rows, num_threads=PARAMETERS["num_threads"]))


def baseline(training: pl.DataFrame, frame: pl.DataFrame) -> pl.Series:
    """Return what needs no model: the mean delay of the same carrier at the same scheduled hour in training.

    Where the carrier had no flight at that hour it is the mean of all flights.
    """
    means = training.group_by(BASELINE_KEY).agg(baseline=pl.col(TARGET).mean())
    found = frame.join(means, on=BASELINE_KEY, how="left", maintain_order="left")
    return found["baseline"].fill_null(training[TARGET].mean())
