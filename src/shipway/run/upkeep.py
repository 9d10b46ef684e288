"""Collection: what no deployment and no run needs is found, looked at a second time, and removed."""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TypeVar

from shipway.blob import current_epoch
from shipway.deployment.history import Moved, Moves, change_pointer
from shipway.errors import IntegrityError
from shipway.manifest import Version
from shipway.release.retention import EPOCHS_KEPT, Reach, in_parallel, old_code, store_time
from shipway.run.record import RunRecord
from shipway.run.references import (
    PAGES,
    deployment_of,
    is_data,
    is_record,
    read_pointers,
    read_records,
    run_of,
    run_of_page,
)
from shipway.run.results import AREA as RESULTS
from shipway.store.base import ObjectInfo, Store
from shipway.store.probe import FOLDER

GRACE_SECONDS = 60.0
"""Time between the two looks: a run that was being created with a release when it left a history is there then."""

DAY = 86_400.0

KINDS = ("releases", "packs", "blobs", "run data", "task results", "leftovers")
"""What is removed, in this order: a manifest goes before its contents, so that none is ever without them."""

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Live:
    """What is in use as far as the Prefect API knows; the store does not.

    Attributes:
        versions: releases that runs which have not ended are stamped with, and those of the deployments.
        runs: the last eight digits of the ids of these runs.
        pointers: keys of the deployments' pointers.
    """

    versions: frozenset[Version] = frozenset()
    runs: frozenset[str] = frozenset()
    pointers: frozenset[str] = frozenset()


@dataclass(slots=True)
class Tally:
    """How much there was of one kind.

    Attributes:
        objects: their number.
        bytes: their size.
        keys: which they are.
    """

    objects: int = 0
    bytes: int = 0
    keys: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Collected:
    """What a collection did, or would do.

    Attributes:
        epoch: the present epoch, by the store's clock.
        removed: objects by kind.
        trimmed: number of moves taken from the histories of deployments, by `FLOW/NAME`.
        missing: releases that a deployment or run refers to and that are not in the store.
        unknown: deployments that have a history and that the Prefect API does not know.
    """

    epoch: int = 0
    removed: dict[str, Tally] = field(default_factory=lambda: {kind: Tally() for kind in KINDS})
    trimmed: dict[str, int] = field(default_factory=dict)
    missing: tuple[Version, ...] = ()
    unknown: tuple[str, ...] = ()


class Collection:
    """One collection. `steps` does its work and yields between any two parts of it; `result` is what came of it."""

    def __init__(
        self,
        store: Store,
        *,
        keep_last: int,
        keep_days: int,
        live: Callable[[], Live] = Live,
        dry_run: bool = False,
        epochs: int = EPOCHS_KEPT,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """Prepare a collection.

        Args:
            store: where to collect.
            keep_last: releases kept in the history of each deployment.
            keep_days: days for which a release is kept in a history after it was replaced, and data without a record,
                and what tasks returned.
            live: asked at both looks what is in use.
            dry_run: whether to find out and to remove nothing.
            epochs: how many epochs are spared.
            clock: this machine's clock.
        """
        self.result = Collected()
        self._store = store
        self._keep_last = max(keep_last, 1)
        self._keep_days = max(keep_days, 0)
        self._live = live
        self._dry_run = dry_run
        self._epochs = epochs
        self._clock = clock
        self._now = 0.0
        self._reach = Reach(store)
        self._records: set[str] = set()
        self._data: dict[str, dict[str, ObjectInfo]] = {}
        self._results: list[ObjectInfo] = []
        self._pages: dict[str, ObjectInfo] = {}

    def steps(self) -> Iterator[str]:
        """Collect, yielding what was done last: `listed`, `marked`, `trimmed`, `found`, `looked again`, `removed`.

        The last comes once for each object; where nothing is found there is nothing after `trimmed`.

        Candidates are listed before anything is marked: what comes to be after the listing is no candidate, and what
        came to be before it is seen by the marks.

        Raises:
            IntegrityError: a pointer, record or manifest cannot be read, so that nobody can say what it needs;
                nothing was removed.
            StoreError: the store failed, or its clock differs too much from this machine's.
        """
        self._now = store_time(self._store, self._clock)
        self.result.epoch = current_epoch(self._now)
        code, young = old_code(self._store, self.result.epoch, self._epochs)
        self._data = self._old_data()
        self._results = [info for info in self._store.list(f"{RESULTS}/") if self._is_old(info)]
        self._pages = {run_of_page(info.key): info for info in self._store.list(f"{PAGES}/") if self._is_old(info)}
        leftovers = [info for info in self._store.list(f"{FOLDER}/") if self._is_old(info)]
        yield "listed"
        self._look(self._kept, young)
        yield "marked"
        if not self._dry_run:
            for name in self.result.trimmed:
                change_pointer(self._store, f"deployments/{name}.json", self._kept)
            yield "trimmed"
            if not any(self._doomed(code, leftovers).values()):
                return
            yield "found"
            self._look(lambda moves: moves)
            yield "looked again"
        for kind, infos in self._doomed(code, leftovers).items():
            tally = self.result.removed[kind]
            for info in in_parallel(self._remove, infos):
                tally.objects += 1
                tally.bytes += info.size
                tally.keys.append(info.key)
                yield "removed"

    def _doomed(self, code: list[ObjectInfo], leftovers: list[ObjectInfo]) -> dict[str, list[ObjectInfo]]:
        """Return what nothing was seen to need so far, by kind and in the order of `KINDS`."""
        unreached = [info for info in code if info.key not in self._reach.keys]
        doomed = {kind: [info for info in unreached if info.key.split("/")[2] == kind] for kind in KINDS}
        doomed["run data"] = [info for run in self._data.values() for info in run.values()]
        doomed["run data"] += [info for run, info in self._pages.items() if f"{run}/run.json" not in self._records]
        # Those that say what there is before what they say is there.
        doomed["task results"] = sorted(self._results, key=lambda info: not info.key.endswith(".json"))
        doomed["leftovers"] = leftovers
        return doomed

    def _remove(self, info: ObjectInfo) -> ObjectInfo:
        if not self._dry_run:
            self._store.delete(info.key)
        return info

    def _look(self, keep: Callable[[Moves], Moves], also: Iterable[Version] = ()) -> None:
        """Learn what is reached now, beside what was at an earlier look; `keep` says what counts of a history."""
        try:
            self._reach.add(also)
            self._mark(keep)
        except IntegrityError as error:
            hint = error.hint or "`shipway verify` lists all that is damaged"
            raise IntegrityError(f"{error.message}; nothing was removed", hint=hint) from None

    def _mark(self, keep: Callable[[Moves], Moves]) -> None:
        # Before the records: a run that has ended since has left one, which is then seen.
        live = self._live()
        self._reach.add(live.versions)
        versions: set[Version] = set()
        unknown: list[str] = []
        for key, pointer in read_pointers(self._store):
            moves = _sound(pointer).moves
            kept = keep(moves)
            if len(kept) < len(moves):
                self.result.trimmed[deployment_of(key)] = len(moves) - len(kept)
            unknown += [] if key in live.pointers else [deployment_of(key)]
            versions.update(move.version for move in kept)
        keys = (info.key for info in self._store.list("runs/") if is_record(info.key))
        for key, found in read_records(self._store, (key for key in keys if key not in self._records)):
            self._records.add(key)
            record = _sound(found)
            if release := _release(record):
                versions.add(release)
            for artifact in record.artifacts:
                self._data.get(run_of(artifact.key), {}).pop(artifact.key, None)
        self._reach.add(versions)
        self._data = {run: old for run, old in self._data.items() if run[-8:] not in live.runs}
        self._pages = {run: old for run, old in self._pages.items() if run[-8:] not in live.runs}
        self.result.missing = tuple(sorted(versions & self._reach.missing, key=str))
        self.result.unknown = tuple(unknown)

    def _kept(self, moves: Moves) -> Moves:
        """Return the moves that a history keeps: pins, those replaced lately, the last to each of the last releases.

        What says no time that can be read stays.
        """
        last = set(list(dict.fromkeys(move.version for move in moves))[: self._keep_last])
        limit = self._now - self._keep_days * DAY
        kept: list[Moved] = []
        replaced: float | None = None
        for move in moves:
            if move.version in last or move.pinned or replaced is None or replaced > limit:
                kept.append(move)
                last.discard(move.version)
            replaced = _seconds(move.at)
        return tuple(kept)

    def _old_data(self) -> dict[str, dict[str, ObjectInfo]]:
        """Return, by run, the data of runs in whose folder nothing was written lately."""
        runs: defaultdict[str, dict[str, ObjectInfo]] = defaultdict(dict)
        lately: set[str] = set()
        for info in self._store.list("runs/"):
            if not self._is_old(info):
                lately.add(run_of(info.key))
            elif is_data(info.key):
                runs[run_of(info.key)][info.key] = info
        return {run: old for run, old in runs.items() if run not in lately}

    def _is_old(self, info: ObjectInfo) -> bool:
        # A day at least: that somebody keeps no history does not mean that no run is going on.
        return info.modified.timestamp() < self._now - max(self._keep_days, 1) * DAY


def collect(
    collection: Collection,
    *,
    grace: float = GRACE_SECONDS,
    tell: Callable[[str], None] = lambda _step: None,
    sleep: Callable[[float], None] = time.sleep,
) -> Collected:
    """Carry a collection through.

    Args:
        collection: what to do.
        grace: seconds between the two looks.
        tell: told each step; see `Collection.steps`.
        sleep: waits.

    Raises:
        as `Collection.steps`.
    """
    for step in collection.steps():
        tell(step)
        if step == "found":
            sleep(grace)
    return collection.result


def _seconds(at: str) -> float | None:
    try:
        when = datetime.fromisoformat(at)
    except ValueError:
        return None
    return (when if when.tzinfo else when.replace(tzinfo=UTC)).timestamp()


def _sound(found: _T | IntegrityError) -> _T:
    if isinstance(found, IntegrityError):
        raise found
    return found


def _release(record: RunRecord) -> Version | None:
    if record.release is None:
        return None
    try:
        return Version.parse(record.release)
    except IntegrityError as error:
        raise IntegrityError(
            f"the record of {record.flow}/{record.run_name} names no release: {error.message}"
        ) from None
