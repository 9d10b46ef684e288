"""Deployment files of Prefect 2, as `prefect deployment build` wrote them, in today's words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shipway.deployment.yaml_file import load_yaml, plain
from shipway.errors import DeploymentFileError

MARKS = {"flow_name", "manifest_path", "infrastructure"}
"""Keys that such a file has and ours has not."""

SILENT = {"version", "manifest_path", "path", "timestamp", "parameter_openapi_schema", "is_schedule_active"}
"""Keys that say nothing a release, or the flow itself, does not say better."""


@dataclass(frozen=True, slots=True)
class Translated:
    """A Prefect 2 deployment in today's words; the release is missing, as such a file names no code.

    Attributes:
        values: fields of `DeploymentSpec`, unchecked.
        dropped: keys that have no meaning today, each with the reason.
    """

    values: dict[str, Any]
    dropped: tuple[str, ...]


def is_prefect2(path: Path) -> bool:
    """Tell whether a file is a deployment file of Prefect 2; what cannot be read is not."""
    try:
        text = path.read_text()
        # Ours has none of these words, and is read soon enough.
        document = load_yaml(path) if all(mark in text for mark in MARKS) else None
    except (OSError, UnicodeDecodeError, DeploymentFileError):
        return False
    return isinstance(document, Mapping) and document.keys() >= MARKS


def translate(path: Path) -> Translated:
    """Translate a file that `is_prefect2` recognised.

    Raises:
        DeploymentFileError: a part of it is not of the kind that Prefect 2 wrote.
    """
    old: dict[str, Any] = plain(load_yaml(path))
    for key in ("schedule", "storage", "infra_overrides", "infrastructure", "parameters"):
        if old.get(key) is not None and not isinstance(old[key], Mapping):
            raise DeploymentFileError(f"{path}: {key} is a {type(old[key]).__name__}, not keys and values")
    dropped = []
    values: dict[str, Any] = {
        "name": old.pop("name", None),
        "flow": old.pop("flow_name"),
        "entrypoint": str(old.pop("entrypoint", "")).removeprefix("./"),
        "description": old.pop("description", None),
        "tags": old.pop("tags", None) or [],
        "parameters": old.pop("parameters", None) or {},
        "work_queue": old.pop("work_queue_name", None) or "default",
    }
    active = old.get("is_schedule_active")
    schedule = old.pop("schedule", None)
    values["schedules"] = [_schedule(schedule, active)] if schedule else []
    storage = old.pop("storage", None)
    if block := _block(storage):
        values["store"] = block
    elif storage:
        dropped.append("storage (not a block of type s3 or local-file-system; the default store is used)")
    overrides = old.pop("infra_overrides", None) or {}
    if env := overrides.pop("env", None):
        values["job_variables"] = {"env": env}
    dropped += [f"infra_overrides.{key} (set it as a job variable)" for key in overrides]
    infrastructure = old.pop("infrastructure", None) or {}
    kind = infrastructure.get("type") or "process"
    dropped += (
        [] if kind == "process" else [f"infrastructure of type {kind} (name a work pool of that type with work_pool)"]
    )
    dropped += [f"{key} (no longer exists)" for key, value in old.items() if key not in SILENT and value]
    return Translated(values, tuple(dropped))


def _schedule(old: Mapping[str, Any], active: object) -> dict[str, Any]:
    kept = {key: old[key] for key in ("cron", "interval", "rrule", "timezone") if old.get(key) is not None}
    return {**kept, **({"active": active} if isinstance(active, bool) else {})}


def _block(storage: Mapping[str, Any] | None) -> str | None:
    kind = (storage or {}).get("_block_type_slug") or (storage or {}).get("block_type_slug")
    name = (storage or {}).get("_block_document_name")
    return f"{kind}/{name}" if kind in ("s3", "local-file-system") and name else None
