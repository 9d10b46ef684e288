"""Where the marks of a page's own figures stand, in per cent of their width; templates draw them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from shipway.report.facts import ModelFacts, TaskFacts
from shipway.report.words import parsed

LEAST = 0.4
"""Width of the shortest bar that can still be seen."""


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar of a timeline.

    Attributes:
        start: where it begins, from 0 to 100.
        width: how wide it is.
    """

    start: float
    width: float


@dataclass(frozen=True, slots=True)
class Gain:
    """Marks of a gain and its interval on one line.

    Attributes:
        zero: where no gain is.
        margin: where the gain is that a promotion takes, or None.
        low: where the interval begins.
        high: where it ends.
        gain: where the gain is.
    """

    zero: float
    margin: float | None
    low: float
    high: float
    gain: float


def timeline(tasks: Sequence[TaskFacts]) -> list[Bar | None]:
    """Return a bar for each task, None for one that did not begin."""
    begins = [moment.timestamp() if (moment := parsed(task.started)) else None for task in tasks]
    known = [(begin, begin + task.seconds) for begin, task in zip(begins, tasks, strict=True) if begin is not None]
    if not known:
        return [None] * len(tasks)
    first, last = min(begin for begin, _ in known), max(end for _, end in known)
    scale = 100 / ((last - first) or 1.0)
    bars: list[Bar | None] = []
    for begin, task in zip(begins, tasks, strict=True):
        if begin is None:
            bars.append(None)
            continue
        width = max(task.seconds * scale, LEAST)
        bars.append(Bar(round(min((begin - first) * scale, 100 - width), 2), round(width, 2)))
    return bars


def gain(model: ModelFacts) -> Gain | None:
    """Return the marks of a model's gain, or None where nothing was resampled."""
    if model.gain is None or model.interval is None:
        return None
    values = [0.0, model.gain, *model.interval, *([model.margin] if model.margin is not None else [])]
    low, high = min(values), max(values)
    room = (high - low) * 0.08 or 1.0
    low, high = low - room, high + room

    def place(value: float) -> float:
        return round(100 * (value - low) / (high - low), 2)

    margin = place(model.margin) if model.margin is not None else None
    return Gain(place(0.0), margin, place(model.interval[0]), place(model.interval[1]), place(model.gain))
