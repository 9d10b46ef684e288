"""Hearing of runs by events: from a server that refuses, then accepts, then refuses again."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress
from http import HTTPStatus
from uuid import uuid4

import pytest
from prefect.events import Event, Resource
from prefect.settings import PREFECT_API_URL, temporary_settings
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.http11 import Request, Response

from shipway.prefect import wakeup
from shipway.prefect.wakeup import wake

PATIENCE = 120.0


class Events:
    """The part of a Prefect server that sends events, as far as a subscriber knows it.

    Attributes:
        open: whether one may subscribe.
        asked: how often somebody has tried.
        filters: what those wanted to hear who have subscribed.
    """

    def __init__(self) -> None:
        self.open = False
        self.asked = 0
        self.filters: list[dict[str, object]] = []
        self._listening: list[ServerConnection] = []

    def admit(self, connection: ServerConnection, request: Request) -> Response | None:
        if not request.path.endswith("/events/out"):
            return connection.respond(HTTPStatus.NOT_FOUND, "")
        self.asked += 1
        return None if self.open else connection.respond(HTTPStatus.FORBIDDEN, "")

    async def attend(self, connection: ServerConnection) -> None:
        await connection.recv()
        await connection.send(json.dumps({"type": "auth_success"}))
        self.filters.append(json.loads(await connection.recv())["filter"])
        self._listening.append(connection)
        await connection.wait_closed()

    async def send(self) -> None:
        resource = Resource.model_validate({"prefect.resource.id": f"prefect.flow-run.{uuid4()}"})
        event = Event(event="prefect.flow-run.Scheduled", resource=resource, id=uuid4())
        body = {"type": "event", "event": event.model_dump(mode="json")}
        await self._listening[-1].send(json.dumps(body))

    async def hang_up(self) -> None:
        await self._listening[-1].close()


def port(server: Server) -> int:
    found: int = next(iter(server.sockets)).getsockname()[1]
    return found


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not true():
            await asyncio.sleep(0.01)


def test_a_worker_that_hears_no_events_says_so_once_and_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wakeup, "RECONNECT_SECONDS", 0.01)
    looks = 0

    def look() -> None:
        nonlocal looks
        looks += 1

    def warnings() -> list[str]:
        return [line for line in caplog.messages if line.startswith("Runs are found by polling only")]

    async def check(events: Events, pool: object) -> None:
        await until(lambda: events.asked >= 3)
        assert (len(warnings()), looks) == (1, 0)
        events.open = True
        # What fell due while nobody listened has made no event for it.
        await until(lambda: looks == 1)
        await until(lambda: len(events.filters) == 1)
        assert f"prefect.work-pool.{pool}" in json.dumps(events.filters)
        await events.send()
        await until(lambda: looks == 2)
        events.open = False
        asked = events.asked
        await events.hang_up()
        await until(lambda: events.asked >= asked + 3)
        assert (len(warnings()), looks) == (2, 2)
        events.open = True
        await until(lambda: looks == 3)

    async def play(check: Callable[[Events, object], Awaitable[None]]) -> None:
        events, pool = Events(), uuid4()
        logger = logging.getLogger("shipway.test")
        async with serve(events.attend, "127.0.0.1", 0, process_request=events.admit) as server:
            with temporary_settings({PREFECT_API_URL: f"http://127.0.0.1:{port(server)}/api"}):
                task = asyncio.create_task(wake(lambda: pool, look, logger))
                try:
                    await check(events, pool)
                finally:
                    task.cancel()
                    with suppress(asyncio.CancelledError):
                        await task

    asyncio.run(play(check))


def test_nobody_subscribes_before_the_pool_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wakeup, "RECONNECT_SECONDS", 0.01)
    asked = 0

    def pool() -> None:
        nonlocal asked
        asked += 1

    async def check() -> None:
        task = asyncio.create_task(wake(pool, lambda: pytest.fail("nothing is due"), logging.getLogger("shipway.test")))
        await until(lambda: asked >= 3)
        assert not task.done()
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task

    asyncio.run(check())
