"""What tasks returned, kept in the store under a key of code and inputs, for a later run that asks for the same.

It is a cache: nothing that goes wrong here may cost more than the work that it would have spared.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.artifact import Artifact, key_path
from shipway.digest import is_sha256, seal_text, sha256_file, unseal_text
from shipway.errors import CodecError, IntegrityError, ShipwayError
from shipway.run.effects import Effects, Noted
from shipway.run.fetch import download
from shipway.run.session import Session
from shipway.run.values import Part, put_together
from shipway.store.base import Store

AREA = "results"
FORMAT = 2
MAX_BYTES = 64 * 1024 * 1024
"""What a result may have without what is in files of its own."""

HOLD_SECONDS = 0.5
"""How long after a run's begin nothing is sent: a run that ends sooner holds nothing worth resuming."""

AT_ONCE = 4


@dataclass(frozen=True, slots=True)
class Returned:
    """What a task returned, on its way into the store.

    Attributes:
        tree: the value as JSON; see `shipway.run.values`.
        parts: what of it goes into files.
        effects: what else the task did that a reader can see; waits until it has arrived.
        task: the task's name.
        expires: when it is not to be used any more, ISO 8601, or None.
    """

    tree: Any
    parts: Sequence[Part]
    effects: Callable[[], Effects]
    task: str
    expires: str | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What a task returned, read back.

    Attributes:
        value: what it returned.
        noted: what else it did, fetched and ready to be repeated.
        expires: when it is not to be used any more, or None.
    """

    value: Any
    noted: Noted
    expires: str | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store says of a result.

    Attributes:
        task: the task's name.
        tree: the value as JSON; see `shipway.run.values`.
        parts: what of it lies in files of its own.
        effects: what else the task did.
        expires: when it is not to be used any more, or None.
    """

    task: str
    tree: Any
    parts: tuple[Artifact, ...]
    effects: Effects
    expires: str | None


def read_kept(store: Store, name: str) -> Kept:
    """Read the document of a result, which lies under the key `name`.

    Raises:
        ObjectNotFoundError: there is none.
        IntegrityError: it is malformed or damaged.
        StoreError: the store failed.
    """
    data = store.read(name, length=MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        document = unseal_text(data)
        if document["version"] != FORMAT:
            raise ValueError("of an unknown version")
        parts = tuple(_artifact(part, _folder(name)) for part in document["parts"])
        effects = Effects.from_json(document["effects"])
        if not isinstance(document["expires"], str | None):
            raise ValueError("it does not say when it expires")  # noqa: TRY004 - what is wrong is the data
        return Kept(str(document["task"]), document["value"], parts, effects, document["expires"])
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{store.url(name)} is not a task's result: {error}") from None


def object_key(key: str) -> str:
    """Return the key in the store of the result kept under `key`."""
    return f"{AREA}/{key_path(key)}.json"


class Results:
    """The results of one run's tasks, in the process that began the run or in one of its children.

    Args:
        store: opens the store.
        max_bytes: size over which a result is not kept.
        tell: told why one is not kept.
        background: whether to write while the flow works on; children may end at any time and wait.
    """

    def __init__(
        self,
        store: Callable[[], Store],
        *,
        max_bytes: int,
        tell: Callable[[str, str], None] = lambda _task, _reason: None,
        background: bool = False,
    ) -> None:
        self._store = store
        self._max_bytes = max_bytes
        self._tell = tell
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="shipway-result") if background else None
        self._pending: dict[str, Future[None]] = {}
        self._lock = threading.Lock()
        self._hurry = threading.Event()
        self._begun = time.monotonic()
        self._done = False

    def begin(self) -> None:
        """Begin an attempt: from now on nothing is sent for a moment."""
        self._begun = time.monotonic()
        self._hurry.clear()
        self._done = False

    def keep(self, key: str, returned: Returned, *, needed: bool) -> None:
        """Keep what a task returned, or have it kept.

        Args:
            key: under which it is looked for.
            returned: what to keep.
            needed: whether it is of use when this run has completed.
        """
        if self._pool is None:
            self._write(key, returned)
            return
        with self._lock:
            self._pending[key] = self._pool.submit(self._write_later, key, returned, needed=needed)

    def find(self, key: str, session: Session) -> Found:
        """Read back what was kept under `key`, all of it, and what else the task did.

        Raises:
            ObjectNotFoundError: there is nothing.
            IntegrityError: it is malformed or damaged.
            ShipwayError: it cannot be read.
        """
        with self._lock:
            pending = self._pending.get(key)
        if pending:
            self._hurry.set()
            pending.result()
        store = self._store()
        kept = read_kept(store, object_key(key))
        folder = Path(tempfile.mkdtemp(prefix="result-", dir=session.scratch))
        try:
            files = [(part.codec, download(store, part, folder / part.sha256)) for part in kept.parts]
            value = put_together(kept.tree, files)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        return Found(value, Noted.fetch(kept.effects, store, session), kept.expires)

    def join(self, *, completes: bool) -> None:
        """Wait until all is written.

        Args:
            completes: whether the run is about to complete: what only a resumed run could use is then dropped.
        """
        self._done = completes
        self._hurry.set()
        with self._lock:
            pending = list(self._pending.values())
            self._pending.clear()
        for job in pending:
            job.result()

    def close(self) -> None:
        """Write nothing more."""
        if self._pool:
            self._pool.shutdown(wait=True, cancel_futures=True)

    def _write_later(self, key: str, returned: Returned, *, needed: bool) -> None:
        self._hurry.wait(max(self._begun + HOLD_SECONDS - time.monotonic(), 0))
        if self._done and not needed:
            _remove(returned.parts)
            return
        self._write(key, returned)

    def _write(self, key: str, returned: Returned) -> None:
        name = object_key(key)
        try:
            described = [_describe(part) for part in returned.parts]
            size = sum(part["bytes"] for part in described)
            effects = returned.effects()
            document = {
                "version": FORMAT,
                "task": returned.task,
                "expires": returned.expires,
                "value": returned.tree,
                "parts": described,
                "effects": effects.to_json(),
            }
            data = seal_text((json.dumps(document, indent=1) + "\n").encode())
            if size + len(data) > self._max_bytes or len(data) > MAX_BYTES:
                limit = min(self._max_bytes, MAX_BYTES) if size == 0 else self._max_bytes
                raise CodecError(f"it has {size + len(data)} bytes, over the limit of {limit} (result_max_bytes)")
            store = self._store()
            for part, facts in zip(returned.parts, described, strict=True):
                store.put(f"{_folder(name)}/{facts['sha256']}{part.codec.suffix}", part.path)
            # Last: what is in it is there.
            store.put(name, data)
        except ShipwayError as error:
            self._tell(returned.task, error.message)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run does not depend on it
            self._tell(returned.task, f"{type(error).__name__}: {error}")
        finally:
            _remove(returned.parts)


def _folder(name: str) -> str:
    return name.removesuffix(".json")


def _describe(part: Part) -> dict[str, Any]:
    sha256, size = sha256_file(part.write())
    return {"codec": part.codec.name, "sha256": sha256, "bytes": size, "suffix": part.codec.suffix}


def _artifact(part: Mapping[str, Any], folder: str) -> Artifact:
    sha256 = part["sha256"]
    if not is_sha256(sha256):
        raise ValueError("a part has no digest")
    key = f"{folder}/{sha256}{part['suffix']}"
    facts = {"key": key, "sha256": sha256, "bytes": part["bytes"], "codec": part["codec"]}
    return Artifact.from_json({"name": "a task's result", **facts})


def _remove(parts: Sequence[Part]) -> None:
    for part in parts:
        part.path.unlink(missing_ok=True)
