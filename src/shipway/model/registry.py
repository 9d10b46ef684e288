"""The registry: which versions of a model there are, and which is champion."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from shipway.errors import ConflictError, IntegrityError, NotFoundError, ObjectExistsError
from shipway.model.version import ModelVersion, version_of
from shipway.release.retention import in_parallel
from shipway.run import models
from shipway.run.models import Champion
from shipway.store.base import Store

NUMBERS_TRIED = 100
"""Numbers that others may take one after the other while a version asks for the next one."""


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
        return None if version.against == self.champion.current else why_held(version, self.champion)


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
    line = _read_line(store, name)
    if not line.versions and not line.champion.history:
        names = ", ".join(model_names(store)[:10])
        hint = f"there are {names}" if names else "a flow makes one with shipway.register"
        raise NotFoundError(f"there is no model {name!r} in {store.address}", hint=hint)
    return line


def read_lines(store: Store) -> list[Line]:
    """Return all models of which a run has committed a version, by name; raises as `read_line`."""
    lines = [_read_line(store, name) for name in model_names(store)]
    return [line for line in lines if line.versions or line.champion.history]


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


def _read_line(store: Store, name: str) -> Line:
    numbers = reversed(models.versions_in(store, name))
    versions = tuple(found for found in in_parallel(partial(find_version, store, name), numbers) if found)
    return Line(name, read_champion(store, name), versions)


def why_held(version: ModelVersion, champion: Champion) -> str:
    """Say why a version does not become champion although its gate has passed."""
    compared = f"version {version.against}" if version.against is not None else "no champion"
    present = f"version {champion.current} is champion" if champion.current is not None else "there is no champion"
    return f"It was compared with {compared}, and {present} by now."
