"""Runs forked from templates: each is a process of its own."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.unit.bench import PROBES, Bench, Result, nothing_is_left, on_bench, until

from shipway.worker.pool import AVAILABLE, Spec

__all__ = ["nothing_is_left"]

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="runs are forked on Linux only")


def test_as_a_process_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("GONE", "1"), ("OWN_OLD", "1"), ("TZ", "UTC"), ("KEPT", "1")):
        monkeypatch.setenv(name, value)
    place = tmp_path / "place"
    place.mkdir()
    (tmp_path / "link").symlink_to(place)
    (tmp_path / "temporary").mkdir()

    async def work(bench: Bench) -> tuple[Any, dict[str, str]]:
        changed = {"OWN_NEW": "x", "OWN_TMPDIR": "", "TMPDIR": str(tmp_path / "temporary"), "TZ": "XYZ-5"}
        wanted = {k: v for k, v in bench.environment.items() if k not in ("GONE", "OWN_OLD")} | changed
        host = bench.host()
        # As if the template were of this environment: what differs has to be the run's all the same.
        bench.pool._entries[Spec(bench.pool._common(wanted))] = bench.pool._entries[bench.base]
        result = await bench.run("report", "argument", environment=wanted, folder=tmp_path / "link")
        assert bench.host() is host
        return result.json(), wanted

    old = os.umask(0o027)
    try:
        said, wanted = on_bench(tmp_path, work)
    finally:
        os.umask(old)
    assert said["environment"] == wanted
    assert said["folder"] == said["first in path"] == str(place.resolve())
    assert said["argv"] == ["worker_probes:report", "argument"]
    assert (said["session"], said["group"]) == (True, True)
    assert said["descriptors"] == [0, 1, 2]
    assert said["umask"] == 0o027
    assert said["temporary"] == str(tmp_path / "temporary")
    assert said["hour"] == 5
    assert said["input"] == ""
    assert said["collects"] is True
    assert said["threads"] == 1
    assert said["blocked"] == []
    assert said["wakeup"] == -1
    code = "import sys; sys.path.append(sys.argv[1]); import worker_probes; worker_probes.report('')"
    fresh = json.loads(subprocess.check_output([sys.executable, "-c", code, str(PROBES)], stdin=subprocess.DEVNULL))
    assert {k: v.split(" at ")[0] for k, v in said["signals"].items()} == {
        k: v.split(" at ")[0] for k, v in fresh["signals"].items()
    }


def test_output_and_descriptors(tmp_path: Path) -> None:
    async def work(bench: Bench) -> tuple[Result, bytes, Result]:
        reading, writing = os.pipe()
        try:
            greeting = await bench.run("greet", "you", third=writing)
            programs = await bench.run("inherited", third=writing)
        finally:
            os.close(writing)
        with os.fdopen(reading, "rb") as pipe:
            return greeting, pipe.read(), programs

    greeting, third, programs = on_bench(tmp_path, work)
    assert (greeting.status, greeting.err) == (0, "err you\n")
    assert sorted(greeting.out.splitlines()) == ["out you", "program"]
    assert third == b"third"
    # A program that is started with everything that is inheritable gets no fourth.
    assert programs.json() == [0, 1, 2]


def test_chance_differs(tmp_path: Path) -> None:
    async def work(bench: Bench) -> list[Any]:
        return [(await bench.run("numbers")).json() for _ in range(3)]

    drawn = on_bench(tmp_path, work, preload=("numpy", "numpy.random", "multiprocessing"))
    assert len(drawn[0]) == 3
    for numbers in zip(*drawn, strict=True):
        assert len(set(numbers)) == 3


def test_nothing_of_one_run_in_the_next(tmp_path: Path) -> None:
    async def work(bench: Bench) -> list[Any]:
        return [(await bench.run("leave_marks", f"run {number}")).json() for number in range(3)]

    answers = on_bench(tmp_path, work, preload=("worker_probes",))
    assert answers[0] == answers[1] == answers[2] == [[], None, tmp_path.name, False, answers[0][4]]


def test_what_is_left_for_the_end_is_done(tmp_path: Path) -> None:
    async def work(bench: Bench) -> tuple[Result, ...]:
        return (await bench.run("finish"), await bench.run("finish", "5"), await bench.run("bad_exit_handler"))

    good, exiting, bad = on_bench(tmp_path, work)
    assert good.out.splitlines() == ["returned", "pool", "thread", "exit handler"]
    assert (good.status, good.err) == (0, "")
    assert (exiting.status, exiting.out) == (5, good.out)
    assert (bad.status, bad.out) == (0, "first registered\n")
    assert "ZeroDivisionError" in bad.err


def test_how_it_ended(tmp_path: Path) -> None:
    statuses = {"": 0, "exit": 3, "text": 1, "big": 7, "nothing": 0, "now": 9, "error": 1} | {
        "SIGKILL": -9,
        "SIGTERM": -15,
        "SIGSEGV": -11,
        "SIGINT": 130,
        "SIGPIPE": 0,
        "no output": 0,
        "closed output": 0,
        "odd output": 120,
    }

    async def work(bench: Bench) -> dict[str, Result]:
        ways = [way for way in statuses if way != "SIGPIPE"]
        results = await asyncio.gather(*(bench.run("end", way) for way in ways))
        return dict(zip(ways, results, strict=True))

    results = on_bench(tmp_path, work)
    assert {way: result.status for way, result in results.items()} == {
        way: status for way, status in statuses.items() if way in results
    }
    assert results["text"].err == "said at the end\n"
    assert "ValueError: wrong" in results["error"].err
    assert "KeyboardInterrupt" in results["SIGINT"].err
    assert results[""].seconds > 0
    assert results[""].bytes > 1 << 20


def test_what_cannot_begin_ends_with_an_error(tmp_path: Path) -> None:
    async def work(bench: Bench) -> tuple[Result, ...]:
        return (
            await bench.run("sleep", "0", folder=tmp_path / "missing"),
            await bench.run("no_such_module:f"),
            await bench.run("worker_probes:no_such_function"),
        )

    folder, module, function = on_bench(tmp_path, work)
    assert (folder.status, module.status, function.status) == (1, 1, 1)
    assert "FileNotFoundError" in folder.err
    assert "ModuleNotFoundError" in module.err
    assert "AttributeError" in function.err


def test_output_that_nobody_reads(tmp_path: Path) -> None:
    async def work(bench: Bench) -> int:
        reading, writing = os.pipe()
        os.close(reading)
        try:
            fork = await bench.surely("print_lines", out=writing)
        finally:
            os.close(writing)
        return await fork.wait()

    # Python's own: an error where it is written, or 120 where it is at the end.
    assert on_bench(tmp_path, work) in (1, 120)


@pytest.mark.parametrize("method", ["spawn", "fork", "forkserver"])
def test_processes_of_its_own(tmp_path: Path, method: str) -> None:
    async def work(bench: Bench) -> Result:
        return await bench.run("processes", method)

    result = on_bench(tmp_path, work, preload=("worker_probes",))
    assert (result.status, result.out.split("\n")[:2]) == (0, ["[0, 1, 4, 9]", "42"]), result.err


@pytest.mark.parametrize(
    ("call", "reason"),
    [("start_thread", "started threads"), ("open_socket", "opened a socket"), ("open_file", "opened /.*probes.py")],
)
def test_imports_that_cannot_be_forked(tmp_path: Path, call: str, reason: str) -> None:
    (tmp_path / "heavy.py").write_text(f"import worker_probes\nworker_probes.{call}()\n")

    async def work(bench: Bench) -> list[str]:
        plain = bench.host()
        for _ in range(3):
            result = await bench.run("end", modules=("heavy",))
            assert (result.status, result.err) == (0, "")
            await until(lambda: not any(entry.starting for entry in bench.pool._entries.values()))
        assert bench.host() is plain
        assert bench.kinds() == [()]
        return bench.notes

    (note,) = on_bench(tmp_path, work, modules=tmp_path)
    assert note.startswith("Runs start without their imports done: an import ")
    assert re.search(reason, note)


def test_a_plain_template_that_cannot_be_forked(tmp_path: Path) -> None:
    async def work(bench: Bench) -> list[str]:
        assert await bench.begin("end") is None
        assert await bench.begin("end") is None
        return bench.notes

    (note,) = on_bench(tmp_path, work, warm=False, calls=("worker_probes:start_thread",))
    assert note.startswith("Runs start in processes of their own: an import started threads (python")


@pytest.mark.parametrize("module", ["polars", "pyarrow", "lightgbm", "matplotlib.pyplot"])
def test_libraries_that_can_be_forked(tmp_path: Path, module: str) -> None:
    pytest.importorskip(module.partition(".")[0])

    async def work(bench: Bench) -> list[str]:
        assert (await bench.run("end")).status == 0
        return bench.notes

    assert on_bench(tmp_path, work, preload=(module,)) == []


def test_modules_that_are_not_there_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("1 / 0\n")
    (tmp_path / "whole.py").write_text("")

    async def work(bench: Bench) -> tuple[list[tuple[str, ...]], list[str]]:
        modules = ("missing.module", "broken", "whole")
        await bench.surely("end", modules=modules)
        await until(lambda: len(bench.kinds()) == 2)
        assert (await bench.run("json:loads", '"whole"', modules=modules)).status == 0
        return bench.kinds(), bench.notes

    kinds, notes = on_bench(tmp_path, work, modules=tmp_path)
    assert kinds == [(), ("missing.module", "broken", "whole")]
    assert notes == []
