"""Promotions: a gate that has passed, or a person, moves the champion of a model; always by compare-and-swap."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from shipway.errors import ConflictError, InputError, IntegrityError, NotFoundError
from shipway.model.registry import champion_at, find_version, read_champion, why_held
from shipway.model.version import ModelVersion, version_of
from shipway.release.retention import in_parallel
from shipway.release.verify import hash_object
from shipway.run import models
from shipway.run.models import Champion, Moved
from shipway.store import swap
from shipway.store.base import Store

Outcome = Literal["promoted", "held", "already"]


def settle(store: Store, name: str, *, until: int | None = None) -> None:
    """Carry out the promotions of committed versions that nobody has carried out: their process was killed in between.

    Args:
        store: where the model is.
        name: the model's name.
        until: settle versions below this one only.

    Raises:
        IntegrityError: what says which version is champion is not as it was written.
        ConflictError: somebody else kept moving it.
    """
    champion = read_champion(store, name)
    settled = {move.version for move in (*champion.history, *champion.held)}
    # A version below the champion's was decided upon before that was promoted: nothing can come of it.
    first, last = champion.current or 0, until or 10**9
    numbers = [found for found in models.versions_in(store, name) if first < found < last and found not in settled]
    for version in in_parallel(partial(_find_promotable, store, name), numbers):
        if version:
            promote_decided(store, version)


def promote_decided(store: Store, version: ModelVersion) -> tuple[Outcome, str]:
    """Make a committed version champion as its gate decided, unless another is champion than it was compared with.

    Done twice, it changes nothing the second time.

    Returns:
        What came of it, and the reason.

    Raises:
        ConflictError: somebody else kept moving the champion.
    """
    outcome: Outcome = "already"
    reason = ""

    def make(champion: Champion) -> Champion | None:
        nonlocal outcome, reason
        for kind, moves in (("promoted", champion.history), ("held", champion.held)):
            if done := next((move for move in moves if move.version == version.version), None):
                outcome, reason = ("already" if kind == "promoted" else "held"), done.reason
                return None
        if champion.current != version.against:
            outcome, reason = "held", why_held(version, champion)
            return replace(champion, held=(_now(version.version, version.run, reason), *champion.held))
        outcome, reason = "promoted", " ".join(version.decision.reasons) if version.decision else ""
        if version.decision and version.decision.reasons:
            reason = version.decision.reasons[0]
        return replace(champion, history=(_now(version.version, version.run, reason), *champion.history))

    _change(store, version.name, make)
    return outcome, reason


def promote(store: Store, name: str, version: int, *, by: str, reason: str, force: bool = False) -> int | None:
    """Make a version champion because a person says so.

    Its bytes are read and compared with their digest first.

    Args:
        store: where the model is.
        name: the model's name.
        version: which version.
        by: who, and with what.
        reason: why.
        force: whether it may be one that was not loaded again and checked when it was registered.

    Returns:
        The version that was champion before, or None; `version` where it was that already.

    Raises:
        NotFoundError: there is no such version.
        InputError: it was not checked.
        IntegrityError: its bytes are not those that were saved.
    """
    found = find_version(store, name, version)
    if found is None:
        raise NotFoundError(f"there is no version {version} of {name!r}", hint=f"`shipway models {name}` lists them")
    if not found.checked and not force:
        raise InputError(
            f"version {version} of {name} was never loaded again and checked: it was registered without predict=",
            hint="--force promotes it all the same",
        )
    check_bytes(store, found)
    return _move(store, name, version, by=by, reason=reason, seen=None)


def roll_back(store: Store, name: str, version: int | None, *, by: str, reason: str) -> tuple[int, int]:
    """Make a version champion again that was champion before.

    Args:
        store: where the model is.
        name: the model's name.
        version: which; by default the one before the present one.
        by: who, and with what.
        reason: why.

    Returns:
        The version that is champion now, and the one that was.

    Raises:
        NotFoundError: there is no champion, or no such version in its history, or none before.
        IntegrityError: its bytes are not those that were saved.
        ConflictError: somebody else has moved the champion since it was looked at.
    """
    champion = read_champion(store, name)
    current = champion.current
    if current is None:
        raise NotFoundError(f"{name!r} has no champion", hint="`shipway models` lists what there is")
    before = list(dict.fromkeys(move.version for move in champion.history if move.version != current))
    if version is None and not before:
        raise NotFoundError(f"version {current} of {name} is its first champion; there is none to go back to")
    target = before[0] if version is None else version
    if target not in {*before, current}:
        raise NotFoundError(
            f"version {target} of {name} was never champion", hint=f"`shipway promote {name} {target}` makes it so"
        )
    check_bytes(store, champion_at(store, name, target))
    _move(store, name, target, by=by, reason=reason, seen=current)
    return target, current


def check_bytes(store: Store, version: ModelVersion) -> None:
    """Read what was saved of a model and compare it with its digest.

    Raises:
        IntegrityError: it is damaged or gone.
    """
    parts = [version.artifact]
    if version.artifact.codec == "folder":
        inside = f"{version.artifact.name}/"
        parts += [artifact for name, artifact in version.artifacts.items() if name.startswith(inside)]
    for part in parts:
        try:
            whole = hash_object(store, part.key) == (part.bytes, part.sha256)
        except NotFoundError:
            whole = False
        if not whole:
            raise IntegrityError(
                f"{part.name} of version {version.version} of {version.name} is damaged or gone in "
                f"{store.url(part.key)}; nothing was changed"
            )


def _move(store: Store, name: str, version: int, *, by: str, reason: str, seen: int | None) -> int | None:
    before: int | None = None

    def make(champion: Champion) -> Champion | None:
        nonlocal before
        before = champion.current
        if seen is not None and before != seen:
            raise ConflictError(
                f"version {before} became champion of {name} meanwhile; nothing was changed",
                hint=f"look at `shipway models {name}` and try again",
            )
        if before == version:
            return None
        return replace(champion, history=(_now(version, by, reason), *champion.history))

    _change(store, name, make)
    return before


def _change(store: Store, name: str, make: Callable[[Champion], Champion | None]) -> None:
    key = models.champion_key(name)

    def made(data: bytes | None) -> bytes | None:
        found = models.decode_champion(store, key, data) if data is not None else Champion(name)
        wanted = make(found)
        return models.champion_bytes(wanted) if wanted else None

    swap.change(store, key, made)


def _now(version: int, by: str, reason: str) -> Moved:
    return Moved(version, datetime.now(UTC).isoformat(timespec="seconds"), by, reason)


def _find_promotable(store: Store, name: str, version: int) -> ModelVersion | None:
    try:
        document = models.read_version(store, models.version_key(name, version))
        found = models.committed(store, document) if document and document.get("promote") else None
        return version_of(store, *found) if found else None
    except (IntegrityError, NotFoundError):
        return None  # `shipway verify` names it
