"""An API without a password answers programs of this machine and its own pages, and no other page in the browser."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from shipway.prefect.origin import Message, OwnPages

HERE = "127.0.0.1:4200"


async def application(scope: Message, receive: Any, send: Any) -> None:
    """Say that it was asked."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})


def ask(kind: str, *, origins: tuple[str, ...] = (), **headers: str) -> Message:
    """Return the first thing that is answered."""
    said: list[Message] = []

    async def send(message: Message) -> None:
        said.append(message)

    async def receive() -> Message:
        return {"type": f"{kind}.connect"}

    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(OwnPages(application, origins)(scope, receive, send))
    return said[0]


@pytest.mark.parametrize("host", [HERE, "localhost:4200", "localhost", "[::1]:4200", "127.0.0.2:1", "a.localhost:4200"])
def test_programs_of_this_machine_are_answered(host: str) -> None:
    assert ask("http", host=host)["status"] == 200
    assert ask("websocket", host=host)["type"] == "websocket.accept"
    # The UI's pages come from where they ask.
    assert ask("http", host=host, origin=f"http://{host}")["status"] == 200
    assert ask("websocket", host=host, origin=f"http://{host}")["type"] == "websocket.accept"


@pytest.mark.parametrize("origin", ["http://evil.example", "http://127.0.0.1:8888", "null", "", "https://localhost"])
def test_pages_of_others_are_not(origin: str) -> None:
    assert ask("http", host=HERE, origin=origin)["status"] == 403
    assert ask("websocket", host=HERE, origin=origin) == {"type": "websocket.close", "code": 1008}


@pytest.mark.parametrize("host", ["evil.example", "evil.example:4200", "10.0.0.5", "localhost.evil.example", "[::", ""])
def test_nor_pages_whose_name_was_made_to_lead_here(host: str) -> None:
    assert ask("http", host=host)["status"] == 403
    assert ask("http", host=host, origin=f"http://{host}")["status"] == 403
    assert ask("websocket", host=host)["type"] == "websocket.close"


def test_origins_that_were_allowed_are_answered() -> None:
    allowed = ("http://ui.example:8080",)
    assert ask("http", origins=allowed, host=HERE, origin="http://ui.example:8080")["status"] == 200
    assert ask("http", origins=allowed, host=HERE, origin="http://ui.example")["status"] == 403


def test_what_is_no_request_is_passed_on() -> None:
    asked: list[str] = []

    async def lives(scope: Message, receive: Any, send: Any) -> None:
        asked.append(scope["type"])

    asyncio.run(OwnPages(lives)({"type": "lifespan"}, None, None))  # type: ignore[arg-type]
    assert asked == ["lifespan"]
