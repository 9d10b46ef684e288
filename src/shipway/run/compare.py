"""Two runs held against each other: what they saved, and what may explain where that differs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from shipway.artifact import Artifact
from shipway.run.record import RunRecord


@dataclass(frozen=True, slots=True)
class Difference:
    """One thing that two runs did not save alike.

    Attributes:
        name: what it is called.
        problem: `differs`, `missing` from the second run, or `new` in it.
        before: digest of what the first run saved, or None.
        after: digest of what the second run saved, or None.
        rows: number of rows in the first and the second.
    """

    name: str
    problem: str
    before: str | None
    after: str | None
    rows: tuple[int | None, int | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """What came of a comparison.

    Attributes:
        same: names of what both saved with the same bytes.
        differences: what they did not.
        reasons: sentences about what may explain that.
    """

    same: tuple[str, ...]
    differences: tuple[Difference, ...]
    reasons: tuple[str, ...]


def compare(before: RunRecord, after: RunRecord) -> Comparison:
    """Compare what two runs saved, name by name, by digests."""
    old = {artifact.name: artifact for artifact in before.artifacts}
    new = {artifact.name: artifact for artifact in after.artifacts}
    same, differences = [], []
    for name in sorted(old.keys() | new.keys()):
        first, second = old.get(name), new.get(name)
        if first and second and first.sha256 == second.sha256:
            same.append(name)
        else:
            problem = "differs" if first and second else "missing" if first else "new"
            differences.append(
                Difference(name, problem, _digest(first), _digest(second), (_rows(first), _rows(second)))
            )
    reasons = tuple(_reasons(before, after)) if differences else ()
    return Comparison(tuple(same), tuple(differences), reasons)


def _reasons(before: RunRecord, after: RunRecord) -> Iterator[str]:
    for what in ("release", "parameters"):
        if getattr(before, what) != getattr(after, what):
            yield f"The {what} differ" if what == "parameters" else "The release is another one"
    if loaded(before) != loaded(after):
        yield "They loaded other data"
    for what in ("python", "platform"):
        old, new = before.environment.get(what), after.environment.get(what)
        if old != new:
            yield f"{what.capitalize()} was {old}, and is {new}"
    packages = [record.environment.get("packages", {}) for record in (before, after)]
    changed = [
        name for name in sorted(packages[0].keys() | packages[1].keys()) if len({_of(p, name) for p in packages}) > 1
    ]
    if changed:
        told = (f"{name} {_of(packages[0], name)} -> {_of(packages[1], name)}" for name in changed)
        yield f"Packages differ: {', '.join(told)}"


def loaded(record: RunRecord) -> set[tuple[str, str]]:
    """Return name and digest of everything that a run loaded."""
    return {(item["name"], item["sha256"]) for item in record.inputs}


def _of(packages: Mapping[str, Any], name: str) -> str:
    return str(packages.get(name, "none"))


def _digest(artifact: Artifact | None) -> str | None:
    return artifact.sha256 if artifact else None


def _rows(artifact: Artifact | None) -> int | None:
    return artifact.rows if artifact else None
