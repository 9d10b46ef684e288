"""Who may talk to an API that asks for no password: programs of this machine, and pages that came from the API itself.

It listens on the loopback address, and so do its callers; but a browser on this machine carries requests of any page in
the world there. Prefect answers pages of every origin, unless told otherwise. A page is told from a program by its
`Origin`, which browsers do not let it choose, and a page whose own name was made to lead here by the `Host` it asks.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from ipaddress import ip_address
from typing import Any
from urllib.parse import urlsplit

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

REFUSAL = b"This API takes requests from this machine only. To let others in, start it with `shipway up --auth`.\n"


class OwnPages:
    """Passes on to an application what programs, and pages of its own, ask of it; refuses the rest with 403.

    Args:
        application: what is asked.
        origins: further origins whose pages may ask, such as `http://ui.example:8080`.
    """

    def __init__(self, application: Application, origins: Iterable[str] = ()) -> None:
        self._application = application
        self._origins = frozenset(origins)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or connection."""
        if scope["type"] not in ("http", "websocket") or self._welcome(scope):
            await self._application(scope, receive, send)
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008})
        else:
            headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(REFUSAL)).encode())]
            await send({"type": "http.response.start", "status": 403, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})

    def _welcome(self, scope: Message) -> bool:
        hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
        origins = [value.decode("latin-1") for name, value in scope["headers"] if name == b"origin"]
        if not all(_is_here(host) for host in hosts):
            return False
        return all(
            origin in self._origins or origin.partition("://")[2] in hosts or "*" in self._origins for origin in origins
        )


def _is_here(host: str) -> bool:
    """Tell whether `HOST` or `HOST:PORT` names this machine, and can name no other."""
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or name.endswith(".localhost") or ip_address(name).is_loopback
    except ValueError:
        return False
