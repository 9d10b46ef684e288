"""The work pool type `shipway`, as the server stores it, without importing Prefect."""

from __future__ import annotations

import json
from importlib.resources import files
from typing import Any

POOL_TYPE = "shipway"


def base_job_template() -> dict[str, Any]:
    """Return the pool's base job template; a test holds it against `ShipwayWorker.get_default_base_job_template()`."""
    template: dict[str, Any] = json.loads(files("shipway.prefect").joinpath("pool_template.json").read_text())
    return template
