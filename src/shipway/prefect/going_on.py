"""A run that goes on in a worker."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

from prefect.client.schemas.objects import FlowRun
from prefect.runner._process_manager import ProcessHandle


@dataclass
class Live:
    """A run that is going on.

    Attributes:
        flow_run: the run.
        flow: its flow's name.
        handle: its process, once it has one.
        warm: whether it was forked.
        since: when the worker took it up.
        started: seconds from then until it had a process.
        outcome: how it ended, in a word, once it has.
        ended: set when its process has ended and its state is settled.
    """

    flow_run: FlowRun
    flow: str
    handle: ProcessHandle | None = None
    warm: bool = False
    since: datetime = field(default_factory=lambda: datetime.now(UTC))
    started: float = 0.0
    outcome: str = "not_started"
    ended: asyncio.Event = field(default_factory=asyncio.Event)
