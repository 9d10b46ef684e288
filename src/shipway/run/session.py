"""A session: one attempt of one run, as the code inside it sees it. Everything it notes goes through its journal."""

from __future__ import annotations

import importlib
import json
import os
import shutil
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shipway.artifact import Artifact, check_name, key_path
from shipway.codec import encode
from shipway.digest import sha256_file
from shipway.errors import InputError
from shipway.run.capture import Stamp, changed
from shipway.run.environment import environment
from shipway.run.record import RunRecord, run_folder, write_record
from shipway.store.base import Store

LOCAL = "shipway.prefect.local"
"""Module whose `session()` knows of flow runs that no worker started; a string, as it stands above this floor."""

VARIABLE = "SHIPWAY_RUN_FOLDER"
"""Environment variable that tells a run's child processes where its session lies."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a session is about; written to a file for child processes, so it holds no secret.

    Attributes:
        run_id: Prefect's flow run id.
        run_name: the run's name.
        flow: the flow's name.
        deployment: `FLOW/NAME`, or None.
        attempt: which attempt this is, from 1.
        release: `<epoch>.<release-id>`, or None.
        parameters: what the flow is called with, as JSON.
        scheduled: when the run was due, in UTC, ISO 8601.
        store: block that the data goes to.
        opener: `module:function` that opens a block by name.
    """

    run_id: str
    run_name: str
    flow: str
    deployment: str | None
    attempt: int
    release: str | None
    parameters: Mapping[str, Any]
    scheduled: str
    store: str
    opener: str

    @property
    def folder(self) -> str:
        """The run's folder in the store."""
        return run_folder(self.flow, datetime.fromisoformat(self.scheduled), self.run_name, self.run_id)


class Session:
    """One attempt of one run.

    The journal is a file of one JSON line per saved, loaded or measured thing, so that threads and child processes of
    the run may all add to it. Nothing in it is visible to readers until `commit` writes the record.
    """

    def __init__(self, order: Order, scratch: Path, store: Store | None = None) -> None:
        self.order = order
        self.scratch = scratch
        self.started = datetime.now(UTC)
        self._store = store
        self._lock = threading.Lock()

    @classmethod
    def begin(cls, order: Order, parent: Path, store: Store) -> Session:
        """Begin an attempt whose journal and temporary files lie in a new folder below `parent`."""
        scratch = Path(tempfile.mkdtemp(prefix="session-", dir=parent))
        (scratch / "order.json").write_text(json.dumps(asdict(order)))
        return cls(order, scratch, store)

    @classmethod
    def join(cls, scratch: Path) -> Session:
        """Take part in a session that a parent process began."""
        return cls(Order(**json.loads((scratch / "order.json").read_text())), scratch)

    @property
    def store(self) -> Store:
        """The store the run's data goes to, opened when first needed."""
        with self._lock:
            if self._store is None:
                module, _, name = self.order.opener.partition(":")
                opener: Callable[[str], Store] = getattr(importlib.import_module(module), name)
                self._store = opener(self.order.store)
            return self._store

    def save(self, name: str, value: object, *, codec: str | None = None) -> Artifact:
        """Upload a value and note it; a second value of the same name takes the first one's place."""
        check_name(name)
        if isinstance(value, Path) and value.is_dir():
            return self._save_folder(name, value)
        # A private file per value: two tasks may save at once, and under the same name.
        handle, path = tempfile.mkstemp(dir=self.scratch)
        os.close(handle)
        try:
            encoded = encode(value, Path(path), codec)
            return self._upload(name, Path(path), codec=encoded.codec, suffix=encoded.suffix, rows=encoded.rows)
        finally:
            Path(path).unlink(missing_ok=True)

    def note_input(self, artifact: Artifact, run: str) -> None:
        """Note that the run read an artifact of another run."""
        self._note({"input": {"name": artifact.name, "run": run, "key": artifact.key, "sha256": artifact.sha256}})

    def note_metrics(self, metrics: Mapping[str, float]) -> None:
        """Note numbers by name; a later number takes an earlier one's place."""
        self._note({"metrics": dict(metrics)})

    def artifacts(self) -> dict[str, Artifact]:
        """Return what was saved so far, by name."""
        return {
            line["artifact"]["name"]: Artifact.from_json(line["artifact"])
            for line in self._lines()
            if "artifact" in line
        }

    def capture(self, folder: Path, before: Mapping[str, Stamp], *, max_bytes: int, max_files: int) -> tuple[str, ...]:
        """Upload the files of the working folder that are new or changed.

        Returns:
            What was left out, each with the reason.
        """
        found = changed(folder, before, max_bytes=max_bytes, max_files=max_files)
        saved = self.artifacts()
        for path in found.paths:
            name = f"files/{path}" if path in saved else path
            self._upload(name, folder / path, codec="file", captured=True)
        return found.left_out

    def commit(self) -> RunRecord:
        """Write the record, which makes everything the attempt saved visible at once."""
        lines = self._lines()
        inputs = {(line["input"]["key"], line["input"]["run"]): line["input"] for line in lines if "input" in line}
        metrics: dict[str, float] = {}
        for line in lines:
            metrics |= line.get("metrics", {})
        order = self.order
        record = RunRecord(
            run_id=order.run_id,
            run_name=order.run_name,
            flow=order.flow,
            deployment=order.deployment,
            attempt=order.attempt,
            release=order.release,
            parameters=order.parameters,
            artifacts=tuple(sorted(self.artifacts().values(), key=lambda artifact: artifact.name)),
            inputs=tuple(inputs.values()),
            metrics=metrics,
            environment=environment(),
            timings={
                "scheduled": order.scheduled,
                "started": self.started.isoformat(),
                "ended": datetime.now(UTC).isoformat(),
            },
        )
        write_record(self.store, order.folder, record)
        return record

    def close(self) -> None:
        """Remove the journal and temporary files."""
        shutil.rmtree(self.scratch, ignore_errors=True)

    def _save_folder(self, name: str, folder: Path) -> Artifact:
        """Save every file below a folder, then an index of them under the folder's own name."""
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        if not files:
            raise InputError(f"folder {folder} holds no file to save as {name!r}")
        index = [
            self._upload(f"{name}/{path.relative_to(folder).as_posix()}", path, codec="file").name for path in files
        ]
        listing = self.scratch / f"index-{os.getpid()}-{threading.get_ident()}.json"
        listing.write_text(json.dumps(index, indent=2, ensure_ascii=False) + "\n")
        return self._upload(name, listing, codec="folder", suffix=".folder.json", rows=len(files))

    def _upload(
        self, name: str, path: Path, *, codec: str, suffix: str = "", rows: int | None = None, captured: bool = False
    ) -> Artifact:
        sha256, size = sha256_file(path)
        area = "files/" if captured else ""
        ending = "" if name.endswith(suffix) else suffix
        key = f"{self.order.folder}/{self.order.attempt}/{area}{key_path(name + ending)}"
        self.store.put(key, path)
        artifact = Artifact(name, key, sha256, size, codec, rows, captured)
        # Noted after the upload: a journal never names what is not there.
        self._note({"artifact": artifact.to_json()})
        return artifact

    def _note(self, line: Mapping[str, Any]) -> None:
        data = (json.dumps(line, ensure_ascii=False) + "\n").encode()
        # One write to a file opened for appending: lines of several processes never mix.
        handle = os.open(self.scratch / "journal", os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def _lines(self) -> list[dict[str, Any]]:
        try:
            return [json.loads(line) for line in (self.scratch / "journal").read_text().splitlines()]
        except FileNotFoundError:
            return []


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
    if _current is None or str(_current.scratch) != folder:
        activate(Session.join(Path(folder)))
    return _current
