"""What a task does besides returning a value, as far as a run's record shows it; who skips the task repeats it."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.artifact import Artifact
from shipway.codec.objects import PICKLE
from shipway.errors import CodecError, IntegrityError
from shipway.run.capture import snapshot
from shipway.run.fetch import download
from shipway.run.session import LOOK_SECONDS, Session
from shipway.store.base import Store

_REPEATABLE = {"metrics", "input"}
"""Lines of the journal that say the same in another run."""


@dataclass(frozen=True, slots=True)
class Effects:
    """What a task did.

    Attributes:
        artifacts: what it saved, in order; of one name the last counts.
        notes: lines of the journal besides.
    """

    artifacts: tuple[Artifact, ...] = ()
    notes: tuple[Mapping[str, Any], ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return it as it stands in a result."""
        return {"artifacts": [artifact.to_json() for artifact in self.artifacts], "notes": list(self.notes)}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Effects:
        """Read what `to_json` wrote.

        Raises:
            IntegrityError: it is malformed, or it is not repeatable.
            (KeyError, TypeError, AttributeError): it is malformed.
        """
        artifacts = tuple(Artifact.from_json(item) for item in document["artifacts"])
        notes = tuple(dict(note) for note in document["notes"])
        # Whoever can write to the store could have made this up: it is not to make a run trust a pickle.
        if any(artifact.codec == PICKLE.name for artifact in artifacts):
            raise IntegrityError("a pickle is not taken over from another run")
        if any(set(note) - _REPEATABLE for note in notes) or not all(map(_sound, notes)):
            raise IntegrityError("it holds what cannot be repeated")
        return cls(artifacts, notes)


@dataclass(frozen=True, slots=True)
class Mark:
    """Where a task's work began.

    Attributes:
        task: id of the task run.
        lines: how many lines the journal had.
        moment: what the clock of the file system said, in ns.
    """

    task: str
    lines: int
    moment: int


def begin(session: Session, task: str, file: Path) -> Mark:
    """Note that a task is about to begin; `file` was made just now."""
    return Mark(task, len(session.journal.lines()), file.stat().st_ctime_ns)


def files_since(mark: Mark, folder: Path) -> list[str]:
    """Return the files of the working folder that were written since a task began, by whomever."""
    return sorted(path for path, stamp in snapshot(folder).items() if stamp[2] >= mark.moment)


def effects(session: Session, mark: Mark) -> Effects:
    """Return what a task that has ended did, once all of it has arrived.

    Raises:
        CodecError: it did what cannot be repeated, or nobody can say who did it.
    """
    since = session.journal.lines()[mark.lines :]
    if any("task" not in line and "sent" not in line for line in since):
        raise CodecError("a thread or process that is no task's saved something meanwhile")
    mine = [{key: item for key, item in line.items() if key != "task"} for line in since if mark.task in _tasks(line)]
    saved = [line["saving"] for line in mine if "saving" in line]
    notes = tuple(line for line in mine if "saving" not in line and "sent" not in line)
    if any(set(note) - _REPEATABLE for note in notes):
        raise CodecError("it did more than to save and to load")
    sent: dict[str, Any] = {}
    while saved:
        sent = {line["sent"]: line.get("artifact") for line in session.journal.lines() if "sent" in line}
        if all(number in sent for number in saved) or not session.scratch.exists():
            break
        time.sleep(LOOK_SECONDS)
    if not all(sent.get(number) for number in saved):
        raise CodecError("what it saved has not arrived")
    artifacts = tuple(Artifact.from_json(sent[number]) for number in saved)
    if any(artifact.codec == PICKLE.name for artifact in artifacts):
        raise CodecError("it saved a pickle")
    return Effects(artifacts, notes)


@dataclass(frozen=True, slots=True)
class Noted:
    """What a task did in another run, fetched."""

    effects: Effects
    files: Sequence[Path]

    @classmethod
    def fetch(cls, effects: Effects, store: Store, session: Session) -> Noted:
        """Fetch what the task saved.

        Raises:
            ShipwayError: it is gone or damaged.
        """
        files: list[Path] = []
        for artifact in effects.artifacts:
            folder = Path(tempfile.mkdtemp(prefix="kept-", dir=session.scratch))
            files.append(download(store, artifact, folder / "file"))
        return cls(effects, files)

    def repeat(self, session: Session) -> None:
        """Save in this run what the task saved in that one, and note what it noted.

        Raises:
            StoreError: the store failed.
        """
        for artifact, path in zip(self.effects.artifacts, self.files, strict=True):
            session.adopt(artifact, path)
        for note in self.effects.notes:
            session.journal.add(note)


def _sound(note: Mapping[str, Any]) -> bool:
    """Tell whether a line could stand in a journal, of which a run's record is made."""
    metrics, source = note.get("metrics", {}), note.get("input")
    if not isinstance(metrics, dict) or not all(type(value) in (int, float) for value in metrics.values()):
        return False
    if source is None:
        return "input" not in note
    return (
        isinstance(source, dict)
        and all(isinstance(value, str) for value in source.values())
        and source.keys() >= {"name", "run", "key"}
    )


def _tasks(line: Mapping[str, Any]) -> Sequence[str]:
    tasks: Sequence[str] = line.get("task") or ()
    return tasks
