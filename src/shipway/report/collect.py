"""Collecting: from a run's record, and what the server knows, to all that its page says."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import Any

from shipway.errors import StoreError
from shipway.report.documents import read_sections, read_verdict
from shipway.report.facts import BAD, GOOD, NEUTRAL, Input, Page, Said, Saved, ServerFacts, Verdict
from shipway.report.models import models_of, verdict_of
from shipway.report.previews import previews
from shipway.report.words import duration, parsed, plural, size
from shipway.run.record import RunRecord, run_folder
from shipway.run.references import run_of
from shipway.store.base import Store

MAX_LINKS = 12
"""Runs whose pages are looked for, so that they can be linked."""

BROKEN = ("FAILED", "CRASHED", "CANCELLED")
_PREFIXES = ("Flow run encountered an exception: ", "Task run encountered an exception ")


def folder_of(record: RunRecord) -> str:
    """Return the folder in the store of the run that a record is of."""
    due = datetime.fromisoformat(record.timings.get("scheduled") or "1970-01-01T00:00:00+00:00")
    return run_folder(record.flow, due, record.run_name, record.run_id)


def page_key(folder: str) -> str:
    """Return the key of the page of the run in `folder`: pages lie as the runs do, so that one can link another."""
    return f"reports/{folder.removeprefix('runs/')}.html"


def collect(record: RunRecord, store: Store, server: ServerFacts | None = None, *, eager: bool = False) -> Page:
    """Collect what the page of a run that has committed its data says.

    Args:
        record: the run's record.
        store: where its data lies.
        server: what the server knows of it, if somebody asked.
        eager: whether libraries that read tables may be imported for a glance at them.

    Raises:
        StoreError: the store failed.
    """
    broken = server is not None and server.kind in BROKEN
    folder = folder_of(record)
    attempt = f"{folder}/{record.attempt}/"
    sections = read_sections(store, record.artifacts)
    models = models_of(store, record.models)
    seconds = _seconds(record.timings)
    bytes_saved = sum(artifact.bytes for artifact in record.artifacts)
    return Page(
        run_name=record.run_name,
        run_id=record.run_id,
        flow=record.flow,
        verdict=(_broken(server) if server and broken else None)
        or _repeated(record, read_verdict(store, record.artifacts))
        or verdict_of(models)
        or Verdict("Completed", (_summary(len(record.artifacts), bytes_saved, seconds),), GOOD),
        state=server.state if server and broken else "Completed",
        kind=server.kind if server and broken else "COMPLETED",
        deployment=record.deployment,
        attempt=record.attempt,
        release=record.release,
        scheduled=record.timings.get("scheduled"),
        started=record.timings.get("started"),
        seconds=seconds,
        parameters=record.parameters,
        metrics=record.metrics,
        models=models,
        sections=sections,
        previews=previews(store, record.artifacts, sections, eager=eager),
        saved=tuple(
            Saved(artifact, store.url(artifact.key), artifact.key.removeprefix(attempt))
            for artifact in record.artifacts
        ),
        folder=store.url(attempt.rstrip("/")) + "/",
        record=store.url(f"{folder}/run.json"),
        inputs=tuple(_inputs(record.inputs, store)),
        reads=record.reads,
        environment=record.environment,
        tasks=server.tasks if server else (),
        states=server.states if server else (),
        errors=server.errors if server else (),
        log=server.log if server else (),
        left_out=record.left_out,
        reproduces=record.reproduces,
        resumes=record.resumes,
        ui=server.page if server else "",
    )


def collect_without(server: ServerFacts, said: Said | None = None) -> Page:
    """Collect what can be said of a run that has no record: it failed, crashed, was cancelled, or goes on.

    Args:
        server: what the server knows of it.
        said: what its flow had said for its page, if that is known.
    """
    said = said or Said()
    level = GOOD if server.kind == "COMPLETED" else BAD if server.kind in ("FAILED", "CRASHED") else NEUTRAL
    reasons = _message(server)
    broken = [task for task in server.tasks if task.kind in ("FAILED", "CRASHED")]
    if broken:
        names = ", ".join(task.name for task in broken[:5])
        reasons.append(f"It got no further than {names}.")
    if server.kind != "COMPLETED":
        done = sum(task.kind == "COMPLETED" for task in server.tasks)
        tasks = f", {done} of {plural(len(server.tasks), 'task')} completed" if server.tasks else ""
        went = f"after {duration(server.seconds)}{tasks}" if server.started else "before it began"
        reasons.append(f"{server.state} {went}. Nothing of it was committed: readers see no data of this run.")
    word = server.state
    if said.verdict and said.verdict.level == BAD:
        # The flow has stopped itself, and said why; anything better that it said did not come true.
        word = said.verdict.word
        own = said.verdict.reasons
        reasons = [*own, *(reason for reason in reasons if not any(text in reason for text in own))]
    return Page(
        run_name=server.run_name,
        run_id=server.run_id,
        flow=server.flow,
        verdict=Verdict(word, tuple(reasons), level),
        state=server.state,
        kind=server.kind,
        deployment=server.deployment,
        attempt=server.attempts,
        release=server.release,
        scheduled=server.scheduled,
        started=server.started,
        seconds=server.seconds if server.started else None,
        parameters=server.parameters,
        metrics=said.metrics,
        sections=said.sections,
        tasks=server.tasks,
        states=server.states,
        errors=server.errors,
        log=server.log,
        again=_again(server),
        ui=server.page,
    )


def _repeated(record: RunRecord, said: Verdict | None) -> Verdict | None:
    """Return what a flow said of itself; where its run repeats another one, nothing of it came about."""
    if said is None or not record.reproduces:
        return said
    name = record.reproduces.rpartition("/")[2].rpartition("-")[0]
    note = f"This run repeats {name}: it registered no model and moved no champion, whatever its flow says."
    return Verdict(said.word, (note, *said.reasons), NEUTRAL)


def _again(server: ServerFacts) -> tuple[tuple[str, str], ...]:
    """Return the commands that run a run again which did not complete, each with what comes of it."""
    if server.kind not in BROKEN or not server.deployment:
        return ()
    return (
        (
            f"shipway run --resume {shlex.quote(server.run_name)}",
            "with these parameters, without the tasks that completed in it",
        ),
        (shlex.join(["shipway", "run", server.deployment, *_given(server.parameters)]), "from the beginning"),
    )


def _given(parameters: Mapping[str, Any]) -> Iterator[str]:
    """Yield the options that give a run its parameters."""
    for name, value in parameters.items():
        yield "-p"
        yield f"{name}={value if isinstance(value, str) else json.dumps(value)}"


def _broken(server: ServerFacts) -> Verdict:
    """Say how a run ended that has committed its data and did not complete all the same."""
    return Verdict(server.state, (*_message(server), "Its data had been committed by then."), BAD)


def _message(server: ServerFacts) -> list[str]:
    message = server.message
    for prefix in _PREFIXES:
        message = message.removeprefix(prefix)
    return [message] if message else []


def _summary(objects: int, size_saved: int, seconds: float | None) -> str:
    if not objects:
        return f"It took {duration(seconds)} and saved nothing."
    return f"It saved {plural(objects, 'object')}, {size(size_saved)}, in {duration(seconds)}."


def _seconds(timings: Mapping[str, str]) -> float | None:
    begin, end = parsed(timings.get("started")), parsed(timings.get("ended"))
    return (end - begin).total_seconds() if begin and end else None


def _inputs(inputs: Iterable[Mapping[str, Any]], store: Store) -> Iterator[Input]:
    pages: dict[str, str] = {}
    for item in inputs:
        key = item["key"]
        run = run_of(key)
        if run not in pages:
            pages[run] = _link(store, run) if len(pages) < MAX_LINKS else ""
        asked = item.get("asked") or ""
        name = f"{item['name']} ({asked})" if asked and asked != item["name"] else item["name"]
        yield Input(
            name=name,
            kind=item.get("kind", "artifact"),
            run=run,
            address=store.url(key),
            sha256=item["sha256"],
            bytes=item.get("bytes"),
            rows=item.get("rows"),
            page=pages[run],
        )


def _link(store: Store, run: str) -> str:
    try:
        store.head(page_key(run))
    except StoreError:
        return ""
    # Both pages lie in a folder of flow and day.
    return f"../../{page_key(run).removeprefix('reports/')}"
