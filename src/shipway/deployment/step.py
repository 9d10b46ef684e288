"""The pull step of our deployments, in the words of Prefect's API; light, as commands only read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PULL_STEP = "shipway.prefect.pull.release"
"""The function a worker calls to get a run's code."""

ENGINE = "python -m shipway.prefect.engine"
"""How a worker starts a run: Prefect's engine, with the run's data committed before the run completes."""


def block_of(deployment: Mapping[str, Any]) -> str | None:
    """Return the block that a deployment's releases are in, or None where it is not one of ours."""
    steps = deployment.get("pull_steps") or []
    return next((step[PULL_STEP].get("store") for step in steps if step.get(PULL_STEP)), None)
