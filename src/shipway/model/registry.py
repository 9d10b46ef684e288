"""The registry: which versions of a model there are, and which is champion."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import Literal

from shipway.errors import ConflictError, InputError, IntegrityError, NotFoundError, ObjectExistsError
from shipway.model.version import ModelVersion, version_of
from shipway.release.retention import in_parallel
from shipway.release.verify import hash_object
from shipway.run import models
from shipway.run.models import Champion, Moved
from shipway.store import swap
from shipway.store.base import Store

NUMBERS_TRIED = 100
"""Numbers that others may take one after the other while a version asks for the next one."""

Outcome = Literal["promoted", "held", "already"]


@dataclass(frozen=True, slots=True)
class Line:
    """A model: its versions and its champion.

    Attributes:
        name: the model's name.
        champion: which version is champion, and which were.
        versions: those whose run has committed, newest first.
    """

    name: str
    champion: Champion
    versions: tuple[ModelVersion, ...]

    def status(self, version: ModelVersion) -> str:
        """Return what became of a version: `champion`, `was champion`, `held`, `waiting` or `kept`."""
        if version.version == self.champion.current:
            return "champion"
        if any(move.version == version.version for move in self.champion.history):
            return "was champion"
        if not version.promote:
            return "kept"
        return "held" if self._held(version) else "waiting"

    def reasons(self, version: ModelVersion) -> tuple[str, ...]:
        """Return in sentences what was found of a version, and what became of it."""
        reasons = version.decision.reasons if version.decision else ("No gate was asked.",)
        if version.checked:
            reasons += (
                f"Loaded again from the store, it predicted the same (values compared: {version.checked['rows']:,}).",
            )
        elif version.decision and version.decision.promote:
            reasons += ("It was not loaded again and checked, as predict= was not given; so a person must promote it.",)
        if self.status(version) == "waiting":
            reasons += ("Its run was killed before it could promote it; the next run of this model does that.",)
        held = self._held(version) if self.status(version) == "held" else None
        return (*reasons, held) if held else reasons

    def _held(self, version: ModelVersion) -> str | None:
        """Return why a version whose gate had passed is not champion, or None where it still may be."""
        for move in self.champion.held:
            if move.version == version.version:
                return move.reason
        return None if version.against == self.champion.current else _why_held(version, self.champion)


def number(store: Store, facts: dict[str, object]) -> int:
    """Give a version the next number, and write its document.

    Raises:
        ConflictError: others kept taking numbers.
    """
    name = str(facts["name"])
    following = max(models.versions_in(store, name), default=0) + 1
    for wanted in range(following, following + NUMBERS_TRIED):
        try:
            store.create(models.version_key(name, wanted), models.version_bytes({**facts, "version": wanted}))
        except ObjectExistsError:
            continue
        return wanted
    raise ConflictError(f"others keep registering versions of {name}", hint="try again")


def find_version(store: Store, name: str, version: int) -> ModelVersion | None:
    """Return a version, or None where there is none that a run has committed.

    Raises:
        IntegrityError: it is not as it was written.
    """
    document = models.read_version(store, models.version_key(name, version))
    found = models.committed(store, document) if document else None
    return version_of(store, *found) if found else None


def read_champion(store: Store, name: str) -> Champion:
    """Return which version of a model is champion, and which were; an empty history where there is none.

    Raises:
        IntegrityError: what says so is not as it was written.
    """
    return models.read_champion(store, models.champion_key(name)) or Champion(name)


def current_version(store: Store, name: str) -> ModelVersion | None:
    """Return the champion, or None where there is none.

    Raises:
        IntegrityError: something of it is missing, or not as it was written.
    """
    version = read_champion(store, name).current
    return champion_at(store, name, version) if version is not None else None


def champion_at(store: Store, name: str, version: int) -> ModelVersion:
    """Return a version that is champion, or was: it must be there; raises as `current_version`."""
    found = find_version(store, name, version)
    if found is None:
        raise IntegrityError(
            f"version {version} of {name}, which was made champion, is no longer in {store.address}",
            hint=f"go back to another with `shipway rollback --model {name} VERSION`",
        )
    return found


def read_line(store: Store, name: str) -> Line:
    """Return a model with all its versions.

    Raises:
        NotFoundError: there is no such model.
        IntegrityError: something of it is not as it was written.
    """
    numbers = reversed(models.versions_in(store, name))
    versions = tuple(found for found in in_parallel(partial(find_version, store, name), numbers) if found)
    line = Line(name, read_champion(store, name), versions)
    if not versions and not line.champion.history:
        names = ", ".join(model_names(store)[:10])
        hint = f"there are {names}" if names else "a flow makes one with shipway.register"
        raise NotFoundError(f"there is no model {name!r} in {store.address}", hint=hint)
    return line


def model_names(store: Store) -> list[str]:
    """Return the names of all models, in order.

    Raises:
        IntegrityError: a document that says the name is not as it was written.
    """
    keys: dict[str, str] = {}
    for key in models.keys_under(store):
        if models.version_at(key):
            keys.setdefault(key.split("/")[1], key)
    found = in_parallel(partial(models.read_version, store), keys.values())
    return sorted({str(document["name"]) for document in found if document})


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
            outcome, reason = "held", _why_held(version, champion)
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


def _why_held(version: ModelVersion, champion: Champion) -> str:
    compared = f"version {version.against}" if version.against is not None else "no champion"
    present = f"version {champion.current} is champion" if champion.current is not None else "there is no champion"
    return f"It was compared with {compared}, and {present} by now."


def _find_promotable(store: Store, name: str, version: int) -> ModelVersion | None:
    try:
        document = models.read_version(store, models.version_key(name, version))
        found = models.committed(store, document) if document and document.get("promote") else None
        return version_of(store, *found) if found else None
    except (IntegrityError, NotFoundError):
        return None  # `shipway verify` names it
