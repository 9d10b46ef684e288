"""What was decided about models: out of a run's record, and out of what lies under `models/`.

It is read for the eyes alone, so what is missing or malformed is left out; `shipway verify` is who finds fault with it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from shipway.artifact import segment
from shipway.errors import StoreError
from shipway.report.facts import GOOD, NEUTRAL, ModelFacts, ModelLine, Score, Verdict
from shipway.store.base import Store

MAX_BYTES = 1 << 20
MAX_VERSIONS = 20
"""Versions of a model that the index shows, the newest."""


def models_of(store: Store, entries: Iterable[Mapping[str, Any]]) -> tuple[ModelFacts, ...]:
    """Return the models that a run made, and what came of each since."""
    found = []
    for entry in entries:
        model = _model(entry)
        held = _held(_read(store, f"models/{segment(model.name)}/champion.json"), model.version)
        found.append(_model(entry, held=held) if held else model)
    return tuple(found)


def verdict_of(models: Sequence[ModelFacts]) -> Verdict | None:
    """Say what was decided about the models, if anything was."""
    decided = [(model.name, model.verdict) for model in models if model.verdict]
    if not decided:
        return None
    if len(decided) == 1:
        return decided[0][1]
    good = sum(verdict.level == GOOD for _, verdict in decided)
    reasons = tuple(f"{name}: {verdict.word.lower()}." for name, verdict in decided)
    return Verdict(f"{good} of {len(decided)} promoted", reasons, GOOD if good else NEUTRAL)


def read_lines(store: Store) -> tuple[ModelLine, ...]:
    """Return every model in a store with its newest versions.

    Raises:
        StoreError: the store failed.
    """
    numbers: dict[str, list[int]] = {}
    for info in store.list("models/"):
        if match := re.fullmatch(r"models/([^/]+)/([1-9]\d{0,8})\.json", info.key):
            numbers.setdefault(match[1], []).append(int(match[2]))
    return tuple(_line(store, folder, numbers[folder]) for folder in sorted(numbers))


def _line(store: Store, folder: str, numbers: Sequence[int]) -> ModelLine:
    champion = _read(store, f"models/{folder}/champion.json")
    versions = []
    for number in sorted(numbers, reverse=True)[:MAX_VERSIONS]:
        entry = _read(store, f"models/{folder}/{number}.json")
        versions.append(_model({"version": number, **entry}, held=_held(champion, number)))
    history = champion.get("history")
    first = history[0] if isinstance(history, list) and history else {}
    current = first.get("version") if isinstance(first, Mapping) else None
    name = versions[0].name if versions and versions[0].name != "model" else folder
    return ModelLine(name, current if isinstance(current, int) else None, tuple(versions), len(numbers))


def _read(store: Store, key: str) -> dict[str, Any]:
    try:
        found = json.loads(store.read(key, length=MAX_BYTES))
    except (StoreError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def _held(champion: Mapping[str, Any], version: int | None) -> str:
    """Return why a version that had passed its gate did not become champion, or an empty text."""
    held = champion.get("held")
    for move in held if isinstance(held, list) else ():
        if isinstance(move, Mapping) and move.get("version") == version:
            return str(move.get("reason") or "Another version was champion by then.")
    return ""


def _model(entry: Mapping[str, Any], *, held: str = "") -> ModelFacts:
    decision, version = entry.get("decision"), entry.get("version")
    facts: dict[str, Any] = {
        "name": str(entry.get("name", "model")),
        "version": version if isinstance(version, int) else None,
        "run": str(entry.get("run_name", "")),
        "at": str(entry.get("at", "")),
    }
    if not isinstance(decision, Mapping):
        return ModelFacts(**facts)
    given = decision.get("scores")
    items = given.items() if isinstance(given, Mapping) else ()
    scores = {str(who): score for who, item in items if (score := _number(item)) is not None}
    largest = max(map(abs, scores.values()), default=0.0) or 1.0
    interval = decision.get("interval")
    low, high = map(_number, interval) if isinstance(interval, list | tuple) and len(interval) == 2 else (None, None)
    rows, blocks = decision.get("rows"), decision.get("blocks")
    return ModelFacts(
        **facts,
        verdict=_verdict(entry, decision, held),
        metric=str(decision.get("metric", "")),
        scores=tuple(Score(who, score, abs(score) / largest) for who, score in scores.items()),
        gain=_number(decision.get("gain")),
        interval=(low, high) if low is not None and high is not None else None,
        margin=_number(decision.get("margin")),
        level=_number(decision.get("level")),
        rows=rows if isinstance(rows, int) else None,
        blocks=blocks if isinstance(blocks, int) else None,
    )


def _verdict(entry: Mapping[str, Any], decision: Mapping[str, Any], held: str) -> Verdict:
    given = decision.get("reasons")
    reasons = tuple(map(str, given)) if isinstance(given, list | tuple) else ()
    if decision.get("promote") is not True:
        return Verdict(str(decision.get("verdict", "kept")).capitalize(), reasons, NEUTRAL)
    if held:
        return Verdict("Held", (held, *reasons), NEUTRAL)
    if entry.get("promote", True) is not True:
        why = "It passed, and was not loaded again and checked: a person must promote it."
        return Verdict("Passed", (*reasons, why), NEUTRAL)
    return Verdict(str(decision.get("verdict", "promoted")).capitalize(), reasons, GOOD)


def _number(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
