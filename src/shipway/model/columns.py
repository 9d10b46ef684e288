"""Columns of numbers out of whatever holds a table, checked value by value."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from shipway.errors import InputError


def column(table: Any, name: str, *, what: str) -> list[Any] | None:
    """Return a column's values as a list, or None where the table has none of that name, or None in its place.

    Args:
        table: a mapping of columns, or a polars, pandas or Arrow table.
        name: which column.
        what: what the column is, for messages.

    Raises:
        InputError: the table is none, or the column no column.
    """
    if name not in _names(table):
        return None
    values = table[name]
    if values is None:
        return None
    for method in ("to_list", "tolist", "to_pylist"):
        if hasattr(values, method):
            values = getattr(values, method)()
            break
    if isinstance(values, str | bytes | Mapping) or not isinstance(values, Sequence):
        raise InputError(f"the {what}, column {name!r}, is no column but a {type(values).__name__}")
    return list(values)


def numbers(values: Sequence[Any], name: str) -> list[float]:
    """Return the values of a column as floats.

    Raises:
        InputError: one of them is missing, NaN, infinite, or no number.
    """
    found: list[float] = []
    for row, value in enumerate(values):
        try:
            number = float(value) if not isinstance(value, str | bytes) else None
        except (TypeError, ValueError, OverflowError):
            number = None
        if number is None or not math.isfinite(number):
            raise InputError(
                f"column {name!r}: the value in row {row} is {value!r:.40}, which is no finite number",
                hint="compare on rows that have an actual value and all predictions",
            )
        found.append(number)
    return found


def _names(table: Any) -> Sequence[Any]:
    if isinstance(table, Mapping):
        return list(table)
    if hasattr(table, "collect_schema") and hasattr(table, "collect"):
        raise InputError("the predictions are a polars LazyFrame", hint="call its collect() first")
    for attribute in ("column_names", "columns"):
        if hasattr(table, attribute):
            return list(getattr(table, attribute))
    raise InputError(
        f"the predictions are a {type(table).__name__}", hint="give a polars or pandas frame, or a mapping of columns"
    )
