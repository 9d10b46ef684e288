"""A pool of templates to fork runs from, and what the tests of it do with it."""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import random
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest

from shipway.worker.fork import Fork
from shipway.worker.host import Host
from shipway.worker.orphans import PR_SET_CHILD_SUBREAPER
from shipway.worker.pool import Pool, Spec

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
