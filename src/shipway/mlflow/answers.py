"""What MLflow answers, as far as it is read: what answers may be another program, or a proxy in between."""

from __future__ import annotations

from msgspec import Struct

DELETED = "deleted"


class ExperimentId(Struct):
    """The id of an experiment that was made."""

    experiment_id: str


class Known(ExperimentId):
    """An experiment, and whether it was deleted."""

    lifecycle_stage: str = ""


class Experiment(Struct):
    """Answer to a question for an experiment."""

    experiment: Known


class Tag(Struct):
    """A tag of a run."""

    key: str
    value: str = ""


class Info(Struct):
    """What a run is."""

    run_id: str
    status: str = ""
    lifecycle_stage: str = ""


class Data(Struct):
    """What a run has."""

    tags: tuple[Tag, ...] = ()


class Run(Struct):
    """A run."""

    info: Info
    data: Data


class Made(Struct):
    """Answer to the making of a run."""

    run: Run


class Runs(Struct):
    """A page of runs."""

    runs: tuple[Run, ...] = ()
    next_page_token: str = ""


class Refusal(Struct):
    """Why MLflow refused."""

    error_code: str
    message: str = ""
