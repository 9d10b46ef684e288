"""The model: gradient boosted trees, trained so that the same months give the same bytes."""

from __future__ import annotations

import lightgbm as lgb
import numpy as np
import polars as pl
from features import CATEGORIES, FEATURES, TARGET

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


def matrix(frame: pl.DataFrame, known: dict[str, list[str]]) -> np.ndarray:
    """Return the features as LightGBM takes them: categories as numbers, one not seen in training as missing."""
    numbers = [
        pl.col(name).replace_strict(values, range(len(values)), default=None, return_dtype=pl.Float32)
        for name, values in known.items()
    ]
    return frame.with_columns(numbers).select(pl.col(FEATURES).cast(pl.Float32)).to_numpy()


def train(training: pl.DataFrame, known: dict[str, list[str]]) -> lgb.Booster:
    """Train on every row of `training`."""
    data = lgb.Dataset(
        matrix(training, known),
        training[TARGET].to_numpy(),
        feature_name=FEATURES,
        categorical_feature=CATEGORIES,
        params=PARAMETERS,
    )
    return lgb.train(PARAMETERS, data, ROUNDS)


def predict(model: lgb.Booster, frame: pl.DataFrame, known: dict[str, list[str]]) -> pl.Series:
    """Return the predicted arrival delay of each row, in minutes."""
    predicted = model.predict(matrix(frame, known), num_threads=PARAMETERS["num_threads"])
    return pl.Series("prediction", predicted)


def baseline(training: pl.DataFrame, frame: pl.DataFrame) -> pl.Series:
    """Return what needs no model: the mean delay of the same carrier at the same scheduled hour in training.

    Where the carrier had no flight at that hour it is the mean of all flights.
    """
    means = training.group_by(BASELINE_KEY).agg(baseline=pl.col(TARGET).mean())
    found = frame.join(means, on=BASELINE_KEY, how="left", maintain_order="left")
    return found["baseline"].fill_null(training[TARGET].mean())
