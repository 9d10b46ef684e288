"""What a service is, and the three that the stack has."""

from __future__ import annotations

import contextlib
import errno
import http.client
import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, astuple, dataclass, field, replace
from functools import partial
from ipaddress import ip_address
from pathlib import Path

from shipway.errors import InputError, PortTakenError, StackError
from shipway.settings import Settings
from shipway.stack.seaweed import LOOPBACK, SeaweedPorts, make_durable, prepare
from shipway.stack.secrets import Secrets

BUCKET = "shipway"
"""Bucket of the embedded S3 server."""

SERVER, STORE, WORKER = "server", "store", "worker"

GRACE = {SERVER: 15.0, STORE: 1.0, WORKER: 45.0}
"""Seconds between SIGTERM and SIGKILL. The S3 server would take 15 s, waiting for streams among its own parts; it loses
nothing when it is killed, and its clients have stopped before it."""

WORKER_READY = "worker ready"
"""What the worker prints once it polls for work."""

# Importing Prefect takes the worker more than a second, which passes while the server does the same on another core.
# The collector would only slow it down. The worker leaves without waiting for its threads, as its module does: they may
# wait for the output of runs.
_HELD_WORKER = (
    "import gc, os, sys; gc.disable(); from shipway.prefect.serve import main; gc.freeze(); gc.enable(); "
    "sys.stdin.readline() or sys.exit(); status = main(); sys.stdout.flush(); os._exit(status)"
)

# Which server a client talks to, and as whom: the stack says it anew for each of its services.
_CLIENT_NAMES = frozenset(
    f"{prefix}_{name}"
    for prefix in ("PREFECT", "SHIPWAY")
    for name in ("API_URL", "API_KEY", "API_AUTH_STRING", "AUTH_STRING")
)
# Where the server listens, keeps its data and whom it lets in: decided here, whatever the caller's shell has.
_SERVER_DROPPED = (
    "PREFECT_SERVER_API_",
    "PREFECT_SERVER_UI_",
    "PREFECT_SERVER_EPHEMERAL_",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_",
)
_DATABASE_PARTS = ("CONNECTION_URL", "DRIVER", "HOST", "PORT", "USER", "NAME", "PASSWORD")

# The server's CPU for each run falls from 0.27 s to 0.17 s when it writes task runs and events in batches. A flush
# interval below 1 s would be rounded to 0, and the recorder would spin.
_SERVER_TUNING = {
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_TASK_RUN_RECORDER_FLUSH_INTERVAL": "1",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_READ_BATCH_SIZE": "50",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_BATCH_SIZE": "200",
    "PREFECT_SERVER_SERVICES_EVENT_PERSISTER_FLUSH_INTERVAL": "2",
    # In memory, Prefect's default, a restart forgets who holds the slots of concurrency limits, which stay taken.
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
    # Prefect's own lets events wait for a quarter of an hour for those that a server before this one has had.
    "PREFECT_SERVER_EVENTS_CAUSAL_ORDERING": "shipway.prefect.ordering",
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "DO_NOT_TRACK": "1",
}


@dataclass(frozen=True, slots=True)
class Service:
    """One process of the stack.

    Attributes:
        name: how it is called in `stack.json`, in messages and in the name of its log.
        argv: its command line, free of secrets.
        env: its whole environment.
        cwd: the folder it is started in.
        ready: told what the process wrote since it started, says whether it can be used.
        listens: says whether all parts of it that others need still listen; asked now and then.
        depends_on: services that are ready before it starts and stop after it.
        after_set_up: whether it starts only once the stack has been set up (block saved).
        held: whether its process is started at once, to load what it needs, and waits for its turn: a line on standard
            input; without one it ends.
        port: where clients reach it.
        grace: seconds between SIGTERM and SIGKILL when it is stopped.
        ready_within: seconds it may take to become ready.
        umask: permissions that what it makes does not get; -1 for those of the supervisor.
    """

    name: str
    argv: tuple[str, ...]
    env: Mapping[str, str] = field(repr=False)
    cwd: Path
    ready: Callable[[str], bool]
    listens: Callable[[], bool] = lambda: True
    depends_on: tuple[str, ...] = ()
    after_set_up: bool = False
    held: bool = False
    port: int | None = None
    grace: float = 10.0
    ready_within: float = 120.0
    umask: int = -1


def server_service(settings: Settings, secrets: Secrets, *, auth: bool) -> Service:
    """Describe the Prefect API server with its UI."""
    home = settings.state / "server"
    host, port = settings.host, settings.server_port
    env = {name: value for name, value in os.environ.items() if _fits_server(name)}
    # The user may tune the server, and share its encryption key with other servers on the same database.
    env = {
        **_SERVER_TUNING,
        "PREFECT_SERVER_ENCRYPTION_KEY": secrets.encryption_key,
        # Prefect's default lets any page that is open in a browser here use the API. The UI's own pages need nothing.
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": url(host, port),
        **env,
    }
    env |= {
        "PREFECT_HOME": str(home),
        "PREFECT_API_DATABASE_CONNECTION_URL": _database_url(settings.database_url, home),
        # By default the UI is served from inside the package, which may be read-only and is shared with other stacks.
        "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(home / "ui"),
        # Relative to the page, so that it is right through a tunnel and under every name this machine has.
        "PREFECT_SERVER_UI_API_URL": "/api",
        "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
        "PREFECT_SERVER_API_HOST": host,
        "PREFECT_SERVER_API_PORT": str(port),
    }
    if auth:
        env["PREFECT_SERVER_API_AUTH_STRING"] = secrets.auth_string
    argv = (sys.executable, "-m", "shipway.prefect.server", "--host", host, "--port", str(port))
    # Prefect reads `.env` and `prefect.toml` of the folder it is started in: the project's are not about this server.
    ready = http_ready(host, port, "/api/ready")
    return Service(SERVER, argv, env, home, ready, port=port, grace=GRACE[SERVER], umask=0o077)


def store_service(settings: Settings, secrets: Secrets, folder: Path, ports: SeaweedPorts) -> Service:
    """Describe the embedded S3 server, with its data in `folder`."""
    argv, env = prepare(
        folder,
        host=settings.host,
        ports=ports,
        access_key=secrets.s3_access_key,
        secret_key=secrets.s3_secret_key,
        jwt_key=secrets.jwt_key,
    )
    env |= {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR", "TZ", "LANG") if name in os.environ}
    ready = http_ready(settings.host, ports.s3, "/healthz")
    # Asked to end by somebody else it may close some of its parts and go on with the others, for good.
    inner = [(LOOPBACK, port) for port in (ports.master, ports.volume, ports.filer)]
    listens = partial(all_listen, (reachable(settings.host), ports.s3), *inner)
    return Service(STORE, tuple(argv), env, folder, ready, listens, port=ports.s3, grace=GRACE[STORE], umask=0o077)


def store_ports(settings: Settings) -> SeaweedPorts:
    """Return the ports of the S3 server's parts: those of the last time where they are free.

    The server keeps its cluster's state under its master's port: with another one it elects a leader anew.
    """
    path = settings.state / "ports.json"
    if kept := SeaweedPorts.read(path):
        ports = replace(kept, s3=settings.store_port)
        for port in astuple(ports)[1:]:
            check_port("127.0.0.1", port, "S3 server", "--store-port")
        return ports
    ports = SeaweedPorts.free(s3=settings.store_port)
    path.write_text(json.dumps(asdict(ports)))
    return ports


def furnish_store(folder: Path, ports: SeaweedPorts, env: Mapping[str, str]) -> None:
    """Make the bucket, and have writes reach the disk before they are acknowledged. Once: the server keeps both.

    Raises:
        StackError: the S3 server does not do it.
    """
    done = folder / "furnished"
    if done.exists():
        return
    argv, words = make_durable(ports)
    words += f"s3.bucket.create -name {BUCKET}\n"
    try:
        answer = subprocess.run(
            argv, env=dict(env), input=words, text=True, capture_output=True, timeout=60, check=False
        )
    except subprocess.TimeoutExpired:
        raise StackError("the S3 server does not take its settings", hint="see `shipway logs store`") from None
    said = answer.stdout + answer.stderr
    has_bucket = f"created bucket {BUCKET}" in said or f"bucket {BUCKET} already exists" in said
    if not has_bucket or not re.search(r'"fsync":\s*true', said):
        raise StackError(f"the S3 server refused its settings: {said[-200:].strip()}")
    done.touch()


def worker_service(settings: Settings, depends_on: tuple[str, ...]) -> Service:
    """Describe the worker that executes runs of the API that `settings` names."""
    env = {name: value for name, value in os.environ.items() if _fits_worker(name)}
    return Service(
        WORKER,
        (sys.executable, "-c", _HELD_WORKER, "--pool", settings.work_pool),
        {"DO_NOT_TRACK": "1", **env, **settings.prefect_environment()},
        settings.project,
        lambda said: WORKER_READY in said,
        depends_on=depends_on,
        after_set_up=True,
        held=True,
        grace=GRACE[WORKER],
    )


def http_ready(host: str, port: int, path: str) -> Callable[[str], bool]:
    """Return a check that passes once `path` answers 200."""

    def check(_said: str) -> bool:
        connection = http.client.HTTPConnection(reachable(host), port)
        try:
            connection.sock = _connect(reachable(host), port)
            connection.request("GET", path)
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    return check


def all_listen(*addresses: tuple[str, int]) -> bool:
    """Tell whether somebody listens at each of these hosts and ports, be they slow to answer."""
    for host, port in addresses:
        try:
            _connect(host, port).close()
        except ConnectionRefusedError:
            return False
        except OSError:
            pass
    return True


def reachable(host: str) -> str:
    """Return an address at which this machine reaches a server that is bound to `host`."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1", "": "127.0.0.1"}.get(host, host)  # noqa: S104, compared, not bound


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach what is bound to `host`."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def url(host: str, port: int) -> str:
    """Return the http address of a server that is bound to `host`, as this machine reaches it."""
    name = reachable(host)
    return f"http://[{name}]:{port}" if ":" in name else f"http://{name}:{port}"


def check_port(host: str, port: int, name: str, option: str) -> None:
    """Make sure that a service can listen on a port.

    Raises:
        PortTakenError: another process listens there; it is named.
        StackError: `host` is no address of this machine, or the port needs rights we lack.
    """
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except socket.gaierror:
        raise StackError(
            f"there is no address called {host!r}", hint="give --host an address of this machine"
        ) from None
    with socket.socket(found[0], socket.SOCK_STREAM) as probe:
        # As servers do: a port whose last connections are still in their closing minute is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(found[4])
        except OSError as error:
            if error.errno == errno.EADDRINUSE:
                raise PortTakenError(
                    f"port {port}, wanted for the {name}, is taken by {_port_holder(port)}",
                    hint=f"end that program, or choose another port with {option}",
                ) from None
            raise StackError(
                f"the {name} cannot listen on {host}:{port}: {error.strerror}",
                hint=f"give --host an address of this machine and {option} a port above 1023",
            ) from None


def _connect(host: str, port: int) -> socket.socket:
    """Connect to a port where perhaps nobody listens yet.

    A socket that is given this very port as its own would connect to itself, and keep the port from the server.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    connection = socket.socket(family, socket.SOCK_STREAM)
    try:
        connection.settimeout(2)
        connection.bind(("", 0))
        if connection.getsockname()[1] == port:
            raise ConnectionRefusedError(errno.ECONNREFUSED, "nobody listens yet")
        connection.connect((host, port))
    except BaseException:
        connection.close()
        raise
    return connection


def _port_holder(port: int) -> str:
    import psutil

    with contextlib.suppress(psutil.Error):
        here = [each for each in psutil.net_connections("tcp") if each.laddr and each.laddr.port == port]
        pid = next((each.pid for each in here if each.pid), None)
        if pid:
            return f"{psutil.Process(pid).name()} (pid {pid})"
        if here and all(each.status == psutil.CONN_TIME_WAIT for each in here):
            return "a connection that was closed just now and is gone within a minute"
    return "a program of another user"


def _fits_server(name: str) -> bool:
    if name.startswith("PREFECT_SERVER_DATABASE_"):
        return name.removeprefix("PREFECT_SERVER_DATABASE_") not in _DATABASE_PARTS
    if name.startswith("PREFECT_SERVER_"):
        return not name.startswith(_SERVER_DROPPED)
    return not name.startswith(("PREFECT_", "SHIPWAY_", "ORION_"))


def _fits_worker(name: str) -> bool:
    """Flows see their user's environment, but not the server's: its database and key are none of their business."""
    hidden = ("PREFECT_SERVER_", "PREFECT_API_DATABASE_", "SHIPWAY_DATABASE_URL")
    return name not in _CLIENT_NAMES and not name.startswith(hidden)


def _database_url(given: str | None, home: Path) -> str:
    """Return the address of the server's database in the words of SQLAlchemy.

    Raises:
        InputError: it is neither PostgreSQL nor SQLite.
    """
    if given is None:
        return f"sqlite+aiosqlite:///{home / 'prefect.db'}"
    scheme, separator, rest = given.partition("://")
    driver = {"postgres": "postgresql+asyncpg", "postgresql": "postgresql+asyncpg", "sqlite": "sqlite+aiosqlite"}.get(
        scheme, scheme
    )
    if not separator or driver not in ("postgresql+asyncpg", "sqlite+aiosqlite"):
        # The address is not repeated: it may hold a password.
        raise InputError(
            "the database address is neither PostgreSQL nor SQLite",
            hint="set SHIPWAY_DATABASE_URL to postgresql://USER:PASSWORD@HOST/DATABASE",
        )
    return f"{driver}://{rest}"
