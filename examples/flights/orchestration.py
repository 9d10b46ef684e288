"""Predict, two hours before departure, how late each flight of a month will arrive.

One run takes one month: it trains on the months before, predicts the month, and is promoted if it beats the champion.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import date
from typing import Any

import contest
import diagnose
import evaluate
import features
import ingest
import leaks
import lightgbm as lgb
import page
import plots
import polars as pl
import train
import validate
from partitions import Shelf
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE

import shipway
from shipway.errors import StoreError

NEXT = "next"
MARGIN = 0.005
"""The part by which the RMSE must shrink for a new champion: less is not worth a change."""


def may_pass(_task: Any, _run: Any, state: Any) -> bool:
    """Tell whether another try is worth it: a source may answer in a moment, a month asked wrongly stays wrong."""
    return isinstance(state.data, OSError | StoreError) and not isinstance(state.data, FileNotFoundError)


# Tasks hand tables to each other in memory; Prefect would otherwise hash each of them for a cache nobody reads.
INSIDE: dict[str, Any] = {"cache_policy": NO_CACHE}
OUTSIDE: dict[str, Any] = INSIDE | {"retries": 2, "retry_delay_seconds": [2, 10], "retry_condition_fn": may_pass}


@dataclass(frozen=True)
class Plan:
    """Which months a run is about.

    Attributes:
        month: the month to predict, which is also its "as of" date: no clock is read.
        history: the months to train on.
    """

    month: date
    history: list[date]

    @property
    def partitions(self) -> list[date]:
        """The months whose flights are needed: the first month's features look back into the one before it."""
        return ingest.months_between(ingest.months_before((self.history or [self.month])[0], 1), self.month)


@dataclass(frozen=True)
class Trained:
    """A model of this run.

    Attributes:
        model: itself.
        known: the categories it was trained with.
        saved: what was saved of it.
    """

    model: lgb.Booster
    known: dict[str, list[str]]
    saved: shipway.Artifact


@task(name="ingest", **OUTSIDE)
def ingest_months(month: str, history: int, refresh: bool) -> tuple[Plan, ingest.Tables]:
    """Gather the flights of all months, and keep as received what no run has brought in yet."""
    shelf = Shelf()
    asked = shelf.next_month() if month == NEXT else ingest.parse_month(month)
    if history < 1:
        raise ValueError(f"history is {history}, but at least one earlier month is needed to train on")
    before = ingest.months_before(asked, 1)
    plan = Plan(asked, ingest.months_between(ingest.months_before(asked, history), before))
    flights = {part: shelf.flights(part, refresh=refresh and part == asked) for part in plan.partitions}
    return plan, ingest.gather(flights, shelf.weather(), shelf.planes())


@task(name="validate", **INSIDE)
def validate_months(tables: ingest.Tables, plan: Plan) -> dict[str, list[validate.Check]]:
    """Stop before training if the data cannot be right, or if the model would learn what cannot be known."""
    leaks.refuse_leaks(features.FEATURES)
    checks = {f"{plan.month:%Y-%m}": validate.validate(tables, plan.month, plan.history)}
    checks |= {f"{part:%Y-%m}": validate.validate_partition(tables, part) for part in plan.partitions[:-1]}
    shipway.save("validation", {month: [asdict(check) for check in found] for month, found in checks.items()})
    for month, found in checks.items():
        for check in found:
            if not check.passed:
                say(f"{check.level}: {month}: {check.name}: {check.count} {check.message}")
    try:
        validate.refuse_failures(checks)
    except validate.ValidationError as error:
        page.stopped(str(error), checks)
        raise
    return checks


@task(name="features", **OUTSIDE)
def build_features(tables: ingest.Tables, plan: Plan) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Gather what is known of each flight two hours before departure; return the training and the held-out months."""
    shelf = Shelf()
    training = pl.concat(shelf.features(tables, part) for part in plan.history)
    holdout = shelf.features(tables, plan.month)
    leaks.refuse_overlap(training, holdout)
    return training, holdout


@task(name="train", **INSIDE)
def train_model(training: pl.DataFrame) -> Trained:
    """Train on the earlier months, and keep with the model what one needs to use it."""
    known = train.categories(training)
    model = train.train(training, known)
    saved = shipway.save("model", model)
    shipway.save("model-card", train.card(training, known))
    return Trained(model, known, saved)


@task(name="evaluate", **OUTSIDE)
def evaluate_model(
    trained: Trained, training: pl.DataFrame, holdout: pl.DataFrame, plan: Plan
) -> tuple[pl.DataFrame, dict[str, float], contest.Rival]:
    """Have candidate, champion and baseline predict the held-out month, and measure how far off they are."""
    # In a backfill this waits for the month before, whose model may become champion: it comes after training.
    rival = contest.find_rival(plan.month)
    predictions = evaluate.holdout_predictions(
        holdout,
        train.predict(trained.model, holdout, trained.known),
        train.baseline(training, holdout),
        contest.predict(rival.as_of, holdout) if rival.as_of else None,
    )
    metrics = evaluate.metrics(predictions)
    shipway.save("predictions", predictions)
    shipway.save("metrics", metrics)
    shipway.save("intervals", evaluate.intervals(predictions))
    shipway.log_metrics(metrics)
    return predictions, metrics, rival


@task(name="decide", **OUTSIDE)
def decide(
    trained: Trained, holdout: pl.DataFrame, predictions: pl.DataFrame, rival: contest.Rival, plan: Plan
) -> tuple[Any, str]:
    """Promote the model if it is surely better than the champion, and better than the baseline.

    Returns:
        The decision, and why it was not carried out, if it was not.
    """
    decision = shipway.gate(predictions, metric="rmse", margin=MARGIN, blocks="day")
    shipway.save("decision", decision.to_json())
    note = rival.stands(plan.month, trained.saved.sha256)
    if not note:
        shipway.register(
            contest.MODEL,
            "model",
            decision=decision,
            predict=lambda model: train.predict(model, holdout, trained.known),
            expected=predictions["prediction"],
            facts={"as_of": f"{plan.month:%Y-%m}", "trained_on": [f"{month:%Y-%m}" for month in plan.history]},
        )
    return decision, note


@task(name="report", **OUTSIDE)
def report(
    trained: Trained,
    frames: tuple[pl.DataFrame, pl.DataFrame],
    predictions: pl.DataFrame,
    decided: tuple[Any, str],
    checks: dict[str, list[validate.Check]],
    tables: ingest.Tables,
    plan: Plan,
) -> None:
    """Write down what was decided, what the data was like, and where the model is wrong."""
    decision, note = decided
    month = f"{plan.month:%Y-%m}"
    page.decision(month, decision, note)
    page.measured(shipway.load("metrics"), shipway.load("intervals"))
    page.validation(checks)
    page.data(*frames, trained.known, diagnose.dropped(tables.flights, plan.month, plan.history))
    now = evaluate.scores(month, decision)
    shipway.save(f"scores/{month}", now)
    earlier = [Shelf().stored(f"scores/{past:%Y-%m}") for past in plan.history]
    scores = [*(evaluate.Scores(**score) for score in earlier if score), now]
    pictures = {
        "calibration": plots.calibration(predictions),
        "residuals": plots.residuals(predictions),
        "importance": plots.importance(trained.model),
        "history": plots.history(scores),
    }
    for name, picture in pictures.items():
        shipway.save(f"plots/{name}", picture)
    # Loaded again as the text of an SVG, so that nothing is drawn twice.
    page.errors(predictions, {name: shipway.load(f"plots/{name}") for name in pictures}, scores)


@flow(name="main")
def main(month: str = "2013-02", history: int = 12, refresh: bool = False) -> dict[str, Any]:
    """Train on the months before `month`, predict it, and promote the model if it beats the champion.

    Args:
        month: the month to predict, from 2013-02 to 2013-12, or `next`: the first that no run has predicted yet.
        history: how many earlier months to train on, at most.
        refresh: ask the source for the month again, because flights were reported late.
    """
    plan, tables = ingest_months(month, history, refresh)
    checks = validate_months(tables, plan)
    training, holdout = build_features(tables, plan)
    trained = train_model(training)
    predictions, metrics, rival = evaluate_model(trained, training, holdout, plan)
    decided = decide(trained, holdout, predictions, rival, plan)
    report(trained, (training, holdout), predictions, decided, checks, tables, plan)
    decision, note = decided
    say(
        f"{plan.month:%Y-%m}: RMSE {metrics['rmse']:.2f} min, baseline {metrics['baseline_rmse']:.2f} min, "
        f"{metrics['rmse_change_percent']:+.1f} %"
    )
    say(" ".join([f"{decision.verdict}:", *decision.reasons, note]))
    return {
        "month": f"{plan.month:%Y-%m}",
        "trained_on_rows": len(training),
        "verdict": decision.verdict,
        **metrics,
    }


def say(text: str) -> None:
    """Write a line into the run's log."""
    get_run_logger().info(text)


if __name__ == "__main__":
    main()
