"""Glances at what a run saved: figures, pictures, small documents, the first rows of small tables."""

from __future__ import annotations

import base64
import csv
import io
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from typing import Any

from shipway.artifact import Artifact
from shipway.codec import reading
from shipway.digest import sha256_bytes
from shipway.errors import ShipwayError
from shipway.report.documents import read_checked
from shipway.report.facts import Section
from shipway.report.parts import Part, part_of
from shipway.report.sections import PREFIX
from shipway.store.base import Store

ROWS = 8
"""Rows of a table that a glance shows."""

Look = Callable[[bytes], Iterable[Part]]


@dataclass(frozen=True, slots=True)
class _Kind:
    """How one kind of artifact is looked at.

    Attributes:
        endings: of its objects' keys.
        look: turns bytes into parts.
        max_bytes: larger ones are not looked at.
        count: nor are more than this many.
    """

    endings: tuple[str, ...]
    look: Look
    max_bytes: int
    count: int


def previews(
    store: Store, artifacts: Iterable[Artifact], sections: Iterable[Section], *, eager: bool
) -> tuple[Section, ...]:
    """Return a glance at each artifact that is small enough, up to a number of each kind; figures come first.

    Args:
        store: where they lie.
        artifacts: what the run saved.
        sections: what its page shows already; a figure in them is not shown again.
        eager: whether a library that reads tables may be imported for it; else only one that is there is used.
    """
    shown = {sha256_bytes(part["svg"].encode()) for section in sections for part in section.parts if "svg" in part}
    left = {kind.endings: kind.count for kind in _KINDS}
    found: list[tuple[int, Section]] = []
    for artifact in artifacts:
        place, kind = _kind(artifact)
        skip = kind is None or not left[kind.endings] or artifact.bytes > kind.max_bytes or artifact.sha256 in shown
        if kind is None or skip or (artifact.codec in _TABLES and not _library(eager=eager)):
            continue
        try:
            parts = tuple(kind.look(read_checked(store, artifact)))
        except (ShipwayError, ValueError, RecursionError, csv.Error):
            continue  # its bytes are what its name says no more than a stranger's word
        if parts:
            left[kind.endings] -= 1
            found.append((place, Section(artifact.name, parts)))
    return tuple(section for _, section in sorted(found, key=lambda pair: pair[0]))


def _kind(artifact: Artifact) -> tuple[int, _Kind | None]:
    if not artifact.name.startswith(PREFIX) and artifact.bytes:
        for place, kind in enumerate(_KINDS):
            # A table is read by a library that does not fear for its own if the bytes are not what they seem.
            table_of_ours = artifact.codec in _TABLES or kind.look is not _parquet
            if artifact.key.endswith(kind.endings) and artifact.codec != "folder" and table_of_ours:
                return place, kind
    return len(_KINDS), None


def _svg(data: bytes) -> Iterable[Part]:
    yield {"kind": "figure", "svg": data.decode()}


def _picture(data: bytes) -> Iterable[Part]:
    for kind, begin in (("png", b"\x89PNG\r\n\x1a\n"), ("jpeg", b"\xff\xd8\xff")):
        if data.startswith(begin):
            yield {"kind": "picture", "source": f"data:image/{kind};base64,{base64.b64encode(data).decode()}"}


def _json(data: bytes) -> Iterable[Part]:
    value = json.loads(data)
    if not isinstance(value, Mapping):
        yield part_of(value if isinstance(value, list) else {"value": value})
        return
    tables = {name: item for name, item in value.items() if _is_table(item)}
    if facts := {name: item for name, item in value.items() if name not in tables}:
        yield part_of(facts)
    for name, rows in tables.items():
        yield part_of(rows) | {"caption": str(name)}


def _is_table(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(row, Mapping) for row in value)


def _csv(data: bytes) -> Iterable[Part]:
    text = data.decode("utf-8-sig")
    rows = list(islice(csv.reader(io.StringIO(text, newline=""), csv.Sniffer().sniff(text[:4000], ",;\t|")), ROWS + 1))
    if len(rows) > 1 and len(rows[0]) > 1 and all(len(row) == len(rows[0]) for row in rows):
        table = part_of([dict(zip(rows[0], row, strict=True)) for row in rows[1:]])
        yield table | {"total": max(text.count("\n") - text.endswith("\n"), len(rows) - 1)}


def _parquet(data: bytes) -> Iterable[Part]:
    with reading("it", "polars"):
        if _library(eager=True) == "polars":
            import polars

            frame = polars.read_parquet(data)
            return [part_of(frame.head(ROWS)) | {"total": frame.height}]
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(io.BytesIO(data)).read()
        return [part_of(table.slice(0, ROWS)) | {"total": table.num_rows}]


def _library(*, eager: bool) -> str | None:
    for name in ("polars", "pyarrow"):
        if name in sys.modules or (eager and find_spec(name)):
            return name
    return None


_TABLES = ("polars", "pandas", "arrow")
_KINDS = (
    _Kind((".svg",), _svg, 500_000, 12),
    _Kind((".png", ".jpg", ".jpeg"), _picture, 300_000, 6),
    _Kind((".json",), _json, 8_000, 12),
    _Kind((".parquet",), _parquet, 500_000, 6),
    _Kind((".csv", ".tsv"), _csv, 500_000, 6),
)
