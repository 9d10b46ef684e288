"""A flow's parameters: read from the command line, and held against the flow's schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from shipway.errors import ParameterError


def parse_parameters(pairs: tuple[str, ...], schema: Mapping[str, Any]) -> dict[str, Any]:
    """Read `KEY=VALUE` pairs: JSON where that is what the flow's schema allows, text otherwise.

    Raises:
        ParameterError: a pair has no `=`.
    """
    values: dict[str, Any] = {}
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            raise ParameterError(f"{pair[:100]!r} is not KEY=VALUE")
        values[key] = _value(text, schema.get("properties", {}).get(key, {}))
    return values


def _value(text: str, rule: Mapping[str, Any]) -> Any:
    """Read one value: `2013` is text for a `str` parameter and a number for an `int` one."""
    kinds = {option.get("type") for option in (rule, *rule.get("anyOf", ()))} - {None}
    if kinds and kinds <= {"string", "null"} and not (text == "null" and "null" in kinds):
        return text
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


def check_parameters(parameters: Mapping[str, Any], schema: Mapping[str, Any], *, complete: bool) -> None:
    """Check parameters against a flow's schema.

    Args:
        parameters: values by name.
        schema: the flow's `parameter_openapi_schema`.
        complete: whether required parameters must all be there (for a run) or may come later (for a deployment).

    Raises:
        ParameterError: a parameter is unknown, missing or of the wrong kind.
    """
    known, always = schema.get("properties", {}), schema.get("required", [])
    if (
        not isinstance(known, Mapping)
        or not isinstance(always, list)
        or not all(isinstance(name, str) for name in always)
    ):
        raise ParameterError("the flow's schema of parameters is malformed", hint="build the deployment again")
    if unknown := [name for name in parameters if name not in known]:
        hint = f"it takes {', '.join(known)}" if known else "it takes none"
        raise ParameterError(f"the flow has no parameter {unknown[0]!r}", hint=hint)
    for name, rule in known.items():
        if parameters.get(name) is not None and _is_secret(rule):
            raise ParameterError(
                f"parameter {name!r} is a secret, and parameters are kept in plain text by the server",
                hint="save a Secret block, give the flow its name, and load it in the flow",
            )
    required = always if complete else []
    if missing := [name for name in required if name not in parameters]:
        name = missing[0]
        raise ParameterError(f"the flow needs a value for parameter {name!r}", hint=f"give it with -p {name}=...")
    if not parameters:
        return
    import jsonschema_rs

    try:
        errors = jsonschema_rs.validator_for({**schema, "required": []}).iter_errors(dict(parameters))
    except ValueError:
        return  # a schema that our checker does not know; the server checks too
    for error in errors:
        where = ".".join(map(str, error.instance_path))
        raise ParameterError(f"parameter {where} does not fit: {error.message[:300]}")


def _is_secret(rule: Any) -> bool:
    """Tell whether a parameter is one of pydantic's secrets, alone or as an alternative."""
    options = [rule, *rule.get("anyOf", ())] if isinstance(rule, Mapping) else []
    return any(isinstance(option, Mapping) and option.get("writeOnly") is True for option in options)
