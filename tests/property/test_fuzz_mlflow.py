"""What may answer in the place of MLflow: a warning or a line, and never more requests than a run needs."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tests.answering import Answer, Asked, answering
from tests.property.fuzzing import budget, documents, encoded, only, talking

from shipway.errors import MlflowError, MlflowUnreachableError
from shipway.mlflow import mirror as mirrors
from shipway.mlflow.content import RUN_ID, Content
from shipway.mlflow.mirror import Mirrored, find, mirror
from shipway.mlflow.server import Server

PREFIX = "/api/2.0/mlflow/"
CONTENT = Content("0197a000", "one", "train", 0, 1, {RUN_ID: "0197a000"}, {"n": "1"}, {"rmse": 0.5}, ())
RUN = {
    "info": {"run_id": "a", "experiment_id": "1", "status": "RUNNING", "lifecycle_stage": "active"},
    "data": {"tags": [{"key": RUN_ID, "value": "0197a000"}]},
}
GOOD: dict[str, Any] = {
    "experiments/get-by-name": {"experiment": {"experiment_id": "1", "name": "train", "lifecycle_stage": "active"}},
    "experiments/create": {"experiment_id": "1"},
    "runs/search": {"runs": [RUN]},
    "runs/create": {"run": RUN},
    "runs/delete": {},
    "runs/log-batch": {},
    "runs/update": {},
}
REFUSAL = {"error_code": "RESOURCE_DOES_NOT_EXIST", "message": "there is none"}
ABSENT = (404, encoded(REFUSAL))
TAKEN = (400, encoded({"error_code": "RESOURCE_ALREADY_EXISTS"}))
DEEP = b"[" * 100_000
MOST = 40
"""No server has a run ask more than this many times."""


class Stranger:
    """Answers as MLflow does, but where it is told to answer otherwise."""

    def __init__(self) -> None:
        self.address = ""
        self.odd: dict[str, tuple[int, bytes]] = {}
        self.requests = 0

    def __call__(self, asked: Asked) -> Answer:
        self.requests += 1
        if self.requests > MOST:
            return Answer(500)
        name = asked.line.partition(PREFIX)[2]
        return Answer(*self.odd.get(name, (200, encoded(GOOD[name]))))

    def answer(self, odd: dict[str, tuple[int, bytes]]) -> None:
        """Answer so in the place of what is good."""
        self.odd, self.requests = odd, 0

    def mirror(self, odd: dict[str, tuple[int, bytes]]) -> object:
        """Mirror a run, with these answers in the place of the good ones."""
        self.answer(odd)
        return only(MlflowError, lambda: mirror(Server(self.address), CONTENT))


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    told = Stranger()
    with pytest.MonkeyPatch.context() as patch, answering(told) as told.address:
        patch.setattr(mirrors, "PAUSE", 0.0)
        yield told


def test_the_good_server_is_understood(stranger: Stranger) -> None:
    assert stranger.mirror({}) == Mirrored("completed", "a", f"{stranger.address}/#/experiments/1/runs/a", ())
    assert stranger.mirror({"experiments/get-by-name": ABSENT, "runs/search": (200, b"{}")}) is not None


@budget
@given(st.sampled_from(sorted(GOOD)), st.booleans(), st.data())
def test_answers(stranger: Stranger, name: str, absent: bool, data: st.DataObject) -> None:
    odd = {"experiments/get-by-name": ABSENT, "runs/search": (200, b"{}")} if absent else {}
    stranger.mirror({**odd, name: (200, data.draw(documents(GOOD[name])))})
    assert stranger.requests <= MOST


@budget
@given(st.sampled_from(sorted(GOOD)), st.sampled_from([301, 400, 401, 404, 500]), documents(REFUSAL))
@example("runs/search", 400, DEEP)
@example("runs/search", 400, encoded({"error_code": "x" * 100_000, "message": ""}))
def test_refusals(stranger: Stranger, name: str, status: int, body: bytes) -> None:
    stranger.mirror({name: (status, body)})
    assert stranger.requests <= MOST


@pytest.mark.parametrize("name", ["experiments/get-by-name", "runs/search", "runs/update"])
@pytest.mark.parametrize("body", [DEEP, b"null", b"[7]", b'{"runs": 7, "experiment": {}}x'])
def test_answers_that_are_refused(stranger: Stranger, name: str, body: bytes) -> None:
    stranger.answer({name: (200, body)})
    with pytest.raises(MlflowUnreachableError, match="does not answer as MLflow does"):
        mirror(Server(stranger.address), CONTENT)


def test_a_server_that_never_comes_to_an_end(stranger: Stranger) -> None:
    stranger.answer({"runs/search": (200, encoded({"runs": [RUN], "next_page_token": "again"}))})
    with pytest.raises(MlflowError, match="the same page"):
        find(Server(stranger.address), "1")
    stranger.answer({"experiments/get-by-name": ABSENT, "experiments/create": TAKEN})
    with pytest.raises(MlflowError, match="is there, and has none"):
        mirror(Server(stranger.address), CONTENT)


@budget
@given(st.binary(max_size=60))
@example(b"SSH-2.0-OpenSSH_9.6\r\n")
@example(b"HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\n{}")
@example(b"HTTP/1.1 404 No\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n")
@example(b"x" * 60_000)
def test_what_is_no_web_server(said: bytes) -> None:
    with talking(said) as address:
        only(MlflowUnreachableError, lambda: Server(address).find_experiment("train"))
