"""The supervisor: starts the services in order, restarts what dies, stops all in reverse order."""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import asdict, replace
from pathlib import Path
from types import FrameType
from typing import IO

import msgspec

from shipway.errors import StackError
from shipway.settings import Settings
from shipway.stack import ProcessFacts, ServiceFacts, StackFacts, facts, s3_store, write_facts
from shipway.stack.course import Act, Course, Life, Seen, State
from shipway.stack.process import Child, stop_leftover, this_process
from shipway.stack.seaweed import remove_sockets, weed_binary
from shipway.stack.secrets import load_or_make_secrets
from shipway.stack.service import (
    GRACE,
    Service,
    check_port,
    furnish_store,
    is_loopback,
    server_service,
    store_ports,
    store_service,
    url,
    worker_service,
)
from shipway.store.url import StoreConfig

Say = Callable[[str], None]
OnReady = Callable[[Settings, StackFacts], None]

LOCK = "supervisor.lock"
NAMED_LIMIT = 5.0
"""Seconds within which who has the lock must have written who it is."""
STOP_LIMIT = 120.0
"""Seconds after which a supervisor that was asked to end is given up; the services' own limits are well within."""
LAST_LINES = 8
NO_PROCESS = Seen(status=127)
"""What is seen of a service whose process could not be started; the number is the shell's for that."""


class Supervisor:
    """Carries out a `Course` with real processes until a signal asks for the end."""

    def __init__(
        self,
        services: Iterable[Service],
        *,
        logs: Path,
        publish: Callable[[str, tuple[ServiceFacts, ...]], None],
        set_up: Callable[[], None],
        say: Say,
    ) -> None:
        """Prepare to run `services`; nothing is started yet.

        Args:
            services: in the order of their start.
            logs: folder of their logs.
            publish: called with the stack's state and services whenever something changed.
            set_up: called once, when everything that serves is ready and before what depends on that is started.
            say: tells a person what happens.
        """
        self._course = Course(services)
        self._children: dict[str, Child] = {}
        self._logs = logs
        self._publish = publish
        self._set_up = set_up
        self._say = say
        self._told: dict[str, str] = {}
        self._published: object = None

    def run(self) -> None:
        """Supervise until everything has stopped.

        Raises:
            StackError: a service failed before everything had been ready once, or the set-up failed.
        """
        failure: Exception | None = None
        with _Signals() as signals:
            while not self._course.ended:
                if signals.stops:
                    self._course.stop(hurry=signals.stops > 1)
                try:
                    self._round()
                except Exception as error:  # noqa: BLE001, whatever goes wrong, no process may stay behind
                    failure = failure or error
                    self._course.stop()
                signals.wait(1.0 if self._course.state == "ready" else 0.05)
        if failure:
            raise failure
        if self._course.failed:
            raise self._explain(self._course.failed)

    def _look(self, name: str, life: Life) -> Seen:
        child = self._children.get(name)
        return child.look(starting=life.state is State.STARTING) if child else NO_PROCESS

    def _round(self) -> None:
        lives = self._course.lives
        seen = {
            name: self._children[name].look(starting=life.state is State.STARTING)
            if name in self._children
            else NO_PROCESS
            for name, life in lives.items()
            if life.runs
        }
        for act, name in self._course.step(time.monotonic(), seen):
            if act is Act.START:
                self._start(lives[name].service)
            elif name in self._children:
                child = self._children[name]
                {Act.RELEASE: child.release, Act.TERMINATE: child.terminate, Act.KILL: child.kill}[act]()
        self._tell()
        if self._course.can_be_set_up:
            self._set_up()
            self._course.set_up = True

    def _start(self, service: Service) -> None:
        self._children.pop(service.name, None)
        try:
            self._children[service.name] = Child(service, self._logs / f"{service.name}.log")
        except OSError as error:
            self._say(f"{service.name}: cannot be started: {error}")

    def _tell(self) -> None:
        rows = []
        for name, life in self._course.lives.items():
            process = self._children[name].facts if life.runs and name in self._children else None
            rows.append(ServiceFacts(name, life.state.value, process, life.service.port, life.restarts))
            text = life.state.value
            if life.state is State.PAUSING:
                text = f"ended with status {life.status}"
                if self._course.was_ready:
                    text += f", starts again in {life.pause:g} s"
            # Neither waiting nor, for what never started, having stopped is news.
            if text not in (self._told.get(name, State.STOPPED.value), State.WAITING.value):
                self._told[name] = text
                self._say(f"{name}: {text}")
        if (news := (self._course.state, tuple(rows))) != self._published:
            self._published = news
            try:
                self._publish(*news)
            except OSError as error:
                # A full disk is no reason to stop what runs.
                self._say(f"the stack's state cannot be written: {error}")

    def _explain(self, failed: Life) -> StackError:
        name, log = failed.service.name, self._logs / f"{failed.service.name}.log"
        if name in self._children:
            for line in self._children[name].output().splitlines()[-LAST_LINES:]:
                self._say(f"{name} | {line}")
        what = (
            f"did not become ready within {failed.service.ready_within:g} s"
            if failed.status is None
            else f"ended with status {failed.status} before it was ready"
        )
        return StackError(f"the {name} {what}", hint=f"its log is {log}")


def acquire(settings: Settings, inherited: int | None = None) -> IO[str] | None:
    """Become the one supervisor of the project, for as long as the returned file is open; None when there is one.

    The lock belongs to the open file: a process that inherits it (`inherited` is its number) has the lock, too.

    Raises:
        InputError: the state folder is another user's, or others may have written to it.
        StackError: it cannot be made or written.
    """
    state = settings.state
    try:
        settings.make_state()
        for folder in (state / "logs", state / "server"):
            folder.mkdir(mode=0o700, exist_ok=True)
        lock = (state / LOCK).open("a+") if inherited is None else os.fdopen(inherited, "a+")
    except OSError as error:
        raise StackError(
            f"{state} cannot be written: {error.strerror}", hint="the stack keeps all it has there"
        ) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return None
    lock.truncate(0)
    json.dump(asdict(this_process()), lock)
    lock.flush()
    return lock


def held(settings: Settings) -> bool:
    """Whether a supervisor holds the project's lock."""
    with (settings.state / LOCK).open() as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False


def supervise(settings: Settings, *, auth: bool, worker: bool, on_ready: OnReady, say: Say) -> None:
    """Run the stack until SIGTERM or Ctrl-C; the caller holds the lock of `acquire`.

    Args:
        settings: host, ports, database and pool.
        auth: whether the API asks for the auth string even on the loopback address.
        worker: whether a worker belongs to the stack.
        on_ready: called when server and store are ready, before the worker starts.
        say: tells a person what happens.

    Raises:
        PortTakenError: a port is in use.
        StackError: something did not start; everything has been stopped again.
    """
    stop_leftovers(settings, say)
    secrets = load_or_make_secrets(settings.secrets_file)
    auth = auth or not is_loopback(settings.host)
    folder = settings.state / "store"
    check_port(settings.host, settings.server_port, "Prefect server", "--port")
    ports = None
    services = [server_service(settings, secrets, auth=auth)]
    if weed_binary() is None:
        say("store: there is no S3 server for this machine, a folder serves instead")
        folder.mkdir(mode=0o700, exist_ok=True)
        store = StoreConfig(kind="folder", path=folder)
    else:
        check_port(settings.host, settings.store_port, "S3 server", "--store-port")
        ports = store_ports(settings)
        services.append(store_service(settings, secrets, folder, ports))
        store = s3_store(url(settings.host, ports.s3), secrets)
    ui_url = url(settings.host, settings.server_port)
    stack = StackFacts(
        state="starting",
        api_url=f"{ui_url}/api",
        ui_url=ui_url,
        host=settings.host,
        auth_string=secrets.auth_string if auth else None,
        store=store,
        supervisor=this_process(),
        services=(),
    )
    settings = replace(settings, api_url=stack.api_url, api_key=None, auth_string=stack.auth_string)
    if worker:
        services.append(worker_service(settings, tuple(service.name for service in services)))

    def set_up() -> None:
        if ports is not None:
            furnish_store(folder, ports, services[1].env)
        on_ready(settings, stack)

    def publish(state: str, rows: tuple[ServiceFacts, ...]) -> None:
        if state == "ready":
            say(f"stack: ready, UI and API at {ui_url}")
        write_facts(settings, replace(stack, state=state, services=rows))

    try:
        Supervisor(services, logs=settings.state / "logs", publish=publish, set_up=set_up, say=say).run()
    finally:
        settings.stack_file.unlink(missing_ok=True)
        if ports is not None:
            remove_sockets(folder, ports)


def stop(settings: Settings, say: Say) -> bool:
    """Stop the project's stack, and what a killed supervisor left; tell whether there was anything to stop.

    Raises:
        StackError: the supervisor does not end.
    """
    if not settings.state.is_dir():
        return False
    deadline = time.monotonic() + NAMED_LIMIT
    while True:
        if (lock := acquire(settings)) is not None:
            with lock:
                return stop_leftovers(settings, say)
        # It may be about to write its name. What is damaged may name anybody's process, which gets no signal.
        supervisor = read_supervisor(settings.state / LOCK)
        if supervisor and supervisor.alive:
            break
        if time.monotonic() > deadline:
            raise StackError(
                f"{settings.state / LOCK} does not name the process that holds it", hint="see `fuser` of that file"
            )
        time.sleep(0.05)
    say("stopping: worker first, then server, then store")
    try:
        os.kill(supervisor.pid, signal.SIGTERM)
    except ProcessLookupError:
        return True
    deadline = time.monotonic() + STOP_LIMIT
    while supervisor.alive:
        if time.monotonic() > deadline:
            raise StackError(
                f"the supervisor (pid {supervisor.pid}) does not end", hint="see `shipway logs supervisor`"
            )
        time.sleep(0.05)
    return True


def read_supervisor(lock: Path) -> ProcessFacts | None:
    """Return which process holds the lock, as it says; None where it is damaged."""
    try:
        found = msgspec.json.decode(lock.read_bytes(), type=ProcessFacts)
    except (OSError, ValueError, RecursionError):
        return None
    return found if 0 < found.pid < 1 << 31 else None


def stop_leftovers(settings: Settings, say: Say) -> bool:
    """Stop the services of a supervisor that was killed; the caller holds the lock. Tell whether there were any."""
    before = facts(settings)
    if before is None:
        return False
    found = False
    for service in reversed(before.services):
        if service.process and stop_leftover(service.process, GRACE[service.name]):
            say(f"{service.name}: stopped, it was left by a supervisor that was killed")
            found = True
    if before.store.kind == "s3":
        remove_sockets(settings.state / "store", store_ports(settings))
    settings.stack_file.unlink(missing_ok=True)
    return found


class _Signals:
    """Counts the requests to stop, and ends a wait early when one arrives or a child ended."""

    def __init__(self) -> None:
        self.stops = 0

    def __enter__(self) -> _Signals:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        wanted = {signal.SIGCHLD: lambda *_: None} | dict.fromkeys(
            (signal.SIGINT, signal.SIGTERM, signal.SIGHUP), self._stop
        )
        self._handlers = {number: signal.signal(number, handler) for number, handler in wanted.items()}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._wakeup)
        os.close(self._read)
        os.close(self._write)

    def wait(self, seconds: float) -> None:
        """Wait so long, or until a signal arrives."""
        if select.select([self._read], [], [], seconds)[0]:
            os.read(self._read, 4096)

    def _stop(self, _number: int, _frame: FrameType | None) -> None:
        self.stops += 1
