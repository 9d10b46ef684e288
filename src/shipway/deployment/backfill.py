"""A backfill: one run for each value of some parameters. Which runs are wanted, and what is to be done for each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from shipway.deployment.parameters import check_parameters, parse_parameters
from shipway.deployment.ranges import check_count, expand
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import IntegrityError, ParameterError
from shipway.manifest import Version

MAX_NAME = 100
"""Most characters of a run's name: it becomes part of keys in the store."""

CREATE, AGAIN, JOIN, SKIP = "create", "again", "join", "skip"
"""What there is to do for a value: a first run; another one, as the last did not complete or is to be made anew; to
wait for a run that goes on; nothing, as a run has completed."""

FINAL = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A run that there is to be.

    Attributes:
        name: what is particular to it, for people: `month-2013-03`. Not `month=2013-03`: as part of a key it would have
            readers of tables believe in a column `month`.
        parameters: what was given for it, over those of the deployment.
        key: digest of deployment, release and parameters: what is wanted again has the same.
    """

    name: str
    parameters: Mapping[str, Any]
    key: str


@dataclass(frozen=True, slots=True)
class Step:
    """What is to be done for a value.

    Attributes:
        wanted: the run that there is to be.
        action: one of `create`, `again`, `join`, `skip`.
        attempt: number of the run that is joined, skipped or to be made, from 1.
        run: the newest run that there is, as the API describes it.
    """

    wanted: Wanted
    action: str
    attempt: int
    run: Mapping[str, Any] | None

    @property
    def key(self) -> str:
        """The key of that run."""
        return attempt_key(self.wanted.key, self.attempt)


def wanted_runs(full_name: str, deployment: Mapping[str, Any], pairs: Sequence[str]) -> list[Wanted]:
    """Return the runs that `KEY=VALUES` pairs ask for: every combination, the last pair varying fastest.

    Args:
        full_name: `FLOW/NAME`.
        deployment: as the API describes it.
        pairs: a value may be a list (`a,b`) with ranges (`2013-02..2013-12`); JSON arrays, objects and strings, which
            begin with one of `[`, `{` and `"`, stand for themselves.

    Raises:
        ParameterError: a value cannot be read or does not fit the flow, or there are too many.
    """
    schema = deployment.get("parameter_openapi_schema") or {}
    given: dict[str, list[Any]] = {}
    for pair in pairs:
        name, values = _read(pair, schema)
        if name in given:
            raise ParameterError(f"parameter {name!r} is given twice", hint=f"write -p {name}=A,B")
        given[name] = values
    check_count(prod(map(len, given.values())))
    defaults = deployment.get("parameters") or {}
    varied = [name for name, values in given.items() if len(values) > 1] or list(given)
    release = _release(deployment.get("version"))
    runs: list[Wanted] = []
    for chosen in product(*given.values()):
        parameters = dict(zip(given, chosen, strict=True))
        if schema:
            check_parameters({**defaults, **parameters}, schema, complete=True)
        identity = [full_name, release, {**defaults, **parameters}]
        name = "_".join(f"{name}-{_text(parameters[name])}" for name in varied)[:MAX_NAME]
        runs.append(Wanted(name, parameters, f"shipway-backfill-{sha256_bytes(canonical_json(identity))}"))
    return runs


def attempt_key(key: str, attempt: int) -> str:
    """Return the key of a value's first, second, ... run."""
    return key if attempt == 1 else f"{key}#{attempt}"


def plan(
    wanted: Sequence[Wanted], existing: Mapping[str, Sequence[Mapping[str, Any]]], *, again: bool = False
) -> list[Step]:
    """Return what is to be done for each value, in order. The newest run of a value decides.

    Args:
        wanted: the runs that there are to be.
        existing: the runs that there are, by key, the oldest first.
        again: whether a run that has completed is made once more.
    """
    steps = []
    for one in wanted:
        runs = existing.get(one.key, ())
        last = runs[-1] if runs else None
        if last is None:
            steps.append(Step(one, CREATE, 1, None))
        elif last["state_type"] not in FINAL:
            steps.append(Step(one, JOIN, len(runs), last))
        elif last["state_type"] == "COMPLETED" and not again:
            steps.append(Step(one, SKIP, len(runs), last))
        else:
            steps.append(Step(one, AGAIN, len(runs) + 1, last))
    return steps


def _read(pair: str, schema: Mapping[str, Any]) -> tuple[str, list[Any]]:
    """Read one pair: the parameter's name and its values, each once."""
    name, equals, text = pair.partition("=")
    if not equals or not name:
        raise ParameterError(f"{pair!r} is not KEY=VALUES")
    if text[:1] == '"':
        try:
            return name, [json.loads(text)]
        except ValueError:
            raise ParameterError(f"{text[:80]!r} is not a JSON string") from None
    texts = [text] if text[:1] in ("[", "{") else expand(text)
    return name, list(_once(parse_parameters((f"{name}={each}",), schema)[name] for each in texts))


def _release(version: object) -> object:
    """Return what identifies a deployment's code: when a release was stored is not part of that."""
    try:
        return Version.parse(version).release_id
    except IntegrityError:
        return version  # not deployed with Shipway


def _once(values: Iterator[Any]) -> Iterator[Any]:
    seen = set()
    for value in values:
        try:
            digest = canonical_json(value)
        except ValueError:
            raise ParameterError(f"{value} is not a value that JSON has") from None
        if digest not in seen:
            seen.add(digest)
            yield value


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
