"""Rollback: a deployment's earlier release made current again, on the server and in the store."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from shipway.deployment.history import Moved, Pointer, move_pointer, read_pointer
from shipway.deployment.step import block_of
from shipway.errors import InputError, NotFoundError, ObjectNotFoundError, ServerUnreachableError, ShipwayError
from shipway.manifest import Version, read_manifest
from shipway.prefect.api import Api
from shipway.prefect.stores import store_of
from shipway.settings import Settings
from shipway.store.base import Store


@dataclass(frozen=True, slots=True)
class History:
    """A deployment with its releases.

    Attributes:
        deployment: as the API returns it.
        store: where the releases are.
        pointer: which there were, the current one first.
    """

    deployment: dict[str, Any]
    store: Store
    pointer: Pointer

    @property
    def index(self) -> int:
        """Which move led to the release that the server gives to runs; the first unless somebody was interrupted."""
        version = self.deployment.get("version")
        return next((index for index, move in enumerate(self.pointer.moves) if str(move.version) == version), 0)

    @property
    def current(self) -> Version:
        """The release that the server gives to runs."""
        return self.pointer.moves[self.index].version


def read_history(settings: Settings, full_name: str) -> History:
    """Return a deployment's releases.

    Raises:
        NotFoundError: there is no such deployment, or it is not one of ours.
    """
    deployment = Api(settings).deployment(full_name)
    block = block_of(deployment)
    if block is None:
        raise NotFoundError(f"{full_name} was not deployed with Shipway", hint="deploy it with `shipway deploy`")
    store = store_of(settings, block)
    flow, _, name = full_name.partition("/")
    pointer = read_pointer(store, flow, name)
    if pointer is None:
        raise NotFoundError(f"{full_name} has no history in {store.address}", hint="apply its deployment file")
    return History(deployment, store, pointer)


def choose(history: History, release: str | None) -> Moved:
    """Return the move to go back to: the one whose release begins with `release`, by default the one before this.

    Raises:
        NotFoundError: there is none, or the history has nothing older.
        InputError: `release` begins several.
    """
    if release is None:
        current = history.current.release_id
        older = [move for move in history.pointer.moves[history.index :] if move.version.release_id != current]
        if not older:
            raise NotFoundError("there is no earlier release to go back to")
        return older[0]
    wanted = release.rpartition(".")[2].lower()
    found = {move.version.release_id: move for move in reversed(history.pointer.moves)}
    chosen = [move for release_id, move in found.items() if release_id.startswith(wanted)]
    if len(chosen) > 1:
        raise InputError(f"{release!r} begins {len(chosen)} releases", hint="give more digits")
    if not chosen:
        raise NotFoundError(f"there is no release {release!r} in the history", hint="`shipway releases` lists them")
    return chosen[0]


def roll_back(settings: Settings, history: History, target: Moved, full_name: str) -> None:
    """Make an earlier release current: new runs execute it, runs that exist keep theirs.

    The release is checked first, the pointer moves next and the server is told last, as when a file is applied.

    Raises:
        NotFoundError: the release is no longer in the store.
        InputError: the release has left the history meanwhile.
    """
    try:
        read_manifest(history.store, target.version)
    except ObjectNotFoundError:
        raise NotFoundError(
            f"release {target.version.short} is no longer in {history.store.address}", hint="build again"
        ) from None
    body: dict[str, Any] = {"version": str(target.version)}
    if target.entrypoint:
        body["entrypoint"] = target.entrypoint
    if target.schema is not None:
        body["parameter_openapi_schema"] = target.schema
    flow, _, name = full_name.partition("/")
    take_back = move_pointer(
        history.store, flow, name, target.version, entrypoint=target.entrypoint, schema=target.schema
    )
    try:
        Api(settings).request("PATCH", f"/deployments/{history.deployment['id']}", body)
    except ShipwayError as error:
        # A server that stopped answering may have been told all the same: what it gives to runs stays in the history.
        if not isinstance(error, ServerUnreachableError):
            take_back()
        raise
