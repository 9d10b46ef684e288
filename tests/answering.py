"""An HTTP server that answers as a test says: for what no real server can be made to say."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True)
class Asked:
    """A request.

    Attributes:
        method: such as `GET`.
        path: with its query.
        headers: what else was said of it; names in any case.
        body: what was sent along.
    """

    method: str
    path: str
    headers: Message
    body: bytes

    @property
    def line(self) -> str:
        """Method and path, without the query."""
        return f"{self.method} {self.path.partition('?')[0]}"


@dataclass(frozen=True)
class Answer:
    """What is answered.

    Attributes:
        status: such as 200.
        body: what is sent.
        headers: beside its length, and the date where there is none among them.
    """

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)


@contextmanager
def answering(answer: Callable[[Asked], Answer]) -> Iterator[str]:
    """Answer requests, each in a thread of its own; yield the address."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _answer(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            given = answer(Asked(self.command, self.path, self.headers, body))
            self.send_response_only(given.status)
            said = {"Date": self.date_time_string(), "Content-Length": str(len(given.body))}
            for name, value in (said | dict(given.headers)).items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(given.body)

        do_GET = do_POST = do_PATCH = _answer  # noqa: N815 - the names the server calls

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the server's own name for it
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        # Connections that a client keeps are no reason to wait.
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}"
        finally:
            server.shutdown()
