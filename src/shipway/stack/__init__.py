"""The local stack: API server, S3 server, worker. Here: what is known of it, which is light to import."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from shipway.errors import InputError
from shipway.settings import Settings
from shipway.stack.secrets import Secrets, read_secrets
from shipway.store.url import StoreConfig

BUCKET = "shipway"
REGION = "us-east-1"

CREATED_TOLERANCE = 2.0
"""Seconds by which two readings of one process's creation time may differ: it is counted from a rounded boot time."""


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """A process, told from a later one of the same number by when it was created."""

    pid: int
    created: float

    @property
    def alive(self) -> bool:
        """Whether this very process still runs."""
        import psutil

        try:
            process = psutil.Process(self.pid)
            same = abs(process.create_time() - self.created) < CREATED_TOLERANCE
            return same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


@dataclass(frozen=True, slots=True)
class ServiceFacts:
    """One service as the supervisor last saw it; `process` is None while none runs."""

    name: str
    state: str
    process: ProcessFacts | None
    port: int | None
    restarts: int

    @property
    def true_state(self) -> str:
        """The state, corrected by a look at the process."""
        return self.state if self.process is None or self.process.alive else "dead"


@dataclass(frozen=True, slots=True)
class StackFacts:
    """The stack as its supervisor last described it.

    Attributes:
        state: `starting`, `ready` or `stopping`.
        api_url: address of the Prefect API, as this machine reaches it.
        ui_url: address of the UI.
        host: address the servers are bound to.
        auth_string: what the API asks for, or None where it asks for nothing.
        store: where the stack's own store is, credentials included.
        supervisor: the process that watches the services.
        services: the services, in the order of their start.
    """

    state: str
    api_url: str
    ui_url: str
    host: str
    auth_string: str | None = field(repr=False)
    store: StoreConfig = field(repr=False)
    supervisor: ProcessFacts
    services: tuple[ServiceFacts, ...]

    @property
    def running(self) -> bool:
        """Whether the supervisor is there."""
        return self.supervisor.alive

    @property
    def ready(self) -> bool:
        """Whether the supervisor is there and everything was up when it last looked."""
        return self.state == "ready" and self.running

    def port(self, name: str) -> int | None:
        """Return the port of a service, or None when there is no such service or it has no port."""
        return next((service.port for service in self.services if service.name == name), None)

    def public(self) -> dict[str, Any]:
        """Return everything but the secrets, as it stands in `stack.json`."""
        store = {"kind": self.store.kind, "endpoint_url": self.store.endpoint_url, "bucket": self.store.bucket}
        return {
            "state": self.state,
            "api_url": self.api_url,
            "ui_url": self.ui_url,
            "host": self.host,
            "auth": self.auth_string is not None,
            "store": store if self.store.kind == "s3" else {"kind": "folder", "path": str(self.store.path)},
            "supervisor": asdict(self.supervisor),
            "services": [
                {
                    "name": service.name,
                    "state": service.state,
                    "pid": service.process and service.process.pid,
                    "created": service.process and service.process.created,
                    "port": service.port,
                    "restarts": service.restarts,
                }
                for service in self.services
            ],
        }


def facts(settings: Settings) -> StackFacts | None:
    """Return what is known of the project's stack, or None where none was started or it was stopped.

    After its supervisor was killed the description is still there, and `running` is false.

    Raises:
        StackError: the stack's secrets cannot be trusted.
    """
    try:
        text = settings.stack_file.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None
    secrets = read_secrets(settings.secrets_file)
    if secrets is None:
        return None
    try:
        return _parse(json.loads(text), secrets)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, InputError):
        return None


def write_facts(settings: Settings, stack: StackFacts) -> None:
    """Write `stack.json` in one step: a reader sees the old one or the new one."""
    descriptor, name = tempfile.mkstemp(dir=settings.state, prefix=".stack-")
    try:
        with os.fdopen(descriptor, "w") as file:
            json.dump(stack.public(), file, indent=2)
        Path(name).replace(settings.stack_file)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _process(pid: Any, created: Any) -> ProcessFacts:
    if type(pid) is not int or not 0 < pid < 1 << 31 or not isinstance(created, int | float):
        raise ValueError("it names no process")
    return ProcessFacts(pid, created)


def s3_store(endpoint_url: str, secrets: Secrets) -> StoreConfig:
    """Describe the embedded S3 server's bucket."""
    return StoreConfig(
        kind="s3",
        bucket=BUCKET,
        endpoint_url=endpoint_url,
        region=REGION,
        access_key=secrets.s3_access_key,
        secret_key=secrets.s3_secret_key,
    )


def _parse(document: dict[str, Any], secrets: Secrets) -> StackFacts:
    store = document["store"]
    return StackFacts(
        state=str(document["state"]),
        api_url=str(document["api_url"]),
        ui_url=str(document["ui_url"]),
        host=str(document["host"]),
        auth_string=secrets.auth_string if document["auth"] else None,
        store=s3_store(str(store["endpoint_url"]), secrets)
        if store["kind"] == "s3"
        else StoreConfig(kind="folder", path=Path(store["path"])),
        supervisor=_process(document["supervisor"]["pid"], document["supervisor"]["created"]),
        services=tuple(
            ServiceFacts(
                name=str(row["name"]),
                state=str(row["state"]),
                process=_process(row["pid"], row["created"]) if row["pid"] else None,
                port=None if row["port"] is None else int(row["port"]),
                restarts=int(row["restarts"]),
            )
            for row in document["services"]
        ),
    )
