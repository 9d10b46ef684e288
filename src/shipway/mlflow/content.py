"""What MLflow is told of a run, within its limits."""

from __future__ import annotations

import json
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shipway.digest import sha256_bytes
from shipway.run.record import RunRecord
from shipway.store.base import Store

# MLflow's own limits, of `mlflow/utils/validation.py` in MLflow 3.17, in characters, entities and bytes. The name of an
# experiment or run may be longer there, but not in the columns of its database tables.
MAX_NAME = 250
MAX_PARAMETER = 6000
MAX_TAG = 5000  # 8000 now, 5000 up to MLflow 2
MOST = {"metrics": 1000, "params": 100, "tags": 100}
MOST_IN_ALL = 1000
MAX_REQUEST = 900_000  # 1,000,000, less the frame around the entities

RUN_ID = "shipway.run_id"

_REFUSED = re.compile(r"[^/\w.\- :]")


@dataclass(frozen=True, slots=True)
class Content:
    """What MLflow is told of a run.

    Attributes:
        run_id: Prefect's id of the run.
        run_name: the run's name.
        experiment: name of the experiment: the flow.
        start: when it began, in milliseconds since 1970.
        end: when it ended, in milliseconds since 1970.
        tags: tags by name.
        parameters: parameters as text, by name.
        metrics: numbers by name.
        cut: names of parameters whose text was too long, and of which MLflow has the beginning only.
    """

    run_id: str
    run_name: str
    experiment: str
    start: int
    end: int
    tags: Mapping[str, str]
    parameters: Mapping[str, str]
    metrics: Mapping[str, float]
    cut: tuple[str, ...]

    def batches(self) -> Iterator[dict[str, list[dict[str, Any]]]]:
        """Yield parameters and metrics in bodies of requests that MLflow accepts."""
        entities = [("params", {"key": key, "value": value}) for key, value in self.parameters.items()]
        numbers = (
            {"key": key, "value": value, "timestamp": self.end, "step": 0} for key, value in self.metrics.items()
        )
        yield from _batches([*entities, *(("metrics", number) for number in numbers)])


def content_of(store: Store, folder: str, record: RunRecord) -> Content:
    """Return what MLflow is told of a run.

    Names that MLflow refuses or cannot keep are changed, different ones into different ones. The same record gives the
    same content.

    Args:
        store: where the run's data lies.
        folder: the run's folder in it.
        record: the run's record.
    """
    texts = {name: _plain(_text(value)) for name, value in record.parameters.items()}
    cut = tuple(name for name, text in texts.items() if len(text) > MAX_PARAMETER)
    models = ", ".join(f"{model.get('name')}@{model.get('version')}" for model in record.models)
    tags = {
        RUN_ID: record.run_id,
        "shipway.release": record.release,
        "shipway.deployment": record.deployment,
        "shipway.attempt": str(record.attempt),
        "shipway.address": store.url(f"{folder}/run.json"),
        "shipway.artifacts": store.url(f"{folder}/{record.attempt}"),
        "shipway.models": models,
        "shipway.cut": ", ".join(cut),
        "mlflow.source.name": record.deployment or record.flow,
        "mlflow.source.type": "JOB" if record.deployment else "LOCAL",
        "mlflow.note.content": _note(store, folder, record),
    }
    return Content(
        run_id=record.run_id,
        run_name=_plain(record.run_name)[:MAX_NAME],
        experiment=_distinct(_plain(record.flow), record.flow),
        start=_milliseconds(record.timings.get("started")),
        end=_milliseconds(record.timings.get("ended")),
        tags={name: _plain(value)[:MAX_TAG] for name, value in tags.items() if value},
        parameters={entity_name(name): text[:MAX_PARAMETER] for name, text in texts.items()},
        metrics={entity_name(name): value for name, value in record.metrics.items()},
        cut=cut,
    )


def entity_name(name: str) -> str:
    """Return a name that MLflow accepts for a parameter or metric; different names give different ones.

    It accepts letters, digits and `_-. :/`, and of those with a slash the ones that are normalised relative paths. A
    name that loses something gets eight digits of its digest.
    """
    plain = _REFUSED.sub("_", name)
    if posixpath.normpath(plain) != plain or plain.startswith((".", "/")):
        plain = plain.replace("/", "_").lstrip(".") or "_"
    return _distinct(plain, name)


def _distinct(plain: str, name: str) -> str:
    if plain == name and len(plain) <= MAX_NAME:
        return plain
    return f"{plain[: MAX_NAME - 9]}-{sha256_bytes(name.encode(errors='surrogatepass'))[:8]}"


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)


def _plain(text: str) -> str:
    """Replace what no database keeps: NUL, and halves of characters."""
    return text.replace("\0", "\ufffd").encode(errors="replace").decode()


def _milliseconds(time: object) -> int:
    try:
        return int(datetime.fromisoformat(str(time)).timestamp() * 1000)
    except ValueError:
        return 0


def _note(store: Store, folder: str, record: RunRecord) -> str:
    """Return the run's description: where its artifacts are, as far as there is room."""
    lines = [f"Artifacts in the store, below `{store.url(folder)}`:", ""]
    room = MAX_TAG - 200 - sum(map(len, lines))
    for done, artifact in enumerate(record.artifacts):
        line = f"- `{artifact.name}`, {artifact.bytes} bytes: `{store.url(artifact.key)}`"
        room -= len(line) + 1
        if room < 0:
            lines.append(f"- and {len(record.artifacts) - done} more, which the record names")
            break
        lines.append(line)
    return "\n".join(lines) if record.artifacts else "The run saved no artifacts."


def _batches(entities: Iterable[tuple[str, dict[str, Any]]]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    batch: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
    size = count = 0
    for kind, entity in entities:
        length = len(json.dumps(entity, ensure_ascii=False).encode()) + 2
        if len(batch[kind]) == MOST[kind] or count == MOST_IN_ALL or size + length > MAX_REQUEST:
            yield dict(batch)
            batch.clear()
            size = count = 0
        batch[kind].append(entity)
        size += length
        count += 1
    if count:
        yield dict(batch)
