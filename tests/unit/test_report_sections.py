"""What a flow adds to its page: saved with the run, bounded, in an order of its own, with the same bytes each time."""

from __future__ import annotations

import json
import math
import os
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from matplotlib.figure import Figure

import shipway
from shipway.errors import InputError
from shipway.report.parts import MAX_COLUMNS, MAX_ROWS, MAX_SVG, part_of
from shipway.report.sections import MAX_SECTIONS, order
from shipway.run.order import Order
from shipway.run.record import RunRecord
from shipway.run.session import Session, activate
from shipway.store.folder import FolderStore

ORDER = Order(
    run_id="0197a000-0000-7000-8000-0000deadbeef",
    run_name="one",
    flow="train",
    deployment="train/daily",
    attempt=1,
    release=None,
    parameters={},
    scheduled="2026-01-02T03:04:05+00:00",
    store="",
    opener="tests.unit.test_report_sections:open_folder",
)


def open_folder(block: str) -> FolderStore:
    """Open the store as a child process does, by the name that the order gives."""
    return FolderStore(Path(block))


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[Callable[[], object]], RunRecord]]:
    """Runs of a function, each with a store of its own; what they return is the record."""
    begun: list[Session] = []

    def call(function: Callable[[], object]) -> RunRecord:
        folder = tmp_path / str(len(begun))
        folder.mkdir()
        store = FolderStore(folder / "store")
        session = Session.begin(replace(ORDER, store=str(folder / "store")), folder, store)
        begun.append(session)
        activate(session)
        function()
        return session.commit(session.record())

    yield call
    activate(None)
    for session in begun:
        session.close()


def test_a_section_is_one_artifact_of_the_run(run: Any, tmp_path: Path) -> None:
    def flow() -> None:
        shipway.report.section("Where it is  wrong", "By carrier.", [{"carrier": "AA", "rmse": 4.5}], {"rows": 3})
        shipway.report.verdict("promoted", "RMSE 41.2 against 42.0", level="good")

    record = run(flow)
    assert [artifact.name for artifact in record.artifacts] == ["report/01-where-it-is-wrong", "report/verdict"]
    document = json.loads(FolderStore(tmp_path / "0/store").read(record.artifacts[0].key))
    assert document["title"] == "Where it is wrong"
    assert [part["kind"] for part in document["parts"]] == ["text", "table", "facts"]


def test_a_run_again_has_the_same_bytes(run: Any) -> None:
    def flow() -> None:
        figure = Figure()
        figure.subplots().plot([1, 2], [3, 4])
        shipway.report.section("Figures", figure)
        shipway.report.section("Frames", pl.DataFrame({"a": [1.5, None]}))
        threads = [threading.Thread(target=shipway.report.section, args=(title, title)) for title in "cab"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        shipway.report.section("Last", "words")

    def digests(record: RunRecord) -> dict[str, str]:
        return {artifact.name: artifact.sha256 for artifact in record.artifacts}

    first = digests(run(flow))
    assert first == digests(run(flow))
    titles = ["report/01-figures", "report/02-frames", "report/03-last"]
    assert sorted(first, key=order) == [*titles, "report/tasks/a", "report/tasks/b", "report/tasks/c"]


def test_a_title_that_comes_again_keeps_its_place(run: Any) -> None:
    def flow() -> None:
        for title, text in (("A", "first"), ("B", "other"), ("A", "second")):
            shipway.report.section(title, text)

    assert [artifact.name for artifact in run(flow).artifacts] == ["report/01-a", "report/02-b"]


def test_sections_are_numbered_beyond_ten_in_order(run: Any) -> None:
    def flow() -> None:
        for number in range(12):
            shipway.report.section(f"n{number}")

    record = run(flow)
    names = sorted((artifact.name for artifact in record.artifacts), key=order)
    assert [name.rpartition("-")[2] for name in names] == [f"n{number}" for number in range(12)]


def test_there_is_an_end_to_sections(run: Any) -> None:
    def flow() -> None:
        for number in range(MAX_SECTIONS):
            shipway.report.section(f"n{number}")
        shipway.report.section("n1", "again is no new one")
        with pytest.raises(InputError, match="at most 100 sections"):
            shipway.report.section("one more")

    run(flow)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_child_process_adds_to_the_page(run: Any) -> None:
    def flow() -> None:
        pid = os.fork()
        if pid == 0:
            try:
                shipway.report.section("From a child", "hello")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)

    assert [artifact.name.partition("-")[0] for artifact in run(flow).artifacts] == ["report/tasks/From"]


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: shipway.report.section(""), "1 to 120 characters, not 0"),
        (lambda: shipway.report.section("x" * 121), "not 121"),
        (lambda: shipway.report.section("x", {1, 2}), "cannot show a set"),
        (lambda: shipway.report.section("x", f"<svg>{'x' * MAX_SVG}</svg>"), "too large"),
        (lambda: shipway.report.section("x", "<svg><"), "not well-formed"),
        (lambda: shipway.report.verdict(" "), "1 to 60 characters"),
        (lambda: shipway.report.verdict("kept", level="ugly"), "levels are good, neutral, bad"),  # type: ignore[arg-type]
    ],
)
def test_what_cannot_be_shown_is_said(run: Any, call: Callable[[], None], words: str) -> None:
    def flow() -> None:
        with pytest.raises(InputError, match=words) as caught:
            call()
        assert words in str(caught.value)

    assert run(flow).artifacts == ()


def test_outside_a_run_it_is_said() -> None:
    with pytest.raises(InputError, match="inside a run only"):
        shipway.report.section("x")


FRAME = {"a": [1, 2], "b": ["x", None]}


@pytest.mark.parametrize(
    "frame",
    [
        pl.DataFrame(FRAME),
        pl.LazyFrame(FRAME),
        pd.DataFrame(FRAME),
        pa.table(FRAME),
        [{"a": 1, "b": "x"}, {"a": 2}],
    ],
    ids=lambda frame: type(frame).__module__,
)
def test_every_kind_of_table(frame: object) -> None:
    table = part_of(frame)
    assert (table["kind"], table["columns"], table["total"]) == ("table", ["a", "b"], 2)
    assert table["rows"] == [[1, "x"], [2, None]]


@pytest.mark.parametrize("make", [pl.DataFrame, pl.LazyFrame, pd.DataFrame, pa.table])
def test_a_long_and_wide_frame_is_bounded_and_says_so(make: Callable[[Any], object]) -> None:
    table = part_of(make({f"c{i}": list(range(1000)) for i in range(MAX_COLUMNS + 5)}))
    assert (len(table["rows"]), table["total"]) == (MAX_ROWS, 1000)
    assert (len(table["columns"]), table["total_columns"]) == (MAX_COLUMNS, MAX_COLUMNS + 5)
    assert all(len(row) == MAX_COLUMNS for row in table["rows"])


def test_an_index_of_ones_own_is_a_column() -> None:
    frame = pd.DataFrame({"rmse": [1.5, float("nan")]}, index=pd.Index(["JFK", "LGA"], name="origin"))
    table = part_of(frame)
    assert (table["columns"], table["rows"]) == (["origin", "rmse"], [["JFK", 1.5], ["LGA", None]])


@dataclass
class Check:
    name: str
    passed: bool


@pytest.mark.parametrize(
    ("value", "plain"),
    [
        (np.float32(0.5), 0.5),
        (np.int64(3), 3),
        (math.nan, "NaN"),
        (-math.inf, "−∞"),
        (date(2026, 1, 2), "2026-01-02"),
        (pd.NaT, None),
        (pd.NA, None),
        (b"abc", "3 bytes"),
        ([1, {"a": 2}], '[1, {"a": 2}]'),
        ("x" * 600, "x" * 499 + "…"),
        ("\ud800", "?"),
        (10**400, "a very large number"),
        (Check("rows", True), "Check(name='rows', passed=True)"),
    ],
    ids=repr,
)
def test_a_fact_is_a_number_or_text(value: object, plain: object) -> None:
    found = part_of({"fact": value})["facts"][0][1]
    assert found == plain or (plain is None and found in (None, ""))
    json.dumps(found, allow_nan=False).encode()


def test_dataclasses_are_facts_and_rows() -> None:
    assert part_of(Check("rows", True))["facts"] == [["name", "rows"], ["passed", True]]
    assert part_of([Check("rows", True)])["rows"] == [["rows", True]]
    assert part_of(["one", 2]) == {"kind": "list", "items": ["one", 2], "total": 2}


def test_text_of_an_svg_is_a_figure() -> None:
    assert part_of("<svg></svg>")["kind"] == "figure"
    assert part_of('<?xml version="1.0"?>\n<!DOCTYPE svg>\n<svg/>')["kind"] == "figure"
    assert part_of("about <svg>")["kind"] == "text"
