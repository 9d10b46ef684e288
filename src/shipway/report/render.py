"""Rendering: from what a page says to one HTML file that needs nothing else, and runs nothing."""

from __future__ import annotations

import base64
import functools
import hashlib
import re
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from markupsafe import Markup, escape

from shipway.errors import InputError
from shipway.report import charts, words
from shipway.report.facts import DRAWN, Index, Page, Verdict
from shipway.report.parts import cell
from shipway.report.svg import clean

MAX_SAVED = 1000
MAX_TASKS = 300
TILES = 12
"""Metrics that are shown large; where there are more, all of them stand in a table."""

BADGES = {
    "good": ("ok", "pass", "passed", "promoted", "completed", "cached", "success", "stable"),
    "bad": ("fail", "failed", "error", "crashed", "refused", "drifted", "critical"),
    "warn": ("warn", "warning", "shifted", "cancelled", "late", "timedout", "skipped"),
    "neutral": ("kept", "running", "pending", "scheduled", "info"),
}
"""Words that get a colour where they stand alone in a cell."""

_CONTROLS = {code: "\ufffd" for code in (*range(32), *range(127, 160)) if chr(code) not in "\t\n\r"}
_LEVELS = {word: level for level, known in BADGES.items() for word in known}


def render(page: Page) -> str:
    """Return the page of a run as HTML."""
    return _template("run.html").render(
        page=page, figures=_Figures(), MAX_SAVED=MAX_SAVED, MAX_TASKS=MAX_TASKS, TILES=TILES
    )


def render_index(index: Index) -> str:
    """Return the page over deployments, runs and models as HTML."""
    return _valid(_template("index.html").render(index=index))


def prepare() -> None:
    """Compile the templates of a run's page: a process that many runs are forked from does it once for all of them."""
    render(Page("", "", "", Verdict(""), ""))


def _valid(html: str) -> str:
    """Return a page without the characters that HTML has no place for, which names and messages may hold."""
    return html.encode("utf-8", "replace").decode().translate(_CONTROLS)


class _Figures:
    """Numbers the figures of a page, so that each has ids of its own."""

    def __init__(self) -> None:
        self._count = 0

    def __call__(self, svg: str, label: str) -> Markup | None:
        self._count += 1
        try:
            return Markup(clean(svg, f"f{self._count}-", label))  # noqa: S704 - written anew from an allow-list
        except InputError:
            return None


def blocks(text: str) -> list[tuple[str, list[Markup]]]:
    """Return the paragraphs (`p`) and lists (`ul`) of a text, with what stands between backticks marked as code."""
    found: list[tuple[str, list[Markup]]] = []
    for block in re.split(r"\n\s*\n", text.strip()):
        kind = ""
        for line in block.splitlines():
            point = line.lstrip().startswith(("- ", "* "))
            if point:
                found += [] if kind == "ul" else [("ul", [])]
                kind = "ul"
                found[-1][1].append(_inline(line.lstrip()[2:]))
            elif kind == "ul" and line.startswith("  "):
                found[-1][1][-1] += Markup(" ") + _inline(line.strip())
            else:
                if kind != "p":
                    found.append(("p", [Markup("")]))
                kind = "p"
                found[-1][1][-1] += (Markup(" ") if found[-1][1][-1] else Markup("")) + _inline(line.strip())
    return found


def _inline(text: str) -> Markup:
    # After escaping, what is between backticks can hold no markup.
    return Markup(re.sub(r"`([^`]+)`", r"<code>\1</code>", str(escape(text))))  # noqa: S704


def places(part: Mapping[str, Any]) -> dict[int, int | None]:
    """Return which columns of a table hold numbers, which stand to the right, and with how many decimal places."""
    found: dict[int, int | None] = {}
    for column in range(len(part["columns"])):
        cells = [row[column] for row in part["rows"] if row[column] is not None]
        if cells and all(_is_number(cell) for cell in cells):
            found[column] = words.places([cell for cell in cells if not isinstance(cell, str)])
    return found


def _is_number(cell: Any) -> bool:
    return cell in ("NaN", "∞", "−∞") if isinstance(cell, str) else not isinstance(cell, bool)


def groups(parts: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """Return parts in groups: figures that follow each other stand side by side, all else by itself."""
    found: list[list[Mapping[str, Any]]] = []
    for part in parts:
        drawn = part["kind"] in DRAWN
        if drawn and found and found[-1][0]["kind"] in DRAWN:
            found[-1].append(part)
        else:
            found.append([part])
    return found


def pairs(facts: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Return facts as they stand in a list of them."""
    return [(str(name), cell(item)) for name, item in facts.items()]


def badge(cell: Any) -> str:
    """Return the level of a word that gets a colour, else an empty text."""
    return _LEVELS.get(cell.strip().lower(), "") if isinstance(cell, str) and len(cell) < 20 else ""


def breakable(name: str) -> Markup:
    """Return a name that may be broken after its underscores, and not within its words."""
    return Markup(str(escape(name)).replace("_", "_<wbr>"))  # noqa: S704 - after escaping


def links(address: str) -> bool:
    """Tell whether a browser can follow an address."""
    return address.startswith(("https://", "http://", "file:///"))


@functools.cache
def _style_sheet() -> tuple[str, str]:
    """Return the style sheet and its digest, by which the page allows it and no other."""
    text = files("shipway.report").joinpath("templates/style.css").read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/\s*", "", text, flags=re.DOTALL)
    text = "\n" + re.sub(r"\n\s*", "\n", text).strip() + "\n"
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return text, f"sha256-{digest}"


@functools.cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("shipway.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "number": words.number,
        "value": words.value,
        "percent": words.percent,
        "size": words.size,
        "duration": words.duration,
        "when": words.when,
        "short": words.short,
        "plural": words.plural,
        "blocks": blocks,
        "groups": groups,
        "pairs": pairs,
        "places": places,
        "badge": badge,
        "breakable": breakable,
        "scores": lambda scores: {score.name: score.value for score in scores},
    }
    environment.tests |= {"address": links}
    style, digest = _style_sheet()
    environment.globals |= {
        "style": Markup(style),  # noqa: S704 - ours
        "style_digest": digest,
        "timeline": charts.timeline,
        "gain": charts.gain,
    }
    return environment


@functools.cache
def _template(name: str) -> Template:
    return _environment().get_template(name)
