"""A deployment's pointer in the store: its current release and the ones before, moved by compare-and-swap only.

What a server may give to a run is in the history first: `gc` keeps what is in a history, and nothing else must be known
to it (docs/explanation/retention.md).
"""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

from shipway.artifact import segment
from shipway.blob import current_epoch
from shipway.digest import seal, sha256_bytes, unsealed
from shipway.errors import ConflictError, InputError, IntegrityError, ObjectNotFoundError
from shipway.manifest import Version
from shipway.store import swap
from shipway.store.base import Store

FORMAT = 1

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Moved:
    """One move of the pointer.

    Attributes:
        version: the release it was moved to.
        at: when, in UTC, ISO 8601.
        entrypoint: where the flow is in that release.
        schema: what the flow's parameters look like in that release.
        pinned: whether the move stays in the history however old it gets.
    """

    version: Version
    at: str
    entrypoint: str | None = None
    schema: Mapping[str, Any] | None = None
    pinned: bool = False


Moves = tuple[Moved, ...]


@dataclass(frozen=True, slots=True)
class Pointer:
    """A deployment's releases, newest first.

    Attributes:
        moves: every move, the current one first.
        etag: the stored version this was read from.
    """

    moves: Moves
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
    return read_pointer_at(store, pointer_key(flow, name), cache=cache)


def read_pointer_at(store: Store, key: str, *, cache: Path | None = None) -> Pointer | None:
    """Return the pointer under a key that was found by listing; see `read_pointer`."""
    try:
        data, etag = _read_cached(store, key, cache) if cache else store.read_tagged(key)
    except ObjectNotFoundError:
        return None
    return _decode(store, key, data, etag)


def check_usable(pointer: Pointer | None, version: Version, full_name: str) -> None:
    """Check that a deployment may be given a release: a young one, or one of its own history.

    Any other may be removed by a `gc` that is at work right now and has seen that nobody needs it.

    Raises:
        InputError: it may not.
    """
    if is_young(version) or (pointer and any(move.version == version for move in pointer.moves)):
        return
    raise InputError(
        f"release {version.short} is over a fortnight old and not in the history of {full_name}: its files may be gone "
        "at any time",
        hint="build again",
    )


def is_young(version: Version) -> bool:
    """Tell whether a release is of this epoch or the one before, and so safe from `gc` for another epoch at least."""
    return version.epoch >= current_epoch() - 1


def move_pointer(
    store: Store,
    flow: str,
    name: str,
    version: Version,
    *,
    entrypoint: str | None = None,
    schema: Mapping[str, Any] | None = None,
) -> Callable[[], None]:
    """Make `version` the current release; nothing happens when it is already.

    Args:
        store: where the deployment's releases are.
        flow: the flow's name.
        name: the deployment's name.
        version: the release.
        entrypoint: where the flow is in that release, for a later rollback to it.
        schema: what the flow's parameters look like in that release, likewise.

    Returns:
        What takes the move back, unless somebody has changed the pointer since.

    Raises:
        ConflictError: somebody else kept moving it.
        InputError: the release is old and not in the history; see `check_usable`.
    """
    key = pointer_key(flow, name)
    before: Moves = ()

    def make(data: bytes | None) -> bytes | None:
        nonlocal before
        pointer = None if data is None else _decode(store, key, data, "")
        if pointer is not None and pointer.current == version:
            return None
        # For the very history that is replaced: it may have lost the release since somebody looked.
        check_usable(pointer, version, f"{flow}/{name}")
        before = pointer.moves if pointer else ()
        now = Moved(version, datetime.now(UTC).isoformat(timespec="seconds"), entrypoint, schema)
        return _encode((now, *before))

    etag = swap.change(store, key, make)
    if etag is None or not before:
        # Nothing was moved; or it is the first move, and there is no safe way to remove it: it keeps a release.
        return lambda: None
    return lambda: _put_back(store, key, before, etag)


def pin(store: Store, flow: str, name: str, version: Version, *, pinned: bool = True) -> None:
    """Keep a release in the history however old it gets, or no longer.

    Raises:
        ConflictError: somebody else kept moving the pointer.
        InputError: the release is not in the history.
    """

    def change(moves: Moves) -> Moves:
        newest = next((move for move in moves if move.version == version), None)
        if newest is None:
            raise InputError(f"release {version.short} is no longer in the history of {flow}/{name}")
        return tuple(
            replace(move, pinned=pinned and move is newest) if move.version == version else move for move in moves
        )

    change_pointer(store, pointer_key(flow, name), change)


def change_pointer(store: Store, key: str, change: Callable[[Moves], Moves]) -> None:
    """Replace a pointer's history by what `change` makes of it.

    It is asked anew for every version of the pointer that is met: a release that somebody makes current meanwhile is
    judged as the current one.

    Raises:
        ConflictError: somebody else kept moving it.
        IntegrityError: the pointer is malformed.
    """

    def make(data: bytes | None) -> bytes | None:
        moves = _decode(store, key, data, "").moves if data is not None else ()
        wanted = change(moves)
        return None if data is None or wanted == moves else _encode(wanted)

    swap.change(store, key, make)


def _decode(store: Store, key: str, data: bytes, etag: str) -> Pointer:
    try:
        document = unsealed(data)
        if unknown := set(document) - {"version", "history", "nonce"}:
            raise ValueError(f"it holds {str(unknown)[:80]}")
        if document["version"] != FORMAT:
            raise ValueError(f"version {str(document['version'])[:40]!r} is not {FORMAT}")
        moves = tuple(
            Moved(
                Version.parse(item["release"]),
                str(item["at"]),
                _of_kind(str, item.get("entrypoint")),
                _of_kind(dict, item.get("schema")),
                item.get("pinned") is True,
            )
            for item in document["history"]
        )
    except (IntegrityError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise IntegrityError(
            f"{store.url(key)} is malformed: {error}", hint="apply the deployment again after removing it"
        ) from None
    if not moves:
        raise IntegrityError(f"{store.url(key)} names no release", hint="apply the deployment again after removing it")
    return Pointer(moves, etag)


def _of_kind(kind: type[_T], value: object) -> _T | None:
    if value is None or isinstance(value, kind):
        return value
    raise TypeError(f"a {type(value).__name__} where a {kind.__name__} should be")


def _put_back(store: Store, key: str, moves: Moves, etag: str) -> None:
    with contextlib.suppress(ConflictError):
        store.replace(key, _encode(moves), etag=etag)


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


def _encode(moves: Moves) -> bytes:
    # The nonce makes each write's bytes its own: after a lost answer the writer can tell its write from another's.
    history: list[dict[str, Any]] = [
        {"release": str(move.version), "at": move.at, "entrypoint": move.entrypoint, "schema": move.schema}
        | ({"pinned": True} if move.pinned else {})
        for move in moves
    ]
    return seal({"version": FORMAT, "history": history, "nonce": secrets.token_hex(8)})
