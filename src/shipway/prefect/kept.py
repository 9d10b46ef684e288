"""Which task run a result is of: what Prefect's keys do not say, and what a task did besides.

Prefect's key for a task that says nothing about caching is one of code, inputs and run. Two calls with the same inputs
in one run have the same, and the second one would not be executed. So where nobody has asked for results to be kept,
calls are counted: the second call of a resumed run gets what the second call returned, and neither that of the first.
"""

from __future__ import annotations

import logging
import os
import tempfile
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from prefect.client.schemas.objects import TaskRun
from prefect.context import FlowRunContext, TaskRunContext

from shipway.artifact import segment
from shipway.errors import CodecError, ObjectNotFoundError, ShipwayError
from shipway.prefect.stores import store_of
from shipway.run.effects import Mark, begin, effects, files_since
from shipway.run.results import Found, Results, Returned
from shipway.run.session import VARIABLE, Session, current
from shipway.run.values import Part, take_apart
from shipway.settings import Settings
from shipway.store.base import Store

_log = logging.getLogger("shipway")


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose task results are kept; see `shipway.prefect.results.TaskResults`."""

    id: str
    of: str
    block: str
    unasked: bool
    max_bytes: int


@dataclass(slots=True)
class _Claim:
    """A task run's claim to a key.

    Attributes:
        name: what the result is called: the key, with the number of the call where calls are counted.
        counted: whether they are.
        task: the task's name.
        run: the task run, which knows how it ended.
        mark: where its work began.
        session: whose attempt it is part of.
        found: what was found in the store.
    """

    name: str
    counted: bool
    task: str
    run: TaskRun
    mark: Mark
    session: Session
    found: Found | None = None


class Kept:
    """What is kept of one run, as one process sees it.

    Args:
        run: the run.
        store: opens its store.
        say: tells the person who reads the run's log.
        background: whether this is the process that the run began in.
    """

    def __init__(
        self, run: Run, store: Callable[[], Store], say: Callable[[str], None], *, background: bool = False
    ) -> None:
        self.process = os.getpid()
        self.results = Results(store, max_bytes=run.max_bytes, tell=self._tell, background=background)
        self._run = run
        self._say = say
        self._told: set[str] = set()
        self._claims: dict[tuple[str, str], _Claim] = {}
        self._named: dict[str, _Claim] = {}
        self._next: dict[tuple[Path, str], int] = {}
        self._lock = threading.Lock()

    def name(self, key: str) -> str:
        """Return what the result is called that this task run has under `key`."""
        claim = self._claim(key)
        return claim.name if claim else key

    def look(self, key: str) -> tuple[str, str | None]:
        """Look for a result, and once it was found repeat what else the task did.

        Returns:
            A word for the value, see `staged`, and when it is not to be used any more.

        Raises:
            ShipwayError: there is none, or it cannot be read.
        """
        claim = self._claim(key)
        if claim is None:
            raise ObjectNotFoundError(f"nothing is kept under {key}")
        if claim.found:
            # Prefect comes a second time to use it.
            found, claim.found = claim.found, None
            self._forget(claim)
            found.noted.repeat(claim.session)
            return _hand_over(found), found.expires
        order = claim.session.order
        if claim.counted and order.attempt == 1 and self._run.of == self._run.id:
            # Nothing of a run can be there before its first attempt, so nobody is asked.
            raise ObjectNotFoundError(f"nothing is kept under {claim.name} yet")
        claim.found = self.results.find(claim.name, claim.session)
        return _hand_over(claim.found), claim.found.expires

    def keep(self, name: str, word: str | None, *, expires: str | None, serializer: str) -> None:
        """Keep what a task returned.

        Args:
            name: as `name` has said.
            word: see `stage`; None where another serializer was used.
            expires: when it is not to be used any more.
            serializer: the one that was used.
        """
        staged = _staged.pop(word, None) if word else None
        claim = self._named.get(name)
        if claim is None:
            _drop(staged)
            return
        self._forget(claim)
        reason = self._reason(claim, staged, serializer)
        if reason or not isinstance(staged, _Apart):
            _drop(staged)
            if reason:
                self._tell(claim.task, reason)
            return
        session, mark = claim.session, claim.mark
        returned = Returned(staged.tree, staged.parts, lambda: effects(session, mark), claim.task, expires)
        self.results.keep(name, returned, needed=not claim.counted)

    def _reason(self, claim: _Claim, staged: Any, serializer: str) -> str:
        """Say why a result is not kept, where that is of interest."""
        if claim.run.state and claim.run.state.is_running():
            # Its error is written before it has failed. The run's log says that it did.
            return ""
        if claim.run.state is None or not claim.run.state.is_completed():
            # A task may return a state of its own, and Prefect takes whatever is kept for completed.
            return f"it ended as {claim.run.state.name}" if claim.run.state else "nobody knows how it ended"
        if isinstance(staged, str):
            return staged
        if staged is None:
            return f"its serializer is {serializer}, and only our own is trusted with what comes back"
        files = files_since(claim.mark, claim.session.scratch.parent / "work")
        if files:
            more = f" and {len(files) - 1} more" if len(files) > 1 else ""
            return f"meanwhile {files[0]}{more} in the working folder was written"
        return ""

    def _claim(self, key: str) -> _Claim | None:
        context, session = TaskRunContext.get(), _session()
        if context is None or session is None or session.order.run_id != self._run.id:
            return None
        mine = (str(context.task_run.id), key)
        with self._lock:
            if mine in self._claims:
                return self._claims[mine]
            counted = self._run.unasked and context.task.persist_result is None
            # A generator is executed whatever is kept. A sub-flow's run has another id each time.
            elsewhere = str(context.task_run.flow_run_id) != self._run.id
            if context.task.isgenerator or (counted and elsewhere):
                return None
            name, file = self._count(session, key) if counted else (key, _new_file(_folder(session)))
            claim = _Claim(name, counted, context.task.name, context.task_run, begin(session, mine[0], file), session)
            self._claims[mine] = self._named[name] = claim
            return claim

    def _count(self, session: Session, key: str) -> tuple[str, Path]:
        """Return the name for one more call, in any of the run's processes, and the file that says that it is taken."""
        folder = _folder(session)
        number = self._next.get((folder, key), 0)
        while True:
            path = folder / f"{segment(key)}-{number}"
            number += 1
            try:
                path.touch(exist_ok=False)
            except FileExistsError:
                continue
            self._next[folder, key] = number
            return f"{key}/{number - 1}", path

    def _forget(self, claim: _Claim) -> None:
        with self._lock:
            for mine in [mine for mine, other in self._claims.items() if other is claim]:
                del self._claims[mine]
            self._named.pop(claim.name, None)

    def _tell(self, task: str, reason: str) -> None:
        if task not in self._told:
            self._told.add(task)
            self._say(f"What task {task} returned is not kept: {reason}")


@dataclass(slots=True)
class _Apart:
    """A value that was taken apart."""

    tree: Any
    parts: Sequence[Part]


_staged: dict[str, Any] = {}
"""Values on their way between Prefect's serializer and its storage, by word."""


def stage(value: Any) -> str:
    """Take a value apart, and return a word for what came of it; whatever happens is no error."""
    word = uuid4().hex
    files: list[Path] = []

    def new_file() -> Path:
        session = _session()
        files.append(_new_file(_folder(session) if session else None))
        return files[-1]

    try:
        if isinstance(value, BaseException):
            raise CodecError("an error is not kept")
        _staged[word] = _Apart(*take_apart(value, new_file))
    except Exception as error:  # noqa: BLE001 - what somebody's value does when it is written is no fault of the run
        _staged[word] = error.message if isinstance(error, ShipwayError) else f"{type(error).__name__}: {error}"
        for path in files:
            path.unlink(missing_ok=True)
    return word


def staged(word: str) -> Any:
    """Return the value that was read and that a word stands for, once."""
    return _staged.pop(word)


def _hand_over(found: Found) -> str:
    word = uuid4().hex
    _staged[word] = found.value
    return word


def discard(word: str) -> None:
    """Forget what a word stands for."""
    _drop(_staged.pop(word, None))


_kept: dict[str, Kept] = {}


def kept(run: Run, store: Store | None = None, say: Callable[[str], None] = _log.info) -> Kept:
    """Return what is kept of a run in this process; with `store` this is the process that the run begins in."""
    found = _kept.get(run.id)
    if found is None or found.process != os.getpid():
        opened = [store] if store else []

        def open_store() -> Store:
            if not opened:
                opened.append(store_of(Settings.load(), run.block))
            return opened[0]

        found = _kept[run.id] = Kept(run, open_store, say, background=store is not None)
    return found


def find_kept(run: str) -> Kept | None:
    """Return what is kept of a run, where that is anything."""
    return _kept.get(run)


def whose() -> Sequence[str] | None:
    """Return the ids of the task runs that this code is part of; none in a flow's own code; None where nobody knows."""
    task = TaskRunContext.get()
    if task is None:
        return [] if FlowRunContext.get() else None
    parents = task.task_run.task_inputs.get("__parents__", [])
    above = [_above.get(str(parent.id), [str(parent.id)]) for parent in parents if hasattr(parent, "id")]
    line = [str(task.task_run.id), *(each for one in above for each in one)]
    _above[line[0]] = line
    return line


_above: dict[str, list[str]] = {}
"""A task run's own id and those of the task runs that it is called by."""


def _session() -> Session | None:
    # Asked for where none was begun, one would be: for a script that is run by hand.
    return current() if VARIABLE in os.environ else None


def _folder(session: Session) -> Path:
    folder = session.scratch / "results"
    folder.mkdir(exist_ok=True)
    return folder


def _new_file(folder: Path | None) -> Path:
    handle, path = tempfile.mkstemp(dir=folder, prefix="value-")
    os.close(handle)
    return Path(path)


def _drop(staged: Any) -> None:
    if isinstance(staged, _Apart):
        for part in staged.parts:
            part.path.unlink(missing_ok=True)
