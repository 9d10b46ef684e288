"""Prefect artifacts that point at what a run saved and at its page, so that the UI shows them beside the run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from prefect.client.schemas.objects import FlowRun

from shipway.artifact import segment
from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.prefect.pages import store_ended_page, store_failed_page, store_page
from shipway.report.facts import Said, TaskFacts
from shipway.report.words import number
from shipway.run.record import RunRecord
from shipway.settings import Settings
from shipway.store.base import Store

MAX_ROWS = 500
MAX_METRICS = 50

_log = logging.getLogger("shipway")


def publish(api: Api, record: RunRecord, store: Store, folder: str, tasks: Iterable[TaskFacts]) -> None:
    """Keep the run's page, make a markdown artifact that says what came of it, and a table of everything saved.

    The data is committed by now, so a server that refuses these only costs the view: a warning, not the run.
    """
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
    flow = _key(record.flow)
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
        "data": _summary(record, verdict, page, store.url(f"{folder}/run.json")),
    }
    for body in (table, summary) if rows else (summary,):
        _post(api, record.run_id, body)


def publish_failed(
    api: Api, run: FlowRun, flow: str, store: Store, said: Said, tasks: Iterable[TaskFacts], error: Iterable[str]
) -> None:
    """Keep the page of a run that has failed, and make a markdown artifact that says so.

    Args:
        api: the server.
        run: the run.
        flow: its flow's name.
        store: where its data would lie.
        said: what its flow had said for the page.
        tasks: its task runs.
        error: lines that tell of the error.
    """
    if kept := store_failed_page(api, str(run.id), store, said, tasks, error):
        verdict, page = kept
        _post(api, str(run.id), _ending(flow, run.name, verdict, page, said.metrics))


def publish_ended(api: Api, run_id: str, settings: Settings) -> None:
    """Keep the page of a run that has crashed or was cancelled, and make a markdown artifact that says so.

    Raises:
        ShipwayError: the server or the store failed.
    """
    if kept := store_ended_page(api, run_id, settings):
        verdict, page, run = kept
        _post(api, run_id, _ending(run["flow_name"], run["name"], verdict, page, {}))


def _ending(flow: str, run: str, verdict: str, page: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    return {
        "key": f"{_key(flow)}-report",
        "type": "markdown",
        "description": "How the run ended, and where its page is",
        "data": "\n".join([f"**{_plain(verdict)}**", "", *_metrics(metrics), *_opened(run, page)]),
    }


def _post(api: Api, run_id: str, body: Mapping[str, Any]) -> None:
    try:
        api.request("POST", "/artifacts/", {**body, "flow_run_id": run_id})
    except ShipwayError as error:
        _log.warning("the UI will not show what came of the run: %s", error)


def _key(flow: str) -> str:
    return segment(flow).lower().replace("_", "-").replace(".", "-").replace("=", "-")


def _summary(record: RunRecord, verdict: str, page: str, address: str) -> str:
    lines = [f"**{_plain(verdict)}**", "", *_metrics(record.metrics)]
    lines += _opened(record.run_name, page) if page else []
    lines += [f"The run's record is `{address}`."]
    return "\n".join(lines)


def _metrics(metrics: Mapping[str, float]) -> list[str]:
    shown = list(metrics.items())[:MAX_METRICS]
    rows = [f"| {_plain(name)} | {number(value)} |" for name, value in shown]
    return ["| metric | value |", "|---|---:|", *rows, ""] if rows else []


def _opened(run: str, page: str) -> list[str]:
    """Say how to open a page: a browser knows nothing of `s3://`, so a link to it would lead nowhere."""
    return ["Open the run's page with", "", "```", f"shipway report {run}", "```", "", f"It is kept as `{page}`.", ""]


def _plain(text: str) -> str:
    """Return text without what Markdown, and the HTML in it, would take for its own."""
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;")
    return "".join(f"\\{char}" if char in "\\`*_[]|#!" else char for char in text)
