"""The course of the stack and each service's life in it: pure, so that tests can replay any history."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum, StrEnum

from shipway.stack.service import Service

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds before a service that ended is started again: doubled each time."""
HEALTHY_AFTER = 60.0
"""A service that was ready for so many seconds has recovered: its next pause is the first one again."""
CLOSED_SECONDS = 15.0
"""A service is begun anew when a part of it has listened no more for so long, though its process goes on."""


class State(StrEnum):
    """Where a service is in its life."""

    WAITING = "waiting"
    LOADING = "loading"
    STARTING = "starting"
    READY = "ready"
    PAUSING = "pausing"
    STOPPING = "stopping"
    STOPPED = "stopped"


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look at a process showed: it runs, it can be used, it listens no more, or it ended with an exit status."""

    ready: bool = False
    closed: bool = False
    status: int | None = None


class Life:
    """What happens to one service, from what is seen and when. Knows no process and no clock."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self.state = State.WAITING
        self.restarts = 0
        self.since = 0.0
        self.closed_since: float | None = None
        self.pause = FIRST_PAUSE
        self.status: int | None = None

    @property
    def runs(self) -> bool:
        """Whether there is a process."""
        return self.state in (State.LOADING, State.STARTING, State.READY, State.STOPPING)

    def start(self, now: float) -> None:
        """A process was started."""
        if self.state is State.PAUSING:
            self.restarts += 1
        self.state, self.since = (State.LOADING if self.service.held else State.STARTING), now

    def release(self, now: float) -> None:
        """The process was told that its turn has come."""
        self.state, self.since = State.STARTING, now

    def stop(self, now: float) -> None:
        """The process was asked to end, or there was none."""
        self.state, self.since = (State.STOPPING if self.runs else State.STOPPED), now

    def observe(self, now: float, seen: Seen) -> None:
        """Take note of a look at the process."""
        if seen.status is not None:
            self.closed_since = None
            if self.state is State.STOPPING:
                # How it ended says nothing then: it was told to.
                self.state = State.STOPPED
                return
            self.status = seen.status
            if self.state is State.READY and now - self.since >= HEALTHY_AFTER:
                self.pause = FIRST_PAUSE
            self.state, self.since = State.PAUSING, now
        elif self.state is State.STARTING and seen.ready:
            self.state, self.since = State.READY, now
        if self.state is not State.READY or not seen.closed:
            self.closed_since = None
        elif self.closed_since is None:
            self.closed_since = now

    def rested(self, now: float) -> bool:
        """Whether the pause is over; the next one is twice as long."""
        if now - self.since < self.pause:
            return False
        self.pause = min(2 * self.pause, LONGEST_PAUSE)
        return True

    def overdue(self, now: float) -> bool:
        """Whether the process has taken longer than it may to become ready, to listen again, or to end."""
        if self.closed_since is not None:
            return now - self.closed_since >= CLOSED_SECONDS
        limit = {State.STARTING: self.service.ready_within, State.STOPPING: self.service.grace}.get(self.state)
        return limit is not None and now - self.since >= limit


class Act(Enum):
    """What the supervisor is told to do with a service."""

    START = "start"
    RELEASE = "release"
    TERMINATE = "terminate"
    KILL = "kill"


class Course:
    """Which step follows from what was seen. Knows no process and no clock, so that tests can replay any history.

    Until everything has been ready once, a service that ends or is too slow stops the whole stack, so that a mistake is
    told at once; from then on it is started again, after growing pauses.
    """

    def __init__(self, services: Iterable[Service]) -> None:
        self.lives = {service.name: Life(service) for service in services}
        self.stopping = False
        self.hurried = False
        self.set_up = False
        self.was_ready = False
        self.failed: Life | None = None

    @property
    def state(self) -> str:
        """The stack in one word."""
        if self.stopping:
            return "stopping"
        return "ready" if self.set_up and _all_ready(self.lives.values()) else "starting"

    @property
    def ended(self) -> bool:
        """Whether a stop was asked for and no process is left."""
        return self.stopping and all(life.state is State.STOPPED for life in self.lives.values())

    @property
    def can_be_set_up(self) -> bool:
        """Whether it is time to set the stack up: what serves is ready, and what works waits for that."""
        serving = [life for life in self.lives.values() if not life.service.after_set_up]
        return not self.stopping and not self.set_up and _all_ready(serving)

    def stop(self, *, hurry: bool = False) -> None:
        """Stop everything from the next step on: in reverse order and with patience, or in a hurry all at once."""
        self.stopping = True
        self.hurried = self.hurried or hurry

    def step(self, now: float, seen: Mapping[str, Seen]) -> list[tuple[Act, str]]:
        """Take in one look at every process, and return what to do now."""
        for name, look in seen.items():
            self.lives[name].observe(now, look)
        self.was_ready = self.was_ready or self.state == "ready"
        if not self.was_ready and not self.stopping:
            stuck = (life for life in self.lives.values() if life.state is State.PAUSING or life.overdue(now))
            self.failed = next(stuck, None)
            self.stopping = self.failed is not None
        return list(self._stop(now) if self.stopping else self._start(now))

    def _start(self, now: float) -> Iterator[tuple[Act, str]]:
        for name, life in self.lives.items():
            needed = [self.lives[other] for other in life.service.depends_on]
            its_turn = _all_ready(needed) and (self.set_up or not life.service.after_set_up)
            if life.state is State.LOADING and its_turn:
                life.release(now)
                yield Act.RELEASE, name
            elif (life.state is State.WAITING and (its_turn or life.service.held)) or (
                life.state is State.PAUSING and life.rested(now)
            ):
                life.start(now)
                yield Act.START, name
            elif life.overdue(now):
                yield Act.KILL, name

    def _stop(self, now: float) -> Iterator[tuple[Act, str]]:
        for name, life in self.lives.items():
            users = (other for other in self.lives.values() if name in other.service.depends_on)
            if life.state is State.STOPPING:
                if self.hurried or life.overdue(now):
                    yield Act.KILL, name
            elif life.state is not State.STOPPED and (
                self.hurried or all(user.state is State.STOPPED for user in users)
            ):
                life.stop(now)
                if life.runs:
                    yield Act.TERMINATE, name


def _all_ready(lives: Iterable[Life]) -> bool:
    return all(life.state is State.READY for life in lives)
