"""The page of a run: it says what there is to say, needs nothing else, and obeys nobody's words."""

from __future__ import annotations

import base64
import hashlib
import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.pages import page, read

from shipway.artifact import Artifact
from shipway.digest import sha256_bytes
from shipway.report.collect import collect, collect_without, folder_of, page_key
from shipway.report.facts import (
    DeploymentRow,
    Index,
    ModelFacts,
    ModelLine,
    Page,
    ReleaseRow,
    RunRow,
    ServerFacts,
    TaskFacts,
    Verdict,
)
from shipway.report.models import models_of, read_lines, verdict_of
from shipway.report.render import badge, blocks, links, render, render_index
from shipway.run.record import RunRecord, read_record, write_record
from shipway.store.folder import FolderStore

HOSTILE = (
    "x<script>alert(1)</script>",
    'x"><img src=q onerror=alert(1)>',
    "x' onmouseover='alert(1)",
    "x</style></title></textarea><b>",
    "x<!-- --> {{ 7 * 7 }} {% raw %} ${1}",
    "x\x00\x1b[31m\x85\u202e\ud800",
    "x&lt;script&gt; &amp; &#x3c;",
    "x]]><svg/onload=alert(1)>",
    "xjavascript:alert(1)",
)
RUN = "0197a000-0000-7000-8000-0000deadbeef"
TIMES = {
    "scheduled": "2026-01-02T03:04:05+00:00",
    "started": "2026-01-02T03:04:06+00:00",
    "ended": "2026-01-02T03:04:18.500000+00:00",
}


def record(store: FolderStore, saved: dict[str, tuple[bytes, str]], **changed: Any) -> RunRecord:
    """Return the record of a run that saved bytes under names, with the codec of each."""
    made = RunRecord(
        RUN, "brave-otter", "main", "main/demo", 1, f"1484.{'ab' * 32}", {"month": "2013-06"}, timings=TIMES
    )
    folder = folder_of(made)
    artifacts = []
    for name, (data, codec) in saved.items():
        suffix = {"json": ".json", "polars": ".parquet", "svg": ".svg"}.get(codec, "")
        key = f"{folder}/1/{name}{suffix}"
        store.put(key, data)
        artifacts.append(Artifact(name, key, sha256_bytes(data), len(data), codec, captured=codec == "file"))
    return replace(made, artifacts=tuple(artifacts), **changed)


def test_a_run_that_did_nothing_has_a_page(folder_store: FolderStore) -> None:
    made = record(folder_store, {})
    reader = read(render(collect(made, folder_store)))
    assert "Completed" in reader.text
    assert "It took 12.5 s and saved nothing." in reader.text
    assert "abababababab" in reader.text
    assert "2 January 2026, 03:04:06 UTC" in reader.text
    assert "None." not in reader.text.partition("Parameters")[2][:40]
    assert page_key(folder_of(made)) == "reports/main/2026-01-02/brave-otter-deadbeef.html"


def test_a_rich_run_shows_all_it_has(folder_store: FolderStore, tmp_path: Path) -> None:
    frame = tmp_path / "frame"
    pl.DataFrame({"carrier": ["UA"] * 20, "late": list(range(20))}).write_parquet(frame)
    drawing = b'<svg xmlns="http://www.w3.org/2000/svg" width="72pt" height="36pt"><circle r="3"/></svg>'
    section = b'{"version": 1, "title": "Where it is wrong", "parts": [{"kind": "text", "text": "By carrier."}]}'
    verdict = b'{"version": 1, "word": "Promoted", "reason": "RMSE 41.26 against 41.64", "level": "good"}'
    folder_store.put("reports/main/2026-01-01/early-heron-aaaa1111.html", b"its page")
    made = record(
        folder_store,
        {
            "report/01-where-it-is-wrong": (section, "json"),
            "report/verdict": (verdict, "json"),
            "predictions": (frame.read_bytes(), "polars"),
            "metrics": (b'{"rmse": 41.2577, "checks": [{"name": "rows", "result": "passed"}]}', "json"),
            "plots/calibration": (drawing, "svg"),
            "table.csv": (b"a,b\n1,2\n3,4\n", "file"),
            "plot.png": (b"\x89PNG\r\n\x1a\n...", "file"),
            "model.pkl": (b"\x80\x05...", "file"),
        },
        metrics={"rmse": 41.2577, "rows": 27020.0},
        inputs=(
            {
                "kind": "model",
                "name": "model",
                "run": "x",
                "key": "runs/main/2026-01-01/early-heron-aaaa1111/1/model.txt",
                "sha256": "9" * 64,
                "bytes": 440_000,
                "rows": None,
                "asked": "flights",
            },
            {"name": "other", "run": "y", "key": "runs/main/2026-01-01/gone-bbbb2222/1/x", "sha256": "8" * 64},
        ),
        reads=({"path": "data/airports.csv", "sha256": "3" * 64},),
        environment={"python": "3.11.9", "platform": "Linux", "packages": {"polars": "2.0"}},
        left_out=("big.bin: over the limit",),
    )
    task = TaskFacts("train-1", "Completed", "COMPLETED", TIMES["started"], 3.2)
    server = ServerFacts(RUN, "brave-otter", "main", "Completed", "COMPLETED", page="http://ui/run", tasks=(task,))
    reader = read(render(collect(made, folder_store, server, eager=True)))
    for words in (
        "RMSE 41.26 against 41.64",
        "Where it is wrong",
        "By carrier.",
        "8 of 20 rows shown.",
        "passed",
        "27,020",
        "model.pkl",
        "data/airports.csv",
        "polars 2.0",
        "big.bin: over the limit",
        "train-1",
        "early-heron-aaaa1111",
        "440.0 kB",
        "9" * 12,
    ):
        assert words in reader.text, words
    assert reader.text.index("RMSE 41.26 against") < reader.text.index("By carrier.")
    targets = [attributes["href"] for attributes in reader.all("a")]
    assert "../../main/2026-01-01/early-heron-aaaa1111.html" in targets
    assert not [target for target in targets if "bbbb2222.html" in target]
    assert reader.all("img")[0]["src"].startswith("data:image/png;base64,")
    assert {"r": "3"} in reader.all("circle")
    assert [attributes["aria-label"] for attributes in reader.all("svg") if "role" in attributes] == [
        "plots/calibration"
    ]


def test_what_happened_to_a_run_without_data_is_told() -> None:
    tasks = (
        TaskFacts("ingest-0", "Completed", "COMPLETED", TIMES["started"], 1.0),
        TaskFacts("validate-0", "Failed", "FAILED", TIMES["started"], 0.2, "ValueError: 3 checks failed"),
    )
    server = ServerFacts(
        RUN,
        "late-vole",
        "main",
        "Failed",
        "FAILED",
        deployment="main/demo",
        message="Flow run encountered an exception: ValueError: 3 checks failed",
        started=TIMES["started"],
        seconds=3.4,
        tasks=tasks,
        errors=("03:04:08 ERROR ValueError: 3 checks failed",),
    )
    made = collect_without(server)
    assert made.verdict.reasons[0] == "ValueError: 3 checks failed"
    reader = read(render(made))
    for words in ("Failed", "after 3.40 s, 1 of 2 tasks completed", "03:04:08 ERROR", "Nothing of it was committed"):
        assert words in reader.text, words
    assert {"class": "verdict bad"} in reader.all("section")


@pytest.mark.parametrize(("kind", "level"), [("CRASHED", "bad"), ("CANCELLED", "neutral"), ("RUNNING", "neutral")])
def test_every_state_has_a_page(kind: str, level: str) -> None:
    made = collect_without(ServerFacts(RUN, "r", "main", kind.capitalize(), kind))
    assert (made.verdict.word, made.verdict.level) == (kind.capitalize(), level)
    assert "before it began" in read(render(made)).text


def test_a_run_that_crashed_after_its_commit_says_both(folder_store: FolderStore) -> None:
    server = ServerFacts(RUN, "r", "main", "Crashed", "CRASHED", message="killed")
    made = collect(record(folder_store, {"a": (b"1", "json")}), folder_store, server)
    assert made.verdict == Verdict("Crashed", ("killed", "Its data had been committed by then."), "bad")
    assert len(made.saved) == 1


def test_a_run_that_repeats_another_promotes_nothing(folder_store: FolderStore) -> None:
    said = b'{"version": 1, "word": "promoted", "reason": "better", "level": "good"}'
    saved = {"report/verdict": (said, "json")}
    before = record(folder_store, saved)
    assert collect(before, folder_store).verdict == Verdict("promoted", ("better",), "good")
    again = collect(record(folder_store, saved, reproduces="runs/main/2026-01-01/calm-heron-0123abcd"), folder_store)
    assert (again.verdict.word, again.verdict.level, again.verdict.reasons[1:]) == ("promoted", "neutral", ("better",))
    assert "calm-heron" in again.verdict.reasons[0]
    assert "moved no champion" in again.verdict.reasons[0]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_becomes_markup(text: str) -> None:
    reader = read(render(page(text)))
    assert reader.structure() == read(render(page("xy"))).structure()


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.one_of(st.sampled_from("<>&\"'`={}%/\\ \n\x00"), st.characters()), max_size=40))
def test_no_text_at_all_becomes_markup(text: str) -> None:
    made = read(render(page(f"x{text}y")))
    assert made.structure() == read(render(page("xy"))).structure()


@settings(deadline=None, max_examples=60)
@given(st.text(alphabet=st.one_of(st.sampled_from("<>&\"'`- \n*"), st.characters()), max_size=80))
def test_the_text_of_a_section_becomes_paragraphs_and_points_and_no_more(text: str) -> None:
    pieces = "".join(f"<{kind}>{''.join(lines)}</{kind}>" for kind, lines in blocks(text))
    reader = read(pieces)
    assert {name for name, _ in reader.elements} <= {"p", "ul", "code"}
    assert not any(attributes for _, attributes in reader.elements)
    kept = re.sub(r"[\s`*-]", "", reader.text)
    assert kept == re.sub(r"[\s`*-]", "", text.replace("\r", "\n").replace("\x00", "\ufffd")) or "\x00" in text


def test_text_is_laid_out() -> None:
    text = "One `code`\nline.\n\n- first\n  goes on\n- second\n\nLast."
    assert [(kind, [str(line) for line in lines]) for kind, lines in blocks(text)] == [
        ("p", ["One <code>code</code> line."]),
        ("ul", ["first goes on", "second"]),
        ("p", ["Last."]),
    ]


def test_nothing_is_fetched_and_nothing_runs() -> None:
    html = render(page("x"))
    reader = read(html)
    assert not [name for name, _ in reader.elements if name in ("script", "link", "iframe", "object", "form", "base")]
    assert not [
        key for _, attributes in reader.elements for key in attributes if key.startswith("on") or key == "style"
    ]
    assert "url(" not in html.replace("url(#", "")
    policy = reader.all("meta")[1]["content"]
    style = re.search(r"<style>(.*?)</style>", html, re.DOTALL)
    assert style
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert policy == (
        f"default-src 'none'; img-src data:; style-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'"
    )


def test_the_page_is_built_for_those_who_do_not_see_it() -> None:
    reader = read(render(page("x")))
    assert reader.all("html") == [{"lang": "en"}]
    assert len(reader.all("main")) == len(reader.all("h1")) == len(reader.all("header")) == 1
    assert reader.elements[[name for name, _ in reader.elements].index("body") + 1][1]["href"] == "#main"
    levels = [int(name[1]) for name, _ in reader.elements if re.fullmatch(r"h[1-6]", name)]
    assert all(below - above <= 1 for above, below in pairwise(levels))
    assert len(reader.all("caption")) == len(reader.all("table"))
    assert all("scope" in attributes for attributes in reader.all("th"))
    assert all("aria-hidden" in a or "aria-label" in a for a in reader.all("svg"))


def test_metrics_beyond_a_dozen_stand_in_a_list() -> None:
    few, many = ({f"m{i}": float(i) for i in range(count)} for count in (12, 13))
    assert {"class": "tiles"} in read(render(page("x", metrics=few))).all("dl")
    assert {"class": "tiles"} not in read(render(page("x", metrics=many))).all("dl")


def test_thousands_of_objects_are_counted_and_not_shown() -> None:
    made = page("x")
    html = render(replace(made, saved=made.saved * 2500, tasks=made.tasks * 400))
    reader = read(html)
    assert "1000 of 2,500 objects shown" in reader.text
    assert "300 of 800 task runs shown" in reader.text
    assert len(html) < 2_000_000


@pytest.mark.parametrize(
    "document",
    [
        b"not json",
        b"[]",
        b'{"version": 2}',
        b'{"version": 1, "title": 5, "parts": "no"}',
        b'{"version": 1, "title": "x", "parts": [1, {"kind": "figure"}, {"kind": "facts", "facts": [1], "total": 1}]}',
        b'{"version": 1, "title": "x", "parts": [{"kind": "text", "text": {"a": 1}}, {"kind": "table", '
        b'"columns": ["a"], "rows": [[1, 2]], "total": 1, "total_columns": 1}]}',
        b'{"version": 1, "title": "x", "parts": [{"kind": "figure", "svg": "<svg><"}]}',
        b"[" * 100_000,
    ],
    ids=range(8),
)
def test_a_section_that_is_none_does_not_cost_the_page(folder_store: FolderStore, document: bytes) -> None:
    made = record(folder_store, {"report/01-x": (document, "json"), "report/verdict": (document, "json")})
    reader = read(render(collect(made, folder_store)))
    assert "Completed" in reader.text


def test_a_damaged_section_says_so(folder_store: FolderStore) -> None:
    made = record(folder_store, {"report/01-x": (b'{"version": 1, "title": "x", "parts": []}', "json")})
    folder_store.put(made.artifacts[0].key, b'{"version": 1, "title": "y", "parts": []}')
    assert "This section cannot be shown: report/01-x is damaged" in read(render(collect(made, folder_store))).text


DECISION = {
    "promote": True,
    "verdict": "promoted",
    "reasons": ["RMSE is 0.92 % smaller."],
    "metric": "rmse",
    "scores": {"candidate": 41.26, "champion": 41.64, "baseline": 44.92},
    "gain": 0.0092,
    "interval": [0.0031, 0.015],
    "margin": 0.005,
    "rows": 27020,
    "blocks": 30,
    "level": 0.95,
}


@pytest.mark.parametrize(
    ("entry", "champion", "word", "level"),
    [
        ({"decision": DECISION, "promote": True}, b"{}", "Promoted", "good"),
        ({"decision": DECISION | {"promote": False, "verdict": "kept"}, "promote": False}, b"{}", "Kept", "neutral"),
        ({"decision": DECISION, "promote": False}, b"{}", "Passed", "neutral"),
        (
            {"decision": DECISION, "promote": True},
            b'{"held": [{"version": 4, "reason": "later"}, {"version": 5, "reason": "version 6 came first"}]}',
            "Held",
            "neutral",
        ),
        ({"decision": DECISION}, b'{"held": 5}', "Promoted", "good"),
    ],
)
def test_a_decision_is_the_verdict(
    folder_store: FolderStore, entry: dict[str, Any], champion: bytes, word: str, level: str
) -> None:
    folder_store.put("models/flights/champion.json", champion)
    made = record(folder_store, {}, models=({"name": "flights", "version": 5, **entry},))
    found = collect(made, folder_store)
    assert (found.verdict.word, found.verdict.level) == (word, level)
    reader = read(render(found))
    for words in (
        "version 5",
        "41.26",
        "44.92",
        "on the same 27,020 rows",
        "+0.92 %",
        "+0.31 % to +1.50 %",
        "30 blocks",
    ):
        assert words in reader.text, words


def test_a_model_that_nobody_decided_on_is_still_named(folder_store: FolderStore) -> None:
    [model] = models_of(folder_store, [{"name": "flights", "version": 1, "decision": None}])
    assert model == ModelFacts("flights", 1)
    assert verdict_of([model]) is None
    [odd] = models_of(folder_store, [{"decision": {"scores": 5, "interval": ["a", None], "reasons": 3, "rows": "x"}}])
    assert read(render(page("x", models=(odd,))))


def test_two_models_share_the_verdict(folder_store: FolderStore) -> None:
    entries = [
        {"name": "a", "decision": DECISION},
        {"name": "b", "decision": DECISION | {"promote": False, "verdict": "kept"}},
    ]
    found = verdict_of(models_of(folder_store, entries))
    assert found == Verdict("1 of 2 promoted", ("a: promoted.", "b: kept."), "good")


def test_the_index_lists_models_as_they_lie_in_the_store(folder_store: FolderStore) -> None:
    folder_store.put("models/flights/champion.json", b'{"history": [{"version": 2}], "held": []}')
    folder_store.put("models/flights/2.json", b'{"name": "flights", "run_name": "b", "decision": null}')
    folder_store.put("models/flights/10.json", b"damaged")
    [line] = read_lines(folder_store)
    assert (line.name, line.champion, [model.version for model in line.versions]) == ("flights", 2, [10, 2])


@pytest.mark.parametrize("text", HOSTILE)
def test_the_index_obeys_nobody_either(text: str) -> None:
    def index(words: str) -> Index:
        model = ModelFacts(words, 1, Verdict(words), words, run=words)
        release = ReleaseRow(f"1.{words}", words, current=True, pinned=True)
        deployment = DeploymentRow(words, f"1.{words}", (words,), True, words, words, (release,), 3)
        run = RunRow(words, words, words, words, 1.0, words, "f/2026-01-02/r-0.html", words)
        return Index(words, (deployment,), (run,), ((words, (ModelLine(words, 1, (model,), 2),)),), (words,))

    assert read(render_index(index(text))).structure() == read(render_index(index("xy"))).structure()


def test_an_empty_index_says_what_to_do() -> None:
    text = read(render_index(Index("http://127.0.0.1:4200", (), (), ()))).text
    assert "shipway deploy" in text


def test_words_that_mean_good_or_bad_have_a_colour() -> None:
    assert [badge(word) for word in ("Passed", "FAILED", "warning", "kept", "passed it", 5, None, True)] == [
        "good",
        "bad",
        "warn",
        "neutral",
        *[""] * 4,
    ]


def test_only_an_address_that_a_browser_knows_is_a_link() -> None:
    assert [links(text) for text in ("https://x", "file:///x", "s3://x", "javascript:x", " https://x")] == [
        True,
        True,
        False,
        False,
        False,
    ]


def test_what_was_left_out_is_in_the_record(folder_store: FolderStore) -> None:
    made = record(folder_store, {}, left_out=("a: too big",))
    assert write_record(folder_store, "runs/x", made)
    assert read_record(folder_store, "runs/x/run.json").left_out == ("a: too big",)


def test_a_page_says_nothing_of_when_it_was_made(folder_store: FolderStore) -> None:
    made = record(folder_store, {"a": (b"1", "json")})
    pages: set[Page | str] = {render(collect(made, folder_store)) for _ in range(2)}
    assert len(pages) == 1
