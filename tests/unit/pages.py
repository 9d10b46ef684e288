"""Reading a page as a browser does, and pages to read."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser
from typing import Any

from shipway.artifact import Artifact
from shipway.report.facts import (
    GOOD,
    Input,
    ModelFacts,
    Page,
    Saved,
    Score,
    Section,
    TaskFacts,
    Verdict,
)

VOID = {"meta", "input", "img", "br", "link", "hr"}


@dataclass
class Reader(HTMLParser):
    """What is on a page.

    Attributes:
        elements: every element in order: its name, and its attributes.
        text: all that is to be read, style excepted.
    """

    elements: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    text: str = ""
    _open: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        HTMLParser.__init__(self, convert_charrefs=True)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(names) == len(set(names)), f"<{tag}> has an attribute twice: {names}"
        if tag == "wbr":  # where a name may be broken
            return
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self._open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self._open, f"</{tag}> closes nothing"
        assert self._open[-1] == tag, f"</{tag}> closes <{self._open[-1]}>"
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"]:
            self.text += data

    def handle_comment(self, data: str) -> None:
        assert data.startswith(" sha256 of all before: "), f"a comment: {data}"

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a name."""
        return [attributes for name, attributes in self.elements if name == tag]

    def structure(self) -> list[tuple[str, tuple[str, ...]]]:
        """Return the elements and the names of their attributes."""
        return [(tag, tuple(attributes)) for tag, attributes in self.elements]


def read(html: str) -> Reader:
    """Read a page; everything in it is closed in order, and no id is there twice."""
    reader = Reader()
    reader.feed(html)
    reader.close()
    assert not reader._open, f"left open: {reader._open}"
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), sorted(identity for identity in ids if ids.count(identity) > 1)
    for attributes in reader.all("a"):
        target = attributes["href"]
        assert not target.startswith("#") or target[1:] in ids, f"{target} leads nowhere"
    return reader


SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 4"><rect id="r" width="4" height="4"/></svg>'


def page(text: str, **changed: Any) -> Page:
    """Return a page on which `text` is everywhere that a stranger's words may be."""
    artifact = Artifact(text, f"runs/f/2026-01-02/r-deadbeef/1/{text}", "a" * 64, 5, text, 3, captured=True)
    scores = (Score("candidate", 41.0, 0.9), Score(text, 45.0, 1.0))
    verdict = Verdict(text, (text, text), GOOD)
    facts: dict[str, Any] = {
        "run_name": text,
        "run_id": text,
        "flow": text,
        "verdict": verdict,
        "state": text,
        "deployment": text,
        "release": f"1484.{text}",
        "scheduled": text,
        "started": text,
        "seconds": 1.5,
        "parameters": {text: text, "nested": {text: [text]}},
        "metrics": {text: 1.5},
        "models": (ModelFacts(text, 1, verdict, text, scores, 0.01, (0.002, 0.02), 0.005, 0.95, 9, 3),),
        "sections": (
            Section(
                text,
                (
                    {"kind": "facts", "facts": [(text, text)], "total": 2},
                    {"kind": "table", "columns": [text, "n"], "rows": [[text, 1.5]], "total": 9, "total_columns": 3},
                    {"kind": "list", "items": [text], "total": 2},
                    {"kind": "figure", "svg": SVG},
                    {"kind": "figure", "svg": SVG},
                    {"kind": "figure", "svg": text},
                ),
            ),
        ),
        "previews": (
            Section(text, ({"kind": "figure", "svg": SVG},)),
            Section(text, ({"kind": "facts", "facts": [(text, text)], "total": 1},)),
        ),
        "saved": (Saved(artifact, text, text),),
        "folder": text,
        "record": text,
        "inputs": (Input(text, text, f"runs/f/2026-01-02/{text}", text, text, page="../../f/2026-01-02/r-0.html"),),
        "reads": ({"path": text, "sha256": text},),
        "environment": {"python": text, "platform": text, "packages": {text: text}},
        "tasks": (
            TaskFacts(text, text, "FAILED", "2026-01-02T03:04:05+00:00", 1.0, text, 2),
            TaskFacts(text, text, ""),
        ),
        "errors": (text,),
        "left_out": (text,),
        "reproduces": text,
        "resumes": text,
        "ui": text,
    }
    return Page(**{**facts, **changed})
