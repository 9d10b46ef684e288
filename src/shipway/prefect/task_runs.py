"""A run's task runs, as the process that runs them sees them: the server hears of them when the run may have ended."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from prefect import task_engine
from prefect.client.schemas.objects import TaskRun

from shipway.report.facts import TaskFacts

MAX_TASKS = 1000


@contextmanager
def watch(run_id: str, seen: dict[str, TaskFacts]) -> Iterator[None]:
    """Note the task runs of a flow run in `seen`, by id, in the order in which they began.

    Args:
        run_id: the flow run; those of flows that it calls are theirs.
        seen: where they are noted. Facts, not task runs: these hold on to what the tasks returned.
    """
    engine: Any = task_engine
    emit = engine.emit_task_run_state_change_event

    @functools.wraps(emit)
    def note(task_run: TaskRun, *args: Any, **named: Any) -> Any:
        known = str(task_run.id) in seen or len(seen) < MAX_TASKS
        if known and str(task_run.flow_run_id) == run_id and (task_run.start_time or task_run.state_name != "Pending"):
            seen[str(task_run.id)] = _facts(task_run)
        return emit(task_run, *args, **named)

    engine.emit_task_run_state_change_event = note
    try:
        yield
    finally:
        engine.emit_task_run_state_change_event = emit


def _facts(task_run: TaskRun) -> TaskFacts:
    return TaskFacts(
        name=task_run.name,
        state=task_run.state_name or "Unknown",
        kind=task_run.state_type.value if task_run.state_type else "",
        started=task_run.start_time.isoformat() if task_run.start_time else None,
        seconds=task_run.total_run_time.total_seconds(),
        message=((task_run.state.message if task_run.state else None) or "")[:1000],
        attempts=max(task_run.run_count, 1),
    )
