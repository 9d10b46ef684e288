"""The deployment file: what a person reads and edits between `build` and `apply`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from types import UnionType
from typing import Any

from msgspec import Struct, ValidationError, convert, to_builtins
from ruamel.yaml.comments import CommentedMap, CommentedSeq

from shipway.deployment.fields import (
    check_block,
    check_cron,
    check_entrypoint,
    check_limit,
    check_name,
    check_release,
    check_rrule,
    check_timezone,
    parse_interval,
)
from shipway.deployment.parameters import check_parameters
from shipway.deployment.yaml_file import load_yaml, plain
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import DeploymentFileError, InputError
from shipway.manifest import Version

Place = tuple[int | str, ...]

MAX_WORDS = 400
"""Characters of an explanation, which repeats what was given."""


class Schedule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """When runs are created: exactly one of `cron`, `interval` and `rrule`.

    Attributes:
        cron: five-field cron expression.
        interval: seconds between runs.
        rrule: iCalendar recurrence rule.
        timezone: IANA name of the time zone the rule is read in.
        active: False pauses it; None leaves it as it is on the server (a new one is active).
        parameters: given to its runs over the deployment's own.
    """

    cron: str | None = None
    interval: float | None = None
    rrule: str | None = None
    timezone: str = "UTC"
    active: bool | None = None
    parameters: dict[str, Any] = {}

    @property
    def slug(self) -> str:
        """A name that follows from the rule, by which the server's copy is found again."""
        rule = {"cron": self.cron, "interval": self.interval, "rrule": self.rrule, "timezone": self.timezone}
        kind = next(name for name in RULES if rule[name] is not None)
        return f"{kind}-{sha256_bytes(canonical_json(rule))[:8]}"

    @property
    def text(self) -> str:
        """The rule in a few words."""
        if self.interval is not None:
            return f"every {timedelta(seconds=self.interval)}"
        kind = "cron" if self.cron is not None else "rrule"
        return f"{kind} {self.cron or self.rrule!r} in {self.timezone}"


class DeploymentSpec(Struct, frozen=True, forbid_unknown_fields=True):
    """One deployment, as its file says it; made by `make_spec`, which checks it.

    Attributes:
        name: the deployment's name.
        flow: the flow's name.
        entrypoint: `FILE.py:FUNCTION` within the release.
        store: block that code and data live in, `TYPE/NAME`.
        release: `<epoch>.<release-id>`, stamped by `build`.
        parameter_openapi_schema: what the flow's parameters look like, from its signature.
        description: text for the UI.
        tags: labels on the deployment and its runs.
        work_pool: Prefect work pool.
        work_queue: queue in that pool.
        parameters: given to every run unless it says otherwise.
        schedules: when runs are created.
        concurrency_limit: most runs at once, or None.
        job_variables: Prefect's job variables, such as `env`.
    """

    name: str
    flow: str
    entrypoint: str
    store: str
    release: str
    parameter_openapi_schema: dict[str, Any]
    description: str | None = None
    tags: tuple[str, ...] = ()
    work_pool: str = "shipway"
    work_queue: str = "default"
    parameters: dict[str, Any] = {}
    schedules: tuple[Schedule, ...] = ()
    concurrency_limit: int | None = None
    job_variables: dict[str, Any] = {}

    @property
    def full_name(self) -> str:
        """`FLOW/NAME`, which names the deployment everywhere."""
        return f"{self.flow}/{self.name}"

    @property
    def version(self) -> Version:
        """The release, as a value."""
        return Version.parse(self.release)


RULES = ("cron", "interval", "rrule")

_CHECKS: dict[str, Callable[[Any], object]] = {
    "name": check_name,
    "flow": check_name,
    "entrypoint": check_entrypoint,
    "store": check_block,
    "release": check_release,
    "work_pool": check_name,
    "work_queue": check_name,
    "concurrency_limit": check_limit,
}
_KINDS: Mapping[str, type | UnionType] = {"concurrency_limit": int | float, "interval": str | int | float}
"""What a check is for, where that is not text."""
_SCHEDULE_CHECKS: dict[str, Callable[[Any], object]] = {
    "cron": check_cron,
    "interval": parse_interval,
    "rrule": check_rrule,
    "timezone": check_timezone,
}


class SpecError(ValueError):
    """A mistake in a deployment's description.

    Attributes:
        place: keys and indexes that lead to it.
        words: what is wrong there.
    """

    def __init__(self, place: tuple[int | str, ...], words: str) -> None:
        self.place = place
        words = words if len(words) <= MAX_WORDS else f"{words[:MAX_WORDS]}..."
        self.words = words
        super().__init__(f"{'.'.join(map(str, place))}: {words}" if place else words)


def make_spec(values: Mapping[str, Any]) -> DeploymentSpec:
    """Check a deployment's description and make a `DeploymentSpec` of it.

    Raises:
        SpecError: there is a mistake in it.
    """
    values = dict(values)
    if isinstance(values.get("description"), str):
        values["description"] = values["description"].rstrip()
    _check_fields(values, _CHECKS, ())
    if isinstance(values.get("schedules"), list | tuple):
        values["schedules"] = [_checked_schedule(item, number) for number, item in enumerate(values["schedules"])]
    try:
        return convert(values, DeploymentSpec)
    except ValidationError as error:
        raise _located(error) from None


def to_mapping(spec: DeploymentSpec) -> dict[str, Any]:
    """Return a deployment's description as `make_spec` takes it."""
    values: dict[str, Any] = to_builtins(spec)
    return values


def _checked_schedule(item: Any, number: int) -> Any:
    if not isinstance(item, Mapping):
        return item
    place = ("schedules", number)
    _check_fields(item, _SCHEDULE_CHECKS, place)
    unknown = [key for key in item if key not in Schedule.__struct_fields__]
    given = [name for name in RULES if item.get(name) is not None]
    if len(given) != 1 and not unknown:
        words = " and ".join(given) or "none"
        raise SpecError(place, f"a schedule has exactly one of cron, interval and rrule, this one has {words}")
    if item.get("interval") is not None:
        try:
            return {**item, "interval": parse_interval(item["interval"])}
        except ValueError as error:
            raise SpecError((*place, "interval"), str(error)) from None
    return item


def _check_fields(values: Mapping[str, Any], checks: Mapping[str, Callable[[Any], object]], place: Place) -> None:
    """Run the checks of the fields that are there; of the wrong type they are found by the conversion."""
    for name, check in checks.items():
        value = values.get(name)
        if isinstance(value, _KINDS.get(name, str)):
            try:
                check(value)
            except ValueError as error:
                raise SpecError((*place, name), str(error)) from None


def _located(error: ValidationError) -> SpecError:
    """Turn msgspec's words into ours; it names the place at the end, as in "... - at `$.schedules[0].cron`"."""
    words, _, path = str(error).partition(" - at `$")
    steps = re.findall(r"\.(\w+)|\[(\d+)\]", path)
    place: Place = tuple(name or int(number) for name, number in steps)
    fields = Schedule.__struct_fields__ if place[:1] == ("schedules",) else DeploymentSpec.__struct_fields__
    if found := re.fullmatch(r"Object contains unknown field `(.*)`", words):
        place = (*place, found[1])
        return SpecError(place, f"unknown key {'.'.join(map(str, place))!r}; keys are {', '.join(fields)}")
    if found := re.fullmatch(r"Object missing required field `(.*)`", words):
        return SpecError(place, f"key {found[1]!r} is missing")
    return SpecError(place, f"it is not what it should be: {words[:1].lower()}{words[1:].replace('`', '')}")


def read(path: Path, *, parameters: bool = True) -> DeploymentSpec:
    """Read a deployment file.

    Args:
        path: the file.
        parameters: whether to hold its parameters against its schema; `build`, which brings another schema, does not.

    Raises:
        DeploymentFileError: the file is missing or has a mistake; the message says in which line and column.
    """
    document = load_yaml(path)
    if not isinstance(document, CommentedMap):
        raise DeploymentFileError(f"{path}:1:1: a deployment file is a mapping of keys to values")
    try:
        spec = make_spec(plain(document))
    except SpecError as error:
        named = error.words.startswith(("unknown key", "key "))
        text = error.words if named else str(error)
        raise DeploymentFileError(f"{path}:{_position(document, error.place)}: {text}") from None
    if not parameters:
        return spec
    try:
        check_parameters(spec.parameters, spec.parameter_openapi_schema, complete=False)
        for schedule in spec.schedules:
            check_parameters(spec.parameters | schedule.parameters, spec.parameter_openapi_schema, complete=False)
    except InputError as error:
        raise DeploymentFileError(f"{path}:{_position(document, ('parameters',))}: {error}") from None
    return spec


def _position(document: CommentedMap, place: Place) -> str:
    """Return `line:column` of the innermost part of `place` that the document has."""
    node: Any = document
    line, column = 0, 0
    for part in place:
        if isinstance(node, CommentedMap) and part in node:
            line, column = node.lc.key(part)
        elif isinstance(node, CommentedSeq) and isinstance(part, int) and part < len(node):
            line, column = node.lc.item(part)
        else:
            break
        node = node[part]
    return f"{line + 1}:{column + 1}"
