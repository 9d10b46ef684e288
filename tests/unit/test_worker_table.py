"""What the table of a worker says, and what a screen does with what is printed meanwhile."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from rich.console import Console

from shipway.prefect.table import Facts, Meter, Row, Use, picture

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


def drawn(facts: Facts, width: int = 120) -> list[str]:
    console = Console(width=width, force_terminal=False, color_system=None)
    with console.capture() as capture:
        console.print(picture(facts))
    return [line.rstrip() for line in capture.get().splitlines()]


def test_a_worker_without_runs_is_one_line() -> None:
    [line] = drawn(Facts("w1", "shipway", templates=2))
    assert line == "waiting for runs  2 templates  pool shipway  all queues  w1"


def test_the_head_names_queues_limit_and_the_end() -> None:
    facts = Facts("w1", "shipway", ("gpu", "night"), limit=4, templates=1, rows=(Row("a", "b", "gpu", NOON),))
    assert drawn(facts)[0] == "1 run of at most 4  1 template  pool shipway  gpu, night  w1"
    assert drawn(replace(facts, ending=True))[0].startswith("1 run of at most 4, ending  1 template")
    assert drawn(replace(facts, ending=True, rows=()))[0].startswith("ending  1 template")


def test_a_row_for_each_run() -> None:
    rows = (
        Row("red-fox", "train", "gpu", NOON, warm=True, started=0.034, use=Use(187.4, 41_300_000)),
        Row("old-owl", "load", "", NOON + timedelta(seconds=61), warm=False, started=2.5),
        Row("new-elk", "load", "gpu", NOON + timedelta(seconds=62)),
    )
    head, titles, *lines = drawn(Facts("w1", "shipway", rows=rows, more=2))
    assert head.startswith("5 runs  0 templates")
    assert titles.split() == ["queue", "run", "flow", "since", "CPU", "memory", "started", "in", "process"]
    since = [row.since.astimezone().strftime("%H:%M:%S") for row in rows]
    assert lines[0].split() == ["gpu", "red-fox", "train", since[0], "187", "%", "41", "MB", "0.03", "s", "warm"]
    assert lines[1].split() == ["old-owl", "load", since[1], "2.50", "s", "own"]
    assert lines[2].split() == ["gpu", "new-elk", "load", since[2], "starting"]
    assert lines[3:] == ["and 2 more"]


def test_names_are_text_and_no_markup() -> None:
    row = Row("[red]fox[/nothing]", "[bold]", "q", NOON)
    assert "[red]fox[/nothing]  [bold]" in drawn(Facts("[w]", "p", rows=(row,)))[2]


@pytest.mark.parametrize("width", [20, 60])
def test_a_narrow_terminal_gets_a_line_for_each_run(width: int) -> None:
    rows = tuple(Row(f"a-run-with-a-long-name-{n}", "a-flow-with-a-long-name", "default", NOON) for n in range(3))
    lines = drawn(Facts("w1", "shipway", rows=rows), width)
    assert len(lines) == 5
    assert max(map(len, lines)) <= width


def test_a_terminal_too_narrow_cuts_names_and_leaves_figures_whole() -> None:
    row = Row("supportive-chameleon", "waiting", "default", NOON, warm=True, started=0.3, use=Use(13, 33_000_000))
    _head, titles, line = drawn(Facts("w1", "shipway", rows=(row,)), 80)
    assert titles.split() == ["queue", "run", "flow", "since", "CPU", "memory", "started", "in", "process"]
    assert line.split()[0] == "default"
    assert re.match(r"default +supportive-[a-z]*… +waiting", line)
    assert line.split()[3:] == [f"{NOON.astimezone():%H:%M:%S}", "13", "%", "33", "MB", "0.30", "s", "warm"]


def test_a_run_is_measured_with_the_processes_it_started() -> None:
    child = "x = bytearray(50_000_000)\nprint(1, flush=True)\nwhile True: pass"
    code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}])"
    with subprocess.Popen([sys.executable, "-c", code], start_new_session=True, stdout=subprocess.PIPE) as run:
        try:
            assert run.stdout
            assert run.stdout.readline() == b"1\n"
            meter = Meter()
            first = meter.measure([run.pid])[run.pid]
            assert first.bytes > 50_000_000
            deadline = time.monotonic() + 60
            while meter.measure([run.pid])[run.pid].cpu < 10:
                assert time.monotonic() < deadline, "it takes no processor time"
                time.sleep(0.2)
        finally:
            os.killpg(run.pid, 9)
            run.wait()
        assert meter.measure([run.pid]) == {}


SHOWN = """
import os, subprocess, sys
from shipway.prefect.table import Facts, Screen
with Screen() as screen:
    screen.show(Facts("w1", "shipway"))
    print("from the worker", flush=True)
    subprocess.run(["sh", "-c", "echo from a run; echo its error >&2"])
    subprocess.run(["sh", "-c", "printf '1%%\\\\r2%%\\\\n[red]x[/nothing]\\\\033[2Jy\\\\n'"])
    subprocess.run(["sh", "-c", "printf 'no end of line'"])
print("afterwards")
"""


def test_what_is_printed_stands_above_the_table_and_the_terminal_is_given_back() -> None:
    terminal, inner = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    program = subprocess.Popen(
        [sys.executable, "-c", SHOWN], stdin=inner, stdout=inner, stderr=inner, env=environment, start_new_session=True
    )
    os.close(inner)
    said = b""
    try:
        while data := os.read(terminal, 65536):
            said += data
    except OSError:
        # How Linux says that the other end is closed.
        pass
    finally:
        os.close(terminal)
    assert program.wait() == 0, said
    lines = [line.rpartition("\x1b[2K")[2] for line in said.decode().replace("\r", "").splitlines()]
    wanted = ["from the worker", "from a run", "its error", "2%", "[red]x[/nothing]y", "no end of line", "afterwards"]
    assert [line for line in lines if line in wanted] == wanted, said
    assert "waiting for runs" in said.decode()
    # The cursor is there again, and no table behind it.
    assert said.decode().rpartition("waiting for runs")[2].count("\x1b[?25h") == 1
