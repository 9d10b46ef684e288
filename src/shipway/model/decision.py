"""A decision: what a gate found, in numbers and in sentences."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from shipway.errors import IntegrityError

PROMOTED, KEPT = "promoted", "kept"


@dataclass(frozen=True, slots=True)
class Decision:
    """Whether a candidate shall take the champion's place, and why.

    Attributes:
        promote: whether it shall.
        verdict: the same as a word, `promoted` or `kept`.
        reasons: sentences with the numbers, one for each condition, fulfilled or not.
        metric: what was measured: `rmse`, `mae`, `logloss`, `brier`, or the name of a function.
        scores: the metric over all rows, by `candidate`, `champion`, `baseline`, as far as there were any.
        gain: how much smaller the candidate's score is than the champion's, or without one the baseline's, as a part
            of that: 0.01 is 1 %. None where there was neither.
        interval: bootstrap interval of `gain`, or None where there is no gain.
        baseline_gain: the same against the baseline, or None where there was none.
        margin: the gain that was asked for.
        rows: number of rows.
        blocks: number of blocks that were resampled.
        level: part of the resamples whose gain lies in `interval`.
        samples: number of resamples.
        seed: what they were drawn with.
    """

    promote: bool
    verdict: str
    reasons: tuple[str, ...]
    metric: str
    scores: Mapping[str, float]
    gain: float | None
    interval: tuple[float, float] | None
    baseline_gain: float | None
    margin: float
    rows: int
    blocks: int
    level: float = 0.95
    samples: int = 2000
    seed: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the decision as plain values."""
        return {
            **asdict(self),
            "reasons": list(self.reasons),
            "interval": list(self.interval) if self.interval else None,
        }

    @classmethod
    def from_json(cls, value: Any) -> Decision:
        """Read what `to_json` returned.

        Raises:
            IntegrityError: it is malformed.
        """
        try:
            low_high = value["interval"]
            decision = cls(
                **{
                    **value,
                    "reasons": tuple(value["reasons"]),
                    "scores": {name: float(score) for name, score in value["scores"].items()},
                    "interval": (float(low_high[0]), float(low_high[1])) if low_high else None,
                }
            )
        except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(f"a decision is malformed: {error}") from None
        if decision.verdict != (PROMOTED if decision.promote is True else KEPT):
            given = f"{reprlib.repr(decision.verdict)} and promote={reprlib.repr(decision.promote)}"
            raise IntegrityError(f"a decision is malformed: {given}")
        return decision
