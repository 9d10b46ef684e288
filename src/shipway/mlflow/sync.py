"""Repairing the mirror: the runs of a store that MLflow lacks, has half of, or has twice."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date

from shipway.artifact import segment
from shipway.errors import IntegrityError, MlflowError, MlflowUnreachableError
from shipway.mlflow.content import Content, content_of
from shipway.mlflow.mirror import ADDED, COMPLETED, DELETED, THERE, Found, find, mirror, whole
from shipway.mlflow.server import Server
from shipway.run.references import is_record, read_records, run_of
from shipway.store.base import Store

FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Line:
    """What became of one run of the store.

    Attributes:
        folder: the run's folder in the store.
        flow: the flow's name; empty where the record cannot be read.
        run: the run's name; empty where the record cannot be read.
        what: `added`, `completed`, `there`, `deleted` (as for `Mirrored`), or `failed`.
        detail: where MLflow's UI shows it, or why it failed.
    """

    folder: str
    flow: str
    run: str
    what: str
    detail: str


def sync(
    server: Server,
    store: Store,
    *,
    flow: str | None = None,
    since: date | None = None,
    dry_run: bool = False,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Iterator[Line]:
    """Have MLflow hold each run of a store once and whole, and yield what became of each, the oldest day first.

    Args:
        server: MLflow.
        store: whose runs.
        flow: only runs of this flow.
        since: only runs that were due on this day (UTC) or later.
        dry_run: say what would be done, and do nothing.
        progress: told of (runs done, runs in all).

    Raises:
        MlflowUnreachableError: MLflow does not answer any more; what was yielded until then is done.
        StoreError: the store failed.
    """
    prefix = f"runs/{segment(flow)}/" if flow else "runs/"
    keys = [info.key for info in store.list(prefix) if is_record(info.key)]
    keys = sorted((key for key in keys if since is None or _day(key) >= since.isoformat()), key=_day)
    work = _Sync(server, dry_run=dry_run)
    # A record that is removed meanwhile is not yielded, so these are not counted off by their number.
    for done, (key, record) in enumerate(read_records(store, keys), 1):
        folder = run_of(key)
        if isinstance(record, IntegrityError):
            yield Line(folder, "", "", FAILED, record.message)
        else:
            what, detail = work.run(content_of(store, folder, record))
            yield Line(folder, record.flow, record.run_name, what, detail)
        progress(done, len(keys))


class _Sync:
    """Knows what MLflow has, experiment by experiment."""

    def __init__(self, server: Server, *, dry_run: bool) -> None:
        self.server = server
        self.dry_run = dry_run
        self.known: dict[str, dict[str, list[Found]]] = {}

    def run(self, content: Content) -> tuple[str, str]:
        try:
            found = self._found(content)
            if self.dry_run or whole(found):
                return _state(found), ""
            done = mirror(self.server, content)
        except MlflowUnreachableError:
            raise
        except MlflowError as error:
            return FAILED, str(error)
        return done.what, done.url

    def _found(self, content: Content) -> list[Found]:
        """Return what MLflow has of a run; asked once for all runs of an experiment."""
        if content.experiment not in self.known:
            experiment = self.server.find_experiment(content.experiment)
            runs: defaultdict[str, list[Found]] = defaultdict(list)
            for one in find(self.server, experiment) if experiment else ():
                runs[one.run_id].append(one)
            self.known[content.experiment] = runs
        return self.known[content.experiment].get(content.run_id, [])


def _state(found: list[Found]) -> str:
    if not found:
        return ADDED
    if not whole(found):
        return COMPLETED
    return THERE if any(one.active for one in found) else DELETED


def _day(key: str) -> str:
    return key.split("/")[2]
