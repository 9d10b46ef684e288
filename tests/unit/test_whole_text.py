"""Half characters stay out of the API, which could not say them again, and everything else gets in as it was sent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shipway.prefect.origin import Message
from shipway.prefect.whole import WholeText

HALVES = [
    b'{"a": "\\ud800"}',
    b'{"a": "x\\uDC00"}',
    b'{"\\udfff": 1}',
    b'{"a": "\\ude00\\ud83d"}',
    b'"\xed\xa0\x80"',
    json.dumps("x\ud800", ensure_ascii=False).encode("utf-16", "surrogatepass"),
    json.dumps("\ud800", ensure_ascii=False).encode("utf-32-be", "surrogatepass"),
]
WHOLE = [
    b"",
    b"{",
    b'{"a": "\\ud83d\\ude00"}',
    b'{"a": "\\\\ud800"}',
    b'{"a": "\xf0\x9f\x98\x80\\u0000"}',
    b"[" * 100_000 + b'"\\ud800',
    b"\xff\x00",
]


def post(body: bytes, size: int = 5, method: str = "POST") -> tuple[int, bytes]:
    """Send a body in pieces; return the status, and what the application got of it."""
    pieces = [body[start : start + size] for start in range(0, max(len(body), 1), size)]
    sent: list[Message] = [
        {"type": "http.request", "body": piece, "more_body": number < len(pieces)}
        for number, piece in enumerate(pieces, 1)
    ]
    left: Iterator[Message] = iter([*sent, {"type": "http.disconnect"}])
    status, got, after = 0, b"", ""

    async def application(_scope: Message, receive: Any, send: Any) -> None:
        nonlocal got, after
        while True:
            message = await receive()
            got += message["body"]
            if not message["more_body"]:
                break
        after = (await receive())["type"]
        await send({"type": "http.response.start", "status": 200})

    async def receive() -> Message:
        return next(left)

    async def send(message: Message) -> None:
        nonlocal status
        status = message.get("status", status)

    asyncio.run(WholeText(application)({"type": "http", "method": method}, receive, send))
    assert after == ("http.disconnect" if status == 200 else "")
    return status, got


@pytest.mark.parametrize("body", HALVES)
def test_half_a_character_is_refused(body: bytes) -> None:
    for size in (1, 5, 10_000):
        assert post(body, size) == (422, b"")


@pytest.mark.parametrize("body", WHOLE, ids=range(len(WHOLE)))
def test_the_rest_is_passed_on(body: bytes) -> None:
    assert post(body, 1000) == (200, body)


@given(st.text(st.characters(), max_size=20), st.integers(1, 9))
@example("\ud83d\ude00", 3)
def test_what_can_be_encoded_is_what_is_passed_on(text: str, size: int) -> None:
    try:
        json.loads(json.dumps(text)).encode()
        wanted = 200
    except UnicodeEncodeError:
        wanted = 422
    assert post(json.dumps({"name": text}).encode(), size)[0] == wanted


def test_what_is_no_request_is_passed_on() -> None:
    asked: list[str] = []

    async def application(scope: Message, _receive: Any, _send: Any) -> None:
        asked.append(scope["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(WholeText(application)({"type": kind}, None, None))  # type: ignore[arg-type]
    assert asked == ["lifespan", "websocket"]
