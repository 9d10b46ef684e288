"""What `shipway doctor` asks the Prefect API about the server, its workers and the store."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import Any

from shipway.doctor import Check, Finding
from shipway.doctor.stores import RETRY_SECONDS, skew, store
from shipway.doctor.surroundings import plain
from shipway.errors import InputError, ServerError, ServerUnreachableError, ShipwayError, StackError
from shipway.prefect.api import Api, quote
from shipway.prefect.doctor_runs import overdue, pending, zombies
from shipway.prefect.doctor_slots import slots
from shipway.prefect.pool import POOL_TYPE
from shipway.prefect.stores import default_block, is_local_default, store_config
from shipway.settings import DEFAULT_API_URL, Settings
from shipway.stack import facts
from shipway.store.opening import open_store

EVENT_DAYS = 7


def server_checks(settings: Settings) -> Mapping[str, Check]:
    """Return the check that tells whether the others can be asked."""
    return {"server": lambda: server(settings)}


def checks(settings: Settings) -> Mapping[str, Check]:
    """Return what a server that answers is asked."""
    api = Api(settings)
    return {
        "store": lambda: stores(settings),
        "workers": lambda: workers(api),
        "running": lambda: zombies(api),
        "pending": lambda: pending(api),
        "late": lambda: overdue(api),
        "slots": lambda: slots(api),
    }


def server(settings: Settings, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Ask the server for its version and its time."""
    try:
        api, where = Api(settings), plain(settings.api_url)
    except InputError as error:
        yield Finding("server", "error", error.message, "no request can be sent", error.hint or "")
        return
    before = clock()
    try:
        version, its_time = api.greet()
    except ServerUnreachableError:
        yield _unreachable(settings, where)
        return
    except ServerError as error:
        # The address may hold a password.
        yield Finding("server", "error", error.message.replace(api.url, where), error.hint or "", "shipway status")
        return
    yield Finding("server", "ok", f"Prefect {version} answers at {where}")
    yield from _version(settings, where, version)
    if its_time is not None:
        # The header has whole seconds: half of one too few on average.
        yield skew(f"the server ({where})", (before + clock()) / 2 - its_time - 0.5)


def stores(settings: Settings) -> Iterator[Finding]:
    """Try out the store that is used where none is named."""
    block = default_block(settings)
    if is_local_default(settings, block):
        yield Finding("store", "ok", "nothing is kept yet: the store is made by the first `shipway deploy`")
        return
    try:
        opened = open_store(store_config(settings, block), retry_seconds=RETRY_SECONDS)
    except ShipwayError as error:
        # Somebody may have put an address with keys in it there.
        told = block if "@" not in block else "of the setting store"
        name = block.partition("/")[2] if told == block else "NAME"
        yield Finding(
            "store",
            "error",
            f"block {told}: {error.message}",
            error.hint or "",
            f"shipway block s3 {name} --bucket-path BUCKET",
        )
        return
    yield from store(opened, block)


def workers(api: Api) -> Iterator[Finding]:
    """See which workers are there, and of which version, as far as the API tells."""
    own = metadata.version("prefect")
    told = _told_versions(api)
    online = 0
    for pool in api.pages("/work_pools/filter", {}):
        for worker in api.request("POST", f"/work_pools/{quote(pool['name'])}/workers/filter", {}):
            if worker.get("status") != "ONLINE":
                continue
            online += 1
            version = told.get(worker["name"])
            if version and _line(version) != _line(own):
                yield Finding(
                    "workers",
                    "warning",
                    f"worker {worker['name']!r} runs Prefect {version}, commands here use {own}",
                    "a worker keeps what was installed when it started; two lines may not understand each other",
                    "shipway down && shipway up --detach"
                    if pool["type"] == POOL_TYPE
                    else f"prefect worker start --pool {shlex.quote(pool['name'])}",
                )
    yield Finding("workers", "ok", f"{online} online" if online else "none online, and that is no fault by itself")


def _unreachable(settings: Settings, where: str) -> Finding:
    stack = None
    with suppress(StackError):
        stack = facts(settings)
    if stack is None and settings.api_url == DEFAULT_API_URL:
        return Finding("server", "note", "no server runs here, and none is configured", "", "shipway up --detach")
    own = stack is not None and settings.api_url == stack.api_url
    return Finding(
        "server",
        "error",
        f"no Prefect API answers at {where}",
        "the stack's description names it"
        if own
        else "a variable, shipway.toml or Prefect's profile names this server",
        "shipway down && shipway up --detach" if own else "shipway config set PREFECT_API_URL=http://HOST:PORT/api",
    )


def _version(settings: Settings, where: str, version: str) -> Iterator[Finding]:
    own = metadata.version("prefect")
    if _line(version) == _line(own):
        return
    stack = None
    with suppress(StackError):
        stack = facts(settings)
    ours = stack is not None and stack.running and stack.api_url == settings.api_url
    yield Finding(
        "version",
        "error",
        f"the server at {where} runs Prefect {version}, commands and workers here {own}",
        "it was started before something was installed here"
        if ours
        else "a server does not always understand clients of another line: one of the two is to be changed",
        "shipway down && shipway up --detach" if ours else f"python -m pip install prefect=={version}",
    )


def _line(version: str) -> tuple[str, ...]:
    """Return the part of a version within which clients and servers fit each other."""
    return tuple(version.split(".")[:2])


def _told_versions(api: Api) -> dict[str, str]:
    """Return the versions that workers told in their newest events, by the workers' names."""
    since = datetime.now(UTC) - timedelta(days=EVENT_DAYS)
    body: dict[str, Any] = {
        "filter": {
            "event": {"name": ["prefect.worker.started"]},
            "occurred": {"since": since.isoformat()},
            "order": "DESC",
        },
        "limit": 50,
    }
    found = api.request("POST", "/events/filter", body)
    # The newest come first, and the last of a name stays.
    resources = [event["resource"] for event in reversed(found["events"])]
    return {
        each["prefect.resource.name"]: each["prefect.version"]
        for each in resources
        if each.get("prefect.resource.name") and each.get("prefect.version")
    }
