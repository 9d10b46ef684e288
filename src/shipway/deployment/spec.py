"""The deployment file: what a person reads and edits between `build` and `apply`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Self
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap, CommentedSeq
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from shipway.deployment.parameters import check_parameters
from shipway.digest import canonical_json, sha256_bytes
from shipway.errors import DeploymentFileError, InputError, IntegrityError
from shipway.manifest import Version

MAX_NAME = 255

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}
_FORBIDDEN = set('/%&<>"\\')


def check_name(name: str) -> str:
    """Return `name` if a flow, deployment or queue may have it (Prefect's rule: none of `/ % & < > "`).

    Raises:
        ValueError: it may not.
    """
    if not name.strip() or name != name.strip():
        raise ValueError("a name may not be empty, or begin or end with a space")
    if len(name) > MAX_NAME:
        raise ValueError(f"a name may have at most {MAX_NAME} characters, this one has {len(name)}")
    if bad := sorted(set(name) & _FORBIDDEN | {char for char in name if ord(char) < 32 or ord(char) == 127}):
        raise ValueError(f"{name!r} may not hold {' '.join(map(repr, bad))}")
    return name


def parse_interval(value: object) -> object:
    """Turn `90` (seconds), `15m`, `1h30m` or `2d` into a timedelta.

    Raises:
        ValueError: it is none of these, or under a second.
    """
    interval = value
    if isinstance(value, str) and re.fullmatch(r"\s*(\d+\s*[smhdw]\s*)+", value):
        interval = timedelta(seconds=sum(int(n) * _UNITS[unit] for n, unit in re.findall(r"(\d+)\s*([smhdw])", value)))
    elif isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?", value):
        interval = timedelta(seconds=float(value))
    elif isinstance(value, int | float) and not isinstance(value, bool):
        interval = timedelta(seconds=value)
    if not isinstance(interval, timedelta):
        words = f"{value!r} is not an interval; write 90 (seconds), 15m, 1h30m or 2d"
        raise ValueError(words)  # noqa: TRY004 - what pydantic takes for a mistake in the file
    if interval < timedelta(seconds=1):
        raise ValueError("an interval is at least one second")
    return interval


def check_cron(text: str) -> str:
    """Return a cron expression of five fields, or raise ValueError."""
    from croniter import croniter

    if len(text.split()) != 5 or not croniter.is_valid(text):
        raise ValueError(f"{text!r} is not a cron expression of five fields")
    return text


def check_rrule(text: str) -> str:
    """Return an iCalendar recurrence rule, or raise ValueError."""
    from dateutil.rrule import rrulestr

    try:
        rrulestr(text)
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{text!r} is not a recurrence rule: {error}") from None
    return text


def check_timezone(text: str) -> str:
    """Return the IANA name of a time zone, or raise ValueError."""
    try:
        ZoneInfo(text)
    except (ValueError, OSError, KeyError):
        raise ValueError(f"{text!r} is not a time zone; use an IANA name such as Europe/Berlin") from None
    return text


def check_block(text: str) -> str:
    """Return the name of a block, or raise ValueError."""
    if not re.fullmatch(r"[a-z0-9-]+/[^/]+", text):
        raise ValueError(f"{text!r} does not name a storage block; write TYPE/NAME, such as s3/NAME")
    return text


def _checked_release(text: str) -> str:
    try:
        return str(Version.parse(text))
    except IntegrityError as error:
        raise ValueError(str(error)) from None


Name = Annotated[str, BeforeValidator(lambda value: check_name(value) if isinstance(value, str) else value)]
Interval = Annotated[timedelta, BeforeValidator(parse_interval)]
Cron = Annotated[str, AfterValidator(check_cron)]
RRule = Annotated[str, AfterValidator(check_rrule)]
TimeZone = Annotated[str, AfterValidator(check_timezone)]
Block = Annotated[str, AfterValidator(check_block)]
Description = Annotated[str | None, BeforeValidator(lambda value: value.rstrip() if isinstance(value, str) else value)]
ReleaseText = Annotated[str, BeforeValidator(_checked_release)]


class Schedule(BaseModel):
    """When runs are created: exactly one of `cron`, `interval` and `rrule`.

    Attributes:
        cron: five-field cron expression.
        interval: time between runs.
        rrule: iCalendar recurrence rule.
        timezone: IANA name of the time zone the rule is read in.
        active: False pauses it; None leaves it as it is on the server (a new one is active).
        parameters: given to its runs over the deployment's own.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    cron: Cron | None = None
    interval: Interval | None = None
    rrule: RRule | None = None
    timezone: TimeZone = "UTC"
    active: bool | None = None
    parameters: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_one_rule(self) -> Self:
        given = [name for name in ("cron", "interval", "rrule") if getattr(self, name) is not None]
        if len(given) != 1:
            raise ValueError(
                f"a schedule has exactly one of cron, interval and rrule, this one has {' and '.join(given) or 'none'}"
            )
        return self

    @property
    def slug(self) -> str:
        """A name that follows from the rule, by which the server's copy is found again."""
        rule = self.model_dump(mode="json", include={"cron", "interval", "rrule", "timezone"})
        kind = next(name for name in ("cron", "interval", "rrule") if rule[name] is not None)
        return f"{kind}-{sha256_bytes(canonical_json(rule))[:8]}"

    @property
    def text(self) -> str:
        """The rule in a few words."""
        if self.cron is not None:
            return f"cron {self.cron!r} in {self.timezone}"
        return f"every {self.interval}" if self.interval is not None else f"rrule {self.rrule!r} in {self.timezone}"


class DeploymentSpec(BaseModel):
    """One deployment, as its file says it.

    Attributes:
        name: the deployment's name.
        flow: the flow's name.
        entrypoint: `FILE.py:FUNCTION` within the release.
        description: text for the UI.
        tags: labels on the deployment and its runs.
        store: block that code and data live in, `TYPE/NAME`.
        release: `<epoch>.<release-id>`, stamped by `build`.
        work_pool: Prefect work pool.
        work_queue: queue in that pool.
        parameters: given to every run unless it says otherwise.
        schedules: when runs are created.
        concurrency_limit: most runs at once, or None.
        job_variables: Prefect's job variables, such as `env`.
        parameter_openapi_schema: what the flow's parameters look like, from its signature.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    flow: Name
    entrypoint: str = Field(pattern=r"^[^:\s][^:]*\.py:[A-Za-z_][A-Za-z0-9_.]*$")
    description: Description = None
    tags: tuple[str, ...] = ()
    store: Block
    release: ReleaseText
    work_pool: Name = "shipway"
    work_queue: Name = "default"
    parameters: dict[str, Any] = Field(default_factory=dict)
    schedules: tuple[Schedule, ...] = ()
    concurrency_limit: int | None = Field(default=None, ge=1)
    job_variables: dict[str, Any] = Field(default_factory=dict)
    parameter_openapi_schema: dict[str, Any]

    @property
    def full_name(self) -> str:
        """`FLOW/NAME`, which names the deployment everywhere."""
        return f"{self.flow}/{self.name}"

    @property
    def version(self) -> Version:
        """The release, as a value."""
        return Version.parse(self.release)


def read(path: Path, *, parameters: bool = True) -> DeploymentSpec:
    """Read a deployment file.

    Args:
        path: the file.
        parameters: whether to hold its parameters against its schema; `build`, which brings another schema, does not.

    Raises:
        DeploymentFileError: the file is missing or has a mistake; the message says in which line and column.
    """
    try:
        document = YAML(typ="rt").load(path.read_text())
    except FileNotFoundError:
        raise DeploymentFileError(f"{path} does not exist", hint="write it with `shipway build`") from None
    except (OSError, UnicodeDecodeError) as error:
        raise DeploymentFileError(f"{path} cannot be read: {error}") from None
    except MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
        raise DeploymentFileError(f"{where}: {error.problem or 'not YAML'}") from None
    except YAMLError as error:
        raise DeploymentFileError(f"{path} is not YAML: {str(error).splitlines()[0]}") from None
    if not isinstance(document, CommentedMap):
        raise DeploymentFileError(f"{path}:1:1: a deployment file is a mapping of keys to values")
    try:
        spec = DeploymentSpec.model_validate(plain(document))
    except ValidationError as error:
        raise DeploymentFileError(_explain(path, document, error)) from None
    if not parameters:
        return spec
    try:
        check_parameters(spec.parameters, spec.parameter_openapi_schema, complete=False)
        for schedule in spec.schedules:
            check_parameters(spec.parameters | schedule.parameters, spec.parameter_openapi_schema, complete=False)
    except InputError as error:
        raise DeploymentFileError(f"{path}:{_position(document, ('parameters',))}: {error}") from None
    return spec


def plain(value: Any) -> Any:
    """Turn ruamel's containers and scalars into Python's own."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [plain(item) for item in value]
    for kind in (bool, int, float, str):
        if isinstance(value, kind):
            return kind(value)
    return value.isoformat() if hasattr(value, "isoformat") else value


def _explain(path: Path, document: CommentedMap, error: ValidationError) -> str:
    first = error.errors()[0]
    place = tuple(first["loc"])
    key = ".".join(str(part) for part in place)
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "extra_forbidden":
        fields = (Schedule if place[0] == "schedules" else DeploymentSpec).model_fields
        return f"{path}:{_position(document, place)}: unknown key {key!r}; keys are {', '.join(fields)}"
    if first["type"] == "missing":
        return f"{path}:{_position(document, place[:-1])}: key {key!r} is missing"
    return f"{path}:{_position(document, place)}: {key}: {message}"


def _position(document: CommentedMap, place: tuple[int | str, ...]) -> str:
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
