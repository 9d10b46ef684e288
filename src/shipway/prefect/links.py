"""Prefect artifacts that point at what a run saved, so that the UI shows it beside the run."""

from __future__ import annotations

import json
import logging

from shipway.artifact import segment
from shipway.errors import ShipwayError
from shipway.prefect.api import Api
from shipway.run.record import RunRecord
from shipway.run.session import Session

MAX_ROWS = 500

_log = logging.getLogger("shipway")


def publish(api: Api, record: RunRecord, session: Session) -> None:
    """Make a table artifact of everything saved, and a link artifact to the run's record.

    The data is committed by now, so a server that refuses these only costs the view: a warning, not the run.
    """
    store = session.store
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
    address = store.url(f"{session.order.folder}/run.json")
    flow = segment(record.flow).lower().replace("_", "-").replace(".", "-").replace("=", "-")
    table = {
        "key": f"{flow}-data",
        "type": "table",
        "description": f"{len(record.artifacts)} objects saved by run {record.run_name}",
        "data": json.dumps(rows),
    }
    link = {
        "key": f"{flow}-record",
        "type": "markdown",
        "description": "The run's record",
        "data": f"[{address}]({address})",
    }
    for body in (table, link) if rows else (link,):
        try:
            api.request("POST", "/artifacts/", body | {"flow_run_id": record.run_id})
        except ShipwayError as error:
            _log.warning("the UI will not show what was saved: %s", error)
