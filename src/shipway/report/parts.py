"""Parts of a section: what a flow hands over, as plain JSON of a bounded size with the same bytes each time."""

from __future__ import annotations

import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import date, time
from enum import Enum
from itertools import islice
from pathlib import Path
from typing import Any

from shipway.codec.base import comes_from, type_name
from shipway.codec.objects import SVG
from shipway.errors import InputError
from shipway.report.svg import clean

MAX_ROWS = 100
"""Rows of a table that a page shows; the whole frame is for `shipway.save`."""

MAX_COLUMNS = 40
MAX_ITEMS = 200
MAX_TEXT = 20_000
MAX_CELL = 500
"""Characters of a table's cell or of a fact."""

MAX_SVG = 1_000_000
"""Bytes of a figure; one with a mark for each of many thousand points is over that, and too slow for a browser."""

Part = dict[str, Any]
"""One of `text`, `list`, `table`, `facts` and `figure`, as its `kind` says."""


def part_of(value: object) -> Part:
    """Turn what was handed to `section` into a part.

    Raises:
        InputError: it is nothing that a page can show, or a figure that is too large.
    """
    if isinstance(value, str):
        return _figure(_drawable(value)) if is_svg(value) else {"kind": "text", "text": cut(value, MAX_TEXT)}
    if SVG.accepts(value):
        return _figure(_draw(value))
    for accepts, read in _FRAMES:
        if accepts(value):
            return _table(*read(value))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = _fields(value)
    if isinstance(value, Mapping):
        facts = [[cut(str(key), MAX_CELL), cell(item)] for key, item in islice(value.items(), MAX_ITEMS)]
        return {"kind": "facts", "facts": facts, "total": len(value)}
    if isinstance(value, list | tuple):
        rows = [_fields(item) if dataclasses.is_dataclass(item) else item for item in value]
        if rows and all(isinstance(row, Mapping) for row in rows):
            names = list(dict.fromkeys(str(name) for row in rows for name in row))
            cells = ([row.get(name) for name in names] for row in ({str(k): v for k, v in r.items()} for r in rows))
            return _table(names, cells, len(rows))
        return {"kind": "list", "items": [cell(item) for item in rows[:MAX_ITEMS]], "total": len(rows)}
    raise InputError(
        f"a report cannot show a {type_name(value)}",
        hint="give it text, a frame, a list of dicts, a dict, a matplotlib Figure, or the text of an SVG",
    )


def is_svg(text: str) -> bool:
    """Tell whether text is that of an SVG."""
    start = text[:2000].lstrip("\ufeff \t\r\n")
    return start.startswith("<svg") or (start.startswith(("<?xml", "<!DOCTYPE svg")) and "<svg" in text[:5000])


def cut(text: str, length: int) -> str:
    """Return text that is valid Unicode and has at most `length` characters; an ellipsis says that there was more."""
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= length else text[: length - 1] + "…"


def cell(value: Any) -> Any:
    """Return a value as JSON has it: a number, a truth value, None, or text for people."""
    if hasattr(value, "item") and getattr(value, "shape", None) == ():
        value = value.item()
    if isinstance(value, Enum):
        value = value.value
    if value is None or isinstance(value, bool) or type(value).__name__ in ("NAType", "NaTType"):
        return value if isinstance(value, bool) else None
    if isinstance(value, int | float):
        return _number(value)
    return cut(_text(value), MAX_CELL)


def _number(value: float) -> float | str:
    if isinstance(value, float):
        odd = "NaN" if math.isnan(value) else "∞" if value > 0 else "−∞"
        return float(value) if math.isfinite(value) else odd
    # Beyond 64 bits other programs read another number than is written.
    return int(value) if abs(value) < 1 << 63 else f"{value:.6e}" if abs(value) < 1 << 1000 else "a very large number"


def _text(value: Any) -> str:
    if isinstance(value, date | time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray):
        return f"{len(value)} bytes"
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, ensure_ascii=False, default=str)
    return str(value)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _figure(svg: str) -> Part:
    size = len(svg.encode("utf-8", "replace"))
    if size > MAX_SVG:
        raise InputError(
            f"a figure of {size:,} bytes is too large for a report, which takes {MAX_SVG:,}",
            hint="draw fewer marks, or rasterize them with `rasterized=True`",
        )
    return {"kind": "figure", "svg": cut(svg, MAX_SVG)}


def _drawable(svg: str) -> str:
    # Told to who draws it, rather than to who looks at the page.
    clean(svg)
    return svg


def _draw(figure: object) -> str:
    with tempfile.TemporaryDirectory(prefix="shipway-figure-") as folder:
        path = Path(folder) / "figure.svg"
        SVG.write(figure, path)
        return path.read_text(encoding="utf-8")


def _table(names: Sequence[Any], rows: Iterable[Sequence[Any]], total: int) -> Part:
    columns = [cut(str(name), MAX_CELL) for name in names]
    return {
        "kind": "table",
        "columns": columns[:MAX_COLUMNS],
        "rows": [[cell(value) for value in row[:MAX_COLUMNS]] for row in islice(rows, MAX_ROWS)],
        "total": total,
        "total_columns": len(columns),
    }


def _polars(frame: Any) -> tuple[Sequence[Any], Iterable[Sequence[Any]], int]:
    if hasattr(frame, "collect"):
        import polars

        total = int(frame.select(polars.len()).collect().item())
        return *_polars(frame.head(MAX_ROWS).collect())[:2], total
    return frame.columns, frame.head(MAX_ROWS).rows(), frame.height


def _pandas(frame: Any) -> tuple[Sequence[Any], Iterable[Sequence[Any]], int]:
    head = frame.head(MAX_ROWS)
    # An index of one's own is a column to who reads the table; the numbers that pandas counts rows with are not.
    if type(head.index).__name__ != "RangeIndex":
        head = head.reset_index()
    rows = ([None if value != value else value for value in row] for row in head.itertuples(index=False, name=None))  # noqa: PLR0124 - what pandas has for a missing number is not equal to itself
    return list(head.columns), rows, len(frame)


def _arrow(table: Any) -> tuple[Sequence[Any], Iterable[Sequence[Any]], int]:
    columns = table.slice(0, MAX_ROWS).to_pydict()
    return list(columns), zip(*columns.values(), strict=True), table.num_rows


_FRAMES: tuple[tuple[Callable[[object], bool], Callable[[Any], tuple[Any, Any, int]]], ...] = (
    (comes_from("polars", "DataFrame", "LazyFrame"), _polars),
    (comes_from("pandas", "DataFrame"), _pandas),
    (comes_from("pyarrow", "Table", "RecordBatch"), _arrow),
)
