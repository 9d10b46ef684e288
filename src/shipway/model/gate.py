"""The gate: a candidate against the champion and a baseline, on the same rows that none of them has seen."""

from __future__ import annotations

import math
import random
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from shipway.errors import InputError
from shipway.model.columns import column, numbers
from shipway.model.decision import KEPT, PROMOTED, Decision

MOST_BLOCKS = 1000
"""More blocks than this are put together at random, so that a million rows take no longer than a thousand blocks.

An interval from 1,000 groups is within about 2 % as wide as one from the blocks themselves."""

SMALLEST_PROBABILITY = 1e-15
"""Below this a probability counts as this in the log loss, which would be infinite otherwise."""

MOST_LOSS = 1e290
"""No loss is as large: the sum over all rows must remain a number."""

Loss = Callable[[float, float], float]


def gate(
    predictions: Any,
    *,
    actual: str = "actual",
    candidate: str = "prediction",
    champion: str | None = "champion",
    baseline: str | None = "baseline",
    metric: str | Loss = "rmse",
    margin: float = 0.005,
    blocks: str | None = None,
    level: float = 0.95,
    samples: int = 2000,
    seed: int = 0,
) -> Decision:
    """Decide whether a candidate shall take the champion's place.

    It shall when (a) its score is smaller than the champion's by at least `margin`, (b) the lower end of the bootstrap
    interval of that gain is above 0, and (c) its score is smaller than the baseline's. Without a champion, (a) and (b)
    are asked against the baseline; with neither it is promoted as the first one.

    The interval is the percentile interval of Efron and Tibshirani, An Introduction to the Bootstrap (1993), chapter
    13, with the order statistics of its section 12.5. What is drawn with replacement are whole blocks, as rows of one
    day err together: the cluster bootstrap of Field and Welsh, Bootstrapping clustered data, J. R. Statist. Soc. B 69
    (2007), 369-390. The order of the rows and the names of the blocks make no difference.

    Args:
        predictions: a polars or pandas frame, or a mapping of columns, with a row for each case of the holdout.
        actual: column of what happened.
        candidate: column of what the candidate predicted.
        champion: column of what the champion predicted; None, or a column that is not there, where there is none.
        baseline: column of what the baseline predicted; likewise.
        metric: `rmse`, `mae`, `logloss`, `brier` (the last two of probabilities that the actual value is 1), or a
            function of one actual and one predicted value that returns a loss, not below 0; its mean is the score.
        margin: the smallest gain worth a change, as a part of the champion's score: 0.005 is half a per cent.
        blocks: column whose equal values are resampled together, such as the day; by default each row by itself.
        level: part of the resamples whose gain the interval holds.
        samples: number of resamples.
        seed: the same seed draws the same resamples.

    Raises:
        InputError: a column is missing, not as long as the others, or holds what cannot be measured; there is no row,
            or only one block; or an argument cannot be.
    """
    measure = _measure(metric)
    _check_arguments(margin, level, samples)
    losses = _losses(predictions, measure, actual, {"candidate": candidate, "champion": champion, "baseline": baseline})
    rows = len(losses["candidate"])
    scores = {who: measure.score(math.fsum(values), rows) for who, values in losses.items()}
    against = next((who for who in ("champion", "baseline") if who in losses), None)
    groups = _groups(predictions, blocks, rows)
    facts: dict[str, Any] = {"metric": measure.name, "scores": scores, "margin": margin, "rows": rows}
    facts |= {"blocks": len(groups), "level": level, "samples": samples, "seed": seed}
    if against is None:
        reason = f"{measure.title} is {_number(scores['candidate'])}; it is the first: no champion and no baseline"
        return Decision(True, PROMOTED, (f"{reason}.",), gain=None, interval=None, baseline_gain=None, **facts)
    if len(groups) < 2:
        raise InputError(
            f"there is only one block in column {blocks!r}" if blocks else "there is only one row",
            hint="resampling needs at least two; name a column that changes more often",
        )
    gain = _gain(scores["candidate"], scores[against])
    interval = _interval(measure, _sums(groups, losses[against], losses["candidate"]), level, samples, seed)
    conditions = [
        _margin_kept(measure, scores, against, gain, margin),
        _surely_better(interval, level, samples, len(groups)),
    ]
    baseline_gain = _gain(scores["candidate"], scores["baseline"]) if "baseline" in losses else None
    if against == "champion" and baseline_gain is not None:
        conditions.append(_beats_baseline(scores["baseline"], baseline_gain))
    promote = all(fulfilled for fulfilled, _ in conditions)
    reasons = tuple(sentence for _, sentence in conditions)
    verdict = PROMOTED if promote else KEPT
    return Decision(promote, verdict, reasons, gain=gain, interval=interval, baseline_gain=baseline_gain, **facts)


@dataclass(frozen=True, slots=True)
class _Measure:
    """A metric: the loss of one row, and whether the score is the root of the mean loss or the mean itself."""

    name: str
    title: str
    loss: Loss
    root: bool = False
    probabilities: bool = False

    def score(self, total: float, rows: int) -> float:
        mean = total / rows
        return math.sqrt(mean) if self.root else mean

    def gain(self, candidate: float, reference: float) -> float:
        """Return the gain from two sums over the same rows, whose number cancels out."""
        return _gain(self.score(candidate, 1), self.score(reference, 1))


def _squared(actual: float, predicted: float) -> float:
    return (actual - predicted) ** 2


def _log(actual: float, predicted: float) -> float:
    return -math.log(max(predicted if actual else 1 - predicted, SMALLEST_PROBABILITY))


_MEASURES = {
    "rmse": _Measure("rmse", "RMSE", _squared, root=True),
    "mae": _Measure("mae", "MAE", lambda actual, predicted: abs(actual - predicted)),
    "logloss": _Measure("logloss", "Log loss", _log, probabilities=True),
    "brier": _Measure("brier", "Brier score", _squared, probabilities=True),
}


def _measure(metric: str | Loss) -> _Measure:
    if callable(metric):
        name = getattr(metric, "__name__", type(metric).__name__)
        return _Measure(name, name, metric)
    if metric not in _MEASURES:
        raise InputError(f"there is no metric {metric!r}", hint=f"give one of {', '.join(_MEASURES)}, or a function")
    return _MEASURES[metric]


def _check_arguments(margin: float, level: float, samples: int) -> None:
    if not 0 <= margin < 1:
        raise InputError(f"margin is {margin}, but must be from 0 to below 1", hint="0.005 is half a per cent")
    if not 0 < level < 1:
        raise InputError(f"level is {level}, but must be between 0 and 1")
    if _rank(level, samples) < 1:
        needed = math.ceil(2 / (1 - level)) - 1
        raise InputError(f"{samples} samples are too few for level {level}", hint=f"take at least {needed}")


def _losses(
    predictions: Any, measure: _Measure, actual: str, names: Mapping[str, str | None]
) -> dict[str, list[float]]:
    """Return the loss of each row, by who predicted."""
    truth = column(predictions, actual, what="actual value")
    if truth is None:
        raise InputError(f"the predictions have no column {actual!r}", hint="name the actual values with actual=")
    if not truth:
        raise InputError("the predictions have no rows")
    known = numbers(truth, actual)
    if measure.probabilities and (odd := next((value for value in known if value not in (0, 1)), None)) is not None:
        raise InputError(f"column {actual!r} holds {odd:g}, but {measure.name} is of what is 0 or 1")
    found: dict[str, list[float]] = {}
    for who, name in names.items():
        values = column(predictions, name, what=f"prediction of the {who}") if name is not None else None
        if values is None:
            # A default name that is not there says that there is no such model; any other is a slip of the pen.
            if who == "candidate" or name not in (None, who):
                raise InputError(f"the predictions have no column {name!r}", hint=f"it was named with {who}=")
            continue
        if len(values) != len(known):
            raise InputError(f"column {name!r} has {len(values)} rows, and {actual!r} has {len(known)}")
        predicted = numbers(values, str(name))
        if measure.probabilities and (odd := next((p for p in predicted if not 0 <= p <= 1), None)) is not None:
            raise InputError(f"column {name!r} holds {odd:g}, which is no probability")
        found[who] = [_checked_loss(measure, row, pair) for row, pair in enumerate(zip(known, predicted, strict=True))]
    return found


def _checked_loss(measure: _Measure, row: int, pair: tuple[float, float]) -> float:
    try:
        loss = float(measure.loss(*pair))
    except OverflowError:
        loss = math.inf
    if not 0 <= loss < MOST_LOSS:
        raise InputError(f"the {measure.name} loss of row {row}, predicted {pair[1]:g} for {pair[0]:g}, is {loss}")
    return loss


def _groups(predictions: Any, blocks: str | None, rows: int) -> list[list[int]]:
    """Return the rows of each block."""
    if blocks is None:
        return [[row] for row in range(rows)]
    labels = column(predictions, blocks, what="block")
    if labels is None:
        raise InputError(f"the predictions have no column {blocks!r}", hint="it was named with blocks=")
    if len(labels) != rows:
        raise InputError(f"column {blocks!r} has {len(labels)} rows, and the actual values have {rows}")
    found: dict[Any, list[int]] = {}
    for row, label in enumerate(labels):
        try:
            # A NaN is not equal to itself, so that each would be a block of its own.
            if label is None or label != label:  # noqa: PLR0124
                raise InputError(f"column {blocks!r}: the value in row {row} is missing")
            found.setdefault(label, []).append(row)
        except TypeError:
            raise InputError(f"column {blocks!r}: the value in row {row} cannot name a block") from None
    return list(found.values())


def _sums(groups: Sequence[Sequence[int]], reference: Sequence[float], candidate: Sequence[float]) -> list[complex]:
    """Return each block's summed losses, the reference's as real and the candidate's as imaginary part.

    They are in an order that neither the rows nor the names of the blocks determine, and in which a candidate that
    gets better stays where it was: so it meets the same resamples.
    """
    sums = [(math.fsum(reference[row] for row in rows), math.fsum(candidate[row] for row in rows)) for rows in groups]
    return [complex(*pair) for pair in sorted(sums)]


def _interval(measure: _Measure, sums: list[complex], level: float, samples: int, seed: int) -> tuple[float, float]:
    """Return the percentile interval of the gain over resamples of the blocks."""
    draw = random.Random(seed)  # noqa: S311 - statistics, not secrets
    if len(sums) > MOST_BLOCKS:
        draw.shuffle(sums)
        sums = [sum(sums[start::MOST_BLOCKS]) for start in range(MOST_BLOCKS)]
    drawn = (sum(draw.choices(sums, k=len(sums))) for _ in range(samples))
    gains = sorted(measure.gain(total.imag, total.real) for total in drawn)
    rank = _rank(level, samples)
    return gains[rank - 1], gains[samples - rank]


def _rank(level: float, samples: int) -> int:
    # Rounded: (1 - 0.95) / 2 is a little over 0.025, and 39 samples would have no rank.
    return math.floor(round((samples + 1) * (1 - level) / 2, 9))


def _gain(candidate: float, reference: float) -> float:
    """Return how much smaller the candidate's score is, as a part of the reference's.

    Over a reference without any error nothing can be gained: the gain is 0, or -1 where the candidate has some.
    """
    if reference == 0:
        return 0.0 if candidate == 0 else -1.0
    return max((reference - candidate) / reference, -sys.float_info.max)


def _margin_kept(
    measure: _Measure, scores: Mapping[str, float], against: str, gain: float, margin: float
) -> tuple[bool, str]:
    fulfilled = gain >= margin
    asked = f"at least {_percent(margin)} is asked" if fulfilled else f"less than the {_percent(margin)} asked"
    than = f"{_percent(abs(gain))} {'better' if gain >= 0 else 'worse'} than the {against}'s {_number(scores[against])}"
    return fulfilled, f"{measure.title} is {_number(scores['candidate'])}, {than}; {asked}."


def _surely_better(interval: tuple[float, float], level: float, samples: int, blocks: int) -> tuple[bool, str]:
    fulfilled = interval[0] > 0
    word = "all of it above 0" if fulfilled else "not all of it above 0"
    between = f"{_percent(interval[0])} and {_percent(interval[1])}"
    drawn = f"{100 * level:g} % of {samples:,} resamples of {blocks:,} blocks"
    return fulfilled, f"In {drawn} the gain is between {between}: {word}."


def _beats_baseline(score: float, gain: float) -> tuple[bool, str]:
    word = "better" if gain > 0 else "not better" if gain == 0 else "worse"
    by = "" if gain == 0 else f"{_percent(abs(gain))} "
    return gain > 0, f"It is {by}{word} than the baseline's {_number(score)}."


def _number(value: float) -> str:
    return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"


def _percent(part: float) -> str:
    return f"{100 * part:.2f} %"
