"""Whom a month's candidate has to beat: the champion as of that month, not one that has learnt from it since."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import Any

import ingest
import polars as pl
import train

import shipway

MODEL = "flights"


@dataclass(frozen=True)
class Rival:
    """The other side of a month's comparison.

    Attributes:
        champion: the version that is champion now, or None.
        as_of: the version that was champion as of the month, or None. It differs when an old month is run again.
    """

    champion: Any | None
    as_of: Any | None

    def stands(self, month: date, sha256: str) -> str:
        """Return why the candidate of `month` cannot take the champion's place, whatever the gate said, or nothing."""
        if self.champion is None:
            return ""
        number, since = self.champion.version, as_of(self.champion)
        if since > month:
            return f"Version {number} of {since:%Y-%m} is champion: a month that is run again does not take its place."
        if self.champion.artifact.sha256 == sha256:
            return f"It is the model of version {number}, which is champion already."
        return ""


def find_rival(month: date) -> Rival:
    """Return the champion, and the one that was champion as of `month`."""
    champion = shipway.champion(MODEL, default=None)
    found = champion
    while found is not None and as_of(found) >= month:
        found = found.previous
    return Rival(champion, found)


def predict(version: Any, frame: pl.DataFrame) -> pl.Series:
    """Return what a version predicts, with the categories that it was trained with."""
    return train.predict(version.model, frame, version.load("model-card")["categories"])


def as_of(version: Any) -> date:
    return ingest.parse_month(version.facts["as_of"])
