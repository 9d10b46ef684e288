"""Runs forked from templates: each is a process of its own; templates are made, replaced and limited as they should."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from shipway.worker import host as host_module
from shipway.worker.fork import Fork
from shipway.worker.host import Host
from shipway.worker.orphans import PR_SET_CHILD_SUBREAPER
from shipway.worker.pool import AVAILABLE, Limits, Pool, Spec

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="runs are forked on Linux only")

PROBES = Path(__file__).parent
PATIENCE_SECONDS = 120.0
T = TypeVar("T")


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    """Take back that this process adopts orphans, and see that a test has left no process behind."""
    before = {child.pid for child in psutil.Process().children(recursive=True)}
    yield
    try:
        assert {child.pid for child in psutil.Process().children(recursive=True)} <= before
    finally:
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 0, 0, 0, 0)


@dataclass(frozen=True)
class Result:
    """What came of a run."""

    status: int
    out: str
    err: str
    seconds: float
    bytes: int

    def json(self) -> Any:
        assert (self.status, self.err) == (0, "")
        return json.loads(self.out)


@dataclass
class Bench:
    """A pool, and runs in it.

    Attributes:
        pool: the pool.
        folder: where output goes and where runs start.
        environment: of its runs.
        notes: what the pool has said.
    """

    pool: Pool
    folder: Path
    environment: dict[str, str]
    notes: list[str]

    async def begin(
        self,
        entry: str,
        argument: str = "",
        *,
        out: int | None = None,
        err: int | None = None,
        third: int | None = None,
        environment: dict[str, str] | None = None,
        folder: Path | None = None,
        modules: tuple[str, ...] = (),
    ) -> Fork | None:
        nothing = os.open(os.devnull, os.O_RDWR)
        try:
            descriptors = [nothing, nothing if out is None else out, nothing if err is None else err]
            descriptors += [] if third is None else [third]
            place = str(folder or self.folder)
            name = f"worker_probes:{entry}" if ":" not in entry else entry
            return await self.pool.fork(name, argument, environment or self.environment, place, descriptors, modules)
        finally:
            os.close(nothing)

    async def surely(self, entry: str, argument: str = "", **options: Any) -> Fork:
        fork = await self.begin(entry, argument, **options)
        assert fork, self.notes
        return fork

    async def run(self, entry: str, argument: str = "", **options: Any) -> Result:
        paths = [self.folder / f"{random.getrandbits(60):x}.{name}" for name in ("out", "err")]
        out, err = (os.open(path, os.O_CREAT | os.O_WRONLY) for path in paths)
        try:
            fork = await self.surely(entry, argument, out=out, err=err, **options)
        finally:
            os.close(out)
            os.close(err)
        status = await fork.wait()
        texts = [path.read_text() for path in paths]
        return Result(status, texts[0], texts[1], fork.seconds, fork.bytes)

    def host(self, spec: Spec | None = None) -> Host:
        """Return the template of a kind; the plain one if none is said."""
        host = self.entry(spec).host
        assert isinstance(host, Host)
        return host

    def entry(self, spec: Spec | None = None) -> Any:
        """Return the place of a template in the pool."""
        return self.pool._entries[spec or self.base]

    @property
    def base(self) -> Spec:
        assert self.pool._base
        return self.pool._base

    def kinds(self) -> list[tuple[str, ...]]:
        """Return the modules of the templates that are there."""
        return sorted(spec.modules for spec, entry in self.pool._entries.items() if entry.host and entry.host.ready)


def on_bench(
    folder: Path,
    work: Callable[[Bench], Awaitable[T]],
    *,
    warm: bool = True,
    modules: Path | None = None,
    preload: Sequence[str] = (),
    calls: Sequence[str] = (),
    **options: Any,
) -> T:
    """Do some work with a pool whose templates can import the probes and what is in `modules`."""
    paths = [str(PROBES), str(modules or ""), os.environ.get("PYTHONPATH", "")]

    async def main() -> T:
        whole = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))}
        notes: list[str] = []
        async with asyncio.timeout(PATIENCE_SECONDS):
            pool = Pool(tuple(preload), tuple(calls), ("OWN_",), note=notes.append, **options)
            async with pool:
                assert await pool.warm_up(whole) is warm, notes
                return await work(Bench(pool, folder, whole, notes))

    return asyncio.run(main())


async def until(condition: Callable[[], object], what: str = "it") -> None:
    """Wait for a condition."""
    for _ in range(2000):
        if condition():
            return
        await asyncio.sleep(0.01)
    pytest.fail(f"{what} did not come about")


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


def test_an_environment_gets_a_template_when_it_comes_again(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        other = bench.environment | {"OTHER": "1"}
        assert await bench.begin("end", environment=other) is None
        assert len(bench.pool._entries) == 1
        # What belongs to one run makes no other environment.
        assert await bench.begin("end", environment=other | {"OWN_RUN": "2"}) is None
        await until(lambda: bench.pool.templates == 2)
        assert await (await bench.surely("end", environment=other | {"OWN_RUN": "3"})).wait() == 0

    on_bench(tmp_path, work)


def test_replaced_after_its_uses(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        first = bench.host()
        long = await bench.surely("sleep_then_exit", "3 4")
        for _ in range(2):
            await bench.run("end")
        await bench.run("end")
        await until(lambda: bench.host() is not first)
        # The old one lives until its last run has ended.
        assert first.process.returncode is None
        assert await long.wait() == 4
        await until(lambda: first.process.returncode is not None)
        assert bench.notes == []

    on_bench(tmp_path, work, limits=Limits(uses=3))


def test_replaced_when_what_is_installed_changes(tmp_path: Path) -> None:
    stamps = ["before"]

    async def work(bench: Bench) -> None:
        first = bench.host()
        await bench.run("end")
        assert bench.host() is first
        stamps[0] = "after"
        await bench.run("end")
        await until(lambda: bench.host() is not first)
        assert (await bench.run("end")).status == 0

    on_bench(tmp_path, work, stamp=lambda: stamps[0])


def test_replaced_when_it_is_killed(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        for _ in range(4):
            first = bench.host()
            first.process.kill()
            await until(lambda first=first: bench.pool.templates and bench.host() is not first)  # type: ignore[misc]
            assert (await bench.run("end")).status == 0
        assert bench.notes == []

    on_bench(tmp_path, work)


def test_given_up_when_it_only_ever_dies(tmp_path: Path) -> None:
    async def work(bench: Bench) -> list[str]:
        for _ in range(3):
            first = bench.host()
            first.process.kill()
            await until(lambda: bench.notes or bench.entry().host not in (first, None))  # noqa: B023
        assert await bench.begin("end") is None
        return bench.notes

    (note,) = on_bench(tmp_path, work)
    assert note == "Runs start in processes of their own: their template has ended again and again"


def test_given_up_when_it_never_starts(tmp_path: Path) -> None:
    async def work(bench: Bench) -> list[str]:
        for _ in range(4):
            assert await bench.begin("end") is None
            await until(lambda: not any(entry.starting for entry in bench.pool._entries.values()))
        return bench.notes

    (note,) = on_bench(tmp_path, work, warm=False, calls=("worker_probes:end_at_once",))
    assert note == "Runs start in processes of their own: a template could not be started: it ended"


def test_the_least_used_makes_room(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        for module in ("csv", "wave", "cmd"):
            await bench.run("end", modules=(module,))
            await until(lambda module=module: (module,) in bench.kinds())  # type: ignore[misc]
            await bench.run("end", modules=("csv",))
        await until(lambda: bench.kinds() == [(), ("cmd",), ("csv",)])
        # The plain one, which most runs need, stays although it was not used.
        await bench.run("end", modules=("wave",))
        await until(lambda: bench.kinds() == [(), ("csv",), ("wave",)])

    on_bench(tmp_path, work, limits=Limits(templates=3))


def test_memory_has_a_limit(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text("import worker_probes\nworker_probes.take_memory()\n")

    async def work(bench: Bench) -> list[str]:
        assert bench.host().bytes < 60 << 20
        for _ in range(3):
            await bench.run("end", modules=("large",))
            await until(lambda: not any(entry.starting for entry in bench.pool._entries.values()))
        assert bench.kinds() == [()]
        return bench.notes

    (note,) = on_bench(tmp_path, work, modules=tmp_path, limits=Limits(bytes=100 << 20))
    assert note.startswith("Runs start without their imports done: a template has no room, with 1")


def test_no_more_processes(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        long = await bench.surely("sleep_then_exit", "1 4")
        assert await bench.begin("end") is None
        # The run that is there is not touched.
        assert await long.wait() == 4
        assert bench.pool.templates == 1

    on_bench(tmp_path, work, calls=("worker_probes:break_fork",))


def test_an_environment_that_cannot_be_sent(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        own = bench.environment | {"OWN_NAME": os.fsdecode(b"\xff")}
        assert await bench.begin("end", environment=own) is None
        assert await bench.begin("end", "x" * (17 << 20)) is None
        assert (await bench.run("end")).status == 0

    on_bench(tmp_path, work)


def test_an_order_larger_than_the_connection_holds(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        large = {f"OWN_{number}": "x" * 100_000 for number in range(20)}
        answers = await asyncio.gather(*(bench.run("report", environment=bench.environment | large) for _ in range(4)))
        for answer in answers:
            assert answer.json()["environment"].keys() >= large.keys()

    on_bench(tmp_path, work)


def test_an_order_that_is_called_off(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        template = bench.host().process.pid
        own = bench.environment | {f"OWN_{number}": "x" * 100_000 for number in range(20)}
        for _ in range(20):
            order = asyncio.create_task(bench.begin("sleep", "600", environment=own))
            await asyncio.sleep(random.Random(4).random() / 100)  # noqa: S311
            order.cancel()
            with pytest.raises(asyncio.CancelledError):
                await order
        # What came of them is ended, and the connection is as good as before.
        assert (await bench.run("end")).status == 0
        assert bench.host().process.pid == template
        await until(lambda: not psutil.Process(template).children(), "the end of what nobody wants")

    on_bench(tmp_path, work)


def test_left_while_a_template_starts(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        await bench.run("end", modules=("csv",))
        await asyncio.sleep(0.05)

    on_bench(tmp_path, work)


def test_left_while_runs_go_on(tmp_path: Path) -> None:
    path = tmp_path / "polite"

    async def work(bench: Bench) -> Fork:
        fork = await bench.surely("polite", str(path))
        await until(path.exists)
        return fork

    fork = on_bench(tmp_path, work)
    assert fork.returncode == 0
    assert (tmp_path / "polite.asked").exists()


def test_a_template_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "START_SECONDS", 1.0)
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(600)\n")

    async def work(bench: Bench) -> None:
        assert await bench.begin("end") is None

    on_bench(tmp_path, work, warm=False, modules=tmp_path, preload=("slow",))


def test_signals_reach_the_whole_group(tmp_path: Path) -> None:
    path = tmp_path / "children"

    async def work(bench: Bench) -> None:
        fork = await bench.surely("leave_child", f"{path} 600")
        await until(path.exists)
        children = [int(pid) for pid in path.read_text().split()]
        fork.send_signal(signal.SIGTERM)
        assert await fork.wait() == -signal.SIGTERM
        await until(lambda: not any(psutil.pid_exists(pid) for pid in children))

    on_bench(tmp_path, work)
