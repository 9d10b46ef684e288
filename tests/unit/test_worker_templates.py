"""Templates that runs are forked from: made, replaced and limited as they should be."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import psutil
import pytest
from tests.unit.bench import Bench, nothing_is_left, on_bench, until

from shipway.worker import host as host_module
from shipway.worker.fork import Fork
from shipway.worker.pool import AVAILABLE, Limits

__all__ = ["nothing_is_left"]

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="runs are forked on Linux only")


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
