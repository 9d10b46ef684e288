"""Histories replayed: what the supervisor does follows from what it sees, without a process and without a clock."""

from __future__ import annotations

from pathlib import Path

import pytest

from shipway.stack.course import CLOSED_SECONDS, FIRST_PAUSE, HEALTHY_AFTER, LONGEST_PAUSE, Act, Course, Seen, State
from shipway.stack.service import Service

UP = Seen()
READY = Seen(ready=True)


def ended(status: int = 1) -> Seen:
    return Seen(status=status)


def service(name: str, *depends_on: str, after_set_up: bool = False, held: bool = False) -> Service:
    return Service(
        name,
        ("true",),
        {},
        Path(),
        lambda _said: True,
        depends_on=depends_on,
        after_set_up=after_set_up,
        held=held,
        grace=10,
        ready_within=60,
    )


def stack() -> Course:
    worker = service("worker", "server", "store", after_set_up=True, held=True)
    return Course([service("server"), service("store"), worker])


def ready_stack(now: float = 0.0) -> Course:
    course = stack()
    course.step(now, {})
    course.step(now, {"server": READY, "store": READY, "worker": UP})
    course.set_up = True
    course.step(now, {})
    course.step(now, {"worker": READY})
    assert course.state == "ready"
    return course


def test_servers_start_first_and_the_worker_waits_for_them_and_for_the_set_up() -> None:
    course = stack()

    assert course.step(0, {}) == [(Act.START, "server"), (Act.START, "store"), (Act.START, "worker")]
    assert course.lives["worker"].state is State.LOADING
    assert course.step(1, {"server": UP, "store": READY, "worker": UP}) == []
    assert not course.can_be_set_up
    assert course.step(2, {"server": READY, "worker": UP}) == []
    assert course.can_be_set_up
    course.set_up = True
    assert course.step(3, {"worker": UP}) == [(Act.RELEASE, "worker")]
    assert course.state == "starting"
    assert course.step(4, {"worker": READY}) == []
    assert course.state == "ready"


def test_a_service_that_is_not_held_starts_only_in_its_turn() -> None:
    course = Course([service("server"), service("worker", "server", after_set_up=True)])

    assert course.step(0, {}) == [(Act.START, "server")]
    assert course.step(1, {"server": READY}) == []
    course.set_up = True
    assert course.step(2, {}) == [(Act.START, "worker")]


def test_a_service_that_ends_before_everything_was_ready_stops_the_stack() -> None:
    course = stack()
    course.step(0, {})

    assert course.step(1, {"server": ended(3), "store": READY, "worker": UP}) == [(Act.TERMINATE, "worker")]
    assert course.failed is course.lives["server"]
    assert course.failed.status == 3
    assert course.step(2, {"worker": ended(-15)}) == [(Act.TERMINATE, "store")]
    assert not course.ended
    course.step(3, {"store": ended(-15)})
    assert course.ended


def test_a_service_that_does_not_become_ready_in_time_stops_the_stack() -> None:
    course = stack()
    course.step(0, {})
    course.step(59.9, {"server": UP, "store": READY, "worker": UP})
    assert not course.stopping

    course.step(60, {"server": UP, "worker": UP})

    assert course.failed is course.lives["server"]
    assert course.failed.status is None

    # Told to end it does; that is no reason for what happened before.
    course.step(61, {"worker": ended(-15)})
    course.step(62, {"server": ended(-9), "store": UP})
    assert course.failed.state is State.STOPPED
    assert course.failed.status is None


def test_what_dies_later_starts_again_after_a_pause_and_nothing_else_is_touched() -> None:
    course = ready_stack()

    assert course.step(10, {"server": ended(-9), "store": READY, "worker": READY}) == []
    assert course.state == "starting"
    assert course.step(10 + FIRST_PAUSE - 0.01, {"store": READY, "worker": READY}) == []
    assert course.step(10 + FIRST_PAUSE, {"store": READY, "worker": READY}) == [(Act.START, "server")]
    assert course.step(15, {"server": READY, "store": READY, "worker": READY}) == []
    assert (course.state, course.lives["server"].restarts) == ("ready", 1)
    assert [course.lives[name].restarts for name in ("store", "worker")] == [0, 0]


def test_a_worker_that_dies_while_the_server_is_away_waits_for_it() -> None:
    course = ready_stack()
    course.step(10, {"server": ended(), "worker": ended()})

    assert course.step(11, {}) == [(Act.START, "server"), (Act.START, "worker")]
    assert course.step(12, {"server": UP, "worker": UP}) == []
    assert course.step(13, {"server": READY, "worker": UP}) == [(Act.RELEASE, "worker")]


def test_pauses_double_up_to_a_limit() -> None:
    course = ready_stack()
    now, pauses = 1.0, []
    seen = {"server": ended()}
    for _ in range(9):
        assert course.step(now, seen) == []
        began = now
        while course.step(now, {}) != [(Act.START, "server")]:
            now += 0.25
        pauses.append(now - began)

    assert pauses == [0.5, 1, 2, 4, 8, 16, LONGEST_PAUSE, LONGEST_PAUSE, LONGEST_PAUSE]


@pytest.mark.parametrize(("healthy", "pause"), [(HEALTHY_AFTER, FIRST_PAUSE), (HEALTHY_AFTER - 1, 2 * FIRST_PAUSE)])
def test_pauses_begin_anew_after_a_time_of_health(healthy: float, pause: float) -> None:
    course = ready_stack()
    course.step(0, {"server": ended()})
    course.step(FIRST_PAUSE, {})
    course.step(1, {"server": READY})

    course.step(1 + healthy, {"server": ended()})

    assert course.step(1 + healthy + pause - 0.01, {}) == []
    assert course.step(1 + healthy + pause, {}) == [(Act.START, "server")]


def test_a_restarted_service_that_hangs_is_killed_and_started_again() -> None:
    course = ready_stack()
    course.step(10, {"server": ended()})
    course.step(11, {})

    assert course.step(71, {"server": UP}) == [(Act.KILL, "server")]
    assert course.step(71.1, {"server": ended(-9)}) == []
    assert course.step(72.1, {}) == [(Act.START, "server")]
    assert not course.stopping


def test_a_stop_goes_in_reverse_order_and_kills_what_takes_too_long() -> None:
    course = ready_stack()
    course.stop()

    assert course.step(100, {"server": READY, "store": READY, "worker": READY}) == [(Act.TERMINATE, "worker")]
    assert course.state == "stopping"
    assert course.step(109.9, {"worker": UP}) == []
    assert course.step(110, {"worker": UP}) == [(Act.KILL, "worker")]
    assert course.step(110.1, {"worker": ended(-9)}) == [(Act.TERMINATE, "server"), (Act.TERMINATE, "store")]
    assert course.step(111, {"server": ended(0), "store": ended(0)}) == []
    assert course.ended


def test_a_stop_in_a_hurry_kills_everything_at_once() -> None:
    course = ready_stack()
    course.stop(hurry=True)

    assert {name for act, name in course.step(100, {}) if act is Act.TERMINATE} == {"server", "store", "worker"}
    assert {name for act, name in course.step(100, {}) if act is Act.KILL} == {"server", "store", "worker"}
    course.step(101, dict.fromkeys(("server", "store", "worker"), ended(-9)))
    assert course.ended


def test_a_stop_during_the_start_starts_nothing_more() -> None:
    course = stack()
    course.step(0, {})
    course.stop()

    assert course.step(1, {"server": READY, "store": READY, "worker": UP}) == [(Act.TERMINATE, "worker")]
    assert not course.can_be_set_up


def test_a_stop_during_a_pause_does_not_start_the_service_again() -> None:
    course = ready_stack()
    course.step(10, {"server": ended()})
    course.stop()
    course.step(20, {})
    course.step(21, {"worker": ended(0)})
    course.step(22, {"store": ended(0)})

    assert course.ended
    assert course.lives["server"].restarts == 0


def test_a_service_that_goes_on_and_listens_no_more_is_begun_anew() -> None:
    course = ready_stack()
    closed = Seen(closed=True)

    assert course.step(10, {"store": closed}) == []
    assert course.step(20, {"store": UP}) == []
    assert course.step(30, {"store": closed}) == []
    assert course.step(30 + CLOSED_SECONDS - 1, {"store": closed}) == [], "it may be a moment's"
    assert course.step(30 + CLOSED_SECONDS, {"store": closed}) == [(Act.KILL, "store")]
    assert course.step(50, {"store": ended(-9)}) == []
    assert course.step(50 + FIRST_PAUSE, {}) == [(Act.START, "store")]
    assert course.step(52, {"store": READY}) == []
    assert course.state == "ready"
