"""An order: what a session is about."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from shipway.run.record import run_folder


@dataclass(frozen=True, slots=True)
class Order:
    """What a session is about; written to a file for child processes, so it holds no secret.

    Attributes:
        run_id: Prefect's flow run id.
        run_name: the run's name.
        flow: the flow's name.
        deployment: `FLOW/NAME`, or None.
        attempt: which attempt this is, from 1.
        release: `<epoch>.<release-id>`, or None.
        parameters: what the flow is called with, as JSON.
        scheduled: when the run was due, in UTC, ISO 8601.
        store: block that the data goes to.
        opener: `module:function` that opens a block by name.
        reproduces: folder in the store of the run that this one repeats, with the same inputs, or None.
        resumes: id of the failed run whose completed tasks are not done again, or None.
        after: id of the run that must have ended before this one looks at what is current, or None.
        turn: `module:function` that waits for that run's end, given its id.
        whose: `module:function` that says which task runs the code that calls it is part of, as the journal asks.
    """

    run_id: str
    run_name: str
    flow: str
    deployment: str | None
    attempt: int
    release: str | None
    parameters: Mapping[str, Any]
    scheduled: str
    store: str
    opener: str
    reproduces: str | None = None
    resumes: str | None = None
    after: str | None = None
    turn: str = ""
    whose: str = ""

    @property
    def folder(self) -> str:
        """The run's folder in the store."""
        return run_folder(self.flow, datetime.fromisoformat(self.scheduled), self.run_name, self.run_id)
