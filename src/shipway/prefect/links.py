"""Prefect artifacts that point at what a run saved and at its page, so that the UI shows them beside the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable

from shipway.artifact import segment
from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.pages import store_page
from shipway.report.facts import TaskFacts
from shipway.report.words import number
from shipway.run.record import RunRecord
from shipway.run.session import Session

MAX_ROWS = 500
MAX_METRICS = 50

_log = logging.getLogger("shipway")


def publish(api: Api, record: RunRecord, session: Session, tasks: Iterable[TaskFacts]) -> None:
    """Keep the run's page, make a markdown artifact that says what came of it, and a table of everything saved.

    The data is committed by now, so a server that refuses these only costs the view: a warning, not the run.
    """
    store = session.store
    verdict, page = store_page(api, record, store, tasks)
    rows = [
        {
            "name": a.name,
            "bytes": a.bytes,
            "rows": a.rows,
            "codec": a.codec,
            "sha256": a.sha256,
            "address": store.url(a.key),
        }
        for a in record.artifacts[:MAX_ROWS]
    ]
    flow = segment(record.flow).lower().replace("_", "-").replace(".", "-").replace("=", "-")
    table = {
        "key": f"{flow}-data",
        "type": "table",
        "description": f"{len(record.artifacts)} objects saved by run {record.run_name}",
        "data": json.dumps(rows),
    }
    summary = {
        "key": f"{flow}-report",
        "type": "markdown",
        "description": "What came of the run, and where its page and its record are",
        "data": _summary(record, verdict, page, store.url(f"{session.order.folder}/run.json")),
    }
    for body in (table, summary) if rows else (summary,):
        try:
            api.request("POST", "/artifacts/", body | {"flow_run_id": record.run_id})
        except ShipwayError as error:
            _log.warning("the UI will not show what was saved: %s", error)


def _summary(record: RunRecord, verdict: str, page: str, address: str) -> str:
    lines = [f"**{_plain(verdict)}**", ""]
    if record.metrics:
        shown = list(record.metrics.items())[:MAX_METRICS]
        lines += ["| metric | value |", "|---|---:|", *(f"| {_plain(n)} | {number(v)} |" for n, v in shown), ""]
    lines += [f"Page: [{page}]({page}), opened by `shipway report {record.run_name}`", ""] if page else []
    lines += [f"Record: [{address}]({address})"]
    return "\n".join(lines)


def _plain(text: str) -> str:
    """Return text without what Markdown, and the HTML in it, would take for its own."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|#!" else char for char in text)
