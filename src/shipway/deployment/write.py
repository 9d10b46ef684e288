"""Writing the two files that `build` leaves beside the flow: the deployment file and the manifest."""

from __future__ import annotations

import io
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import to_builtins
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap
from ruamel.yaml.scalarstring import LiteralScalarString

from shipway.artifact import segment
from shipway.deployment.spec import DeploymentSpec, Schedule, to_mapping
from shipway.errors import FolderError
from shipway.manifest import Entry

HEAD = """\
# Shipway deployment {full_name}, written by `shipway build`. Read it, edit it, then: shipway apply {file}
# `shipway apply --plan {file}` shows what would change on the server and changes nothing."""

ORDER = (
    "name", "flow", "description", "tags", "store", "work_pool", "work_queue", "parameters", "schedules",
    "concurrency_limit", "job_variables",
)  # fmt: skip
"""The part of the file that people edit, in the order in which they think of it."""

_NOTES = {
    "tags": "Labels on the deployment and on every run of it.",
    "store": "The block that code and data live in; `shipway block s3 NAME ...` makes one.",
    "work_pool": "Where runs go: a worker started with `shipway worker start -q QUEUE` takes them from the queue.",
    "schedules": "When runs are created: entries with one of cron, interval (90, 15m, 1h30m) or rrule,\n"
    "and a timezone; active: false pauses one; parameters: {...} gives its runs other parameters.",
    "concurrency_limit": "Most runs of this deployment at once; null for no limit.",
    "job_variables": "Prefect's job variables, such as env: {NAME: value}. Secrets belong in Prefect's Secret blocks.",
    "release": "Written by build; edit below this line only if you know why.\n"
    "The code that runs, by digest, and the shape of the flow's parameters, from its signature.",
}


def file_name(flow: str, name: str | None = None) -> str:
    """Return the name of a deployment's file; `name` is in it for a flow's second and further deployments."""
    stem = segment(flow) if name is None else f"{segment(flow)}-{segment(name)}"
    return f"{stem}-deployment.yaml"


def deployment_text(spec: DeploymentSpec, file: str) -> str:
    """Return the deployment file as text, commented for the person who edits it."""
    values = to_mapping(spec)
    document = CommentedMap()
    for key in ORDER:
        document[key] = values[key]
    if "\n" in (spec.description or ""):
        document["description"] = LiteralScalarString(f"{spec.description}\n")
    document["schedules"] = [_schedule(schedule) for schedule in spec.schedules]
    document["parameters"] = CommentedMap(values["parameters"])
    for key in ("release", "entrypoint", "parameter_openapi_schema"):
        document[key] = values[key]
    notes = {**_NOTES, "parameters": _describe(spec.parameter_openapi_schema)}
    for key, note in notes.items():
        document.yaml_set_comment_before_after_key(key, before="\n" + note)
    yaml = YAML()
    yaml.width = 1000  # a digest or a rule that is broken over two lines cannot be searched for
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.representer.add_representer(type(None), lambda r, _: r.represent_scalar("tag:yaml.org,2002:null", "null"))
    out = io.StringIO()
    yaml.dump(document, out)
    body = "\n".join("" if line.strip() == "#" else line for line in out.getvalue().splitlines())
    return HEAD.format(full_name=spec.full_name, file=file) + "\n" + body + "\n"


def manifest_text(spec: DeploymentSpec, entries: Sequence[Entry]) -> str:
    """Return the manifest file: the flow, where it is, its parameters, and every file of the release."""
    document = {
        "shipway_manifest": 1,
        "flow_name": spec.flow,
        "import_path": spec.entrypoint,
        "parameter_openapi_schema": spec.parameter_openapi_schema,
        "release": spec.release,
        "files": [
            {"path": entry.path, "mode": entry.mode, "bytes": entry.size, "sha256": entry.sha256} for entry in entries
        ],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"


def write_files(texts: Mapping[Path, str]) -> None:
    """Write files so that each appears whole or not at all, and none before all could be written.

    Raises:
        FolderError: the folder cannot be written to; nothing has changed.
    """
    ready: list[tuple[str, Path]] = []
    path = Path()
    try:
        for path, text in texts.items():
            handle, scratch = tempfile.mkstemp(prefix=f".{path.name[:40]}-", dir=path.parent)
            ready.append((scratch, path))
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                file.write(text)
            Path(scratch).chmod(0o644)
        for scratch, path in ready:
            Path(scratch).replace(path)
    except OSError as error:
        for scratch, _ in ready:
            Path(scratch).unlink(missing_ok=True)
        raise FolderError(
            f"{path} cannot be written: {error.strerror}", hint="free space or mend the folder's permissions"
        ) from None


def _schedule(schedule: Schedule) -> dict[str, Any]:
    values = to_builtins(schedule)
    if schedule.interval is not None and schedule.interval.is_integer():
        values["interval"] = int(schedule.interval)
    return {**values, "timezone": schedule.timezone}


def _describe(schema: Mapping[str, Any]) -> str:
    """Say what the flow's parameters are, a line each."""
    lines = ["What every run is given unless it says otherwise. The flow takes:"]
    for name, rule in schema.get("properties", {}).items():
        kinds = (
            rule.get("type") or " or ".join(str(option.get("type", "any")) for option in rule.get("anyOf", [])) or "any"
        )
        fate = f"default {json.dumps(rule['default'])}" if "default" in rule else "required"
        told = f": {rule['description'].splitlines()[0]}" if rule.get("description") else ""
        lines.append(f"  {name} ({kinds}, {fate}){told}")
    return "\n".join(lines if len(lines) > 1 else ["The flow takes no parameters."])
