"""A session: one attempt of one run, as the code inside it sees it. Everything it notes goes into its journal."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from shipway.artifact import Artifact, check_name, key_path
from shipway.codec import Codec, codec_for, estimate, suffix_for
from shipway.digest import sha256_file
from shipway.errors import InputError, StoreError
from shipway.run.capture import Stamp, changed
from shipway.run.environment import environment
from shipway.run.growing import Growing
from shipway.run.journal import Journal
from shipway.run.order import Order
from shipway.run.recent import forget
from shipway.run.record import RunRecord, read_record, write_record
from shipway.run.uploads import LARGE, Uploads
from shipway.store.base import Store

LOCAL = "shipway.prefect.local"
"""Module whose `session()` knows of flow runs that no worker started; a string, as it stands above this floor."""

LOOK_SECONDS = 0.02

MOST_LEFT_OUT = 500
"""How many of the files that were not captured a record names."""

VARIABLE = "SHIPWAY_RUN_FOLDER"
"""Environment variable that tells a run's child processes where its session lies."""


class Session:
    """One attempt of one run.

    Its journal is written by all threads and child processes of the run. Nothing in it is visible to readers until
    `commit` writes the record. What the process that began the session saves is sent while the flow works on; other
    processes, which may end at any time, wait until what they save has arrived.
    """

    def __init__(self, order: Order, scratch: Path, store: Store | None = None, *, own: bool = False) -> None:
        self.order = order
        self.scratch = scratch
        self.started = datetime.now(UTC)
        self.process = os.getpid()
        self.journal = Journal(scratch / "journal", self._whose)
        self._store = store
        self._lock = threading.Lock()
        self._uploads = Uploads(lambda: self.store) if own else None
        self._repeated: RunRecord | None = None

    @classmethod
    def begin(cls, order: Order, parent: Path, store: Store) -> Session:
        """Begin an attempt whose journal and temporary files lie in a new folder below `parent`."""
        scratch = Path(tempfile.mkdtemp(prefix="session-", dir=parent))
        (scratch / "order.json").write_text(json.dumps(asdict(order)))
        return cls(order, scratch, store, own=True)

    @classmethod
    def join(cls, scratch: Path) -> Session:
        """Take part in a session that a parent process began."""
        return cls(Order(**json.loads((scratch / "order.json").read_text())), scratch)

    @property
    def began_here(self) -> bool:
        """Whether this process began the session, and did not join what another one began."""
        return self._uploads is not None

    @property
    def store(self) -> Store:
        """The store the run's data goes to, opened when first needed."""
        with self._lock:
            if self._store is None:
                self._store = _named(self.order.opener)(self.order.store)
            return self._store

    def save(self, name: str, value: object, *, codec: str | None = None) -> Artifact:
        """Take a value and have it sent; a second value of the same name takes the first one's place."""
        check_name(name)
        if isinstance(value, Path) and value.is_dir():
            return self._save_folder(name, value)
        way = codec_for(value, codec)
        # A private file per value: two tasks may save at once, and under the same name.
        path = self._new_file()
        try:
            if self._uploads and estimate(value, way) >= LARGE:
                return self._save_large(name, value, way, path, self._uploads)
            rows = way.write(value, path)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        return self._take(name, path, codec=way.name, suffix=suffix_for(value, way), rows=rows)

    def adopt(self, artifact: Artifact, path: Path) -> Artifact:
        """Save what another run saved, from the file that it was fetched into; the file is removed afterwards."""
        suffix = ".folder.json" if artifact.codec == "folder" else Path(artifact.key).suffix
        return self._take(artifact.name, path, codec=artifact.codec, suffix=suffix, rows=artifact.rows)

    def note_input(self, artifact: Artifact, run: str, *, asked: str = "", kind: str = "artifact") -> None:
        """Note that the run read an artifact of another run.

        Args:
            artifact: which one.
            run: id of the run that saved it.
            asked: in what words it was asked for, where the name alone did not say it.
            kind: `model` where it was asked for as one.
        """
        facts = {"name": artifact.name, "run": run, "key": artifact.key, "sha256": artifact.sha256}
        size = {"bytes": artifact.bytes, "rows": artifact.rows}
        self.journal.add({"input": {**facts, **size, "kind": kind, "asked": asked}})

    def note_metrics(self, metrics: Mapping[str, float]) -> None:
        """Note numbers by name; a later number takes an earlier one's place."""
        self.journal.add({"metrics": dict(metrics)})

    def note_reads(self, reads: Sequence[Mapping[str, str]], gap: str | None) -> None:
        """Note which files of its release the run read.

        Args:
            reads: `path` and `sha256` of each.
            gap: why some may be missing, or None.
        """
        self.journal.add({"reads": list(reads), "gap": gap})

    def artifacts(self) -> dict[str, Artifact]:
        """Return what was saved so far and has arrived, by name."""
        return {
            line["artifact"]["name"]: Artifact.from_json(line["artifact"])
            for line in self.journal.lines()
            if "artifact" in line
        }

    def metrics(self) -> dict[str, float]:
        """Return the numbers noted so far, by name."""
        noted: dict[str, float] = {}
        for line in self.journal.lines():
            noted |= line.get("metrics", {})
        return noted

    def own_below(self, prefix: str) -> tuple[Artifact, ...]:
        """Return what this run has saved under names that begin so, once it has arrived.

        Raises:
            StoreError: some of it could not be sent.
        """
        names = {line["name"] for line in self.journal.lines() if "saving" in line}
        found = (self.own(name) for name in sorted(names) if name.startswith(prefix))
        return tuple(artifact for artifact in found if artifact)

    def own(self, name: str) -> Artifact | None:
        """Return what this run has saved under a name, once it has arrived; None where it saved no such thing.

        Raises:
            StoreError: it could not be sent.
        """
        while True:
            lines = self.journal.lines()
            sent = {line["sent"]: line for line in lines if "sent" in line}
            saving = [line["saving"] for line in lines if line.get("name") == name]
            if all(number in sent for number in saving):
                break
            time.sleep(LOOK_SECONDS)
        if self._uploads:
            self._uploads.check()
        if saving and "artifact" not in sent[saving[-1]]:
            raise StoreError(f"{name} could not be saved", hint="the run's log says why")
        found = self.artifacts().get(name)
        if found and found.codec == "folder":
            # Its files are sent each on its own, and some may arrive after the list of them.
            self.own_below(f"{name}/")
        return found

    def repeated(self) -> RunRecord | None:
        """Return the record of the run that this one repeats, whose inputs are this one's."""
        if self.order.reproduces and self._repeated is None:
            self._repeated = read_record(self.store, f"{self.order.reproduces}/run.json")
        return self._repeated

    def wait_for_turn(self) -> None:
        """Wait for the end of the run that comes before this one, where there is one."""
        if self.order.after and self.order.turn:
            _named(self.order.turn)(self.order.after)
            forget()

    def capture(self, folder: Path, before: Mapping[str, Stamp], *, max_bytes: int, max_files: int) -> tuple[str, ...]:
        """Have the files of the working folder sent that are new or changed; nobody may write to them any more.

        Returns:
            What was left out, each with the reason.
        """
        found = changed(folder, before, max_bytes=max_bytes, max_files=max_files)
        saved = {line["name"] for line in self.journal.lines() if "saving" in line}
        for path in found.paths:
            name = f"files/{path}" if path in saved else path
            self._take(name, folder / path, codec="file", captured=True)
        # A record is read whole, and a run may leave a million files behind.
        more = len(found.left_out) - MOST_LEFT_OUT
        rest = (f"and {more} more",) if more > 0 else ()
        self.journal.add({"left_out": found.left_out[:MOST_LEFT_OUT] + rest})
        return found.left_out

    def record(self) -> RunRecord:
        """Return the record that is to be, once all that was saved has arrived.

        Raises:
            StoreError: something has not.
        """
        if self._uploads:
            self._uploads.join()
        lines = self.journal.lines()
        # Asked for in other words it is another input: a run that repeats this one looks it up by the words.
        inputs = {tuple(line["input"].values()): line["input"] for line in lines if "input" in line}
        unwatched: dict[str, Any] = {"reads": [], "gap": "nobody watched" if self.order.release else None}
        read = [unwatched, *(line for line in lines if "reads" in line)][-1]
        order = self.order
        return RunRecord(
            run_id=order.run_id,
            run_name=order.run_name,
            flow=order.flow,
            deployment=order.deployment,
            attempt=order.attempt,
            release=order.release,
            parameters=order.parameters,
            artifacts=tuple(sorted(self.artifacts().values(), key=lambda artifact: artifact.name)),
            inputs=tuple(inputs.values()),
            metrics=self.metrics(),
            environment=environment(),
            timings={
                "scheduled": order.scheduled,
                "started": self.started.isoformat(),
                "ended": datetime.now(UTC).isoformat(),
            },
            reads=tuple(read["reads"]),
            reads_gap=read["gap"],
            reproduces=order.reproduces,
            resumes=order.resumes,
            left_out=tuple(reason for line in lines for reason in line.get("left_out", ())),
        )

    def commit(self, record: RunRecord) -> RunRecord:
        """Write the record, which makes everything the attempt saved visible at once.

        Returns:
            The run's record: another one where an earlier attempt has written its own.
        """
        committed = write_record(self.store, self.order.folder, record)
        forget()
        if committed:
            return record
        return read_record(self.store, f"{self.order.folder}/run.json")

    def close(self) -> None:
        """Remove the journal and temporary files."""
        if self._uploads:
            self._uploads.close()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _save_large(self, name: str, value: object, codec: Codec, path: Path, uploads: Uploads) -> Artifact:
        """Write a value into a file which is sent, and hashed, while it grows."""
        key, growing = self._key(name, suffix_for(value, codec)), Growing(path)
        known: Future[Artifact] = Future()
        number = self._begin(name)
        hashing = uploads.send_growing(key, growing, lambda arrived: self._sent(number, known, arrived, path))
        try:
            rows = codec.write(value, path)
            growing.end(whole=True)
            sha256, size = hashing.result()
            known.set_result(Artifact(name, key, sha256, size, codec.name, rows))
        except BaseException:
            growing.end(whole=False)
            raise
        return known.result()

    def _whose(self) -> Sequence[str] | None:
        # A process that has not imported Prefect runs no task, and is not to import it for an answer.
        if not self.order.whose or "prefect" not in sys.modules:
            return None
        tasks: Sequence[str] | None = _named(self.order.whose)()
        return tasks

    def _save_folder(self, name: str, folder: Path) -> Artifact:
        """Save every file below a folder, then an index of them under the folder's own name."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise InputError(f"folder {folder} holds no file to save as {name!r}")
        index = [self.save(f"{name}/{path.relative_to(folder).as_posix()}", path).name for path in files]
        listing = self._new_file()
        listing.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n")
        return self._take(name, listing, codec="folder", suffix=".folder.json", rows=len(files))

    def _new_file(self) -> Path:
        handle, path = tempfile.mkstemp(dir=self.scratch)
        os.close(handle)
        return Path(path)

    def _take(
        self, name: str, path: Path, *, codec: str, suffix: str = "", rows: int | None = None, captured: bool = False
    ) -> Artifact:
        """Send a file, or have it sent; one of our own is removed afterwards."""
        sha256, size = sha256_file(path)
        key = self._key(name, suffix, "files/" if captured else "")
        known: Future[Artifact] = Future()
        known.set_result(Artifact(name, key, sha256, size, codec, rows, captured))
        number = self._begin(name)

        def done(arrived: bool) -> None:
            self._sent(number, known, arrived, None if captured else path)

        if self._uploads:
            self._uploads.send(key, path, size, done)
            return known.result()
        arrived = False
        try:
            self.store.put(key, path)
            arrived = True
        finally:
            done(arrived)
        return known.result()

    def _key(self, name: str, suffix: str, area: str = "") -> str:
        ending = "" if name.endswith(suffix) else suffix
        return f"{self.order.folder}/{self.order.attempt}/{area}{key_path(name + ending)}"

    def _begin(self, name: str) -> str:
        """Note that something is about to be sent, and return the number that its arrival is to be noted under."""
        number = uuid4().hex
        self.journal.add({"saving": number, "name": name})
        return number

    def _sent(self, number: str, known: Future[Artifact], arrived: bool, path: Path | None) -> None:
        """Note that something was sent, after the upload: a journal never names what is not there."""
        # What was sent while it was written may have arrived before its writer knows all of it.
        facts = {"artifact": known.result().to_json()} if arrived else {}
        if path:
            path.unlink(missing_ok=True)
        self.journal.add({"sent": number} | facts)


def _named(entry: str) -> Callable[..., Any]:
    """Return the function that `module:function` names; it stands above this floor."""
    module, _, name = entry.partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


_current: Session | None = None


def activate(session: Session | None) -> None:
    """Make a session the one that `save` and `load` in this process and its children take part in."""
    global _current  # noqa: PLW0603 - a process runs one flow run at a time, that is the point of the process
    _current = session
    if session is None:
        os.environ.pop(VARIABLE, None)
    else:
        os.environ[VARIABLE] = str(session.scratch)


def current() -> Session | None:
    """Return the session this code runs in, or None outside a run."""
    folder = os.environ.get(VARIABLE)
    if folder is None:
        # No worker began a session. A flow may still run here, started as a plain script; only Prefect can tell.
        if "prefect" not in sys.modules:
            return None
        session: Session | None = importlib.import_module(LOCAL).session()
        return session
    # A process forked from the run's has the session's object, but none of its threads and connections.
    if _current is None or str(_current.scratch) != folder or _current.process != os.getpid():
        activate(Session.join(Path(folder)))
    return _current
