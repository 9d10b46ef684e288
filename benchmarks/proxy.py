"""A proxy in front of an S3 server that counts the requests which pass."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from urllib.parse import urlsplit

PIECE = 1 << 18
_LOST = (ConnectionError, asyncio.IncompleteReadError)


class Proxy:
    """A running proxy.

    Attributes:
        endpoint_url: where it listens.
        requests: how many requests passed so far.
    """

    def __init__(self, server: str) -> None:
        self.endpoint_url = ""
        self.requests = 0
        self._server = urlsplit(server)
        self._connections: set[asyncio.Task[None]] = set()

    async def serve(self, listening: threading.Event) -> None:
        """Pass requests on until `stop`."""
        self._loop, self._stopped = asyncio.get_running_loop(), asyncio.Event()
        listener = await asyncio.start_server(self._connected, "127.0.0.1", 0)
        self.endpoint_url = f"http://127.0.0.1:{listener.sockets[0].getsockname()[1]}"
        listening.set()
        await self._stopped.wait()
        listener.close()

    def stop(self) -> None:
        """End `serve`, from another thread."""
        self._loop.call_soon_threadsafe(self._stopped.set)

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Held here, for the event loop holds a task no longer than the client its connection.
        task = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server_reader, server_writer = await asyncio.open_connection(self._server.hostname, self._server.port)
        answers = asyncio.create_task(_pass_on(server_reader, writer))
        try:
            with suppress(*_LOST):
                while await self._request(reader, server_writer):
                    pass
            server_writer.close()
            await answers
        finally:
            server_writer.close()
            writer.close()

    async def _request(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Pass on one request as it is: the signature covers the host it was sent to. False at the connection's end."""
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return False
        self.requests += 1
        writer.write(head)
        fields = dict(line.lower().split(b":", 1) for line in head.splitlines()[1:] if line)
        if b"transfer-encoding" in fields:
            await _pass_on_chunks(reader, writer)
        left = int(fields.get(b"content-length", 0))
        while left:
            piece = await reader.read(min(left, PIECE))
            if not piece:
                return False
            left -= len(piece)
            writer.write(piece)
            await writer.drain()
        return True


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(*_LOST):
        while piece := await reader.read(PIECE):
            writer.write(piece)
            await writer.drain()
    writer.close()


async def _pass_on_chunks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    size = -1
    while size:
        line = await reader.readuntil(b"\r\n")
        size = int(line.split(b";")[0], 16)
        writer.write(line + await reader.readexactly(size + 2))
        await writer.drain()


@contextmanager
def counting_proxy(server: str) -> Iterator[Proxy]:
    """Run a proxy in front of the server at this address, in a thread of its own."""
    proxy = Proxy(server)
    listening = threading.Event()
    thread = threading.Thread(target=lambda: asyncio.run(proxy.serve(listening)))
    thread.start()
    try:
        listening.wait()
        yield proxy
    finally:
        proxy.stop()
        thread.join()
