"""Seeded scenarios, as many as `make test-all` has time for; `make faults` plays the long list."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.faults import api_scenarios, point_scenarios, process_scenarios, stack_hardship, store_scenarios
from tests.faults.proxy import FAULTS, faulty_proxy
from tests.faults.stage import Stage, staged

from shipway.testing import S3Server

STORE = [len(store_scenarios.ACTIONS) * fault + fault % len(store_scenarios.ACTIONS) for fault in range(len(FAULTS))]
"""Every fault on the way once, and every action twice."""
HERE = range(len(store_scenarios.ACTIONS) * len(FAULTS), len(store_scenarios.ACTIONS) * len(store_scenarios.KINDS))
PROCESSES = range(len(process_scenarios.VICTIMS) * len(process_scenarios.SIGNALS))


@pytest.fixture(scope="module")
def proxied(s3_server: S3Server) -> Iterator[S3Server]:
    with faulty_proxy(s3_server.endpoint_url) as proxy:
        store_scenarios.PROXIES[s3_server.endpoint_url] = proxy
        yield s3_server


@pytest.fixture(scope="module")
def stage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with staged(tmp_path_factory.mktemp("s")) as found:
        yield found


@pytest.mark.parametrize("seed", STORE, ids=store_scenarios.name)
def test_a_store_behind_a_bad_network(proxied: S3Server, seed: int) -> None:
    outcome = store_scenarios.play(proxied, seed)
    # What is wrong with an answer may be for people; everything else is to be got over.
    if store_scenarios.chosen(seed)[1] not in ("flip", "stale"):
        assert outcome.failed is None


@pytest.mark.long
@pytest.mark.parametrize("seed", HERE, ids=store_scenarios.name)
def test_a_machine_in_trouble(proxied: S3Server, seed: int) -> None:
    store_scenarios.play(proxied, seed)


@pytest.fixture(scope="module")
def far(stage: Stage) -> Iterator[api_scenarios.Far]:
    with api_scenarios.far_worker(stage) as worker:
        yield worker


@pytest.mark.long
@pytest.mark.parametrize("seed", range(len(api_scenarios.FAULTS)), ids=api_scenarios.name)
def test_an_api_behind_a_bad_network(far: api_scenarios.Far, seed: int) -> None:
    api_scenarios.play(far, seed)


@pytest.mark.long
@pytest.mark.parametrize("seed", PROCESSES, ids=process_scenarios.name)
def test_processes_that_are_hit(stage: Stage, seed: int) -> None:
    process_scenarios.play(stage, seed)


@pytest.fixture(scope="module")
def watched(stage: Stage) -> Iterator[point_scenarios.Watched]:
    with point_scenarios.watched_runs(stage) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(point_scenarios.ALL), ids=point_scenarios.name)
def test_processes_that_are_hit_at_a_point(watched: point_scenarios.Watched, seed: int) -> None:
    point_scenarios.play(watched, seed)


@pytest.fixture(scope="module")
def troubled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[stack_hardship.Troubled]:
    with stack_hardship.troubled(tmp_path_factory.mktemp("t")) as found:
        yield found


@pytest.mark.long
@pytest.mark.parametrize("seed", range(2 * len(stack_hardship.NAMES)), ids=stack_hardship.name)
def test_a_stack_on_a_machine_in_trouble(troubled: stack_hardship.Troubled, seed: int) -> None:
    stack_hardship.play(troubled, seed)
