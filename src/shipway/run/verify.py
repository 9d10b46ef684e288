"""Verification: everything that a deployment or a run refers to is read and compared with its digest."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from shipway.artifact import Artifact
from shipway.errors import InputError, IntegrityError, ObjectNotFoundError
from shipway.manifest import Version
from shipway.release.retention import in_parallel
from shipway.release.verify import DAMAGED, MISSING, Finding, check_releases, hash_object
from shipway.run.record import RunRecord
from shipway.run.references import deployment_of, is_record, read_pointers, read_records
from shipway.run.verify_models import Made, check_models, made_by
from shipway.run.verify_pages import check_pages
from shipway.run.verify_results import check_results
from shipway.store.base import Store

NAMED = 5
"""Runs named as users of a release; more of them are counted."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was read, and what is wrong.

    Attributes:
        deployments: number of pointers.
        releases: number of releases that anything refers to.
        runs: number of run records.
        artifacts: number of artifacts in them.
        models: number of versions of models in them.
        pages: number of pages of runs.
        bytes: bytes of files and artifacts that were compared with their digests.
        findings: what is missing or damaged; empty when all is well.
    """

    deployments: int
    releases: int
    runs: int
    artifacts: int
    models: int
    pages: int
    bytes: int
    findings: tuple[Finding, ...]


def verify(store: Store, progress: Callable[[int, int], None] = lambda _done, _total: None) -> Report:
    """Read everything that is reachable, each object once, and compare it with what it should be.

    Memory is bounded whatever the sizes. What a collection removes meanwhile is not reported.

    Args:
        store: what to verify.
        progress: told of (bytes read, bytes to read as far as known).

    Raises:
        StoreError: the store failed.
    """
    work = _Verification(store, progress)
    return work.run()


class _Verification:
    """One verification under way."""

    def __init__(self, store: Store, progress: Callable[[int, int], None]) -> None:
        self.store = store
        self.progress = progress
        self.findings: list[Finding] = []
        self.runs: defaultdict[Version, list[str]] = defaultdict(list)
        self.run_count: defaultdict[Version, int] = defaultdict(int)
        self.models: dict[str, Made] = {}
        self.records = 0
        self.artifacts = 0
        self.done = 0
        self.total = 0

    def run(self) -> Report:
        deployments, users = self._referrers(self.findings)
        for record, artifact, size, problem in in_parallel(self._check, self._artifacts()):
            self._note(size)
            if problem:
                self.findings.append(Finding("run", _name(record), problem, artifact.key, (artifact.name,)))
        models, wrong = check_models(self.store, self.models)
        self.findings += wrong
        self.findings += check_results(self.store)
        pages, wrong = check_pages(self.store)
        self.findings += wrong
        for version, names in self.runs.items():
            more = self.run_count[version] - len(names)
            users[version] += [*names, *([f"{more} more runs"] if more else [])]
        found = list(check_releases(self.store, users, self._note))
        if found:
            # A release that left its last history meanwhile may have been collected since.
            _, still = self._referrers([])
            found = [item for item in found if (version := Version.parse(item.name)) in still or version in self.runs]
        self.findings += found
        findings = tuple(self.findings)
        return Report(deployments, len(users), self.records, self.artifacts, models, pages, self.done, findings)

    def _referrers(self, findings: list[Finding]) -> tuple[int, defaultdict[Version, list[str]]]:
        """Return the number of pointers, and the releases that pointers refer to, with the deployments that do."""
        users: defaultdict[Version, list[str]] = defaultdict(list)
        count = 0
        for key, pointer in read_pointers(self.store):
            count += 1
            if isinstance(pointer, IntegrityError):
                findings.append(_malformed("deployment", deployment_of(key), key, pointer))
            else:
                for version in dict.fromkeys(move.version for move in pointer.moves):
                    users[version].append(deployment_of(key))
        return count, users

    def _artifacts(self) -> Iterator[tuple[RunRecord, Artifact]]:
        """Yield every artifact of every record, and note the release of each."""
        keys: list[str] = []
        for info in self.store.list("runs/"):
            keys += [info.key] if is_record(info.key) else []
            self.total += 0 if is_record(info.key) else info.size
        for key, record in read_records(self.store, keys):
            self.records += 1
            if isinstance(record, IntegrityError):
                self.findings.append(_malformed("run", key.removesuffix("/run.json"), key, record))
                continue
            try:
                if record.release is not None:
                    version = Version.parse(record.release)
                    self.run_count[version] += 1
                    if len(self.runs[version]) < NAMED:
                        self.runs[version].append(_name(record))
                self.models |= made_by(record, key.removesuffix("/run.json"))
            except IntegrityError as error:
                self.findings.append(_malformed("run", _name(record), key, error))
            for artifact in {artifact.key: artifact for artifact in record.artifacts}.values():
                self.artifacts += 1
                yield record, artifact

    def _check(self, item: tuple[RunRecord, Artifact]) -> tuple[RunRecord, Artifact, int, str | None]:
        record, artifact = item
        try:
            size, sha256 = hash_object(self.store, artifact.key)
        except ObjectNotFoundError:
            return record, artifact, 0, MISSING
        except InputError:
            return record, artifact, 0, DAMAGED  # the key cannot be one
        return record, artifact, size, None if (size, sha256) == (artifact.bytes, artifact.sha256) else DAMAGED

    def _note(self, done: int, more: int = 0) -> None:
        self.done += done
        self.total += more
        self.progress(self.done, max(self.total, self.done))


def _name(record: RunRecord) -> str:
    return f"{record.flow}/{record.run_name}"


def _malformed(kind: str, name: str, key: str, error: IntegrityError) -> Finding:
    return Finding(kind, name, DAMAGED, key, reason=error.message)
