"""`save`, `load` and `log_metrics`: what a flow says about its data."""

from __future__ import annotations

import atexit
import itertools
import math
import os
import shutil
import tempfile
import threading
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from shipway.artifact import Artifact
from shipway.codec import codec_named, decode
from shipway.errors import InputError, NotFoundError
from shipway.release.retention import in_parallel
from shipway.release.trim import discard
from shipway.run import ahead
from shipway.run.fetch import check, download, files_of, read_while_checking
from shipway.run.recent import record_at, records_of
from shipway.run.record import RunRecord
from shipway.run.references import run_of
from shipway.run.session import Session, current
from shipway.store.base import Store

LARGE = 64 << 20
"""Bytes from which on it counts what is done one after the other."""

_rooms: dict[int, Path] = {}
_numbers = itertools.count()


def save(name: str, value: object, *, codec: str | None = None) -> Artifact:
    """Save a value of this run under a name, in the store, for good.

    Frames become Parquet, dicts and dataclasses JSON, figures SVG, LightGBM models text; bytes, files and folders stay
    as they are. Readers see it when the run completes, together with all else the run saved.

    Args:
        name: what to call it, such as `metrics` or `plots/calibration`.
        value: what to save; a `Path` saves the file or folder it names.
        codec: a codec to use instead of the one that fits the value, such as `pickle`.

    Raises:
        CodecError: no codec knows such a value.
        InputError: the name cannot be used, or there is no run to save in.
        StoreError: the store failed; nothing was saved.
    """
    return _session("save").save(name, value, codec=codec)


def log_metrics(metrics: Mapping[str, float]) -> None:
    """Note numbers of this run by name; they stand in its record.

    Raises:
        InputError: a value is not a finite number, or there is no run.
    """
    numbers: dict[str, float] = {}
    for name, value in metrics.items():
        number = value.item() if hasattr(value, "item") else value
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise InputError(f"metric {name!r} is {value!r}, not a finite number")
        numbers[name] = number
    _session("log_metrics").note_metrics(numbers)


def load(name: str, run: str | None = None, *, flow: str | None = None, store: Store | None = None) -> Any:
    """Load what a run saved under a name.

    Args:
        name: what it was called.
        run: name or id of the run, or `latest`; by default this run, and where it saved nothing of that name, the
            latest completed run of the same flow that did so.
        flow: the flow whose runs are meant; by default this run's own. Needed outside a run.
        store: where to look; by default this run's store. Needed outside a run.

    Raises:
        NotFoundError: there is no such run, or it saved nothing of that name, or it did not complete.
        IntegrityError: the stored bytes are not those that were saved.
    """
    session = current()
    if session is None and (flow is None or store is None):
        raise InputError("load() outside a run needs flow= and store=", hint="or use `shipway get RUN ARTIFACT`")
    if run is None and flow is None and session is not None and (own := session.own(name)):
        return read_artifact(session.store, own, session.artifacts())
    where = store or _session("load").store
    asked = "" if run is None and flow is None else f"{flow or ''}/{run or ''}"
    record = _repeated(session, where, name, asked) or _find(where, flow or _session("load").order.flow, run, name)
    artifact = record.artifact(name)
    if session is not None:
        session.note_input(artifact, record.run_id, asked=asked)
    return read_artifact(where, artifact, {item.name: item for item in record.artifacts})


def read_artifact(store: Store, artifact: Artifact, siblings: Mapping[str, Artifact]) -> Any:
    """Fetch an artifact, check its digest, and turn it back into a value.

    Args:
        store: where it lies.
        artifact: which one.
        siblings: the run's artifacts by name, in which a folder finds its files.
    """
    place = _room() / f"{next(_numbers)}{Path(artifact.key).suffix}"
    value = None
    try:
        value = _read_into(place, store, artifact, siblings)
        return value
    finally:
        # A file or folder is handed out as its path, which must last as long as the process; other values leave theirs.
        if not isinstance(value, Path):
            if artifact.bytes > LARGE:
                # The disk takes a tenth of a second for each GB.
                threading.Thread(target=discard, args=(place,)).start()
            else:
                discard(place)


def _read_into(place: Path, store: Store, artifact: Artifact, siblings: Mapping[str, Artifact]) -> Any:
    if artifact.codec == "folder":
        folder, inside = place / "files", f"{artifact.name}/"
        files = files_of(store, artifact, siblings.values())
        for _ in in_parallel(lambda file: download(store, file, folder / file.name.removeprefix(inside)), files):
            pass
        return folder
    codec = codec_named(artifact.codec)
    read = partial(decode, artifact.codec, what=f"{artifact.name} in {store.url(artifact.key)}")
    if not codec.suffix:
        # What brings its own name keeps it.
        place.mkdir()
        place /= artifact.key.rpartition("/")[2]
    if artifact.bytes <= ahead.SMALL:
        place.write_bytes(check(store, artifact, ahead.read(store, artifact, siblings.values())))
        return read(place)
    if artifact.bytes > LARGE and getattr(codec, "inert", False):
        return read_while_checking(store, artifact, place, read)
    return read(download(store, artifact, place))


def _room() -> Path:
    """Return this process's own folder for what it loads; forks have others."""
    process = os.getpid()
    if process not in _rooms:
        _rooms[process] = Path(tempfile.mkdtemp(prefix="shipway-load-"))
        atexit.register(_leave, process)
    return _rooms[process]


def _leave(process: int) -> None:
    if process == os.getpid():
        shutil.rmtree(_rooms[process], ignore_errors=True)


def _session(what: str) -> Session:
    session = current()
    if session is None:
        raise InputError(
            f"{what}() works inside a run only", hint="deploy the flow and start it with `shipway run FLOW/NAME`"
        )
    return session


def _repeated(session: Session | None, store: Store, name: str, asked: str) -> RunRecord | None:
    """Return the record that the run which this one repeats got `name` from, when it asked in the same words.

    Raises:
        NotFoundError: it got nothing then, whatever has been saved since.
    """
    before = session.repeated() if session else None
    if before is None:
        return None
    found = [item["key"] for item in before.inputs if (item["name"], item.get("asked", "")) == (name, asked)]
    if not found:
        raise NotFoundError(f"run {before.run_name}, which this one repeats, loaded no {name!r}")
    return record_at(store, f"{run_of(found[0])}/run.json")


def _find(store: Store, flow: str, run: str | None, name: str) -> RunRecord:
    # What a remembered list has not may have been saved since: that something is missing is said of the store itself.
    for fresh in (False, True):
        if record := _find_in(records_of(store, flow, fresh=fresh), store, run, name):
            return record
    what = f"run {run}" if run not in (None, "latest") else f"completed run with {name!r}"
    raise NotFoundError(
        f"flow {flow} has no {what} in {store.address}",
        hint="`shipway runs` lists them; a run's data is there once it completed",
    )


def _find_in(records: Iterable[tuple[str, str, str]], store: Store, run: str | None, name: str) -> RunRecord | None:
    wanted = (run or "latest").lower()
    for key, run_name, id8 in records:
        if wanted != "latest" and wanted != run_name.lower() and wanted.replace("-", "")[-8:] != id8:
            continue
        record = record_at(store, key)
        if wanted == "latest" and run is None and not any(artifact.name == name for artifact in record.artifacts):
            continue
        if wanted in ("latest", record.run_name.lower(), record.run_id):
            return record
    return None
