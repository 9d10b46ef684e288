"""What who starts a run may ask for beyond its parameters: another release, and what a failed run has done."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from shipway.errors import InputError, NotFoundError, ObjectNotFoundError
from shipway.manifest import read_manifest
from shipway.prefect.api import Api
from shipway.prefect.labels import RELEASE, RESULTS, RESUMES, label
from shipway.prefect.rollback import choose, read_history
from shipway.prefect.runs import FINAL, find_run
from shipway.settings import Settings


@dataclass(frozen=True, slots=True)
class Resumption:
    """A failed run, to be run again.

    Attributes:
        run: the run.
        deployment: its deployment, as the API describes it.
        full_name: `FLOW/NAME`.
        labels: what the new run is asked for.
    """

    run: Mapping[str, Any]
    deployment: Mapping[str, Any]
    full_name: str
    labels: Mapping[str, str]


def resume(api: Api, wanted: str) -> Resumption:
    """Return what resumes a run that failed, crashed or was cancelled.

    Args:
        api: where it is.
        wanted: its name or id.

    Raises:
        NotFoundError: there is no such run, or its deployment is gone.
        InputError: it has completed, is still going on, or has no deployment.
    """
    run = find_run(api, wanted)
    if run["state_type"] == "COMPLETED":
        raise InputError(
            f"run {run['name']} has completed, there is nothing to resume", hint="`shipway run FLOW/NAME` runs it anew"
        )
    if run["state_type"] not in FINAL:
        raise InputError(
            f"run {run['name']} has not ended, it is {run['state_name']}", hint="wait for it, or cancel it in the UI"
        )
    if not run.get("deployment_id"):
        raise InputError(f"run {run['name']} has no deployment", hint="start its script again")
    deployment = api.find(f"/deployments/{run['deployment_id']}")
    if deployment is None:
        raise NotFoundError(f"the deployment of run {run['name']} is gone", hint="deploy it again, and run that")
    labels = {RESUMES: run["id"], RESULTS: label(run, RESULTS) or run["id"]}
    return Resumption(run, deployment, f"{run['flow_name']}/{deployment['name']}", labels)


def ask_for_release(settings: Settings, full_name: str, release: str) -> tuple[dict[str, str], dict[str, Any] | None]:
    """Return the labels that ask for a release of a deployment's history, and the schema of its parameters if known.

    Args:
        settings: the project's.
        full_name: `FLOW/NAME`.
        release: the release's id, or how it begins.

    Raises:
        NotFoundError: the history has no such release, or it is no longer in the store.
        InputError: `release` begins several, or the flow is elsewhere in it.
    """
    history = read_history(settings, full_name)
    chosen = choose(history, release)
    entrypoint = history.deployment.get("entrypoint")
    # Prefect asks the deployment where the flow is, and it knows one place only.
    if chosen.entrypoint and chosen.entrypoint != entrypoint:
        raise InputError(
            f"in release {chosen.version.short} the flow is at {chosen.entrypoint}, and {full_name} is at {entrypoint}",
            hint=f"go back to it with `shipway rollback {full_name} {chosen.version.short}`",
        )
    try:
        read_manifest(history.store, chosen.version)
    except ObjectNotFoundError:
        raise NotFoundError(
            f"release {chosen.version.short} is no longer in {history.store.address}", hint="build again"
        ) from None
    schema = chosen.schema
    return {RELEASE: str(chosen.version)}, dict(schema) if schema is not None else None
