"""One child's life with a real process, and what is left of one whose supervisor was killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import psutil
import pytest

from shipway.errors import StackError
from shipway.settings import Settings
from shipway.stack import ProcessFacts, manager
from shipway.stack.process import LOG_LIMIT, Child, created_at, open_log, stop_leftover
from shipway.stack.service import Service

# Starts a child of its own, says so, and refuses to end when it is asked to.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print("started", grandchild.pid, flush=True)
time.sleep(600)
"""


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.02)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Child]]:
    children = []

    def make(code: str, *, held: bool = False) -> Child:
        service = Service("it", (sys.executable, "-c", code), {}, tmp_path, lambda said: "started" in said, held=held)
        children.append(Child(service, tmp_path / "it.log"))
        return children[-1]

    yield make
    for child in children:
        child.kill()
    wait(lambda: all(child.look(starting=False).status is not None for child in children))


def grandchild_of(child: Child) -> psutil.Process:
    return psutil.Process(int(child.output().split()[1]))


def gone(process: psutil.Process) -> bool:
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


def test_readiness_is_judged_by_what_this_process_wrote_not_an_earlier_one(
    tmp_path: Path, start: Callable[..., Child]
) -> None:
    (tmp_path / "it.log").write_text("started long ago\n")
    child = start("import sys; sys.stdin.readline(); print('started'); sys.stdout.flush(); sys.stdin.read()", held=True)

    assert not child.look(starting=True).ready
    child.release()
    wait(lambda: "started" in child.output())
    assert child.output() == "started\n"


def test_the_exit_status_is_seen(start: Callable[..., Child]) -> None:
    child = start("raise SystemExit(7)")

    wait(lambda: child.look(starting=False).status is not None)
    assert child.look(starting=False).status == 7


def test_killing_takes_everything_the_process_started(start: Callable[..., Child]) -> None:
    child = start(STUBBORN)
    wait(lambda: child.look(starting=True).ready)
    grandchild = grandchild_of(child)

    child.terminate()
    assert child.look(starting=False).status is None
    child.kill()

    wait(lambda: child.look(starting=False).status == -9 and gone(grandchild))


def test_what_a_dead_process_started_does_not_outlive_it(start: Callable[..., Child]) -> None:
    child = start(STUBBORN)
    wait(lambda: child.look(starting=True).ready)
    grandchild = grandchild_of(child)
    psutil.Process(child.facts.pid).kill()

    wait(lambda: child.look(starting=False).status == -9)
    wait(lambda: gone(grandchild))


def test_a_leftover_is_ended_with_all_it_started(start: Callable[..., Child]) -> None:
    child = start(STUBBORN)
    wait(lambda: child.look(starting=True).ready)
    grandchild = grandchild_of(child)

    assert stop_leftover(child.facts, grace=0.2)
    assert gone(grandchild)
    assert not child.facts.alive


def test_a_process_that_only_has_the_number_of_a_leftover_is_left_alone(start: Callable[..., Child]) -> None:
    child = start("print('started', flush=True); import time; time.sleep(600)")
    wait(lambda: child.look(starting=True).ready)

    assert not stop_leftover(replace(child.facts, created=child.facts.created - 3600), grace=0)
    assert child.facts.alive


def test_a_process_that_ended_is_not_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""])
    facts = ProcessFacts(process.pid, created_at(process.pid))
    process.wait()

    assert not facts.alive
    assert not stop_leftover(facts, grace=0)


def test_a_log_that_has_grown_too_large_is_put_aside(tmp_path: Path) -> None:
    log = tmp_path / "it.log"
    with log.open("wb") as file:
        file.truncate(LOG_LIMIT)

    with open_log(log) as file:
        file.write(b"new\n")

    assert log.read_bytes() == b"new\n"
    assert (tmp_path / "it.log.1").stat().st_size == LOG_LIMIT


@pytest.mark.parametrize("damage", ["", "{", '{"pid": -1, "created": 0}', "other"])
def test_a_lock_that_names_another_process_gets_nobody_a_signal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    monkeypatch.setattr(manager, "NAMED_LIMIT", 0.2)
    settings = Settings(project=tmp_path)
    bystander = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    try:
        with manager.acquire(settings) or pytest.fail("somebody else has the lock"):
            said = json.dumps({"pid": bystander.pid, "created": 1.0}) if damage == "other" else damage
            (settings.state / manager.LOCK).write_text(said)
            with pytest.raises(StackError, match="does not name the process that holds it"):
                manager.stop(settings, lambda _said: None)
        assert bystander.poll() is None
    finally:
        bystander.kill()
        bystander.wait()
