"""What a flow adds to the page of its run. It is saved with the run, so a page can be made anew at any time."""

from __future__ import annotations

import re
import threading
from typing import Any, Literal

from shipway.artifact import segment
from shipway.errors import InputError
from shipway.report.parts import MAX_CELL, cut, part_of
from shipway.run.session import Session, current

PREFIX = "report/"
VERDICT = f"{PREFIX}verdict"
VERSION = 1
MAX_TITLE = 120
MAX_SECTIONS = 100
LEVELS = ("good", "neutral", "bad")

Level = Literal["good", "neutral", "bad"]


def section(title: str, *parts: Any) -> None:
    """Add a section to the run's page: a heading, and below it text, tables, facts and figures.

    It is one JSON artifact of the run, `report/NN-TITLE`. Sections of the flow's own thread stand in the order in
    which they were made. Those that tasks make side by side in other threads or processes follow, ordered by title:
    which of them was first would differ from run to run. A second section of the same title takes the place of the
    first.

    Args:
        title: the heading, of 1 to 120 characters.
        parts: text (an empty line ends a paragraph, `- ` begins a point), a polars, pandas or Arrow table or a list of
            dicts (their first 100 rows are shown), a dict or dataclass (facts by name), a list (points), a matplotlib
            Figure, or the text of an SVG.

    Raises:
        InputError: there is no run, or a part cannot be shown; the message says which.
        StoreError: the store failed.
    """
    session = _session("section")
    title = " ".join(title.split())
    if not 1 <= len(title) <= MAX_TITLE:
        raise InputError(f"a section's title has 1 to {MAX_TITLE} characters, not {len(title)}")
    document = {"version": VERSION, "title": cut(title, MAX_TITLE), "parts": [part_of(part) for part in parts]}
    session.save(_name(session, title), document, codec="json")


def verdict(word: str, reason: str = "", *, level: Level = "neutral") -> None:
    """Say in a word what came of the run: the first thing on its page.

    Without it the page says what was decided about the models that the run made, and else how the run ended.

    Args:
        word: such as `promoted` or `kept`, of 1 to 60 characters.
        reason: why, in a sentence or two.
        level: `good`, `neutral` or `bad`; the colour it is shown in.

    Raises:
        InputError: there is no run, or the word or level cannot be used.
        StoreError: the store failed.
    """
    session = _session("verdict")
    word = " ".join(word.split())
    if not 1 <= len(word) <= 60:
        raise InputError(f"a verdict's word has 1 to 60 characters, not {len(word)}")
    if level not in LEVELS:
        raise InputError(f"{level!r} is no level of a verdict", hint=f"levels are {', '.join(LEVELS)}")
    document = {"version": VERSION, "word": cut(word, 60), "reason": cut(reason, 4 * MAX_CELL), "level": level}
    session.save(VERDICT, document, codec="json")


def order(name: str) -> tuple[bool, int, str]:
    """Return what to sort the names of sections by."""
    number = re.match(r"(\d+)-", name.removeprefix(PREFIX))
    return (number is None, int(number[1]) if number else 0, name)


def _session(what: str) -> Session:
    session = current()
    if session is None:
        raise InputError(
            f"report.{what}() works inside a run only", hint="deploy the flow and start it with `shipway run FLOW/NAME`"
        )
    return session


def _name(session: Session, title: str) -> str:
    """Return the artifact's name of a section, and note it: a title keeps its place when it comes again."""
    noted = [line["section"] for line in session.journal.lines() if "section" in line]
    for known in noted:
        if known["title"] == title:
            return str(known["name"])
    if len(noted) >= MAX_SECTIONS:
        raise InputError(f"a report has at most {MAX_SECTIONS} sections", hint="put several parts into one section")
    own = session.began_here and threading.current_thread() is threading.main_thread()
    if own:
        slug = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:60] or "section"
        name = f"{PREFIX}{sum(known['numbered'] for known in noted) + 1:02}-{slug}"
    else:
        name = f"{PREFIX}tasks/{segment(title)}"
    session.journal.add({"section": {"title": title, "name": name, "numbered": own}})
    return name
