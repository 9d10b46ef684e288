"""Mirroring one run: one run of MLflow for it, whoever mirrors it and however often."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from shipway.errors import MlflowError, MlflowUnreachableError, ShipwayError
from shipway.mlflow import answers
from shipway.mlflow.content import RUN_ID, Content, content_of
from shipway.mlflow.server import VARIABLE, Server
from shipway.run.record import RunRecord
from shipway.store.base import Store

TRIES = 4
PAUSE = 0.2
"""Seconds after the first refusal; longer after each further one."""

ADDED = "added"
COMPLETED = "completed"
THERE = "there"
DELETED = answers.DELETED


@dataclass(frozen=True, slots=True)
class Mirrored:
    """What became of a run's mirror.

    Attributes:
        what: `added`; `completed`, where MLflow had half of it or had it twice; `there`, where nothing was to do;
            `deleted`, where somebody deleted it in MLflow, which is left as it is.
        run: MLflow's id of it.
        url: where MLflow's UI shows it.
        cut: names of parameters of which MLflow has the beginning only.
    """

    what: str
    run: str
    url: str
    cut: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Found:
    """A run that MLflow has.

    Attributes:
        run: MLflow's id of it.
        run_id: Prefect's id of it, by its tag.
        finished: whether all of it is there: that it has finished is told last.
        active: whether it has not been deleted.
    """

    run: str
    run_id: str
    finished: bool
    active: bool

    @classmethod
    def of(cls, run: answers.Run) -> Found:
        """Read a run out of MLflow's answer."""
        tags = {tag.key: tag.value for tag in run.data.tags}
        info = run.info
        active = info.lifecycle_stage != answers.DELETED
        return cls(info.run_id, tags.get(RUN_ID, ""), info.status == "FINISHED", active)


class Log(Protocol):
    """A logger, or what adapts one."""

    def info(self, msg: str, *args: object) -> None:
        """Tell what was done."""

    def warning(self, msg: str, *args: object) -> None:
        """Tell what went wrong."""


def whole(found: list[Found]) -> bool:
    """Tell whether a run is in MLflow as it should be: once and finished, or deleted there."""
    active = [one for one in found if one.active]
    return bool(found) and (not active or (len(active) == 1 and active[0].finished))


def mirror(server: Server, content: Content) -> Mirrored:
    """Have MLflow hold a run once and whole.

    MLflow has no way to create a run only if there is none. So whoever created one looks again, and whoever sees more
    than one keeps that which is whole, of several that of the lowest id, and deletes the others. Of two that do so at
    once the later one sees both, and if it deletes the other's run then that one, which cannot add to it any more, goes
    on with the one that is left.

    Raises:
        MlflowError: MLflow does not answer, or refused.
    """
    experiment = server.experiment(content.experiment)
    created = None
    tries = 0
    while True:
        tries += 1
        found = find(server, experiment, content.run_id)
        what = THERE if whole(found) else COMPLETED
        if not found:
            created = _create(server, experiment, content)
            found = find(server, experiment, content.run_id) or [created]
        active = sorted((one for one in found if one.active), key=lambda one: (not one.finished, one.run))
        if not active:
            return Mirrored(DELETED, found[0].run, server.run_url(experiment, found[0].run), content.cut)
        kept = active[0]
        try:
            for other in active[1:]:
                server.request("POST", "runs/delete", {"run_id": other.run})
            if not kept.finished:
                _fill(server, kept, content)
        except MlflowUnreachableError:
            raise
        except MlflowError:
            # Somebody else may have deleted it, as described above, or be filling it too, which a database can refuse.
            if tries == TRIES:
                raise
            time.sleep(PAUSE * tries)
            continue
        return Mirrored(ADDED if created else what, kept.run, server.run_url(experiment, kept.run), content.cut)


def mirror_committed(
    store: Store, folder: str, record: RunRecord, log: Log, *, seconds: float, environ: Mapping[str, str] = os.environ
) -> None:
    """Mirror a run that has committed and completed, where the environment names a server of MLflow.

    What goes wrong costs a warning in the run's log, and never the run.

    Args:
        store: where the run's data lies.
        folder: the run's folder in it.
        record: the run's record.
        log: the run's log.
        seconds: how long all of it may take: the run holds a worker's slot meanwhile.
        environ: environment variables.
    """
    if not environ.get(VARIABLE):
        return
    ended: list[Mirrored | Exception] = []

    def work() -> None:
        try:
            server = Server.from_environment(environ, timeout=seconds)
            ended.append(mirror(server, content_of(store, folder, record)))
        except Exception as error:  # noqa: BLE001 - the run has completed, whatever MLflow answers
            ended.append(error)

    # In a thread, as nothing else limits all of it: looking up a name alone may take longer, and a server may drip.
    thread = threading.Thread(target=work, daemon=True, name="mlflow")
    thread.start()
    thread.join(seconds)
    match ended:
        case [Mirrored() as done]:
            log.info("Mirrored to MLflow: %s", done.url)
            if done.cut:
                log.warning("Too long for MLflow, which has only the beginning: %s", ", ".join(done.cut))
        case [error]:
            said = str(error) if isinstance(error, ShipwayError) else repr(error)
            log.warning("Not mirrored to MLflow, `shipway mlflow sync` makes up for it: %s", said)
        case _:
            log.warning("Not mirrored to MLflow, `shipway mlflow sync` makes up for it: no answer in %g s", seconds)


def find(server: Server, experiment: str, run_id: str = "") -> list[Found]:
    """Return what MLflow has of a run, or of all runs that were mirrored."""
    tag = f"tags.`{RUN_ID}`"
    runs = server.search(experiment, f"{tag} = '{run_id}'" if run_id else f"{tag} LIKE '%'")
    found = [Found.of(run) for run in runs]
    # Compared once more: what is found may be deleted, and a record is a file that anybody may have written.
    return [one for one in found if one.run_id == run_id] if run_id else found


def _create(server: Server, experiment: str, content: Content) -> Found:
    body = {
        "experiment_id": experiment,
        "run_name": content.run_name,
        "start_time": content.start,
        "tags": [{"key": key, "value": value} for key, value in content.tags.items()],
    }
    return Found.of(server.request("POST", "runs/create", body, kind=answers.Made).run)


def _fill(server: Server, found: Found, content: Content) -> None:
    for batch in content.batches():
        server.request("POST", "runs/log-batch", {"run_id": found.run, **batch})
    # Last: a run that says so has all the rest.
    server.request("POST", "runs/update", {"run_id": found.run, "status": "FINISHED", "end_time": content.end})
