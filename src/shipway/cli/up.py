"""`shipway up`: start the local stack."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from shipway.cli.output import echo, epilog, say
from shipway.errors import StackError
from shipway.settings import CONFIG_FILE, Settings

if TYPE_CHECKING:
    from shipway.stack import StackFacts

WAIT = 180.0
"""Seconds after which a stack that is starting in the background is given up as such; it goes on."""

EXAMPLES = (
    "shipway up --detach              start in the background, return when everything is ready",
    "shipway up                       stay in the foreground; Ctrl-C stops everything",
    "shipway up --port 4300 --store-port 4334",
    "shipway up --host 10.0.0.5       let other machines in; the API asks for a password then",
    "SHIPWAY_DATABASE_URL=postgresql://USER:PASSWORD@HOST/DATABASE shipway up",
)


@click.command(name="up", epilog=epilog(EXAMPLES, (3, 8)))
@click.option("--detach", "-d", is_flag=True, help="Start in the background and return when everything is ready.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Prefect API and UI.  [default: 4200]")
@click.option("--store-port", type=click.IntRange(1, 65535), help="Port of the S3 server.  [default: 4333]")
@click.option("--host", help="Address to listen on.  [default: 127.0.0.1]")
@click.option("--auth", is_flag=True, help="Ask for a password even on this machine; always so with another --host.")
@click.option("--no-worker", is_flag=True, help="Start no worker.")
@click.option("--lock", "inherited", type=int, hidden=True)
def command(
    *,
    detach: bool,
    port: int | None,
    store_port: int | None,
    host: str | None,
    auth: bool,
    no_worker: bool,
    inherited: int | None,
) -> int:
    """Start the local stack: Prefect API server with UI, S3 server, worker.

    Its data, logs and secrets are in .shipway in the project folder, and survive being killed. When the stack runs
    already, its addresses are shown.

    The database is an embedded one, or PostgreSQL when SHIPWAY_DATABASE_URL (or PREFECT_API_DATABASE_CONNECTION_URL)
    is set; it is no option, because passwords do not belong on a command line.
    """
    from shipway.stack.manager import acquire, supervise

    asked = {"server_port": port, "store_port": store_port, "host": host}
    given = Settings.load()
    settings = replace(given, **{name: value for name, value in asked.items() if value is not None})  # type: ignore[arg-type]
    lock = acquire(settings, inherited)
    if lock is None:
        stack = _wait_for(settings)
        if stack is None:
            raise StackError("the stack was stopped meanwhile", hint="start it again")
        _refuse_others(stack, asked, auth=auth)
        say("the stack runs already")
        _show(settings, stack)
        return 0
    with lock:
        if not detach:
            say("starting the stack" if inherited is not None else "starting the stack; Ctrl-C stops it")
            supervise(settings, auth=auth, worker=not no_worker, on_ready=_on_ready, say=_log)
            say("the stack has stopped")
            return 0
        values = {"--port": port, "--store-port": store_port, "--host": host, "--lock": lock.fileno()}
        options = [f"{name}={value}" for name, value in values.items() if value is not None]
        options += [name for name, wanted in (("--auth", auth), ("--no-worker", no_worker)) if wanted]
        return _detach(settings, options, lock.fileno())


def _detach(settings: Settings, options: list[str], lock: int) -> int:
    """Start `shipway up` in the background, repeat what it says until everything is ready; return the exit status.

    It inherits the lock: nobody can come in between.
    """
    from shipway.stack.process import open_log

    log = settings.state / "logs" / "supervisor.log"
    with open_log(log) as output:
        begin = output.tell()
        daemon = subprocess.Popen(
            [sys.executable, "-m", "shipway", "up", *options],
            cwd=settings.project,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            pass_fds=[lock],
        )
    with log.open(errors="replace") as words:
        words.seek(begin)

        def repeat() -> None:
            for line in words:
                say(line.rstrip())

        stack = _wait_for(settings, daemon, repeat)
    if stack is None:
        return daemon.returncode
    _show(settings, stack)
    return 0


def _wait_for(
    settings: Settings, daemon: subprocess.Popen[bytes] | None = None, meanwhile: Callable[[], None] = lambda: None
) -> StackFacts | None:
    """Wait until the stack is ready and return it, or None when the process that starts it ended."""
    from shipway.stack import facts
    from shipway.stack.manager import held

    deadline = time.monotonic() + WAIT
    while time.monotonic() < deadline:
        ended = (daemon.poll() is not None) if daemon else not held(settings)
        stack = facts(settings)
        meanwhile()
        if stack and stack.ready:
            return stack
        if ended:
            return None
        time.sleep(0.05)
    raise StackError(
        f"the stack did not become ready within {WAIT:g} s", hint="see `shipway status` and `shipway logs supervisor`"
    )


def _refuse_others(stack: StackFacts, asked: dict[str, int | str | None], *, auth: bool) -> None:
    """Refuse options that the running stack does not have.

    Raises:
        StackError: it listens elsewhere, or asks for no password.
    """
    found = {"server_port": stack.port("server"), "store_port": stack.port("store"), "host": stack.host}
    names = {"server_port": "--port", "store_port": "--store-port", "host": "--host"}
    wrong = [f"{names[key]} {found[key]}" for key, value in asked.items() if value not in (None, found[key])]
    if auth and stack.auth_string is None:
        wrong.append("no --auth")
    if wrong:
        raise StackError(f"the stack runs already, with {', '.join(wrong)}", hint="stop it first with `shipway down`")


def _show(settings: Settings, stack: StackFacts) -> None:
    where = f"{stack.store.endpoint_url}, bucket {stack.store.bucket}" if stack.store.kind == "s3" else stack.store.path
    echo(f"Prefect UI   {stack.ui_url}")
    echo(f"Prefect API  {stack.api_url}")
    echo(f"Store        {where}")
    if stack.auth_string:
        say(f"UI and API ask for the auth_string in {settings.secrets_file}")
    others = Settings.load(settings.project).api_url
    if others != stack.api_url:
        say(f"Mind: commands here go to {others}, because PREFECT_API_URL or {settings.project / CONFIG_FILE} says so")
    say(f"Data and logs are in {settings.state}; stop with `shipway down`")


def _on_ready(settings: Settings, _stack: StackFacts) -> None:
    from shipway.prefect.api import Api
    from shipway.prefect.apply import ensure_pool
    from shipway.prefect.automations import ensure_automations
    from shipway.prefect.blocks import save_stack_block

    save_stack_block(settings)
    api = Api(settings)
    ensure_pool(api, settings.work_pool)
    ensure_automations(api, settings, settings.work_pool)


def _log(text: str) -> None:
    say(f"{time.strftime('%H:%M:%S')} {text}")
