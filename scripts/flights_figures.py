"""Whether a replay of the flights example's year came to what is known of it: flights_figures.toml."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import mean
from typing import Any

KNOWN: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
Year = Mapping[str, Mapping[str, float]]

OWN = {"rmse": 0.15, "baseline_rmse": 0.01, "r2": 0.006, "auc_late": 0.004}
"""How far a month may be from what it was: other versions of LightGBM sum in another order. The baseline is a mean."""

MEANS = {"rmse_change_percent": 1.5, "r2": 0.015, "auc_late": 0.01, "baseline_auc_late": 0.025}
"""How far the means may be from the trial's. Its baseline was another one, so what is compared with that is looser."""

EACH_CHANGE = 2.5
"""By how much any month's change may lie outside those of the trial, in points."""

DECEMBER = 0.02
"""Part by which December's errors may differ from the trial's, whose code is another: far less than what drawing the
month's days anew does to them (`intervals` of a run)."""

LEAKS = 0.02
"""How far R2 with and without a leak may be from the trial's."""

PROMOTED = 3
"""By how many the promotions may differ: several months lie within a hair of the gate's margin."""


def differences(year: Year) -> list[str]:
    """Return what of a year is not as it is known to be, each in a sentence; empty where all of it is.

    Args:
        year: by month, the metrics of its run, and as `promoted` whether its model became champion (1 or 0).
    """
    return [*_own(year), *_trial(year)]


def leak_differences(found: Mapping[str, float]) -> list[str]:
    """Return which of December's R2, by what the model was allowed to know, are not those of the trial."""
    known = KNOWN["trial"]["leaks"]
    return [text for name in known for text in _far(f"R2 of December, {name}", found[name], known[name], LEAKS)]


def _own(year: Year) -> Iterator[str]:
    for month, known in KNOWN["months"].items():
        if month not in year:
            yield f"{month} is missing"
            continue
        for name, most in OWN.items():
            yield from _far(f"{name} of {month}", year[month][name], known[name], most)


def _trial(year: Year) -> Iterator[str]:
    trial = KNOWN["trial"]
    low, high = trial["each_change"]
    for month, metrics in year.items():
        change = metrics["rmse_change_percent"]
        if not low - EACH_CHANGE <= change <= min(high + EACH_CHANGE, 0):
            yield f"rmse_change_percent of {month} is {change:.1f}, outside {low} to {high} by over {EACH_CHANGE}"
    for name, most in MEANS.items():
        yield from _far(f"the mean {name}", mean(metrics[name] for metrics in year.values()), trial[name], most)
    for name, known in trial["december"].items():
        if "2013-12" in year:
            yield from _far(f"{name} of December (trial)", year["2013-12"][name], known, DECEMBER * known)
    promoted = sum(metrics["promoted"] for metrics in year.values())
    yield from _far("the number of promotions", promoted, trial["promoted"], PROMOTED)


def _far(what: str, found: float, known: float, most: float) -> Iterator[str]:
    # Not `abs(...) > most`, which a NaN would pass.
    if not abs(found - known) <= most:
        yield f"{what} is {found:.4g}, not {known:.4g} within {most:.2g}"
