"""Templates, runs and workers that die, stop or go on and on: runs end as they should, and nothing is left behind."""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from tests.unit.bench import PROBES, Bench, nothing_is_left, on_bench, until

from shipway.worker import host as host_module
from shipway.worker import pool as pool_module
from shipway.worker.fork import Fork
from shipway.worker.pool import AVAILABLE, Pool

__all__ = ["nothing_is_left"]

pytestmark = pytest.mark.skipif(not AVAILABLE, reason="runs are forked on Linux only")

ROUNDS = 60
"""In each, four runs begin, one or two of which are killed, and in every other a template is."""
MOST_ROUNDS = 5 * ROUNDS
"""A busy machine has a template less often, so that more rounds are needed for as many runs of one."""
KINDS: tuple[tuple[str, ...], ...] = ((), ("csv",))
RUNS_IN_A_ROW = 300


def living(*pids: int) -> list[int]:
    """Return those of some processes that are there, zombies included."""
    return [pid for pid in pids if psutil.pid_exists(pid)]


def read_pids(path: Path) -> list[int]:
    return [int(pid) for pid in path.read_text().split()]


def test_a_template_is_killed_while_runs_go_on(tmp_path: Path) -> None:
    path = tmp_path / "children"

    before = {child.pid for child in psutil.Process().children()}

    async def work(bench: Bench) -> None:
        forks = [await bench.surely("sleep_then_exit", f"1 {status}") for status in range(10)]
        killed = await bench.surely("sleep", "600")
        leaving = await bench.surely("leave_child", f"{path} 1")
        await until(path.exists)
        template = bench.host().process.pid
        os.kill(template, signal.SIGKILL)
        await until(lambda: bench.notes)
        assert bench.notes == ["A template ended unexpectedly; 12 of its runs go on without it"]
        killed.send_signal(signal.SIGTERM)
        assert await killed.wait() == -signal.SIGTERM
        assert [await fork.wait() for fork in forks] == list(range(10))
        assert forks[0].seconds > 0
        assert forks[0].bytes > 1 << 20
        assert await leaving.wait() == 0
        # The next run has a template again.
        await until(lambda: bench.pool.templates == 1)
        assert (await bench.run("end")).status == 0
        pids = [template, *(fork.pid for fork in (*forks, killed, leaving)), *read_pids(path)]
        await until(lambda: not living(*pids), "the end of all that belonged to the template")
        # None of them is a zombie of this process either.
        assert {child.pid for child in psutil.Process().children()} - before == {bench.host().process.pid}

    on_bench(tmp_path, work)


def test_orphans_end_with_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool_module, "GRACE_SECONDS", 1.0)
    paths = [tmp_path / "polite", tmp_path / "stubborn"]

    async def work(bench: Bench) -> list[Fork]:
        forks = [await bench.surely(path.name, str(path)) for path in paths]
        await until(lambda: all(path.exists() for path in paths))
        bench.host().process.kill()
        await until(lambda: bench.notes)
        return forks

    polite, stubborn = on_bench(tmp_path, work)
    assert (polite.returncode, stubborn.returncode) == (0, -signal.SIGKILL)
    assert (tmp_path / "polite.asked").exists()


def test_runs_that_do_not_want_to_end(tmp_path: Path) -> None:
    path = tmp_path / "stubborn"

    async def work(bench: Bench) -> Fork:
        fork = await bench.surely("stubborn", str(path))
        await until(path.exists)
        return fork

    began = time.monotonic()
    fork = on_bench(tmp_path, work, calls=("worker_probes:little_grace",))
    assert fork.returncode == -signal.SIGKILL
    assert time.monotonic() - began < 25


def test_a_template_that_is_stopped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(host_module, "FORK_SECONDS", 3.0)

    async def work(bench: Bench) -> None:
        before = await bench.surely("sleep_then_exit", "5 4")
        stopped = bench.host().process.pid
        os.kill(stopped, signal.SIGSTOP)
        # It is ended for its silence: this run needs a process of its own, and the next finds a new template.
        assert await bench.begin("end") is None
        await until(lambda: not psutil.pid_exists(stopped))
        await until(lambda: bench.pool.templates == 1)
        assert (await bench.run("end")).status == 0
        assert await before.wait() == 4

    on_bench(tmp_path, work)


def test_a_template_that_stops_for_a_while(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        template = bench.host().process.pid
        os.kill(template, signal.SIGSTOP)
        order = asyncio.create_task(bench.run("end", "exit"))
        await asyncio.sleep(0.5)
        assert not order.done()
        os.kill(template, signal.SIGCONT)
        assert (await order).status == 3
        assert bench.host().process.pid == template

    on_bench(tmp_path, work)


def test_a_template_that_is_asked_to_end(tmp_path: Path) -> None:
    async def work(bench: Bench) -> None:
        run = await bench.surely("sleep_then_exit", "1 4")
        template = bench.host()
        os.kill(template.process.pid, signal.SIGTERM)
        # As when the whole service is: its runs go on, and their ends are told.
        assert await run.wait() == 4
        await until(lambda: bench.pool.templates == 1 and bench.host() is not template)
        assert (await bench.run("end")).status == 0
        assert bench.notes == []

    on_bench(tmp_path, work)


def test_what_a_run_leaves_behind_ends_with_it(tmp_path: Path) -> None:
    path = tmp_path / "children"

    async def work(bench: Bench) -> None:
        fork = await bench.surely("leave_child", f"{path} 0")
        assert await fork.wait() == 0
        await until(lambda: not living(*read_pids(path)))

    on_bench(tmp_path, work)


def test_a_worker_is_killed(tmp_path: Path) -> None:
    worker = subprocess.Popen(
        [sys.executable, "-m", "tests.faults.test_worker_faults", str(tmp_path)],
        cwd=PROBES.parents[1],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert worker.stdout
        pids: dict[str, list[int]] = json.loads(worker.stdout.readline())
        everything = [pid for each in pids.values() for pid in each]
        assert living(*everything) == everything
        worker.kill()
        began = time.monotonic()
        while living(*everything) and time.monotonic() - began < 30:
            time.sleep(0.05)
        assert living(*everything) == []
    finally:
        worker.kill()
        worker.wait()
        assert worker.stdout
        worker.stdout.close()
    # It was asked before it was made to.
    assert (tmp_path / "polite.asked").exists()


def test_killed_at_random(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Templates and runs are killed and stopped: every run that began ends, with its own status or the signal's."""
    monkeypatch.setattr(host_module, "FORK_SECONDS", 1.0)
    chance = random.Random(20)  # noqa: S311 - for variety
    counts = {"began": 0, "killed": 0, "own": 0}
    pids = set()

    async def one(bench: Bench, number: int) -> None:
        status = number % 50
        fork = await bench.begin("sleep_then_exit", f"{chance.random() / 5} {status}", modules=KINDS[number % 2])
        if fork is None:
            counts["own"] += 1
            return
        counts["began"] += 1
        pids.add(fork.pid)
        if victim := number % 3 == 0:
            fork.send_signal(signal.SIGKILL)
        ended = await asyncio.wait_for(fork.wait(), 30)
        counts["killed"] += ended == -signal.SIGKILL
        assert ended in ((status, -signal.SIGKILL) if victim else (status,))

    before = {child.pid for child in psutil.Process().children(recursive=True)}

    def enough() -> bool:
        return counts["began"] > 2 * ROUNDS and counts["killed"] > ROUNDS / 4

    async def work(bench: Bench) -> None:
        def settled() -> bool:
            return not any(entry.starting for entry in bench.pool._entries.values())

        for number in range(MOST_ROUNDS):
            if number >= ROUNDS and enough():
                break
            if number % 2:
                await until(settled)
            runs = [asyncio.create_task(one(bench, 4 * number + each)) for each in range(4)]
            await asyncio.sleep(chance.random() / 10)
            hosts = [entry.host for entry in bench.pool._entries.values() if entry.host and entry.host.ready]
            if number % 2 and hosts:
                victim = chance.choice(hosts).process.pid
                pids.add(victim)
                os.kill(victim, signal.SIGSTOP if number % 25 == 1 else signal.SIGKILL)
            if number % 25 == 1:
                # That it is stopped shows when something is asked of it.
                await asyncio.gather(*(bench.begin("end", modules=modules) for modules in KINDS))
            await asyncio.gather(*runs)
            # Enough of the time there is one to be killed.
            for entry in bench.pool._entries.values():
                entry.failures = 0
        await until(settled)
        hosts = [entry.host for entry in bench.pool._entries.values() if entry.host]
        templates = {host.process.pid for host in hosts}
        await until(lambda: not living(*(pids - templates)), "the end of all")
        await until(lambda: {child.pid for child in psutil.Process().children(recursive=True)} - before <= templates)

    on_bench(tmp_path, work)
    assert enough(), counts


def test_many_runs_in_a_row(tmp_path: Path) -> None:
    """Neither the worker nor the template holds more after many runs than after a few."""

    def held(process: psutil.Process) -> dict[str, int]:
        return {
            "descriptors": process.num_fds(),
            "threads": process.num_threads(),
            "children": len(process.children()),
            "memory": process.memory_info().rss,
        }

    async def work(bench: Bench) -> None:
        async def some(count: int) -> None:
            for start in range(0, count, 5):
                own = bench.environment | {"OWN_RUN": str(start)}
                forks = [await bench.surely("sleep_then_exit", f"0 {n}", environment=own) for n in range(5)]
                assert [await fork.wait() for fork in forks] == list(range(5))

        parties = psutil.Process(), psutil.Process(bench.host().process.pid)
        await some(50)
        before = [held(party) for party in parties]
        await some(RUNS_IN_A_ROW)
        after = [held(party) for party in parties]
        for early, late in zip(before, after, strict=True):
            # A worker's memory is that of the whole test process, which has other things in it.
            assert late.pop("memory") - early.pop("memory") < 4 << 20
            assert late == early
        assert bench.pool._seen.total() == RUNS_IN_A_ROW + 50
        assert (len(bench.pool._seen), len(bench.pool._tasks), len(bench.pool._orphans)) == (1, 0, 0)
        host = bench.host()
        assert (host._forks, host._waiting) == ({}, {})

    on_bench(tmp_path, work, preload=("worker_probes",))


async def _worker(folder: Path) -> None:
    """A worker with runs of all kinds, that says which processes there are and goes on for ever."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(PROBES), os.environ.get("PYTHONPATH", "")])}
    async with Pool((), ("worker_probes:little_grace",), ("OWN_",)) as pool:
        await pool.warm_up(environment)
        bench = Bench(pool, folder, environment, [])
        runs = [await bench.surely(name, str(folder / name)) for name in ("polite", "stubborn")]
        runs.append(await bench.surely("leave_child", f"{folder / 'children'} 600"))
        await until(lambda: all((folder / name).exists() for name in ("polite", "stubborn", "children")))
        pids = {
            "template": [bench.host().process.pid],
            "runs": [run.pid for run in runs],
            "children": read_pids(folder / "children"),
        }
        print(json.dumps(pids), flush=True)
        await asyncio.sleep(600)


if __name__ == "__main__":
    asyncio.run(_worker(Path(sys.argv[1])))
