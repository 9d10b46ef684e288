"""What a run of ours may be asked for beyond its parameters, written into the labels of Prefect's flow run.

A label is set when the run is created and never changes, anybody may look at it in the UI, and it reaches every worker.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

RELEASE = "shipway.release"
"""The release to run, where that may be another one than the deployment has when the run is created."""
REPRODUCES = "shipway.reproduces"
"""Folder in the store of the run whose inputs are taken, whatever has been saved since."""
RESUMES = "shipway.resumes"
"""Id of the failed run whose completed tasks are not done again."""
RESULTS = "shipway.results"
"""Id of the run under which a resumed run finds task results: the first of the chain that it resumes."""
AFTER = "shipway.after"
"""Id of the run that must have ended before this one looks at what is current."""


def label(run: Mapping[str, Any], name: str) -> str | None:
    """Return a label of a run as the API describes it, or None."""
    value = (run.get("labels") or {}).get(name)
    return str(value) if value else None


def release_of(run: Mapping[str, Any]) -> str | None:
    """Return the release that a run executes: the one it asks for, else the one stamped on it by the server."""
    return label(run, RELEASE) or run.get("deployment_version")
