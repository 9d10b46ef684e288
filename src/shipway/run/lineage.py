"""Lineage: from something in a store back to all that it was made of, as the records of the runs tell."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

from shipway.artifact import Artifact
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import InputError, IntegrityError, NotFoundError
from shipway.manifest import Version, read_manifest
from shipway.release.retention import in_parallel
from shipway.run import models
from shipway.run.record import RunRecord, read_record
from shipway.run.references import run_of, run_of_page
from shipway.store.base import Store

MAX_RUNS = 2000
"""Runs that are looked at; a tree of more says so."""

RAW = "raw/"
"""How names begin of what came from outside, whatever else the run that saved it has loaded."""

_T = TypeVar("_T")
_FOLDER = re.compile(r"runs/[^/]+/\d{4}-\d{2}-\d{2}/[^/]+")
_LOCK = re.compile(r"(requirements[^/]*\.(lock|txt)|(uv|poetry|pdm)\.lock|pylock(\.[^/]+)?\.toml)")
_CODE = (".py", ".pyc", ".pyi", ".so", ".pyd", ".toml", ".yaml", ".yml", ".lock", ".cfg", ".ini")


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked about.

    Attributes:
        kind: `model`, `artifact` or `run`.
        name: what it is called.
        folder: folder of the run that made it.
        key: its object, where it is one.
        facts: what else is known of it: of a model its `version` and whether it is `champion`.
    """

    kind: str
    name: str
    folder: str
    key: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Raw:
    """Something that nothing in the store is known to have been made of.

    Attributes:
        name: an artifact's name, or the path of a file of a release.
        sha256: digest of its bytes.
        source: the run that saved it, or the release that it is in.
        key: its object, or None for a file of a release.
    """

    name: str
    sha256: str
    source: str
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Lineage:
    """All that something was made of.

    Attributes:
        target: what was asked about.
        runs: by their folders, the nearest first: the record, or what is wrong with it.
        locks: by release, the lock files in it with their digests, or what is wrong with the release.
        cut: number of runs that were not looked at, as there are too many.
    """

    target: Target
    runs: Mapping[str, RunRecord | str]
    locks: Mapping[str, Mapping[str, str] | str]
    cut: int = 0

    def problem(self, item: Mapping[str, Any]) -> str | None:
        """Say what is wrong with an input of a run, or None."""
        maker = self.runs.get(run_of(item["key"]))
        if maker is None:
            return None if _FOLDER.fullmatch(run_of(item["key"])) else "it is no run's object"
        if isinstance(maker, str):
            return maker
        found = next((artifact for artifact in maker.artifacts if artifact.key == item["key"]), None)
        if found is None:
            return f"run {maker.run_name} did not save it"
        return None if found.sha256 == item["sha256"] else f"run {maker.run_name} saved other bytes"

    def raw(self) -> list[Raw]:
        """Return what nothing in the store is known to have been made of, by name.

        These are data files of the releases that runs have read; artifacts whose names begin with `raw/`, and what was
        taken from runs that loaded nothing and read no such thing.
        """
        found: dict[tuple[str, str], Raw] = {}
        used = {item["key"] for record in self.records() for item in record.inputs} | {self.target.key}
        for record in self.records():
            files = [
                Raw(item["path"], item["sha256"], f"release {Version.parse(record.release).short}")
                for item in record.reads
                if record.release and not item["path"].endswith(_CODE)
            ]
            named = [_raw(record, artifact) for artifact in record.artifacts if artifact.name.startswith(RAW)]
            if not (files or named or record.inputs):
                named = [_raw(record, artifact) for artifact in record.artifacts if artifact.key in used]
            found |= {(item.name, item.sha256): item for item in files + named}
        return [found[key] for key in sorted(found)]

    def records(self) -> Iterator[RunRecord]:
        """Yield the records that are sound."""
        return (record for record in self.runs.values() if isinstance(record, RunRecord))


def trace(store: Store, target: Target, *, max_runs: int = MAX_RUNS) -> Lineage:
    """Follow the inputs of runs from `target` back to runs that loaded nothing; each record is read once.

    What is missing or damaged on the way is noted in the result.

    Raises:
        StoreError: the store failed.
    """
    runs: dict[str, RunRecord | str] = {}
    next_ones = [target.folder]
    cut: set[str] = set()
    while next_ones:
        room = max_runs - len(runs)
        cut.update(next_ones[room:])
        level = next_ones[:room]
        runs |= zip(level, in_parallel(partial(_read, store), level), strict=True)
        found = [run_of(item["key"]) for folder in level for item in inputs_of(runs[folder])]
        next_ones = [folder for folder in dict.fromkeys(found) if folder not in runs and _FOLDER.fullmatch(folder)]
    releases = dict.fromkeys(record.release for record in runs.values() if isinstance(record, RunRecord))
    known = [release for release in releases if release]
    locks = dict(zip(known, in_parallel(partial(_locks, store), known), strict=True))
    return Lineage(target, runs, locks, len(cut - runs.keys()))


def inputs_of(record: RunRecord | str) -> list[Mapping[str, Any]]:
    """Return what a run loaded, each object once."""
    if isinstance(record, str):
        return []
    return list({item["key"]: item for item in record.inputs}.values())


def environment_digest(record: RunRecord) -> str:
    """Return the digest of what a run ran on: the sha256 of the canonical JSON of its record's `environment`."""
    return sha256_bytes(canonical_json(record.environment))


def find_model(store: Store, wanted: str) -> Target | None:
    """Return the champion of the model `NAME`, or its version `NAME@VERSION`; None where there is no such model.

    Raises:
        NotFoundError: it has no such version, or no champion.
        IntegrityError: what says so is damaged.
    """
    name, at, text = wanted.rpartition("@")
    if not at or not text.isdecimal():
        name, text = wanted, ""
    try:
        champion = models.read_champion(store, models.champion_key(name))
    except InputError:
        return None  # nothing can be called so
    if champion is None and not (versions := models.versions_in(store, name)):
        return None
    version = int(text) if text else champion.current if champion else None
    if version is None:
        raise NotFoundError(f"model {name} has no champion", hint=f"name a version, as in {name}@{versions[-1]}")
    return _version(store, name, version, champion.current if champion else None)


def find_key(store: Store, key: str) -> Target:
    """Return what lies under a key: of a model, of a run, or of a report of a run.

    Raises:
        NotFoundError: there is no such object, or no run's record names it.
        InputError: it is of another kind.
        IntegrityError: a record is damaged.
    """
    if models.is_champion(key) and (champion := models.read_champion(store, key)):
        if champion.current is None:
            raise NotFoundError(f"model {champion.name} has no champion")
        return _version(store, champion.name, champion.current, champion.current)
    if models.version_at(key) and (document := models.read_version(store, key)):
        champion = models.read_champion(store, models.champion_key(document["name"]))
        return _version(store, document["name"], document["version"], champion.current if champion else None)
    if key.startswith("reports/") and key.endswith(".html"):
        key = f"{run_of_page(key)}/run.json"
    folder = run_of(key)
    if not _FOLDER.fullmatch(folder):
        store.head(key)
        raise InputError(f"{store.url(key)} is not of a run or a model", hint="give something under runs/ or models/")
    record = read_record(store, f"{folder}/run.json")
    if key in (folder, f"{folder}/run.json", f"{folder}/"):
        return Target("run", record.run_name, folder)
    found = next((artifact for artifact in record.artifacts if artifact.key == key), None)
    if found is None:
        raise NotFoundError(
            f"the record of run {record.run_name} does not name {store.url(key)}",
            hint="an attempt that did not complete may have left it",
        )
    return Target("artifact", found.name, folder, found.key)


def _version(store: Store, name: str, version: int, champion: int | None) -> Target:
    document = models.read_version(store, models.version_key(name, version))
    if document is None:
        raise NotFoundError(
            f"model {name} has no version {version} in {store.address}", hint=f"`shipway models {name}`"
        )
    facts = {"version": version, "champion": version == champion}
    return Target("model", name, document["folder"], document["key"], facts)


def _raw(record: RunRecord, artifact: Artifact) -> Raw:
    return Raw(artifact.name, artifact.sha256, f"run {record.run_name}", artifact.key)


def _read(store: Store, folder: str) -> RunRecord | str:
    return _or_problem(lambda: _checked(read_record(store, f"{folder}/run.json")), "its record is missing")


def _checked(record: RunRecord) -> RunRecord:
    """Return a record that has what is looked at here.

    Raises:
        IntegrityError: it has not.
    """
    try:
        texts = [item[name] for item in record.inputs for name in ("key", "name", "sha256")]
        texts += [item[name] for item in record.reads for name in ("path", "sha256")]
        texts += [record.run_name, record.flow, record.timings["ended"], record.timings["scheduled"]]
        sound = all(isinstance(text, str) for text in texts)
        sound &= all(isinstance(facts, Mapping) for facts in (record.parameters, record.environment))
    except (KeyError, TypeError):
        sound = False
    if not sound:
        raise IntegrityError("its record is malformed")
    if record.release is not None:
        Version.parse(record.release)
    return record


def _locks(store: Store, release: str) -> Mapping[str, str] | str:
    def read() -> Mapping[str, str]:
        entries = read_manifest(store, Version.parse(release)).entries
        return {e.path: e.sha256 for e in entries if _LOCK.fullmatch(e.path.rpartition("/")[2])}

    return _or_problem(read, "it is missing")


def _or_problem(read: Callable[[], _T], missing: str) -> _T | str:
    try:
        return read()
    except NotFoundError:
        return missing
    except (IntegrityError, InputError) as error:
        return error.message
