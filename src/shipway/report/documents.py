"""What a flow said about its page, read back out of the store; nothing of it is believed before it was looked at."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from shipway.artifact import Artifact
from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError, ShipwayError
from shipway.report.facts import Said, Section, Verdict
from shipway.report.sections import LEVELS, PREFIX, VERDICT, VERSION, order
from shipway.run.session import Session
from shipway.store.base import Store

MAX_BYTES = 8 * 1024 * 1024


def read_verdict(store: Store, artifacts: Iterable[Artifact]) -> Verdict | None:
    """Return what the flow said came of the run, or None where it said nothing that can be read."""
    found = next((artifact for artifact in artifacts if artifact.name == VERDICT), None)
    if found is None:
        return None
    try:
        document = _document(store, found)
        word, reason, level = (str(document[key]) for key in ("word", "reason", "level"))
    except (ShipwayError, KeyError):
        return None
    reasons = (reason,) if reason else ()
    return Verdict(word[:60], reasons, level if level in LEVELS else "neutral")


def read_sections(store: Store, artifacts: Iterable[Artifact]) -> tuple[Section, ...]:
    """Return the flow's sections in their order; one that cannot be read says so itself."""
    names = {artifact.name: artifact for artifact in artifacts if artifact.name.startswith(PREFIX)}
    names.pop(VERDICT, None)
    return tuple(_section(store, names[name]) for name in sorted(names, key=order))


def said_in(session: Session) -> Said:
    """Return what a flow has said for its page so far; nothing of it, if some could not be sent."""
    try:
        artifacts = session.own_below(PREFIX)
        return Said(read_verdict(session.store, artifacts), read_sections(session.store, artifacts), session.metrics())
    except ShipwayError:
        return Said()


def read_checked(store: Store, artifact: Artifact) -> bytes:
    """Return an artifact's bytes.

    Raises:
        IntegrityError: they are not those that were saved.
    """
    data = store.read(artifact.key, length=artifact.bytes + 1)
    if sha256_bytes(data) != artifact.sha256:
        raise IntegrityError(f"{artifact.name} is damaged in {store.url(artifact.key)}")
    return data


def _document(store: Store, artifact: Artifact) -> Mapping[str, Any]:
    if artifact.bytes > MAX_BYTES:
        raise IntegrityError(f"{artifact.name} is longer than {MAX_BYTES} bytes")
    try:
        document = json.loads(read_checked(store, artifact))
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict) or document.get("version") != VERSION:
        raise IntegrityError(f"{artifact.name} is no part of a report that this Shipway knows")
    return document


def _section(store: Store, artifact: Artifact) -> Section:
    title = artifact.name.removeprefix(PREFIX)
    try:
        document = _document(store, artifact)
    except ShipwayError as error:
        return Section(title, ({"kind": "text", "text": f"This section cannot be shown: {error.message}."},))
    given = document.get("parts")
    parts = tuple(part for item in (given if isinstance(given, list) else []) for part in _part(item))
    return Section(str(document.get("title") or title)[:200], parts)


def _part(item: Any) -> Iterator[dict[str, Any]]:
    """Yield a part in the shape that templates rely on, if it has one."""
    if not isinstance(item, dict):
        return
    try:
        match item.get("kind"):
            case "text":
                yield {"kind": "text", "text": str(item["text"])}
            case "figure":
                yield {"kind": "figure", "svg": str(item["svg"])}
            case "list":
                items = [_cell(value) for value in list(item["items"])]
                yield {"kind": "list", "items": items, "total": int(item["total"])}
            case "facts":
                facts = [(str(name), _cell(value)) for name, value in item["facts"]]
                yield {"kind": "facts", "facts": facts, "total": int(item["total"])}
            case "table":
                columns = [str(name) for name in list(item["columns"])]
                rows = [[_cell(value) for value in list(row)] for row in item["rows"]]
                if any(len(row) != len(columns) for row in rows):
                    return
                totals = {key: int(item[key]) for key in ("total", "total_columns")}
                yield {"kind": "table", "columns": columns, "rows": rows} | totals
    except (KeyError, TypeError, ValueError):
        return


def _cell(value: Any) -> Any:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)
