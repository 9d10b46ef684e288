"""Whether what lies under `models/` is as it was written, and as the records of the runs say."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import IntegrityError, ShipwayError
from shipway.release.retention import in_parallel
from shipway.release.verify import DAMAGED, MISSING, Finding
from shipway.run import models
from shipway.run.models import SHARED, Champion
from shipway.run.record import RunRecord
from shipway.store.base import Store


@dataclass(frozen=True, slots=True)
class Made:
    """What a run's record says of a version: whose it is, and the digest of the rest."""

    name: str
    run: str
    folder: str
    digest: str


def made_by(record: RunRecord, folder: str) -> Iterator[tuple[str, Made]]:
    """Yield the keys of the versions that a record names, and what it says of them.

    Raises:
        IntegrityError: what it says names no version.
    """
    run = f"{record.flow}/{record.run_name}"
    for entry in record.models:
        try:
            key = models.version_key(entry["name"], int(entry["version"]))
            yield key, Made(f"{entry['name']} {entry['version']}", run, folder, _digest(entry))
        except (ShipwayError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityError(f"the record of {run} names a malformed model: {error}") from None


def check_models(store: Store, made: dict[str, Made]) -> tuple[int, list[Finding]]:
    """Read every version and champion.

    Args:
        store: what to verify.
        made: what the records say of versions, by their keys.

    Returns:
        The number of versions that there are, and what is wrong. A version that no record names is none: its run's
        attempt did not commit. But a champion must be one.
    """
    findings: list[Finding] = []
    found: set[str] = set()
    champions: list[str] = []
    keys = [key for key in models.keys_under(store) if models.version_at(key) or models.is_champion(key)]
    for key, document, error in in_parallel(partial(_read, store), keys):
        if error:
            findings.append(Finding("model", _name(key, made), DAMAGED, key, reason=error.message))
            found.add(key)
        elif isinstance(document, Champion):
            champions += [models.version_key(document.name, move.version) for move in document.history]
            if models.champion_key(document.name) != key:
                findings.append(Finding("model", document.name, DAMAGED, key, reason="it is of another model"))
        elif document is not None:
            found.add(key)
            said = made.get(key)
            if said and (said.folder, said.digest) == (document["folder"], _digest(document)):
                continue
            if said:
                reason = f"it and the record of {said.run} differ"
                findings.append(Finding("model", said.name, DAMAGED, key, users=(said.run,), reason=reason))
    for key, said in made.items():
        if key not in found:
            findings.append(Finding("model", said.name, MISSING, key, users=(said.run,)))
    for key in dict.fromkeys(champions):
        # A run may have committed since the records were read.
        if key not in made and not _is_committed(store, key):
            reason = "it is or was champion, and no run's record names it"
            findings.append(Finding("model", _name(key, made), MISSING, key, reason=reason))
    return len(made), findings


def _read(store: Store, key: str) -> tuple[str, dict[str, Any] | Champion | None, IntegrityError | None]:
    try:
        read = models.read_champion if models.is_champion(key) else models.read_version
        return key, read(store, key), None
    except IntegrityError as error:
        return key, None, error


def _is_committed(store: Store, key: str) -> bool:
    try:
        document = models.read_version(store, key)
        return document is not None and models.committed(store, document) is not None
    except IntegrityError:
        return True  # named already, as a version or as a record that is damaged


def _name(key: str, made: dict[str, Made]) -> str:
    _, name, file = key.split("/")
    return made[key].name if key in made else f"{name} {file.removesuffix('.json')}"


def _digest(facts: Any) -> str:
    return sha256_bytes(canonical_json({field: facts.get(field) for field in SHARED}))
