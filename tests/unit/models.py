"""Runs that make models, without a server: each is a session on a store, as a worker would begin it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import shipway
from shipway.model.commit import commit
from shipway.model.decision import Decision
from shipway.model.registry import read_champion, read_line
from shipway.run.order import Order
from shipway.run.record import RunRecord
from shipway.run.session import Session, activate
from shipway.store.base import Store

NAME = "delay"
ORDER = Order(
    run_id="",
    run_name="",
    flow="train",
    deployment="train/monthly",
    attempt=1,
    release=None,
    parameters={},
    scheduled="2026-01-02T03:04:05+00:00",
    store="",
    opener="",
)


class Training:
    """Runs of one flow on one store, numbered from 1."""

    def __init__(self, store: Store, folder: Path) -> None:
        self.store = store
        self.folder = folder

    def order(self, number: int, **changes: Any) -> Order:
        return replace(ORDER, run_id=run_id(number), run_name=f"run-{number}", **changes)

    @contextmanager
    def run(self, number: int, store: Store | None = None, **changes: Any) -> Iterator[Session]:
        """Be inside a run; what it saved is committed by whoever calls `commit`."""
        session = Session.begin(self.order(number, **changes), self.folder, store or self.store)
        activate(session)
        try:
            yield session
        finally:
            activate(None)
            session.close()

    def train(self, number: int, *, promote: bool = True, ask: bool = True, **changes: Any) -> RunRecord:
        """Run the flow: look at the champion, save a model, decide, register, commit."""
        with self.run(number, **changes) as session:
            flow(number, promote=promote, ask=ask)
            return commit(session)


def run_id(number: int) -> str:
    return f"0197a000-0000-7000-8000-{number:012x}"


def flow(number: int, *, promote: bool = True, ask: bool = True, facts: Mapping[str, Any] | None = None) -> None:
    """Do what a flow does that trains a model; the model predicts the run's number."""
    if ask:
        shipway.champion(NAME, None)
    shipway.save("model", {"number": number})
    shipway.log_metrics({"number": number})
    shipway.register(NAME, decision=decision(promote), predict=predict, expected=[number], facts=facts)


def predict(model: Mapping[str, Any]) -> list[Any]:
    return [model["number"]]


def decision(promote: bool) -> Decision:
    reason = "It is better." if promote else "It is worse."
    verdict = "promoted" if promote else "kept"
    return Decision(promote, verdict, (reason,), "rmse", {"candidate": 1.0}, None, None, None, 0.0, 10, 2)


def champion_of(store: Store) -> int | None:
    found = shipway.champion(NAME, None, store=store)
    return found.version if found else None


def raising(error: BaseException) -> Callable[..., Any]:
    def raises(*_arguments: Any, **_named: Any) -> Any:
        raise error

    return raises


def statuses(store: Store) -> dict[int, str]:
    line = read_line(store, NAME)
    return {version.version: line.status(version) for version in line.versions}


def moves(store: Store) -> list[int]:
    return [move.version for move in read_champion(store, NAME).history]
