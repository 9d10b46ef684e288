"""What a page is made of: frozen values, without a word of HTML."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from shipway.artifact import Artifact

GOOD, NEUTRAL, BAD = "good", "neutral", "bad"
DRAWN = ("figure", "picture")


@dataclass(frozen=True, slots=True)
class TaskFacts:
    """One task run, as the server knows it.

    Attributes:
        name: of the task run.
        state: name of its state, such as `Completed` or `Cached`.
        kind: type of its state, such as `COMPLETED`.
        started: when it began, ISO 8601, or None.
        seconds: how long it ran.
        message: of its state, where it did not complete.
        attempts: how often it was begun.
    """

    name: str
    state: str
    kind: str
    started: str | None = None
    seconds: float = 0.0
    message: str = ""
    attempts: int = 1


@dataclass(frozen=True, slots=True)
class StateFacts:
    """One state that a run was in.

    Attributes:
        name: of it, such as `Running`.
        at: since when, ISO 8601.
        message: what was said with it.
    """

    name: str
    at: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """What the Prefect API knows of a run; a page can do without.

    Attributes:
        run_id: its id.
        run_name: its name.
        flow: name of its flow.
        deployment: `FLOW/NAME`, or None.
        state: name of its state.
        kind: type of its state, such as `FAILED`.
        message: of its state.
        release: `<epoch>.<release-id>`, or None.
        parameters: what it was asked to be called with.
        scheduled: when it was due, ISO 8601, or None.
        started: when it began, or None.
        seconds: how long it ran.
        attempts: how often it was begun.
        page: address of it in the UI.
        tasks: its task runs.
        states: those that it was in, where it did not complete.
        errors: the last lines of its log that tell of an error, of one that failed.
        log: the last lines of its log, of one that was ended and could say nothing itself.
    """

    run_id: str
    run_name: str
    flow: str
    state: str
    kind: str
    deployment: str | None = None
    message: str = ""
    release: str | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    scheduled: str | None = None
    started: str | None = None
    seconds: float = 0.0
    attempts: int = 1
    page: str = ""
    tasks: tuple[TaskFacts, ...] = ()
    states: tuple[StateFacts, ...] = ()
    errors: tuple[str, ...] = ()
    log: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a run, in a word.

    Attributes:
        word: such as `Promoted` or `Failed`.
        reasons: why; the first is shown large.
        level: `good`, `neutral` or `bad`.
    """

    word: str
    reasons: tuple[str, ...] = ()
    level: str = NEUTRAL


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page with a heading of its own.

    Attributes:
        title: its heading.
        parts: see `shipway.report.parts`.
    """

    title: str
    parts: tuple[Mapping[str, Any], ...]

    @property
    def drawn(self) -> bool:
        """Whether it is one figure or picture and nothing else."""
        return len(self.parts) == 1 and self.parts[0]["kind"] in DRAWN


@dataclass(frozen=True, slots=True)
class Saved:
    """An artifact and where it lies.

    Attributes:
        artifact: it.
        address: of its object.
        path: of its object below the attempt's folder.
    """

    artifact: Artifact
    address: str
    path: str


@dataclass(frozen=True, slots=True)
class Score:
    """One of several, on the same rows.

    Attributes:
        name: `candidate`, `champion` or `baseline`.
        value: the score; lower is better.
        share: of the largest, from 0 to 1.
    """

    name: str
    value: float
    share: float


@dataclass(frozen=True, slots=True)
class ModelFacts:
    """A version of a model that the run made, and what was decided about it.

    Attributes:
        name: of the model.
        version: its number, or None.
        verdict: the decision in a word, and its reasons; None where there was none.
        metric: what the scores are of.
        scores: candidate, champion and baseline side by side.
        gain: by how much of the champion's score the candidate is better, as a share, or None.
        interval: in which that gain lies, by resampling, or None.
        margin: gain that a promotion takes.
        level: of the interval, such as 0.95.
        rows: on how many rows they were measured.
        blocks: in how many blocks these were resampled, or None.
        run: name of the run that made it, where its document says so.
        at: when it was registered, ISO 8601, or "".
    """

    name: str
    version: int | None
    verdict: Verdict | None = None
    metric: str = ""
    scores: tuple[Score, ...] = ()
    gain: float | None = None
    interval: tuple[float, float] | None = None
    margin: float | None = None
    level: float | None = None
    rows: int | None = None
    blocks: int | None = None
    run: str = ""
    at: str = ""


@dataclass(frozen=True, slots=True)
class ModelLine:
    """A model with its versions.

    Attributes:
        name: the model's name.
        champion: the version that is champion, or None.
        versions: the newest, newest first.
        total: how many there are.
    """

    name: str
    champion: int | None
    versions: tuple[ModelFacts, ...]
    total: int


@dataclass(frozen=True, slots=True)
class Input:
    """Something that the run loaded.

    Attributes:
        name: of the artifact or model.
        kind: `artifact` or `model`.
        run: folder in the store of the run that saved it.
        address: of the object.
        sha256: its digest.
        bytes: its size, or None where the record does not say.
        rows: number of rows, where it has rows.
        page: relative link to that run's page, where there is one, else "".
    """

    name: str
    kind: str
    run: str
    address: str
    sha256: str
    bytes: int | None = None
    rows: int | None = None
    page: str = ""


@dataclass(frozen=True, slots=True)
class Said:
    """What the flow of a run that failed had said for its page by then.

    Attributes:
        verdict: in a word what came of it, or None.
        sections: its sections.
        metrics: numbers by name.
    """

    verdict: Verdict | None = None
    sections: tuple[Section, ...] = ()
    metrics: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page of a run says.

    Attributes:
        run_name: the run.
        run_id: its id.
        flow: its flow.
        verdict: the first thing on the page.
        state: name of the state that it ended in.
        kind: its type, such as `COMPLETED`.
        deployment: `FLOW/NAME`, or None.
        attempt: which attempt it is about.
        release: `<epoch>.<release-id>`, or None.
        scheduled: when it was due, ISO 8601, or None.
        started: when it began, or None.
        seconds: how long it took, or None.
        parameters: what the flow was called with.
        metrics: numbers by name.
        models: what it made of models.
        sections: those that the flow made, in order.
        previews: glances at what was saved.
        saved: everything saved.
        folder: address of the folder that it lies in, or "".
        record: address of the run's record, or "".
        inputs: what it loaded.
        reads: files of the release that it read: `path`, `sha256`.
        environment: `python`, `platform`, `packages`.
        tasks: its task runs, where the server knows them.
        states: those that it was in, where it did not complete.
        errors: the last lines of its log that tell of an error.
        log: the last lines of its log, of a run that was ended.
        again: commands that run it again, each with what comes of it.
        left_out: what was found in its working folder and not saved, each with the reason.
        reproduces: folder of the run that it repeats, or None.
        resumes: id of the run whose tasks it did not do again, or None.
        ui: address of the run in the UI, or "".
    """

    run_name: str
    run_id: str
    flow: str
    verdict: Verdict
    state: str
    kind: str = ""
    deployment: str | None = None
    attempt: int = 1
    release: str | None = None
    scheduled: str | None = None
    started: str | None = None
    seconds: float | None = None
    parameters: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    models: tuple[ModelFacts, ...] = ()
    sections: tuple[Section, ...] = ()
    previews: tuple[Section, ...] = ()
    saved: tuple[Saved, ...] = ()
    folder: str = ""
    record: str = ""
    inputs: tuple[Input, ...] = ()
    reads: tuple[Mapping[str, str], ...] = ()
    environment: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[TaskFacts, ...] = ()
    states: tuple[StateFacts, ...] = ()
    errors: tuple[str, ...] = ()
    log: tuple[str, ...] = ()
    again: tuple[tuple[str, str], ...] = ()
    left_out: tuple[str, ...] = ()
    reproduces: str | None = None
    resumes: str | None = None
    ui: str = ""


@dataclass(frozen=True, slots=True)
class ReleaseRow:
    """A release in a deployment's history.

    Attributes:
        release: `<epoch>.<release-id>`.
        at: since when, ISO 8601.
        current: whether runs get it now.
        pinned: whether it is kept for good.
    """

    release: str
    at: str
    current: bool
    pinned: bool


@dataclass(frozen=True, slots=True)
class DeploymentRow:
    """A deployment on the index.

    Attributes:
        name: `FLOW/NAME`.
        release: that its runs get, or None.
        schedules: each in a few words.
        paused: whether its schedules rest.
        store: block that its data goes to, or "".
        ui: its address in the UI.
        releases: its history, the newest move first; empty where it is unknown.
        total: how many moves there were.
    """

    name: str
    release: str | None
    schedules: tuple[str, ...]
    paused: bool
    store: str
    ui: str
    releases: tuple[ReleaseRow, ...] = ()
    total: int = 0


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run on the index.

    Attributes:
        name: the run.
        deployment: `FLOW/NAME`, or its flow.
        state: name of its state.
        started: when it began, or was due, ISO 8601, or None.
        seconds: how long it ran, or None.
        release: `<epoch>.<release-id>`, or None.
        page: relative link to its page, or "".
        ui: its address in the UI.
    """

    name: str
    deployment: str
    state: str
    started: str | None
    seconds: float | None
    release: str | None
    page: str
    ui: str


@dataclass(frozen=True, slots=True)
class Index:
    """What the page over everything says.

    Attributes:
        server: address of the UI.
        deployments: sorted by name.
        runs: the newest first.
        models: by store: its address and its models.
        missing: what could not be read, in sentences.
    """

    server: str
    deployments: tuple[DeploymentRow, ...]
    runs: tuple[RunRow, ...]
    models: tuple[tuple[str, tuple[ModelLine, ...]], ...]
    missing: tuple[str, ...] = ()
