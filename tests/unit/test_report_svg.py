"""Figures out of a store: what is drawn stays, what could act or ask does not."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from tests.unit.pages import read

from shipway.codec.objects import SVG
from shipway.errors import InputError
from shipway.report.parts import part_of
from shipway.report.svg import clean

HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'


def cleaned(body: str) -> str:
    return clean(f"{HEAD}{body}</svg>", "f1-", "a figure").removeprefix('<svg role="img" aria-label="a figure">')


@pytest.mark.parametrize(
    "body",
    [
        "<script>alert(1)</script>",
        "<style>* { display: none }</style>",
        "<foreignObject><body xmlns='http://www.w3.org/1999/xhtml'><script/></body></foreignObject>",
        "<animate attributeName='href' to='javascript:alert(1)'/>",
        "<set attributeName='onload' to='alert(1)'/>",
        "<handler xmlns='http://www.w3.org/2001/xml-events'>alert(1)</handler>",
        "<html:script xmlns:html='http://www.w3.org/1999/xhtml'>alert(1)</html:script>",
        "<image xlink:href='https://example.org/x.png'/>",
        "<image xlink:href='data:image/svg+xml;base64,AAAA'/>",
        "<image href='data:text/html;base64,AAAA'/>",
        "<use xlink:href='https://example.org/x.svg#a'/>",
        "<use href='data:image/svg+xml,x#a'/>",
        "<feImage href='https://example.org/x.png'/>",
        "<metadata><a href='x'>words</a></metadata>",
        "<iframe src='x'/>",
        "words that nothing shows",
        "<!-- a comment --><?php echo 1 ?>",
    ],
)
def test_what_is_not_drawn_is_left_out(body: str) -> None:
    assert cleaned(body) == "</svg>"


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("<rect onload='alert(1)' width='3'/>", '<rect width="3"></rect>'),
        ("<rect class='skip' style='position: fixed; fill: #fff'/>", '<rect fill="#fff"></rect>'),
        ("<rect style='fill: url(https://example.org/x)'/>", "<rect></rect>"),
        ("<rect fill='url(https://example.org/#a)'/>", "<rect></rect>"),
        ("<rect fill='URL(#a)'/>", "<rect></rect>"),
        (r"<rect fill='u\72l(x)'/>", "<rect></rect>"),
        ("<rect fill='image-set(x)'/>", "<rect></rect>"),
        ("<rect fill='url(#a)' id='b'/>", '<rect fill="url(#f1-a)" id="f1-b"></rect>'),
        ("<rect id='a b' clip-path='url( \"#c\" )'/>", '<rect clip-path="url(#f1-c)"></rect>'),
        ("<a href='javascript:alert(1)'><rect/></a>", "<g><rect></rect></g>"),
        ("<path id='p'/><use xlink:href='#p' x='1'/>", '<path id="f1-p"></path><use href="#f1-p" x="1"></use>'),
        ("<text style=\"font: italic 10px/1.2 'A', sans\">a &lt; b &amp; c</text>",
         '<text font-size="10px" font-family="&#x27;A&#x27;, sans">a &lt; b &amp; c</text>'),
        ("<rect fill='red' style='fill: blue !important'/>", '<rect fill="blue"></rect>'),
        ("<image href='data:image/png;base64,AA'/>", '<image href="data:image/png;base64,AA"></image>'),
        ("<title>T</title>", "<title>T</title>"),
    ],
)  # fmt: skip
def test_what_is_drawn_is_kept_and_made_harmless(given: str, kept: str) -> None:
    assert cleaned(given) == f"{kept}</svg>"


def test_ids_of_two_figures_differ_and_references_follow() -> None:
    svg = f"{HEAD}<clipPath id='c'><rect/></clipPath><g clip-path='url(#c)'/></svg>"
    first, second = clean(svg, "f1-"), clean(svg, "f2-")
    assert 'id="f1-c"' in first
    assert 'clip-path="url(#f1-c)"' in first
    assert 'id="f2-c"' in second


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("<svg", "not well-formed"),
        ("<svg></svg><svg/>", "not well-formed"),
        ('<!DOCTYPE svg [<!ENTITY a "aaaa">]><svg>&a;</svg>', "declares entities"),
        ('<!DOCTYPE svg [<!ENTITY a SYSTEM "file:///etc/passwd">]><svg><text>&a;</text></svg>', "declares entities"),
        ('<!DOCTYPE svg [<!ENTITY % a "x"> %a;]><svg/>', "declares entities"),
        ("<html/>", "no SVG"),
        ('<svg xmlns="http://www.w3.org/1999/xhtml"/>', "no SVG"),
        ("<svg>" + "<g>" * 200 + "</g>" * 200 + "</svg>", "nested"),
        ("<svg>" + "<g/>" * 60_000 + "</svg>", "50,000 elements"),
    ],
    ids=range(9),
)
def test_what_is_no_figure_is_refused(text: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        clean(text)


def test_uses_of_uses_do_not_multiply() -> None:
    layers = "".join(
        f"<g id='l{n + 1}'>" + f"<use href='#l{n}'/>" * 10 + "</g>" for n in range(10)
    )  # ten billion rectangles
    found = cleaned(f"<rect id='l0'/>{layers}")
    assert found.count('href="#f1-l0"') == 10
    assert "#f1-l1" not in found.replace('id="f1-l1', "")


def test_patterns_of_patterns_do_not_multiply() -> None:
    body = "<pattern id='a'><rect fill='url(#b)'/></pattern><rect fill='url(#a)'/>"
    assert cleaned(body) == '<pattern id="f1-a"><rect></rect></pattern><rect fill="url(#f1-a)"></rect></svg>'


@pytest.mark.parametrize(
    ("size", "root"),
    [
        ("width='72pt' height='36pt'", 'viewBox="0 0 96 48" width="96" height="48"'),
        ("width='1in' height='50.8mm' viewBox='0 0 1 2'", 'viewBox="0 0 1 2" width="96" height="192"'),
        ("width='100%' height='100%' viewBox='0 0 1 2'", 'viewBox="0 0 1 2"'),
        ("width='10' height='20px'", 'viewBox="0 0 10 20" width="10" height="20"'),
    ],
)
def test_a_figure_scales(size: str, root: str) -> None:
    assert clean(f'<svg {size} xmlns="http://www.w3.org/2000/svg"/>', label="f").startswith(f"<svg {root} ")


def test_a_figure_of_matplotlib_keeps_all_it_draws() -> None:
    figure = Figure(figsize=(4, 3))
    left, right = figure.subplots(1, 2)
    left.plot([1, 2], [2, 1], "o--", label="a < b")
    left.bar([1, 2], [1, 2], hatch="//")
    left.legend()
    right.imshow([[1, 2], [3, 4]])
    svg = part_of(figure)["svg"]
    found = read(clean(svg, "f1-", "x"))
    names = {name for name, _ in found.elements}
    assert {"path", "use", "image", "pattern", "clippath"} <= names
    assert svg.count("<path") == len(found.all("path"))
    assert svg.count("<use") == len(found.all("use"))
    assert not [a for _, a in found.elements if "style" in a]
    assert SVG.accepts(figure)


@given(st.text(max_size=60))
def test_no_text_of_a_figure_is_markup(text: str) -> None:
    try:
        found = cleaned(f"<text>{text}</text>")
    except InputError:
        return
    assert {name for name, _ in read(f"<svg>{found}").elements} <= {"svg", "text", "tspan", "g", "title"}


@given(st.text(max_size=60), st.sampled_from(["fill", "id", "style", "href", "xlink:href", "onclick", "viewBox"]))
def test_no_attribute_of_a_figure_gets_out(value: str, name: str) -> None:
    quoted = value.replace("&", "&amp;").replace("<", "&lt;").replace('"', "&quot;")
    try:
        found = cleaned(f'<rect {name}="{quoted}"/>')
    except InputError:
        return
    [(_, rect)] = [item for item in read(f"<svg>{found}").elements if item[0] == "rect"]
    assert set(rect) <= {"fill", "id", "href", "viewbox"} | set(rect) - {"onclick", "style", "xlink:href"}
    assert not {"onclick", "style", "xlink:href"} & set(rect)
    assert rect.get("href", "#").startswith("#")


def test_a_large_figure_takes_no_time() -> None:
    body = "".join(f"<path d='M {n} 0 L {n} 9' style='stroke: #000'/>" for n in range(15_000))
    began = time.process_time()
    cleaned(body)
    assert time.process_time() - began < 30
