"""The commit of a run that may have made models: versions are numbered, the record is written, champions are moved.

In this order, so that whoever kills the process anywhere leaves nothing half done that a reader could take for whole: a
version that no record names does not exist, and a promotion that a record asks for is carried out by whoever comes
next, the run's next attempt or another run of the same model.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from shipway.errors import InputError, ObjectNotFoundError, ShipwayError
from shipway.model.promotion import promote_decided, settle
from shipway.model.registry import number
from shipway.model.version import version_of
from shipway.run.models import SHARED
from shipway.run.record import RunRecord, read_record
from shipway.run.session import Session
from shipway.store.base import Store


def commit(session: Session, tell: Callable[[str], None] = lambda _text: None) -> RunRecord:
    """Commit what an attempt saved, and the models it registered.

    Args:
        session: the attempt; nothing is to be saved any more.
        tell: told in a sentence what became of each model.

    Returns:
        The run's record: that of an earlier attempt where one has committed.

    Raises:
        StoreError: something could not be written; the run has no record then.
        InputError: a model was saved again after it was registered.
    """
    record = session.record()
    lines = session.journal.lines()
    registered = {line["model"]["name"]: line["model"] for line in lines if "model" in line}
    if session.order.reproduces:
        for name in registered:
            tell(f"Model {name} was not registered: this run repeats another one")
        registered = {}
    record = replace(record, champions=champions_seen(lines))
    if registered and not _has_committed(session):
        record = replace(record, models=tuple(_number(session, record, facts) for facts in registered.values()))
    record = session.commit(record)
    settle_models(session.store, record, tell)
    return record


def settle_models(store: Store, record: RunRecord, tell: Callable[[str], None]) -> None:
    """Carry out what a committed record asks for of its models; what was carried out before stays as it is."""
    for entry in record.models:
        tell(_finish(store, record, entry))


def champions_seen(lines: list[dict[str, Any]]) -> dict[str, int | None]:
    """Return by model the version that was champion when the run first asked; None where there was none then."""
    seen: dict[str, int | None] = {}
    for line in lines:
        if "champion" in line:
            seen.setdefault(line["champion"]["name"], line["champion"]["version"])
    return seen


def _has_committed(session: Session) -> bool:
    """Tell whether an earlier attempt has: then this one's versions need no number."""
    if session.order.attempt == 1:
        return False
    try:
        read_record(session.store, f"{session.order.folder}/run.json")
    except ObjectNotFoundError:
        return False
    return True


def _number(session: Session, record: RunRecord, facts: Mapping[str, Any]) -> dict[str, Any]:
    """Give a version its number, and return what the record is to say of it."""
    saved = record.artifact(facts["artifact"])
    if (saved.key, saved.sha256) != (facts["key"], facts["sha256"]):
        raise InputError(
            f"{saved.name} was saved again after it was registered as model {facts['name']}",
            hint="call shipway.register after the last shipway.save of it",
        )
    order = session.order
    run = {"run": order.run_id, "run_name": order.run_name, "folder": order.folder, "attempt": order.attempt}
    version = number(session.store, {**facts, **run})
    return {name: {**facts, "version": version}[name] for name in SHARED}


def _finish(store: Store, record: RunRecord, entry: Mapping[str, Any]) -> str:
    """Carry out what a committed record asks for, and return what came of it in a sentence."""
    what = f"Model {entry['name']}: version {entry['version']}"
    try:
        version = version_of(store, record, entry)
        if not version.promote:
            reason = "" if version.checked else " (not loaded again and checked: no predict= was given)"
            wanted = version.decision and version.decision.promote
            return f"{what} is registered, {'not promoted' + reason if wanted else 'the champion is kept'}"
        settle(store, version.name, until=version.version)
        outcome, reason = promote_decided(store, version)
    except ShipwayError as error:
        # The record stands, so the run has completed; to fail it now would say that its data is not there.
        return f"{what} is registered, but could not be promoted yet: {error}; the next run of this model does it"
    return f"{what} is registered, but not promoted. {reason}" if outcome == "held" else f"{what} is champion. {reason}"
