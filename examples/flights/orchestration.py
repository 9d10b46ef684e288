"""Predict, two hours before departure, how late each flight of a month will arrive.

One run takes one month: it trains on the months before, predicts the month, and compares itself with a baseline.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import evaluate
import features
import ingest
import lightgbm as lgb
import plots
import polars as pl
import train
import validate
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

import shipway

# Tasks hand tables to each other in memory; Prefect would otherwise hash each of them for a cache nobody reads.


@task(name="ingest", cache_policy=NO_CACHE)
def ingest_month(month: str, history: int) -> ingest.Tables:
    """Read the month and its history, and keep the month's partition as received."""
    first = ingest.parse_month(month)
    tables = ingest.read_tables(first, history)
    shipway.save(f"raw/flights-{month}", tables.flights.filter(pl.col("partition") == first).drop("partition"))
    return tables


@task(name="validate", cache_policy=NO_CACHE)
def validate_month(tables: ingest.Tables, month: str) -> None:
    """Stop before training if the data cannot be right."""
    checks = validate.validate(tables, ingest.parse_month(month))
    shipway.save("validation", {"month": month, "checks": [asdict(check) for check in checks]})
    for check in checks:
        if not check.passed:
            _say(f"{check.level}: {check.name}: {check.count} {check.message}")
    validate.refuse_failures(checks)


@task(name="features", cache_policy=NO_CACHE)
def build_features(tables: ingest.Tables) -> pl.DataFrame:
    """Gather what is known of each flight two hours before departure."""
    frame = features.build_features(tables)
    shipway.save("features", frame)
    return frame


@task(name="train", cache_policy=NO_CACHE)
def train_model(training: pl.DataFrame) -> lgb.Booster:
    """Train on the earlier months, and keep with the model what one needs to use it."""
    known = train.categories(training)
    model = train.train(training, known)
    months = training["partition"].dt.strftime("%Y-%m").unique().sort().to_list()
    shipway.save("model", model)
    shipway.save(
        "model-card",
        {
            "target": features.TARGET,
            "hours_ahead": features.HOURS_AHEAD,
            "trained_on": months,
            "rows": len(training),
            "rounds": train.ROUNDS,
            "parameters": train.PARAMETERS,
            "features": features.FEATURES,
            "categories": known,
        },
    )
    return model


@task(name="evaluate", cache_policy=NO_CACHE)
def evaluate_model(model: lgb.Booster, training: pl.DataFrame, holdout: pl.DataFrame) -> dict[str, float]:
    """Predict the held-out month and measure the error next to the baseline's."""
    prediction = train.predict(model, holdout, train.categories(training))
    predictions = evaluate.holdout_predictions(holdout, prediction, train.baseline(training, holdout))
    metrics = evaluate.metrics(predictions)
    shipway.save("predictions", predictions)
    shipway.save("metrics", metrics)
    shipway.log_metrics(metrics)
    shipway.save("plots/calibration", plots.calibration(predictions))
    shipway.save("plots/residuals", plots.residuals(predictions))
    shipway.save("plots/importance", plots.importance(model))
    return metrics


@flow(name="main")
def main(month: str = "2013-02", history: int = 12) -> dict[str, Any]:
    """Train on the months before `month` and predict it.

    Args:
        month: the month to predict, from 2013-02 to 2013-12.
        history: how many earlier months to train on, at most.
    """
    tables = ingest_month(month, history)
    validate_month(tables, month)
    frame = build_features(tables)
    training, holdout = features.split(frame, ingest.parse_month(month))
    model = train_model(training)
    metrics = evaluate_model(model, training, holdout)
    _say(
        f"{month}: RMSE {metrics['rmse']:.2f} min, baseline {metrics['baseline_rmse']:.2f} min, "
        f"{metrics['rmse_change_percent']:+.1f} %"
    )
    return {"month": month, "trained_on_rows": len(training), **metrics}


def _say(text: str) -> None:
    get_run_logger().info(text)


if __name__ == "__main__":
    main()
