"""A deployment's pointer in the store: its current release and the ones before, moved by compare-and-swap only."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from shipway.artifact import segment
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import ConflictError, IntegrityError, ObjectExistsError, ObjectNotFoundError
from shipway.manifest import Version
from shipway.store.base import Store

FORMAT = 1
TRIES = 5


@dataclass(frozen=True, slots=True)
class Moved:
    """One move of the pointer.

    Attributes:
        version: the release it was moved to.
        at: when, in UTC, ISO 8601.
        entrypoint: where the flow is in that release.
        schema: what the flow's parameters look like in that release.
    """

    version: Version
    at: str
    entrypoint: str | None = None
    schema: Mapping[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Pointer:
    """A deployment's releases, newest first.

    Attributes:
        moves: every move, the current one first.
        etag: the stored version this was read from.
    """

    moves: tuple[Moved, ...]
    etag: str

    @property
    def current(self) -> Version:
        """The release that new runs get."""
        return self.moves[0].version


def pointer_key(flow: str, name: str) -> str:
    """Return the key of a deployment's pointer."""
    return f"deployments/{segment(flow)}/{segment(name)}.json"


def read_pointer(store: Store, flow: str, name: str, *, cache: Path | None = None) -> Pointer | None:
    """Return a deployment's pointer, or None where it was never applied.

    Args:
        store: where the deployment's releases are.
        flow: the flow's name.
        name: the deployment's name.
        cache: folder in which the pointer is kept, so that one that has not moved is answered without a body.

    Raises:
        IntegrityError: the pointer is malformed.
    """
    key = pointer_key(flow, name)
    try:
        data, etag = _read_cached(store, key, cache) if cache else store.read_tagged(key)
    except ObjectNotFoundError:
        return None
    try:
        document = json.loads(data)
        if document["version"] != FORMAT:
            raise ValueError(f"version {document['version']!r} is not {FORMAT}")
        moves = tuple(
            Moved(Version.parse(item["release"]), str(item["at"]), item.get("entrypoint"), item.get("schema"))
            for item in document["history"]
        )
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(
            f"{store.url(key)} is malformed: {error}", hint="apply the deployment again after removing it"
        ) from None
    if not moves:
        raise IntegrityError(f"{store.url(key)} names no release")
    return Pointer(moves, etag)


def move_pointer(
    store: Store,
    flow: str,
    name: str,
    version: Version,
    *,
    entrypoint: str | None = None,
    schema: Mapping[str, Any] | None = None,
) -> Pointer:
    """Make `version` the current release; nothing happens when it is already.

    Args:
        store: where the deployment's releases are.
        flow: the flow's name.
        name: the deployment's name.
        version: the release.
        entrypoint: where the flow is in that release, for a later rollback to it.
        schema: what the flow's parameters look like in that release, likewise.

    Raises:
        ConflictError: somebody else kept moving it.
    """
    for _ in range(TRIES):
        pointer = read_pointer(store, flow, name)
        if pointer is not None and pointer.current == version:
            return pointer
        now = Moved(version, datetime.now(UTC).isoformat(timespec="seconds"), entrypoint, schema)
        moves = (now, *(pointer.moves if pointer else ()))
        try:
            if pointer is None:
                etag = store.create(pointer_key(flow, name), _encode(moves))
            else:
                etag = store.replace(pointer_key(flow, name), _encode(moves), etag=pointer.etag)
        except (ObjectExistsError, ConflictError):
            continue
        return Pointer(moves, etag)
    raise ConflictError(f"the pointer of {flow}/{name} keeps being moved by somebody else", hint="try again")


def _read_cached(store: Store, key: str, folder: Path) -> tuple[bytes, str]:
    path = folder / f"pointer-{sha256_bytes(f'{store.address} {key}'.encode())[:24]}"
    try:
        etag, _, text = path.read_text().partition("\n")
        found = store.read_changed(key, etag)
        if found is None:
            return text.encode(), etag
    except (OSError, UnicodeDecodeError):
        found = store.read_tagged(key)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        scratch = path.with_suffix(f".{os.getpid()}")
        scratch.write_text(f"{found[1]}\n{found[0].decode()}")
        scratch.replace(path)
    except (OSError, UnicodeDecodeError):
        pass  # it costs the next reader a longer answer
    return found


def _encode(moves: tuple[Moved, ...]) -> bytes:
    # The nonce makes each write's bytes its own: after a lost answer the writer can tell its write from another's.
    history: list[dict[str, Any]] = [
        {"release": str(move.version), "at": move.at, "entrypoint": move.entrypoint, "schema": move.schema}
        for move in moves
    ]
    return canonical_json({"version": FORMAT, "history": history, "nonce": secrets.token_hex(8)})
