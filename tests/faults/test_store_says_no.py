"""A store that answers 5xx for longer than anybody waits: the run fails and says so, and leaves nothing to be read."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
from tests.acceptance.conftest import one_line
from tests.faults.proxy import Choose, FaultyProxy, Request, faulty_proxy, nothing
from tests.faults.stage import Stage, audit, staged
from tests.unit.pages import read

import shipway
from shipway.errors import NotFoundError
from shipway.prefect.blocks import save_s3_block
from shipway.run.record import record_keys
from shipway.stack import facts

NAME = "proxied"
PATIENCE = {"SHIPWAY_OUTAGE_SECONDS": "4"}

# That a run fails whose data is refused is shown by tests/acceptance/test_run_data.py.
pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Stage, FaultyProxy]]:
    with staged(tmp_path_factory.mktemp("n")) as found, proxied(found) as proxy:
        yield found, proxy


@contextmanager
def proxied(stage: Stage) -> Iterator[FaultyProxy]:
    """Deploy on a stack what has its store behind a proxy."""
    found = facts(stage.settings)
    assert found is not None
    assert found.store.endpoint_url is not None
    with faulty_proxy(found.store.endpoint_url) as proxy:
        save_s3_block(stage.settings, NAME, replace(found.store, endpoint_url=proxy.url))
        stage.shell.ok("deploy", "./work.py:work", "-n", NAME, SHIPWAY_STORE=f"s3/{NAME}")
        stage.deployments[NAME] = stage.api.deployment(f"work/{NAME}")["id"]
        yield proxy


def always(status: str) -> Choose:
    return lambda _request: status


def for_records(status: str) -> Choose:
    """Refuse what commits a run, and nothing else: all of its data arrives."""

    def choose(request: Request) -> str | None:
        return status if request.method == "PUT" and "/run.json" in request.target else None

    return choose


@pytest.mark.parametrize(
    ("status", "refuse"),
    [
        pytest.param("503", always, id="503 for everything"),
        pytest.param("500", for_records, id="500 for records"),
    ],
)
def test_a_run_fails_whose_store_keeps_refusing(
    stage: tuple[Stage, FaultyProxy], status: str, refuse: Callable[[str], Choose]
) -> None:
    it, proxy = stage
    before = kept(it)
    run = it.start(NAME, variables={"env": PATIENCE}, seconds=2)
    it.pid(run)
    began = time.monotonic()
    proxy.befall(refuse(status))
    try:
        it.wait_for(run, "Failed")
        assert time.monotonic() - began > float(PATIENCE["SHIPWAY_OUTAGE_SECONDS"])
        assert proxy.done[status] > 2
    finally:
        proxy.befall(nothing)
    assert "Completed" not in it.history(run)
    found = it.run(run)
    message = found["state"]["message"]
    assert f"keeps answering {status}" in message
    assert "\n" not in message

    # Nobody sees anything of it, whatever has arrived.
    assert kept(it) == before
    assert "has no data; it is Failed" in one_line(it.shell("get", found["name"], "numbers"), 4)
    with pytest.raises(NotFoundError):
        shipway.load("numbers", found["name"], flow="work", store=it.store)
    page = read(Path(it.shell.json("report", found["name"])["path"]).read_text()).text
    assert f"keeps answering {status}" in page
    assert "Nothing of this run is committed" in page
    it.shell.ok("verify")

    # The store is well again, and so is the next run.
    following = it.start(NAME)
    audit(it, [following])
    assert kept(it) == {*before, following[-8:]}


def kept(stage: Stage) -> set[str]:
    """Return the ends of the ids of the runs that have a record."""
    return {id8 for _key, _name, id8 in record_keys(stage.store, "work")}
