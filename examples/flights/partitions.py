"""What is in the store already is taken from there: a month comes from the source once, its features are built once.

A partition belongs to the run that brought it in. Later runs load it, so their records name it with its digest.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import features
import ingest
import polars as pl
from ingest import months_before

import shipway
from shipway.errors import NotFoundError


@dataclass(frozen=True)
class Shelf:
    """Where a run finds what earlier runs have kept.

    Attributes:
        flow: the flow whose runs are meant; by default the run's own.
    """

    flow: str | None = None

    def flights(self, month: date, *, refresh: bool = False) -> pl.DataFrame:
        """Return a month's flights as received.

        Args:
            month: its first day.
            refresh: ask the source again, because it may have more or other flights by now.
        """
        return self._kept(f"raw/flights-{month:%Y-%m}", lambda: ingest.read_flights(month), refresh=refresh)

    def weather(self) -> pl.DataFrame:
        """Return the hourly weather as received."""
        return self._kept("raw/weather", ingest.read_weather)

    def planes(self) -> pl.DataFrame:
        """Return the aircraft as received."""
        return self._kept("raw/planes", ingest.read_planes)

    def features(self, tables: ingest.Tables, month: date) -> pl.DataFrame:
        """Return the features of a month; those that another run built of the same data with the same code, if any."""
        part = features.needed(tables, month)
        name = f"features/{month:%Y-%m}-{features.fingerprint(part)}"
        return self._kept(name, lambda: features.build_features(part).filter(pl.col("partition") == month))

    def next_month(self) -> date:
        """Return the first month that can be predicted and that no run has come to an end with."""
        month = months_before(ingest.FIRST_MONTH, -1)
        while self.stored(f"scores/{month:%Y-%m}") is not None:
            month = months_before(month, -1)
        return month

    def stored(self, name: str) -> Any:
        """Return what the latest run that saved something of that name saved, or None."""
        try:
            return shipway.load(name, flow=self.flow)
        except NotFoundError:
            return None

    def _kept(self, name: str, make: Callable[[], pl.DataFrame], *, refresh: bool = False) -> pl.DataFrame:
        kept = self.stored(name)
        if kept is not None and not refresh:
            return kept
        fresh = make()
        if kept is not None and kept.equals(fresh):
            return kept
        if len(fresh):
            shipway.save(name, fresh)
        return fresh
