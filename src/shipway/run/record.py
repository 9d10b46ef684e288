"""The run record: the commit of a run. What is not in a record does not exist for readers."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from types import UnionType
from typing import Any

from shipway.artifact import Artifact, segment
from shipway.digest import seal, unsealed
from shipway.errors import IntegrityError, NotFoundError, ObjectExistsError, ObjectNotFoundError
from shipway.store.base import Store

FORMAT = 1
MAX_BYTES = 64 * 1024 * 1024

_LISTS = ("inputs", "models", "reads", "left_out")

_KEY = re.compile(r"runs/(?P<flow>[^/]+)/(?P<date>\d{4}-\d{2}-\d{2})/(?P<run>[^/]+)-(?P<id8>[0-9a-f]{8})/run\.json")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


@dataclass(frozen=True, slots=True)
class RunRecord:
    """Everything a run left behind, readable without Shipway.

    Attributes:
        run_id: Prefect's flow run id.
        run_name: the run's name.
        flow: the flow's name.
        deployment: `FLOW/NAME`, or None for a run without a deployment.
        attempt: which attempt this is the record of, from 1.
        release: `<epoch>.<release-id>` of the code, or None where no release ran.
        parameters: what the flow was called with.
        artifacts: what was saved, by name or found in the working folder.
        inputs: what was loaded from other runs: `kind` (`artifact`, or `model` for one that was asked for as such),
            `name`, `run`, `key`, `sha256`, `bytes`, `rows` (or None), `asked` (the words, where the name alone did not
            say which).
        metrics: numbers by name.
        environment: interpreter, system and packages with their versions.
        timings: `scheduled`, `started` and `ended`, in UTC, ISO 8601.
        models: versions of models that the run made: `name`, `version`, `artifact`, `key`, `sha256`, `at`, `decision`,
            `checked`, `promote`, `against`, `facts`.
        champions: by model, the version that was champion when the run asked, or None where there was none.
        reads: files of the release that the run read: `path`, `sha256`.
        reads_gap: why `reads` may lack some, or None where it is whole.
        reproduces: folder in the store of the run that this one repeats.
        resumes: id of the failed run whose completed tasks were not done again.
        left_out: what was found in the working folder and not saved, each with the reason.
    """

    run_id: str
    run_name: str
    flow: str
    deployment: str | None
    attempt: int
    release: str | None
    parameters: Mapping[str, Any]
    artifacts: tuple[Artifact, ...] = ()
    inputs: tuple[Mapping[str, Any], ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)
    timings: Mapping[str, str] = field(default_factory=dict)
    models: tuple[Mapping[str, Any], ...] = ()
    champions: Mapping[str, int | None] = field(default_factory=dict)
    reads: tuple[Mapping[str, str], ...] = ()
    reads_gap: str | None = None
    reproduces: str | None = None
    resumes: str | None = None
    left_out: tuple[str, ...] = ()

    def to_bytes(self) -> bytes:
        """Encode as JSON for people and programs, sealed, so that any changed byte is found."""
        document = {"version": FORMAT, **asdict(self), "artifacts": [a.to_json() for a in self.artifacts]}
        # JSON has no word for a NaN or an infinity, which a parameter may be.
        return seal(document | {"parameters": _finite(document["parameters"])})

    def artifact(self, name: str) -> Artifact:
        """Return the artifact of that name.

        Raises:
            NotFoundError: the run saved nothing of that name; the message says what it saved.
        """
        for artifact in self.artifacts:
            if artifact.name == name:
                return artifact
        names = ", ".join(artifact.name for artifact in self.artifacts[:12]) or "nothing"
        raise NotFoundError(f"run {self.run_name} saved no {name!r}", hint=f"it saved {names}")


def run_folder(flow: str, scheduled: datetime, run_name: str, run_id: str) -> str:
    """Return the folder of a run's data, without a final slash.

    The name makes it readable, the last eight digits of the id (the random end of a time-ordered UUID) make it unique.
    """
    return f"runs/{segment(flow)}/{scheduled:%Y-%m-%d}/{segment(run_name)}-{run_id.replace('-', '')[-8:]}"


def write_record(store: Store, folder: str, record: RunRecord) -> bool:
    """Commit a run: write its record unless it has one.

    Returns:
        Whether this call committed; False when an earlier attempt had.
    """
    try:
        store.create(f"{folder}/run.json", record.to_bytes())
    except ObjectExistsError:
        return False
    return True


def read_record(store: Store, key: str) -> RunRecord:
    """Read a record back.

    Raises:
        ObjectNotFoundError: there is none; the run did not complete, or saved nothing here.
        IntegrityError: it is malformed.
    """
    data = store.read(key, length=MAX_BYTES + 1)
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"longer than {MAX_BYTES} bytes")
        document = unsealed(data)
        if _SURROGATE.search(data):
            # Half a character can be read and never be written or shown; this raises where there is one.
            json.dumps(document, ensure_ascii=False).encode()
        if document.pop("version") != FORMAT:
            raise ValueError("of an unknown version; a newer Shipway wrote it")
        artifacts = tuple(Artifact.from_json(item) for item in document.pop("artifacts"))
        lists: dict[str, Any] = {name: tuple(document.pop(name, ())) for name in _LISTS}
        return _checked(RunRecord(artifacts=artifacts, **lists, **document))
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(f"{store.url(key)} is not a run record: {error}") from None


def _finite(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _checked(record: RunRecord) -> RunRecord:
    """Return a record that was read if what readers do with it can be done."""
    named: dict[str, tuple[type | UnionType, tuple[object, ...]]] = {
        "text": (str, (record.run_id, record.run_name, record.flow, *record.timings.values())),
        "text or null": (str | None, (record.deployment, record.release, record.reproduces, record.resumes)),
        "a whole number": (int, (record.attempt,)),
        "a number": (int | float, tuple(record.metrics.values())),
        "a version": (int | None, tuple(record.champions.values())),
        "a mapping": (Mapping, (record.parameters, record.environment, *record.inputs, *record.models, *record.reads)),
    }
    # Those of before they were noted have neither.
    sizes = tuple(item.get(name) for item in record.inputs if isinstance(item, Mapping) for name in ("bytes", "rows"))
    named["a whole number or null"] = (int | None, sizes)
    for what, (kind, values) in named.items():
        if not all(isinstance(value, kind) and not isinstance(value, bool) for value in values):
            raise ValueError(f"something in it is not {what}")
    if not all(isinstance(item.get(name), str) for item in record.inputs for name in ("name", "run", "key")):
        raise ValueError("an input is malformed")
    return record


def find_record(store: Store, folder: str) -> RunRecord | None:
    """Return the record of the run in `folder`, found by its id where the run was renamed meanwhile, or None."""
    found = find_run_data(store, folder)
    return found[1] if found else None


def find_run_data(store: Store, folder: str) -> tuple[str, RunRecord] | None:
    """Return the folder and the record of a run; see `find_record`."""
    try:
        return folder, read_record(store, f"{folder}/run.json")
    except ObjectNotFoundError:
        day, _, name = folder.rpartition("/")
        suffix = f"-{name.rpartition('-')[2]}/run.json"
        key = next((info.key for info in store.list(f"{day}/") if info.key.endswith(suffix)), None)
        return (key.removesuffix("/run.json"), read_record(store, key)) if key else None


def record_keys(store: Store, flow: str) -> Iterator[tuple[str, str, str]]:
    """Yield (key, run name as in the key, last eight digits of the id) of a flow's records, newest first."""
    found = [
        (info, _KEY.fullmatch(info.key))
        for info in store.list(f"runs/{segment(flow)}/")
        if info.key.endswith("/run.json")
    ]
    for info, match in sorted(found, key=lambda pair: pair[0].modified, reverse=True):
        if match:
            yield info.key, match["run"], match["id8"]
