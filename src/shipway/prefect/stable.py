"""Inputs that are equal have the same digest in every run, wherever they come from.

Prefect pickles what has no JSON to find out whether a task has seen it. A table or model that was read from a file has
another pickle than the equal one that was just made: a resumed run would repeat what comes after what it has kept.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable
from typing import Any

from prefect import cache_policies
from prefect.cache_policies import STABLE_TRANSFORMS

_prefects: Callable[[], None] = cache_policies._register_stable_transforms


def keep_keys_stable() -> None:
    """Have Prefect compare tables and models by what is in them, in this process."""
    cache_policies._register_stable_transforms = _register


def _register() -> None:
    """Stand in for Prefect's function of that name, which it calls before it looks at inputs."""
    _prefects()
    # What nobody has imported is no input.
    if polars := sys.modules.get("polars"):
        STABLE_TRANSFORMS[polars.DataFrame] = _polars
    if pandas := sys.modules.get("pandas"):
        STABLE_TRANSFORMS[pandas.DataFrame] = _pandas
    if lightgbm := sys.modules.get("lightgbm"):
        STABLE_TRANSFORMS[lightgbm.Booster] = _booster
    for kind in (list, tuple, dict):
        STABLE_TRANSFORMS[kind] = _inside


def _inside(value: Any) -> Any:
    if type(value) is dict:
        return {key: _stable(item) for key, item in value.items()}
    return type(value)(_stable(item) for item in value)


def _stable(value: Any) -> Any:
    transform = STABLE_TRANSFORMS.get(type(value))
    return transform(value) if transform else value


def _polars(frame: Any) -> Any:
    rows = hashlib.sha256()
    for column in frame:
        # A column at a time: what cannot be hashed in one type of column is not left out for the others.
        rows.update(_polars_column(column))
    return ["polars", [[name, repr(dtype)] for name, dtype in frame.schema.items()], rows.hexdigest()]


def _polars_column(column: Any) -> bytes:
    import polars

    if column.dtype == polars.Null:
        return b"%d" % len(column)
    if column.dtype in (polars.Categorical, polars.Enum):
        column = column.cast(polars.String)
    if column.dtype.is_nested() or column.dtype == polars.Object:
        return repr(column.to_list()).encode()
    # Nulls have a hash of their own, which no order of parts in memory changes.
    digests: bytes = column.hash(seed=0).to_numpy().tobytes()
    return digests


def _pandas(frame: Any) -> Any:
    import pandas

    try:
        rows = pandas.util.hash_pandas_object(frame).to_numpy().tobytes()
    except TypeError:
        return [frame[column] for column in frame.columns]
    columns = [[repr(column), str(dtype)] for column, dtype in zip(frame.columns, frame.dtypes, strict=True)]
    return ["pandas", columns, hashlib.sha256(rows).hexdigest()]


def _booster(booster: Any) -> Any:
    return ["lightgbm", hashlib.sha256(booster.model_to_string().encode()).hexdigest()]
