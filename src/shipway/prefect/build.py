"""Flow file -> deployment file: inspect the flow, release its folder, write what `apply` reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from msgspec import structs

from shipway.deployment.history import read_pointer
from shipway.deployment.parameters import check_parameters, parse_parameters
from shipway.deployment.prefect2 import is_prefect2
from shipway.deployment.spec import DeploymentSpec, SpecError, make_spec, read, to_mapping
from shipway.deployment.write import deployment_text, file_name, manifest_text, write_files
from shipway.errors import DeploymentFileError, FlowFileError, InputError
from shipway.prefect.flow_look import Look, look
from shipway.prefect.stores import default_block, is_local_default, store_of
from shipway.release.build import Progress, Release, build
from shipway.release.memory import Memory
from shipway.release.scan import Scan
from shipway.settings import Settings
from shipway.store.counting import CountingStore


@dataclass(frozen=True, slots=True)
class BuildOrder:
    """What the user asked `build` for; see the options of `shipway build`."""

    entrypoint: str
    folder: Path
    name: str
    block: str | None = None
    tags: tuple[str, ...] = ()
    queue: str | None = None
    pool: str | None = None
    parameters: tuple[str, ...] = ()
    cron: str | None = None
    interval: str | None = None
    rrule: str | None = None
    timezone: str | None = None
    description: str | None = None
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Built:
    """What `build` made.

    Attributes:
        spec: the deployment.
        release: its code, in the store.
        scan: what was taken of the folder.
        file: the deployment file.
        address: the store's address.
        requests: how many requests the build made to the store.
    """

    spec: DeploymentSpec
    release: Release
    scan: Scan
    file: Path
    address: str
    requests: int


def build_deployment(settings: Settings, order: BuildOrder, *, progress: Progress | None = None) -> Built:
    """Build a deployment; the files appear last, when the release is in the store.

    Raises:
        FlowFileError: the flow cannot be loaded.
        InputError: a name, schedule, parameter or the folder cannot be used.
        ServerError: the Prefect API, which knows the block, failed.
        StoreError: the store failed.
    """
    entrypoint = _entrypoint(order.folder, order.entrypoint)
    seen = look(settings, order.folder, entrypoint, fresh=order.fresh)
    flow = seen.flow
    deployment_file, before = _file_of(order, flow["flow"])
    parameters = {**before.get("parameters", {}), **parse_parameters(order.parameters, flow["schema"])}
    check_parameters(parameters, flow["schema"], complete=False)
    # What nobody asked for on the command line stays as the file says it: people edit that file.
    asked = {
        "description": order.description,
        "tags": order.tags,
        "store": order.block,
        "work_pool": order.pool,
        "work_queue": order.queue or next(iter(order.tags), None),
        "schedules": _schedules(order),
    }
    draft = {
        "description": flow["description"],
        "work_pool": settings.work_pool,
        **before,
        **{key: value for key, value in asked.items() if value},
        "name": order.name,
        "flow": flow["flow"],
        "entrypoint": entrypoint,
        "parameters": parameters,
        "parameter_openapi_schema": flow["schema"],
    }
    built = _build(settings, seen, draft, progress)
    manifest_file = deployment_file.with_name(deployment_file.name.replace("-deployment.yaml", "-manifest.json"))
    write_files(
        {
            deployment_file: deployment_text(built.spec, deployment_file.name),
            manifest_file: manifest_text(built.spec, built.release.entries),
        }
    )
    return replace(built, file=deployment_file)


def _file_of(order: BuildOrder, flow: str) -> tuple[Path, dict[str, Any]]:
    """Return the deployment's file, and what it says where there is one already.

    Raises:
        DeploymentFileError: the file has a mistake, or is one of Prefect 2; it is left as it is.
    """
    for path in (order.folder / file_name(flow), order.folder / file_name(flow, order.name)):
        if not path.exists():
            return path, {}
        if is_prefect2(path):
            hint = "apply it as it is, or move it away and build again"
            raise DeploymentFileError(f"{path.name} is a deployment file of Prefect 2", hint=hint)
        spec = read(path, parameters=False)
        if spec.full_name == f"{flow}/{order.name}":
            return path, to_mapping(spec)
    raise DeploymentFileError(f"{path.name} is of another deployment, {spec.full_name}", hint="rename it")


def build_translated(
    settings: Settings, file: Path, values: Mapping[str, Any], progress: Progress | None = None
) -> Built:
    """Build the deployment that a file of Prefect 2 describes; nothing is written beside it.

    Raises:
        as `build_deployment`.
    """
    entrypoint = _entrypoint(file.parent, values["entrypoint"])
    # Fresh, as `apply` has no option with which to ask for that.
    seen = look(settings, file.parent, entrypoint, fresh=True)
    flow = seen.flow
    check_parameters(values["parameters"], flow["schema"], complete=False)
    draft = {
        **values,
        "flow": flow["flow"],
        "entrypoint": entrypoint,
        "parameter_openapi_schema": flow["schema"],
        "work_pool": settings.work_pool,
    }
    return replace(_build(settings, seen, draft, progress), file=file)


def _build(settings: Settings, seen: Look, draft: dict[str, Any], progress: Progress | None) -> Built:
    block = draft.get("store") or default_block(settings)
    # Everything a person can get wrong is found before the first byte is sent.
    spec = _checked({**draft, "store": block, "release": f"0.{'0' * 64}"})
    settings.make_state()
    if is_local_default(settings, block):
        from shipway.prefect.blocks import save_local_block

        save_local_block(settings)
    store = CountingStore(store_of(settings, block))
    pointer = read_pointer(store, spec.flow, spec.name, cache=settings.state / "builds")
    previous = pointer.current if pointer else None
    release = build(
        seen.scan, store, previous=previous, memory=Memory(settings.state, store.address), progress=progress
    )
    # Kept when the build has succeeded: an index is of a folder that is in the store.
    seen.keep()
    spec = structs.replace(spec, release=str(release.version))
    return Built(spec, release, seen.scan, Path(), store.address, store.requests)


def _entrypoint(folder: Path, given: str) -> str:
    """Return `FILE.py:FLOW`, the file relative to the folder."""
    text, colon, name = given.rpartition(":")
    if not colon or not text or not name:
        raise FlowFileError(f"{given!r} does not name a flow", hint="write ./FILE.py:FLOW")
    full = (folder / text).resolve()
    if not full.is_file():
        raise FlowFileError(f"{text} does not exist" if not full.exists() else f"{text} is not a file")
    root = folder.resolve()
    if not full.is_relative_to(root):
        raise FlowFileError(
            f"{text} lies outside {root}", hint="run the command in the folder that holds all of the flow's code"
        )
    return f"{full.relative_to(root).as_posix()}:{name}"


def _schedules(order: BuildOrder) -> list[dict[str, Any]]:
    rules = {"cron": order.cron, "interval": order.interval, "rrule": order.rrule}
    given = {kind: rule for kind, rule in rules.items() if rule is not None}
    if order.timezone and not given:
        raise InputError("--timezone without a schedule", hint="add --cron, --interval or --rrule")
    zone = {"timezone": order.timezone} if order.timezone else {}
    return [{kind: rule, **zone} for kind, rule in given.items()]


def _checked(draft: dict[str, Any]) -> DeploymentSpec:
    try:
        return make_spec(draft)
    except SpecError as error:
        raise InputError(str(error)) from None
