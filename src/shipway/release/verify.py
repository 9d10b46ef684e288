"""Whether releases are as they were when they were built: every manifest, and every content at its place."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from shipway.blob import PACK_BYTES, release_key
from shipway.digest import sha256_bytes
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.manifest import Manifest, Version, read_manifest
from shipway.release.retention import in_parallel
from shipway.store.base import Store

PACKS_AT_ONCE = 4
"""Packs, of at most 8 MiB, in memory at a time; what is larger passes in pieces."""

MISSING, DAMAGED = "missing", "damaged"

Content = tuple[int, int, str]
"""Offset, size and sha256 of a content in its object."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One object that is not what it should be, as one of those who need it is affected.

    Attributes:
        kind: who needs it: `deployment`, `release`, `run`, `model`, `result` (what a task returned) or `page`.
        name: which one.
        problem: `missing` or `damaged`.
        key: the object.
        paths: files of the release, or names of the run's artifacts, that cannot be had; empty where nothing can.
        users: the deployments and runs that refer to the release.
        reason: what is wrong with what can be read but not understood.
    """

    kind: str
    name: str
    problem: str
    key: str
    paths: tuple[str, ...] = ()
    users: tuple[str, ...] = ()
    reason: str | None = None


def check_releases(
    store: Store,
    users: Mapping[Version, Sequence[str]],
    note: Callable[[int, int], None] = lambda _done, _more: None,
) -> Iterator[Finding]:
    """Read all of the releases, each object once, and yield what is wrong.

    Args:
        store: where they are.
        users: the releases, each with those who refer to it.
        note: told of bytes as they are read, and of bytes that were found to be there to read.
    """
    wanted: defaultdict[str, set[Content]] = defaultdict(set)
    whole: list[Version] = []
    for version, found in in_parallel(partial(_read, store), users):
        if isinstance(found, Manifest):
            whole.append(version)
            for _, key, content in _contents(found):
                wanted[key].add(content)
        else:
            problem = MISSING if isinstance(found, ObjectNotFoundError) else DAMAGED
            reason = found.message if problem == DAMAGED else None
            key = release_key(version.epoch, version.release_id)
            yield Finding("release", str(version), problem, key, (), tuple(users[version]), reason)
    note(0, sum(size for contents in wanted.values() for _, size, _ in contents))
    bad: dict[str, tuple[str, set[Content]]] = {}
    for key, problem, contents in in_parallel(partial(_check, store), wanted.items(), threads=PACKS_AT_ONCE):
        note(sum(size for _, size, _ in wanted[key]), 0)
        if contents:
            bad[key] = problem, contents
    if bad:
        # Which files these are was not kept: thousands of releases share few contents, and damage is rare.
        yield from _attribute(store, whole, users, bad)


def _attribute(
    store: Store,
    versions: Iterable[Version],
    users: Mapping[Version, Sequence[str]],
    bad: Mapping[str, tuple[str, set[Content]]],
) -> Iterator[Finding]:
    for version, found in in_parallel(partial(_read, store), versions):
        if isinstance(found, Manifest):
            paths: defaultdict[str, list[str]] = defaultdict(list)
            for path, key, content in _contents(found):
                if key in bad and content in bad[key][1]:
                    paths[key].append(path)
            for key, lost in paths.items():
                yield Finding("release", str(version), bad[key][0], key, tuple(lost), tuple(users[version]))


def _contents(manifest: Manifest) -> Iterator[tuple[str, str, Content]]:
    """Yield path, object and content of every file."""
    for entry in manifest.entries:
        where = manifest.contents[entry.sha256]
        yield entry.path, where.key, (where.offset, entry.size, entry.sha256)


def _read(store: Store, version: Version) -> tuple[Version, Manifest | ObjectNotFoundError | IntegrityError]:
    try:
        return version, read_manifest(store, version)
    except (ObjectNotFoundError, IntegrityError) as error:
        return version, error


def _check(store: Store, item: tuple[str, set[Content]]) -> tuple[str, str, set[Content]]:
    """Return an object's key, what is wrong with it, and the contents that it does not hold."""
    key, contents = item
    try:
        bad = _check_blob(store, key, contents) if "/blobs/" in key else _check_pack(store, key, contents)
    except ObjectNotFoundError:
        return key, MISSING, contents
    return key, DAMAGED, bad


def _check_blob(store: Store, key: str, contents: set[Content]) -> set[Content]:
    found = hash_object(store, key)
    return {content for content in contents if content[1:] != found}


def _check_pack(store: Store, key: str, contents: set[Content]) -> set[Content]:
    start = min(offset for offset, _, _ in contents)
    end = max(offset + size for offset, size, _ in contents)
    if end > PACK_BYTES:
        # No pack is longer; a manifest that says so may not make us take gigabytes into memory.
        inside = {content for content in contents if content[0] + content[1] <= PACK_BYTES}
        return (contents - inside) | (_check_pack(store, key, inside) if inside else set())
    data = memoryview(store.read(key, start=start, length=end - start) if end > start else b"")
    return {
        (offset, size, sha256)
        for offset, size, sha256 in contents
        if (piece := data[offset - start : offset - start + size]).nbytes != size or sha256_bytes(piece) != sha256
    }


def hash_object(store: Store, key: str) -> tuple[int, str]:
    """Return the size and sha256 of an object, memory bounded.

    Raises:
        ObjectNotFoundError: there is none.
    """
    digest, size = hashlib.sha256(), 0
    for piece in store.stream(key):
        digest.update(piece)
        size += len(piece)
    return size, digest.hexdigest()
