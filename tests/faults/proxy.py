"""A proxy in front of an HTTP server that does to its answers, and to requests, what networks and servers do."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from urllib.parse import urlsplit

LOST = (ConnectionError, asyncio.IncompleteReadError, OSError)
ANSWERS = {
    "403": b"Forbidden",
    "500": b"Internal Server Error",
    "503": b"Service Unavailable",
    "429": b"Too Many Requests",
}
WRITING = ("PUT", "POST", "PATCH", "DELETE")

FAULTS = (
    "delay",  # the answer takes a while
    "500",
    "503",  # with Retry-After
    "429",  # with Retry-After
    "reset",  # before the server has heard of the request
    "cut",  # half of the request arrives
    "lose",  # the server does as asked, the answer is lost
    "truncate",  # half of the answer's body arrives
    "flip",  # one bit of the answer's body is another
    "garble",  # one bit of the request's body is another
    "duplicate",  # the request arrives twice, the second answer counts
    "stale",  # an answer to the same question from before
)


@dataclass(frozen=True)
class Request:
    """A request as it came.

    Attributes:
        number: how many came before it since the proxy was told of its faults.
        method: in capitals.
        target: path and query.
        head: first line and fields, the empty line included.
        body: its body, as it came.
    """

    number: int
    method: str
    target: str
    head: bytes
    body: bytes


Choose = Callable[[Request], str | None]
"""Says which fault befalls a request, or None."""


def nothing(_request: Request) -> None:
    """Let everything pass."""


def at_random(seed: int, faults: tuple[str, ...], share: float, most: int) -> Choose:
    """Let one of some faults befall a share of the requests, so many times at most; the same seed, the same choices."""
    dice, left = random.Random(seed), most  # noqa: S311

    def choose(request: Request) -> str | None:
        nonlocal left
        chosen = dice.choice(faults)
        if left and dice.random() < share:
            left -= 1
            return chosen
        return None

    return choose


class FaultyProxy:
    """A running proxy.

    Attributes:
        url: where it listens.
        choose: says what befalls each request; set anew at any time.
        refused: how the paths end whose WebSockets are refused.
        done: how often each fault befell a request, and how often a WebSocket was `refused`.
        gate: while it is closed, connections that are to break wait for it, each at its point.
        waiting: the requests of those.
    """

    def __init__(self, server: str, seed: int = 0) -> None:
        self.url = ""
        self.choose: Choose = nothing
        self.refused: tuple[str, ...] = ()
        self.done: Counter[str] = Counter()
        self.gate = threading.Event()
        self.gate.set()
        self.waiting: list[Request] = []
        self._server = urlsplit(server)
        self._dice = random.Random(seed)  # noqa: S311
        self._answers: dict[tuple[str, str], bytes] = {}
        self._number = 0
        self._tasks: set[asyncio.Task[None]] = set()

    def befall(self, choose: Choose) -> None:
        """Begin anew with other faults."""
        self._number, self.choose = 0, choose
        self.done.clear()

    async def serve(self, listening: threading.Event) -> None:
        """Pass requests on until `stop`."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        listening.set()
        await self._stopped.wait()
        listener.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._connection(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            with suppress(*LOST):
                while await self._exchange(reader, writer):
                    pass
        finally:
            writer.close()

    async def _exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Answer one request; False where the connection has ended."""
        head = await reader.readuntil(b"\r\n\r\n")
        method, target, _ = head.split(b"\r\n", 1)[0].decode().split(" ", 2)
        if b"upgrade: websocket" in head.lower():
            if target.endswith(self.refused):
                self.done["refused"] += 1
                writer.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                await writer.drain()
                return False
            await self._tunnel(head, reader, writer)
            return False
        body = await read_body(head, reader)
        request = Request(self._number, method, target, head, body)
        self._number += 1
        fault = self.choose(request)
        if fault == "stale" and (method != "GET" or (method, target) not in self._answers):
            fault = None
        if fault:
            self.done[fault] += 1
        return await self._fail(fault, request, writer)

    async def _fail(self, fault: str | None, request: Request, writer: asyncio.StreamWriter) -> bool:
        question = request.method, request.target
        if fault == "delay":
            await asyncio.sleep(self._dice.uniform(0.05, 0.8))
        elif fault in ANSWERS:
            wait = b"" if fault in ("403", "500") else b"Retry-After: 1\r\n"
            writer.write(b"HTTP/1.1 %s %s\r\n%sContent-Length: 0\r\n\r\n" % (fault.encode(), ANSWERS[fault], wait))
            await writer.drain()
            return True
        elif fault == "reset":
            await self._wait_at_gate(request)
            reset(writer)
            return False
        elif fault == "cut":
            await self._ask_half(request)
            reset(writer)
            return False
        elif fault == "garble" and request.body:
            return await self._pass(request, flipped(request.body, self._dice), writer)
        elif fault == "stale":
            writer.write(self._answers[question])
            await writer.drain()
            return True
        elif fault == "duplicate":
            await self._ask(request.head, request.body)
        answer = await self._ask(request.head, request.body)
        end = answer.find(b"\r\n\r\n") + 4
        if fault == "lose":
            await self._wait_at_gate(request)
            reset(writer)
            return False
        if fault == "truncate" and len(answer) > end:
            writer.write(answer[: end + (len(answer) - end) // 2])
            await writer.drain()
            return False
        if fault == "flip" and len(answer) > end:
            answer = answer[:end] + flipped(answer[end:], self._dice)
        elif request.method == "GET" and fault is None:
            self._answers[question] = answer
        writer.write(answer)
        await writer.drain()
        return True

    async def _pass(self, request: Request, body: bytes, writer: asyncio.StreamWriter) -> bool:
        writer.write(await self._ask(request.head, body))
        await writer.drain()
        return True

    async def _wait_at_gate(self, request: Request) -> None:
        self.waiting.append(request)
        while not self.gate.is_set():
            await asyncio.sleep(0.02)
        self.waiting.remove(request)

    async def _ask_half(self, request: Request) -> None:
        """Send the server half of a request, and no more."""
        _, writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        try:
            writer.write(request.head + request.body[: len(request.body) // 2])
            await writer.drain()
            await self._wait_at_gate(request)
        finally:
            writer.close()

    async def _ask(self, head: bytes, body: bytes) -> bytes:
        """Return the server's answer to a request, head and body as they came."""
        reader, writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        try:
            writer.write(head + body)
            await writer.drain()
            while True:
                answer = await reader.readuntil(b"\r\n\r\n")
                if not answer.startswith(b"HTTP/1.1 100"):
                    break
            if head.startswith(b"HEAD ") or answer.split(b" ", 2)[1] in (b"204", b"304"):
                return answer
            return answer + await read_body(answer, reader, until_closed=True)
        finally:
            writer.close()

    async def _tunnel(self, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass on what is no more HTTP, both ways."""
        their_reader, their_writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        their_writer.write(head)
        await asyncio.gather(pour(reader, their_writer), pour(their_reader, writer))


async def read_body(head: bytes, reader: asyncio.StreamReader, *, until_closed: bool = False) -> bytes:
    """Return the body that belongs to a head, in the form in which it came."""
    fields = dict(line.lower().split(b":", 1) for line in head.splitlines()[1:] if b":" in line)
    if b"chunked" in fields.get(b"transfer-encoding", b""):
        body = b""
        while True:
            line = await reader.readuntil(b"\r\n")
            size = int(line.split(b";")[0], 16)
            body += line + await reader.readexactly(size + 2)
            if not size:
                return body
    if b"content-length" in fields:
        return await reader.readexactly(int(fields[b"content-length"]))
    return await reader.read() if until_closed else b""


async def pour(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Write what comes until nothing comes."""
    with suppress(*LOST):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    writer.close()


def reset(writer: asyncio.StreamWriter) -> None:
    """Break a connection off, as when the machine at the other end has forgotten it."""
    found = writer.get_extra_info("socket")
    with suppress(OSError):
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def flipped(data: bytes, dice: random.Random) -> bytes:
    """Return bytes with one bit changed."""
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


@contextmanager
def faulty_proxy(server: str, seed: int = 0) -> Iterator[FaultyProxy]:
    """Run a proxy in front of the server at this address, in a thread of its own."""
    proxy = FaultyProxy(server, seed)
    listening = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(listening)), daemon=True)
    thread.start()
    try:
        assert listening.wait(30)
        yield proxy
    finally:
        proxy.stop()
        thread.join()
