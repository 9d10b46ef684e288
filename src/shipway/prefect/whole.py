r"""Half characters, which the API must not take in: it keeps them, and cannot say them again.

In JSON `"\ud800"` is half of a character, written alone. Prefect's server stores it in a run's parameters or name, and
answers 500 to everybody who asks for a list with that run in it. A worker asks for such a list to find its runs, so one
run would keep all others from being started.
"""

from __future__ import annotations

import json
import re

from shipway.prefect.origin import Application, Message, Receive, Send

REFUSAL = b'{"detail": "the request holds half a character, such as \\\\ud800 without its other half"}'

# As an escape, as bytes that are no UTF-8, and in UTF-16 and UTF-32, which Python's reader of JSON takes too.
_SUSPICIOUS = re.compile(rb"\\u[dD][89a-fA-F]|\xed[\xa0-\xbf]|\x00")


class WholeText:
    """Passes on to an application the requests in which every character is a whole one; refuses others with 422.

    Args:
        application: what is asked.
    """

    def __init__(self, application: Application) -> None:
        self._application = application

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request or connection."""
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS", "DELETE"):
            await self._application(scope, receive, send)
            return
        messages = [await receive()]
        while messages[-1].get("more_body"):
            messages.append(await receive())
        if has_halves(b"".join(message.get("body", b"") for message in messages)):
            headers = [(b"content-type", b"application/json"), (b"content-length", str(len(REFUSAL)).encode())]
            await send({"type": "http.response.start", "status": 422, "headers": headers})
            await send({"type": "http.response.body", "body": REFUSAL})
            return
        read = iter(messages)

        async def replay() -> Message:
            return next(read, None) or await receive()

        await self._application(scope, replay, send)


def has_halves(body: bytes) -> bool:
    """Tell whether JSON holds half a character; what is no JSON is for others to refuse."""
    if not _SUSPICIOUS.search(body):
        return False
    try:
        json.dumps(json.loads(body), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    except (ValueError, RecursionError):
        return False
    return False
