"""The templates of a worker: which there are, which one a run is forked from, and when one is replaced."""

from __future__ import annotations

import asyncio
import itertools
import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field

from shipway.worker.fork import Fork, TemplateLostError
from shipway.worker.host import Host
from shipway.worker.orphans import adopt_orphans
from shipway.worker.wire import Order, Preload

AVAILABLE = sys.platform == "linux"
"""Whether runs can be forked here. On macOS a process that was forked and goes on without exec may not use the
system's own libraries, and Windows has no fork."""

ENOUGH_USES = 2
"""An environment that comes once may never come again: only the second run in it makes a template for it."""

MOST_SEEN = 10_000
"""Environments that are remembered, by a number each."""

FAILURES = 3
"""A template that could not be started so many times in a row is not tried again."""

GRACE_SECONDS = 30.0
"""How long runs that have lost their template may take to end when the pool does; as templates give it to theirs."""


@dataclass(frozen=True)
class Spec:
    """What makes two templates alike.

    Attributes:
        environment: environment variables, sorted, without those that belong to one run.
        modules: what is imported besides what all templates import, in order.
    """

    environment: tuple[tuple[str, str], ...]
    modules: tuple[str, ...] = ()


@dataclass
class Limits:
    """How much a pool may hold.

    Attributes:
        templates: most templates at a time.
        bytes: most memory of them together, as each measures its own.
        uses: runs after which a template is replaced.
    """

    templates: int = 6
    bytes: int = 2 << 30
    uses: int = 1000


@dataclass
class _Entry:
    """A template of the pool, or the place of one."""

    host: Host | None = None
    starting: asyncio.Task[None] | None = None
    failures: int = 0
    used: float = 0.0
    uses: int = 0
    stamp: object = None


@dataclass
class Pool:
    """Templates, kept ready.

    Use it as an asynchronous context manager; when it is left, the templates end and with them the runs that are still
    there.

    Attributes:
        preload: modules that every template imports.
        calls: functions that every template then calls, `package.module:function`.
        own: prefixes of the names of environment variables that belong to one run.
        keep: descriptors that every template holds open as long as it lives.
        stamp: returns something that changes when what is installed does; templates of before are then replaced.
        note: told in a sentence what people may want to know.
        limits: how much it may hold.
    """

    preload: Sequence[str]
    calls: Sequence[str]
    own: tuple[str, ...]
    keep: tuple[int, ...] = ()
    stamp: Callable[[], object] = lambda: None
    note: Callable[[str], None] = lambda _text: None
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        self._entries: dict[Spec, _Entry] = {}
        self._retired: set[Host] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._seen: Counter[int] = Counter()
        self._orphans: dict[Fork, asyncio.Task[None]] = {}
        self._unfit: dict[tuple[str, ...], str] = {}
        self._numbers = itertools.count(1)
        self._base: Spec | None = None
        self._closing = False

    async def __aenter__(self) -> Pool:
        adopt_orphans()
        return self

    async def __aexit__(self, *_exc: object) -> None:
        self._closing = True
        starting = [entry.starting for entry in self._entries.values() if entry.starting]
        for task in starting:
            task.cancel()
        await asyncio.gather(*starting, return_exceptions=True)
        hosts = [entry.host for entry in self._entries.values() if entry.host]
        await asyncio.gather(*(host.close() for host in (*hosts, *self._retired)))
        for number, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, None)):
            for fork in self._orphans:
                fork.send_signal(number)
            if self._orphans:
                await asyncio.wait(self._orphans.values(), timeout=seconds)

    @property
    def templates(self) -> int:
        """How many templates are ready."""
        return sum(1 for entry in self._entries.values() if entry.host and entry.host.ready)

    async def warm_up(self, environment: Mapping[str, str]) -> bool:
        """Make the template that most runs will need, and wait for it; tell whether there is one."""
        self._base = spec = Spec(self._common(environment))
        self._want(spec)
        starting = self._entries[spec].starting
        if starting:
            await asyncio.wait([starting])
        entry = self._entries.get(spec)
        return bool(entry and entry.host and entry.host.ready)

    def expect(self, environment: Mapping[str, str], modules: tuple[str, ...]) -> None:
        """Make a template for runs that import `modules`, in the background: some will come."""
        if modules and modules not in self._unfit:
            self._want(Spec(self._common(environment), modules))

    async def fork(
        self,
        entry: str,
        argument: str,
        environment: Mapping[str, str],
        folder: str,
        descriptors: Sequence[int],
        modules: tuple[str, ...] = (),
    ) -> Fork | None:
        """Begin a run in the best template that is ready; None when there is none, so that a process must be started.

        Args:
            entry: what it executes, `package.module:function`.
            argument: what that is called with.
            environment: all of its environment variables.
            folder: where it starts.
            descriptors: its standard input, output and error, and what follows.
            modules: what runs like it import; a template that has them is made in the background for the next.
        """
        common = self._common(environment)
        if len(self._seen) > MOST_SEEN:
            self._seen.clear()
        self._seen[hash(common)] += 1
        plain = Spec(common)
        wanted = Spec(common, modules) if modules and modules not in self._unfit else plain
        if self._seen[hash(common)] >= ENOUGH_USES or plain == self._base:
            self._want(wanted)
        for spec in dict.fromkeys((wanted, plain)):
            place = self._entries.get(spec)
            if place is None or place.host is None or not place.host.ready:
                continue
            order = Order(next(self._numbers), entry, argument, dict(environment), folder)
            place.used = time.monotonic()
            place.uses += 1
            try:
                fork = await place.host.fork(order, descriptors)
            except TemplateLostError:
                continue
            place.failures = 0
            return fork
        return None

    def _common(self, environment: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
        return tuple(sorted(item for item in environment.items() if not item[0].startswith(self.own)))

    def _want(self, spec: Spec) -> None:
        """See to it that there will be a template of this kind, and that what is worn out is replaced."""
        entry = self._entries.setdefault(spec, _Entry())
        entry.used = time.monotonic()
        if entry.starting or entry.failures >= FAILURES or self._closing:
            return
        stamp = self.stamp()
        if entry.host and entry.host.ready and entry.uses < self.limits.uses and entry.stamp == stamp:
            return
        entry.starting = self._spawn(self._start(spec, entry, stamp))

    def _spawn(self, work: Coroutine[None, None, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _start(self, spec: Spec, entry: _Entry, stamp: object) -> None:
        preload = Preload((*self.preload, *spec.modules), tuple(self.calls))
        try:
            host = await Host.start(dict(spec.environment), preload, keep=self.keep, lost=self._lost)
        except TemplateLostError as error:
            self._failed(spec, entry, str(error), finally_=error.unfit)
        else:
            # The old one serves until the new one can.
            old, entry.host = entry.host, host
            entry.uses, entry.stamp = 0, stamp
            if old:
                self._retire(old)
            self._shrink(spec)
        finally:
            entry.starting = None

    def _failed(self, spec: Spec, entry: _Entry, reason: str, *, finally_: bool = False) -> None:
        """Count a failure; say so when it was the last, as no template of this kind is made any more."""
        entry.failures = FAILURES if finally_ else entry.failures + 1
        if entry.failures < FAILURES:
            return
        if spec.modules:
            # The reason lies in what is imported, whatever the environment.
            self._unfit[spec.modules] = reason
            self.note(f"Runs start without their imports done: {reason}")
        else:
            self.note(f"Runs start in processes of their own: {reason}")

    def _retire(self, host: Host) -> None:
        self._retired.add(host)
        host.retire(self._retired.discard)

    def _shrink(self, newest: Spec) -> None:
        """Let the templates go that were not used for longest, until the rest is within the limits."""
        for spec, entry in sorted(self._entries.items(), key=lambda item: (item[0] == newest, item[1].used)):
            hosts = [entry.host for entry in self._entries.values() if entry.host]
            total = sum(host.bytes for host in hosts)
            if len(hosts) <= self.limits.templates and total <= self.limits.bytes:
                return
            if entry.host and spec != self._base:
                host, entry.host = entry.host, None
                self._retire(host)
                if spec == newest:
                    # It would be made again at each run, for nothing.
                    self._failed(spec, entry, f"a template has no room, with {host.bytes >> 20} MiB", finally_=True)
                elif not entry.starting:
                    del self._entries[spec]

    def _lost(self, host: Host, forks: Sequence[Fork]) -> None:
        """A template has ended: its runs, if there are any, have come to this process, which waits for them itself."""
        self._retired.discard(host)
        for spec, entry in list(self._entries.items()):
            if entry.host is host:
                entry.host = None
                if not self._closing:
                    # Counted until one is forked from: one that only ever dies is not made for ever.
                    self._failed(spec, entry, "their template has ended again and again")
                    self._want(spec)
        if forks:
            self.note(f"A template ended unexpectedly; {len(forks)} of its runs go on without it")
        for fork in forks:
            self._orphans[fork] = task = self._spawn(fork.wait_without_template())
            task.add_done_callback(lambda _, fork=fork: self._orphans.pop(fork))  # type: ignore[misc]
