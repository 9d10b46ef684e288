"""Tables of results, for the terminal and for `results/bench.md`."""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

TITLE = "# Benchmarks"
PREAMBLE = (
    "Written by `make bench`. The times are those of one machine on one day; what counts is how they compare "
    "with each other. What is measured, and how, is in [docs/reference/benchmarks.md](../docs/reference/benchmarks.md)."
)


@dataclass(frozen=True)
class Goal:
    """What a benchmark was to show.

    Attributes:
        text: the goal in words.
        found: what was measured, in words.
        met: whether that is enough.
    """

    text: str
    found: str
    met: bool

    def __str__(self) -> str:
        return f"Goal: {self.text}. Found: {self.found}. **{'Met' if self.met else 'Missed'}.**"


@dataclass(frozen=True)
class Table:
    """One benchmark's result.

    Attributes:
        title: what was compared.
        headers: the columns; all but the first hold numbers.
        rows: the cells as text.
        goals: what it was to show.
        remark: a sentence about what was found.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    goals: tuple[Goal, ...]
    remark: str = ""

    def markdown(self) -> str:
        """Return the table as Markdown, aligned so that it is read as easily on a terminal."""
        lines = [self.headers, *self.rows]
        widths = [max(len(line[column]) for line in lines) for column in range(len(self.headers))]
        first, *numbers = widths
        rule = f"|{'-' * (first + 2)}|" + "".join(f"{'-' * (width + 1)}:|" for width in numbers)
        text = [_row(self.headers, widths), rule, *(_row(row, widths) for row in self.rows)]
        below = "\n\n".join([*([self.remark] if self.remark else []), *map(str, self.goals)])
        return f"### {self.title}\n\n" + "\n".join(text) + f"\n\n{below}\n"


def section(name: str, tables: list[Table], load: float) -> str:
    """Return a benchmark's part of the results."""
    return f"## {name}\n\n{machine(load)}\n\n" + "\n".join(table.markdown() for table in tables)


def machine(load: float) -> str:
    """Say what the figures were measured on, without the names of hosts and folders."""
    return (
        f"{datetime.now(UTC):%Y-%m-%d}, {platform.system()} {platform.machine()}, {os.cpu_count()} cores "
        f"(load {load:.1f} before), Python {platform.python_version()}, Shipway {version('shipway')}, "
        f"Prefect {version('prefect')}."
    )


def write(path: Path, sections: Mapping[str, str]) -> None:
    """Write sections into the file of results; those of benchmarks that were not run stay as they are."""
    kept = _read(path)
    parts = kept | {name: text.strip() for name, text in sections.items()}
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n\n".join([TITLE, PREAMBLE, *(parts[name] for name in sorted(parts))]) + "\n")


def _read(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    parts = re.split(r"^## ", path.read_text(), flags=re.MULTILINE)[1:]
    return {part.partition("\n")[0].strip(): f"## {part.strip()}" for part in parts}


def _row(cells: tuple[str, ...], widths: list[int]) -> str:
    first, *numbers = zip(cells, widths, strict=True)
    return f"| {first[0].ljust(first[1])} |" + "".join(f" {cell.rjust(width)} |" for cell, width in numbers)
