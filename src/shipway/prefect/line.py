"""What a worker says to a run that it has forked, over a pipe: that it may begin, that it is to be suspended.

Prefect's engine listens for suspensions itself, with a thread, a client and a connection in each run. A worker of ours
listens for all of its runs with one connection, by Prefect's own observer, and passes on what concerns a run.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from uuid import UUID

from prefect import flow_engine
from prefect._flow_run_suspension import FlowRunSuspensionRequest, mark_flow_run_suspension_requested
from prefect.client.schemas.objects import State

DESCRIPTOR = 3
"""Descriptor of a forked run from which it reads: first an empty line, then states, one JSON document a line."""


class Line:
    """The worker's end of the pipe.

    Attributes:
        ear: descriptor of the run's end, closed here once the run has it.
    """

    def __init__(self) -> None:
        self.ear, self._mouth = os.pipe()

    def go(self) -> None:
        """Tell the run that it may begin."""
        self._say(b"\n")

    def suspend(self, state: State) -> None:
        """Tell the run that it is to be suspended, in the state that the server has given it."""
        self._say(state.model_dump_json().encode() + b"\n")

    def close(self) -> None:
        """Say nothing more."""
        if self._mouth >= 0:
            os.close(self._mouth)
            self._mouth = -1

    def _say(self, line: bytes) -> None:
        try:
            if self._mouth >= 0:
                os.write(self._mouth, line)
        except OSError:
            return  # a run that has ended does not listen


class Ear:
    """Listens in a run's process, until the worker closes the pipe or is gone.

    Args:
        run: the run.
        then: what is called at the end, in a thread that nobody waits for.
    """

    def __init__(self, run: UUID, then: Callable[[], None]) -> None:
        self._run = run
        self._then = then
        self._state: State | None = None
        self._lock = threading.Lock()
        self._go = threading.Event()
        flow_engine.observe_flow_run_suspension = self._observe  # type: ignore[attr-defined]
        threading.Thread(target=self._listen, name="shipway-line", daemon=True).start()

    def wait(self) -> None:
        """Wait until the worker has told the server that the run is about to begin, or cannot tell it any more."""
        self._go.wait()

    def _listen(self) -> None:
        try:
            with os.fdopen(DESCRIPTOR, "rb") as lines:
                for line in lines:
                    if line.strip():
                        self._hear(State.model_validate_json(line))
                    self._go.set()
        finally:
            self._go.set()
            self._then()

    def _hear(self, state: State) -> None:
        with self._lock:
            self._state = state
            mark_flow_run_suspension_requested(self._run, state)

    @contextmanager
    def _observe(
        self, flow_run_id: UUID, suspension_request: FlowRunSuspensionRequest, *_args: object, **_kwargs: object
    ) -> Iterator[None]:
        """Stand in for Prefect's observer: what was heard before the flow began counts as well."""
        with self._lock:
            if self._state and flow_run_id == self._run:
                suspension_request.mark_requested(self._state)
        yield
