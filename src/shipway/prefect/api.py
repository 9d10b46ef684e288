"""Prefect's REST API, as far as commands need it, without importing Prefect (which takes seconds)."""

from __future__ import annotations

import base64
import http.client
import json
import re
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from email.message import Message
from email.utils import parsedate_to_datetime
from typing import Any

from shipway.errors import (
    ConflictError,
    InputError,
    NotFoundError,
    ServerError,
    ServerUnreachableError,
    ShipwayError,
)
from shipway.prefect.answers import fault
from shipway.settings import THIS_MACHINE, Settings

TIMEOUT = 30.0
PAGE = 200
MAX_BYTES = 256 << 20
"""An answer that is longer is not read to its end; Prefect's have a few hundred kilobytes."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


class Api:
    """A Prefect server.

    Every method raises ServerUnreachableError when nothing answers, and ServerError when the answer is an error.
    """

    def __init__(self, settings: Settings) -> None:
        self.url = settings.api_url.rstrip("/")
        self._headers = {"Content-Type": "application/json", "Accept": "application/json", **_authorization(settings)}
        proxies: dict[str, str] | None = {} if _host(self.url) in THIS_MACHINE else None
        self._opener = urllib.request.build_opener(urllib.request.ProxyHandler(proxies))

    @property
    def ui_url(self) -> str:
        """Address of the server's UI."""
        return self.url.removesuffix("/api")

    def request(self, method: str, path: str, body: Any = None) -> Any:
        """Send one request and return the answer's JSON, or None for an empty one.

        Raises:
            NotFoundError: the server has no such thing (404).
            ConflictError: the server refused because of what it has (409).
        """
        return self._answer(method, path, body)[0]

    def greet(self) -> tuple[str, float | None]:
        """Return the server's version of Prefect, and its clock's seconds since 1970 where its answer tells them."""
        version, headers = self._answer("GET", "/admin/version")
        try:
            return str(version), parsedate_to_datetime(headers["Date"]).timestamp()
        except (TypeError, ValueError, OverflowError):
            return str(version), None

    def _answer(self, method: str, path: str, body: Any = None) -> tuple[Any, Message]:
        data = None if body is None else _write(body)
        try:
            request = urllib.request.Request(f"{self.url}{path}", data=data, headers=self._headers, method=method)  # noqa: S310
            with self._opener.open(request, timeout=TIMEOUT) as answer:
                text, headers = answer.read(MAX_BYTES + 1), answer.headers
        except urllib.error.HTTPError as error:
            raise self._explain(error, path) from None
        except (OSError, ValueError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", error)
            raise ServerUnreachableError(
                f"no Prefect API answers at {self.url} ({str(getattr(reason, 'strerror', None) or reason)[:200]})",
                hint="start one with `shipway up`, or set PREFECT_API_URL",
            ) from None
        try:
            answer = _read(text) if text else None
        except (ValueError, RecursionError):
            raise ServerError(
                f"{self.url} does not answer as a Prefect API does", hint="check PREFECT_API_URL; it ends in /api"
            ) from None
        if found := fault(method, path, answer):
            raise ServerError(
                f"{self.url}{path} does not answer as a Prefect API does: {found}",
                hint="check PREFECT_API_URL, and the version of that server",
            )
        return answer, headers

    def pages(self, path: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """Yield every row of a `/filter` route."""
        offset, before = 0, None
        while True:
            rows = self.request("POST", path, {**body, "limit": PAGE, "offset": offset})
            if rows and rows == before:
                raise ServerError(f"{self.url}{path} gives the same page again and again")
            yield from rows
            if len(rows) < PAGE:
                return
            offset, before = offset + PAGE, rows

    def find(self, path: str) -> dict[str, Any] | None:
        """GET something that may not exist."""
        try:
            found: dict[str, Any] = self.request("GET", path)
        except NotFoundError:
            return None
        return found

    def deployment(self, full_name: str) -> dict[str, Any]:
        """Return the deployment `FLOW/NAME`.

        Raises:
            NotFoundError: there is none; the message names those there are.
        """
        if "/" in full_name and (found := self.find_deployment(full_name)):
            return found
        names = [f"{row['flow_name']}/{row['name']}" for row in self.deployments()]
        hint = f"there are {', '.join(names[:10])}" if names else "there is none yet; make one with `shipway deploy`"
        raise NotFoundError(f"there is no deployment {full_name!r}", hint=hint)

    def find_deployment(self, full_name: str) -> dict[str, Any] | None:
        """Return the deployment `FLOW/NAME`, or None."""
        flow, _, name = full_name.partition("/")
        return self.find(f"/deployments/name/{quote(flow)}/{quote(name)}")

    def deployments(self) -> list[dict[str, Any]]:
        """Return all deployments, each with its `flow_name`, sorted by name."""
        rows = list(self.pages("/deployments/filter", {"sort": "NAME_ASC"}))
        flows = self.flow_names({row["flow_id"] for row in rows})
        for row in rows:
            row["flow_name"] = flows.get(row["flow_id"], "?")
        return sorted(rows, key=lambda row: (row["flow_name"], row["name"]))

    def flow_names(self, ids: set[str]) -> dict[str, str]:
        """Return flow names by flow id."""
        if not ids:
            return {}
        rows = self.pages("/flows/filter", {"flows": {"id": {"any_": sorted(ids)}}})
        return {row["id"]: row["name"] for row in rows}

    def pool(self, name: str) -> dict[str, Any] | None:
        """Return a work pool, or None."""
        return self.find(f"/work_pools/{quote(name)}")

    def queue(self, pool: str, name: str) -> dict[str, Any] | None:
        """Return a work queue of a pool, or None."""
        return self.find(f"/work_pools/{quote(pool)}/queues/{quote(name)}")

    def _explain(self, error: urllib.error.HTTPError, path: str) -> ShipwayError:
        try:
            with error:
                text = error.read(4096).decode(errors="replace")
        except (OSError, http.client.HTTPException):
            text = ""
        try:
            document = json.loads(text)
            found = document.get("detail") or document.get("exception_detail") or document.get("exception_message")
            # What was refused stands in the answer too, and may be a secret.
            detail = "; ".join(map(_refusal, found)) if isinstance(found, list) else str(found)
        except (ValueError, AttributeError, TypeError, RecursionError):
            detail = text.strip().splitlines()[0] if text.strip() else error.reason
        if error.code in (401, 403):
            return ServerError(
                f"{self.url} refused us ({error.code})", hint="set PREFECT_API_AUTH_STRING or PREFECT_API_KEY"
            )
        if error.code == 404 and detail == "Not Found":
            return ServerError(
                f"{self.url} has no {path.partition('?')[0]}", hint="check PREFECT_API_URL; it ends in /api"
            )
        kind = {404: NotFoundError, 409: ConflictError}.get(error.code, ServerError)
        return kind(f"{self.url}{path} answered {error.code}: {detail[:300]}")


def _authorization(settings: Settings) -> dict[str, str]:
    """Return the header that shows who asks.

    Raises:
        InputError: what is to be sent cannot be; it is not repeated.
    """
    try:
        if settings.api_key:
            # The words of the library that refuses such a header hold all of it.
            if not settings.api_key.isascii() or not settings.api_key.isprintable():
                raise ValueError
            return {"Authorization": f"Bearer {settings.api_key}"}
        if settings.auth_string:
            return {"Authorization": f"Basic {base64.b64encode(settings.auth_string.encode()).decode()}"}
    except ValueError:
        name = "PREFECT_API_KEY" if settings.api_key else "PREFECT_API_AUTH_STRING"
        raise InputError(f"{name} holds characters that cannot be sent", hint="set it again, on one line") from None
    return {}


def _host(url: str) -> str:
    """Return the host of an API's address.

    Raises:
        InputError: it has none that can be read, or holds a password, which is not repeated.
    """
    try:
        parts = urllib.parse.urlsplit(url)
        host, secret = parts.hostname or "", "@" in parts.netloc
    except ValueError as error:
        raise InputError(f"PREFECT_API_URL is no address: {error}", hint="write http://HOST:PORT/api") from None
    if secret:
        raise InputError(
            "the address of the Prefect API holds a user or password",
            hint="set PREFECT_API_AUTH_STRING to user:password instead, and PREFECT_API_URL without them",
        )
    return host


def _write(body: Any) -> bytes:
    """Write JSON in which every character is one: a server would keep half a one, and fail whenever it is to say it.

    Raises:
        InputError: there is half a character; what it is part of may be a secret and is not repeated.
    """
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = ascii(error.object[error.start])
        raise InputError(f"{half} is half a character, which the Prefect API cannot keep", hint="remove it") from None


def _read(data: bytes) -> Any:
    """Read JSON in which every character is one.

    Raises:
        ValueError: it is too long, or not that.
        RecursionError: it is nested too deeply.
    """
    if len(data) > MAX_BYTES:
        raise ValueError("too long")
    text = data.decode()
    document = json.loads(text)
    if _HALF.search(text):
        # Half a character can be read and never be written or shown; this raises where there is one.
        json.dumps(document, ensure_ascii=False).encode()
    return document


def quote(text: str) -> str:
    """Quote a name for use as one segment of a path."""
    return urllib.parse.quote(text, safe="")


def _refusal(error: Any) -> str:
    """Say which field of a request was refused and why, without what was in it."""
    place = ".".join(map(str, error.get("loc", ()))) if isinstance(error, dict) else ""
    return f"{place}: {error.get('msg')}" if place else "it is not what it should be"
