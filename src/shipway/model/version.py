"""One version of a model, as its readers have it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from types import UnionType
from typing import Any

from shipway.artifact import Artifact
from shipway.errors import InputError, IntegrityError, NotFoundError
from shipway.model.decision import Decision
from shipway.run.record import RunRecord
from shipway.store.base import Store


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model: what a run registered, and all else that this run saved.

    Attributes:
        name: the model's name.
        version: its number, from 1; 0 in the run that registers it, as it is numbered when that run commits.
        run: id of the run that made it.
        run_name: name of that run.
        at: when it was registered, in UTC, ISO 8601.
        decision: what the gate said of it, or None where none was asked.
        metrics: the run's metrics.
        facts: what the run said of it when it was registered.
        promote: whether it is to be champion: its gate has passed and it was loaded again and checked.
        against: the version that was champion when its run asked, or None.
        checked: how it was checked after it had been loaded again: `rows`, `tolerance`; None where it was not.
        release: the code that made it, `<epoch>.<release-id>`, or None.
        artifact: what was saved of the model itself.
    """

    name: str
    version: int
    run: str
    run_name: str
    at: str
    decision: Decision | None
    metrics: Mapping[str, float]
    facts: Mapping[str, Any]
    promote: bool
    against: int | None
    checked: Mapping[str, Any] | None
    release: str | None
    artifact: Artifact
    artifacts: Mapping[str, Artifact] = field(repr=False)
    store: Store | None = field(repr=False, compare=False)

    def __getstate__(self) -> dict[str, Any]:
        # It may travel to another process, or into a stored result: without the keys of the store, and without what
        # was loaded. So equal versions also have equal bytes.
        return {name: value for name, value in self.__dict__.items() if name != "model"} | {"store": None}

    @cached_property
    def model(self) -> Any:
        """The model itself, fetched when it is first asked for; its digest is checked.

        Raises:
            IntegrityError: the stored bytes are not those that were saved.
        """
        return self.load(self.artifact.name)

    @property
    def previous(self) -> ModelVersion | None:
        """The version that was champion when this one's run asked, or None where there was none: what it had to beat.

        Raises:
            InputError: as `load`.
            IntegrityError: it is missing, or not as it was written.
        """
        from shipway.model.registry import champion_at

        return champion_at(self._where(), self.name, self.against) if self.against is not None else None

    def load(self, artifact: str) -> Any:
        """Return anything that the same run saved, its digest checked. A run that does so notes it as an input.

        Raises:
            NotFoundError: the run saved nothing of that name.
            InputError: the version came here from another process, and there is no run whose store could be asked.
            IntegrityError: the stored bytes are not those that were saved.
        """
        from shipway.run.data import read_artifact
        from shipway.run.session import current

        found = self.artifacts.get(artifact)
        if found is None:
            names = ", ".join(sorted(self.artifacts)[:12])
            raise NotFoundError(f"run {self.run_name} saved no {artifact!r}", hint=f"it saved {names}")
        where, session = self._where(), current()
        if session is not None and session.order.run_id != self.run:
            session.note_input(found, self.run, asked=self.name, kind="model")
        return read_artifact(where, found, self.artifacts)

    def _where(self) -> Store:
        from shipway.run.session import current

        session = current()
        where = self.store or (session.store if session else None)
        if where is None:
            raise InputError(
                f"version {self.version} of {self.name} has come from another process, without its store",
                hint="ask for it with shipway.champion here",
            )
        return where

    def to_json(self) -> dict[str, Any]:
        """Return the facts as plain values."""
        names = ("name", "version", "run", "run_name", "at", "release", "promote", "against", "checked")
        facts = {name: getattr(self, name) for name in names}
        facts |= {"artifact": self.artifact.name, "key": self.artifact.key, "sha256": self.artifact.sha256}
        facts |= {"metrics": dict(self.metrics), "facts": dict(self.facts)}
        return facts | {"decision": self.decision.to_json() if self.decision else None}


def version_of(store: Store, record: RunRecord, entry: Mapping[str, Any]) -> ModelVersion:
    """Return the version that an entry of a run's record tells of.

    Raises:
        NotFoundError: the run saved no such artifact.
        IntegrityError: the entry is malformed.
    """
    kinds: dict[str, type | UnionType] = {"facts": dict, "checked": dict | None, "against": int | None}
    kinds |= {"at": str, "artifact": str, "decision": dict | None, "name": str, "version": int, "promote": bool}
    if not all(name in entry and isinstance(entry[name], kind) for name, kind in kinds.items()):
        raise IntegrityError(f"the record of run {record.run_name} holds a malformed version of a model")
    return ModelVersion(
        name=entry["name"],
        version=entry["version"],
        run=record.run_id,
        run_name=record.run_name,
        at=entry["at"],
        decision=Decision.from_json(entry["decision"]) if entry["decision"] is not None else None,
        metrics=record.metrics,
        facts=entry["facts"],
        promote=entry["promote"] is True,
        against=entry["against"],
        checked=entry["checked"],
        release=record.release,
        artifact=record.artifact(entry["artifact"]),
        artifacts={artifact.name: artifact for artifact in record.artifacts},
        store=store,
    )
