"""Figures out of a store are strangers' documents: what is drawn is kept, all that could act or ask is left out.

An allow-list of elements and attributes is written anew from the events of the parser; nothing is passed through. What
remains needs no `style`: declarations become attributes, so that a page can forbid every style but its own.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from html import escape
from pyexpat import ExpatError, ParserCreate

from shipway.errors import InputError

MAX_DEPTH = 100
MAX_ELEMENTS = 50_000

SVG = "http://www.w3.org/2000/svg"
XLINK = "http://www.w3.org/1999/xlink"

_NAMES = """
circle defs ellipse g image line linearGradient path polygon polyline radialGradient rect stop svg use
"""
_DECLARED = """
alignment-baseline baseline-shift clip-path clip-rule color display dominant-baseline fill fill-opacity fill-rule
font-family font-size font-stretch font-style font-variant font-weight letter-spacing marker-end marker-mid marker-start
mask opacity paint-order shape-rendering stop-color stop-opacity stroke stroke-dasharray stroke-dashoffset
stroke-linecap stroke-linejoin stroke-miterlimit stroke-opacity stroke-width text-anchor text-decoration text-rendering
vector-effect visibility white-space word-spacing writing-mode
"""
_PLACED = """
clipPathUnits cx cy d dx dy fx fy gradientTransform gradientUnits height lengthAdjust markerHeight markerUnits
markerWidth maskContentUnits maskUnits offset orient pathLength patternContentUnits patternTransform patternUnits points
preserveAspectRatio r refX refY rotate rx ry spreadMethod startOffset textLength transform viewBox width x x1 x2 y y1 y2
"""
_DEFINING = frozenset({"clipPath", "marker", "mask", "pattern", "symbol"})
_TEXT = frozenset({"desc", "text", "textPath", "title", "tspan"})
_ELEMENTS = _DEFINING | _TEXT | frozenset(_NAMES.split())
_STYLE = frozenset(_DECLARED.split())
_ATTRIBUTES = _STYLE | frozenset(_PLACED.split())

_ID = re.compile(r"[A-Za-z_][\w.:-]{0,200}", re.ASCII)
_LOCAL_URL = re.compile(r"""url\(\s*(["']?)#([A-Za-z_][\w.:-]{0,200})\1\s*\)""", re.ASCII)
_PICTURE = re.compile(r"data:image/(png|jpeg|gif|webp);base64,[A-Za-z0-9+/=\s]*", re.ASCII)
_LENGTH = re.compile(r"\s*(\d+(?:\.\d*)?|\.\d+)\s*(px|pt|pc|in|cm|mm)?\s*")
_FONT = re.compile(r"(?:(italic|oblique|bold|\d00)\s+)*(\d+(?:\.\d+)?(?:px|pt|em|%))(?:/\S+)?\s+([^;]+)")
_PIXELS = {"px": 1.0, "pt": 4 / 3, "pc": 16.0, "in": 96.0, "cm": 96 / 2.54, "mm": 96 / 25.4}
"""Units of CSS in pixels: CSS Values and Units, level 3, section 5.2."""


def clean(text: str, prefix: str = "", label: str = "") -> str:
    """Return the drawing in `text` as markup that is safe to stand in a page.

    Args:
        text: an SVG document.
        prefix: what ids are to begin with, so that two figures on a page do not use each other's.
        label: what the figure is called for those who do not see it.

    Raises:
        InputError: it is not well-formed, declares entities, or is nested or repeated without end.
    """
    writer = _Writer(prefix, label)
    parser = ParserCreate("utf-8", " ")
    parser.buffer_text = True
    parser.StartElementHandler = writer.start
    parser.EndElementHandler = writer.end
    parser.CharacterDataHandler = writer.text
    parser.EntityDeclHandler = _refuse_entity
    try:
        # Said again here, as what the document says of its encoding is not believed.
        parser.Parse(text.encode("utf-8", "replace"), True)
    except ExpatError as error:
        raise InputError(f"the SVG is not well-formed: {error}") from None
    return writer.markup()


def _refuse_entity(*_declaration: object) -> None:
    raise InputError("the SVG declares entities, which a figure has no use for")


class _Writer:
    """Writes what the parser finds and the list allows."""

    def __init__(self, prefix: str, label: str) -> None:
        self._prefix = prefix
        self._label = label
        self._pieces: list[str] = []
        self._open: list[tuple[str, str]] = []
        self._skipped = 0
        self._elements = 0
        self._uses: list[tuple[int, str]] = []
        self._users: set[str] = set()

    def start(self, name: str, given: Mapping[str, str]) -> None:
        space, _, local = name.rpartition(" ")
        self._elements += 1
        if self._elements > MAX_ELEMENTS or len(self._open) + self._skipped >= MAX_DEPTH:
            raise InputError(f"the SVG has over {MAX_ELEMENTS:,} elements, or is nested over {MAX_DEPTH} deep")
        if not self._open and (local != "svg" or space not in ("", SVG)):
            raise InputError(f"the figure is no SVG but <{local[:40]}>")
        # A link is a group to who looks at a picture.
        local = "g" if local == "a" else local
        if self._skipped or space not in ("", SVG) or local not in _ELEMENTS:
            self._skipped += 1
            return
        attributes = dict(self._attributes(local, given))
        if local in ("use", "image") and "href" not in attributes:
            self._skipped += 1
            return
        if not self._open:
            attributes = _size(attributes) | {"role": "img", "aria-label": self._label or "figure"}
            attributes.pop("id", None)
        if local == "use":
            self._note_use(attributes["href"])
        self._open.append((local, attributes.get("id", "")))
        words = "".join(f' {key}="{escape(value)}"' for key, value in attributes.items())
        self._pieces.append(f"<{local}{words}>")

    def end(self, _name: str) -> None:
        if self._skipped:
            self._skipped -= 1
            return
        self._pieces.append(f"</{self._open.pop()[0]}>")

    def text(self, text: str) -> None:
        if not self._skipped and self._open and self._open[-1][0] in _TEXT:
            self._pieces.append(escape(text))

    def markup(self) -> str:
        # What uses others may not be used itself: ten uses of ten uses, ten times over, are too much for any browser.
        for index, target in self._uses:
            if target in self._users:
                self._pieces[index] = "<use>"
        return "".join(self._pieces)

    def _note_use(self, target: str) -> None:
        self._uses.append((len(self._pieces), target.removeprefix("#")))
        self._users.update(identity for _, identity in self._open if identity)

    def _attributes(self, local: str, given: Mapping[str, str]) -> Iterator[tuple[str, str]]:
        # Later ones win, as a declaration in `style` wins over an attribute.
        for key, value in (*given.items(), *_declarations(given.get("style", ""))):
            if key == "id" and _ID.fullmatch(value):
                yield "id", self._prefix + value
            elif key in ("href", f"{XLINK} href"):
                if local == "image" and _PICTURE.fullmatch(value):
                    yield "href", value
                elif local != "image" and value.startswith("#") and _ID.fullmatch(value[1:]):
                    yield "href", f"#{self._prefix}{value[1:]}"
            elif key in _ATTRIBUTES and (safe := self._value(value)) is not None:
                yield key, safe

    def _value(self, value: str) -> str | None:
        """Return an attribute's value, its references made those of this figure; None for one that leads elsewhere."""
        bare = _LOCAL_URL.sub("", value)
        if "\\" in value or ("(" in bare and re.search(r"url|image|src|expression|attr|env|var", bare, re.IGNORECASE)):
            return None
        # Within a pattern or a mask a reference to another one can multiply what is drawn without end.
        if bare != value and any(name in _DEFINING for name, _ in self._open):
            return None
        return _LOCAL_URL.sub(lambda found: f"url(#{self._prefix}{found[2]})", value)


def _declarations(style: str) -> Iterable[tuple[str, str]]:
    for declaration in style.split(";"):
        key, _, value = declaration.partition(":")
        key, value = key.strip().lower(), value.replace("!important", "").strip()
        if key == "font" and (font := _FONT.fullmatch(value)):
            yield from (("font-size", font[2]), ("font-family", font[3]))
        elif key in _STYLE:
            yield key, value


def _size(attributes: dict[str, str]) -> dict[str, str]:
    """Return the root's attributes with its size in pixels and a box to scale by, where it says how large it is."""
    pixels = {}
    for side in ("width", "height"):
        found = _LENGTH.fullmatch(attributes.pop(side, ""))
        if found:
            pixels[side] = round(float(found[1]) * _PIXELS[found[2] or "px"], 2)
    if len(pixels) == 2:
        attributes.setdefault("viewBox", f"0 0 {pixels['width']:g} {pixels['height']:g}")
        attributes |= {side: f"{length:g}" for side, length in pixels.items()}
    return attributes
