"""Shipway: from a training script to a deployed workflow on Prefect 3 and S3.

In a flow or a task: `save`, `load` and `log_metrics` keep its data; `gate`, `register` and `champion` its models;
`report.section` and `report.verdict` add to its page. Everything else is the `shipway` command.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from shipway import report
    from shipway.artifact import Artifact
    from shipway.errors import ShipwayError
    from shipway.model.decision import Decision
    from shipway.model.gate import gate
    from shipway.model.use import champion, register
    from shipway.model.version import ModelVersion
    from shipway.run.data import load, log_metrics, save

__all__ = [
    "Artifact",
    "Decision",
    "ModelVersion",
    "ShipwayError",
    "champion",
    "gate",
    "load",
    "log_metrics",
    "register",
    "report",
    "save",
]

_HOMES = {
    "Artifact": "shipway.artifact",
    "Decision": "shipway.model.decision",
    "ModelVersion": "shipway.model.version",
    "ShipwayError": "shipway.errors",
    "champion": "shipway.model.use",
    "gate": "shipway.model.gate",
    "load": "shipway.run.data",
    "log_metrics": "shipway.run.data",
    "register": "shipway.model.use",
    "save": "shipway.run.data",
}


def __getattr__(name: str) -> Any:
    # Looked up when first used: the command line starts in a tenth of a second because nothing is imported for nothing.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name == "report":
        return import_module("shipway.report")
    raise AttributeError(f"module 'shipway' has no attribute {name!r}")
