"""What lies under `models/`: a sealed document for each version of a model, and one that says which is champion.

A version exists for readers when the record of the run that made it names it; its document alone says nothing.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shipway.artifact import check_name, segment
from shipway.digest import is_sha256, seal, unseal
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.run.record import RunRecord, read_record
from shipway.store.base import Store

FORMAT = 1
CHAMPION = "champion.json"
MAX_BYTES = 16 * 1024 * 1024

SHARED = ("name", "version", "at", "artifact", "key", "sha256", "decision", "checked", "promote", "against", "facts")
"""What the document of a version and the record of its run both say of it."""

_VERSION = re.compile(r"models/[^/]+/([1-9]\d{0,8})\.json")


@dataclass(frozen=True, slots=True)
class Moved:
    """One thing that happened to the champion of a model.

    Attributes:
        version: the version that became champion, or did not.
        at: when, in UTC, ISO 8601.
        by: id of the run, or person and command.
        reason: why, in a sentence.
    """

    version: int
    at: str
    by: str
    reason: str


@dataclass(frozen=True, slots=True)
class Champion:
    """Which version of a model is champion.

    Attributes:
        name: the model's name.
        history: every move, the present one first.
        held: versions whose gate had passed and that did not become champion, the newest first.
    """

    name: str
    history: tuple[Moved, ...] = ()
    held: tuple[Moved, ...] = ()

    @property
    def current(self) -> int | None:
        """The version that is champion, or None."""
        return self.history[0].version if self.history else None


def model_folder(name: str) -> str:
    """Return the folder of a model, without a final slash.

    Raises:
        InputError: nothing can have that name.
    """
    return f"models/{segment(check_name(name))}"


def version_key(name: str, version: int) -> str:
    """Return the key of a version's document."""
    return f"{model_folder(name)}/{version}.json"


def champion_key(name: str) -> str:
    """Return the key of the document that says which version is champion."""
    return f"{model_folder(name)}/{CHAMPION}"


def version_at(key: str) -> int | None:
    """Return the number of the version whose document lies under `key`, or None where no such document does."""
    match = _VERSION.fullmatch(key)
    return int(match[1]) if match else None


def is_champion(key: str) -> bool:
    """Tell whether `key` is that of a document which says which version is champion."""
    return key.startswith("models/") and key.count("/") == 2 and key.endswith(f"/{CHAMPION}")


def version_bytes(facts: Mapping[str, Any]) -> bytes:
    """Return the document of a version; its nonce makes it this writer's own."""
    return seal({"format": FORMAT, "nonce": secrets.token_hex(8), **facts})


def champion_bytes(champion: Champion) -> bytes:
    """Return the document that says which version is champion; its nonce makes it this writer's own."""
    moves = {
        name: [
            {"version": move.version, "at": move.at, "by": move.by, "reason": move.reason}
            for move in getattr(champion, name)
        ]
        for name in ("history", "held")
    }
    return seal({"format": FORMAT, "nonce": secrets.token_hex(8), "name": champion.name, **moves})


def read_version(store: Store, key: str) -> dict[str, Any] | None:
    """Return the document of a version, or None where there is none.

    Raises:
        IntegrityError: it is not as it was written.
    """
    try:
        data = store.read(key, length=MAX_BYTES + 1)
    except ObjectNotFoundError:
        return None
    document = _open(store, key, data)
    numbers, texts = ("version", "attempt"), ("name", "at", "run", "run_name", "folder", "artifact", "key", "sha256")
    sound = all(isinstance(document.get(field), str) for field in texts) and is_sha256(document["sha256"])
    if not sound or not all(isinstance(document.get(field), int) for field in numbers):
        raise IntegrityError(f"{store.url(key)} is damaged: it is no version of a model")
    parts = document["folder"].split("/")
    if len(parts) != 4 or parts[0] != "runs" or {"", ".", ".."} & set(parts):
        raise IntegrityError(f"{store.url(key)} is damaged: {document['folder']!r:.80} is no run's folder")
    if version_at(key) != document["version"]:
        raise IntegrityError(f"{store.url(key)} is damaged: it is of version {document['version']}")
    return document


def read_champion(store: Store, key: str) -> Champion | None:
    """Return which version is champion, or None where there is no document.

    Raises:
        IntegrityError: it is not as it was written.
    """
    try:
        data = store.read(key, length=MAX_BYTES + 1)
    except ObjectNotFoundError:
        return None
    return decode_champion(store, key, data)


def decode_champion(store: Store, key: str, data: bytes) -> Champion:
    """Return what the document under `key` says; raises as `read_champion`."""
    document = _open(store, key, data)
    try:
        moves = {
            name: tuple(
                Moved(int(item["version"]), str(item["at"]), str(item["by"]), str(item["reason"]))
                for item in document[name]
            )
            for name in ("history", "held")
        }
        return Champion(str(document["name"]), **moves)
    except (KeyError, TypeError, ValueError) as error:
        raise IntegrityError(f"{store.url(key)} is damaged: {error}") from None


def committed(store: Store, document: Mapping[str, Any]) -> tuple[RunRecord, Mapping[str, Any]] | None:
    """Return the record of the run that made a version, and what it says of it; None where it does not name it.

    Raises:
        IntegrityError: the record, or what it says of the version, is not what it was.
    """
    try:
        record = read_record(store, f"{document['folder']}/run.json")
    except ObjectNotFoundError:
        return None
    entry = record_entry(record, document)
    return (record, entry) if entry else None


def record_entry(record: RunRecord, document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a run's record says of a version, or None where it does not name it: its attempt did not commit.

    Raises:
        IntegrityError: it says other things of it than the version's document.
    """
    for entry in record.models:
        if (entry.get("name"), entry.get("version")) == (document["name"], document["version"]):
            if different := [field for field in SHARED if entry.get(field) != document.get(field)]:
                raise IntegrityError(
                    f"version {document['version']} of {document['name']} and the record of {record.flow}/"
                    f"{record.run_name} differ in {', '.join(different)}"
                )
            return entry
    return None


def versions_in(store: Store, name: str) -> list[int]:
    """Return the numbers of a model's versions, committed or not, smallest first."""
    found = (version_at(info.key) for info in store.list(f"{model_folder(name)}/"))
    return sorted(number for number in found if number is not None)


def keys_under(store: Store) -> Iterator[str]:
    """Yield the keys of everything under `models/`."""
    return (info.key for info in store.list("models/"))


def _open(store: Store, key: str, data: bytes) -> dict[str, Any]:
    try:
        if len(data) > MAX_BYTES:
            raise ValueError(f"it is longer than {MAX_BYTES} bytes")
        document = unseal(data)
        if document.get("format") != FORMAT:
            raise ValueError("it is of an unknown format; a newer Shipway wrote it")
    except ValueError as error:
        raise IntegrityError(f"{store.url(key)} is damaged: {error}") from None
    return document
