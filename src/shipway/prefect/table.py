"""What a worker shows on a terminal: a table of what is going on, below what it and its runs print."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from typing import IO, Self

import psutil
from rich.console import Console, Group
from rich.live import Live as Display
from rich.table import Table
from rich.text import Text

from shipway.prefect.going_on import Live
from shipway.prefect.worker import ShipwayWorker
from shipway.terminal import visible

SECONDS = 1.0
"""Time between two looks at what is going on."""

LONGEST = 1 << 16
"""So many bytes without an end of line are shown as they are."""

ALL_QUEUES = "all queues"


@dataclass(frozen=True)
class Use:
    """What a run takes of the machine: its process and those that it started.

    Attributes:
        cpu: share of a core since the last look, in percent.
        bytes: memory that would be free if the run ended; what it shares with its template is not in it.
    """

    cpu: float
    bytes: int


@dataclass(frozen=True)
class Row:
    """A run in the table.

    Attributes:
        run: its name.
        flow: its flow's name.
        queue: the queue that it came from.
        since: when the worker took it up.
        warm: whether it was forked; None as long as it has no process.
        started: seconds until it had one.
        use: what it takes; None where that is not known yet.
    """

    run: str
    flow: str
    queue: str
    since: datetime
    warm: bool | None = None
    started: float = 0.0
    use: Use | None = None


@dataclass(frozen=True)
class Facts:
    """All that the table says.

    Attributes:
        worker: the worker's name.
        pool: its work pool.
        queues: where it takes runs from; empty for everywhere.
        limit: most runs at once, if there is a limit.
        templates: how many templates are ready.
        ending: whether it takes up no more runs.
        rows: the runs that are shown.
        more: how many runs are not.
    """

    worker: str
    pool: str
    queues: tuple[str, ...] = ()
    limit: int | None = None
    templates: int = 0
    ending: bool = False
    rows: tuple[Row, ...] = ()
    more: int = 0


def picture(facts: Facts) -> Group:
    """Draw the table."""
    count = len(facts.rows) + facts.more
    doing = _many(count, "run") if count else "ending" if facts.ending else "waiting for runs"
    if count and facts.limit is not None:
        doing += f" of at most {facts.limit}"
    if count and facts.ending:
        doing += ", ending"
    # What changes comes first: the end is cut off where the terminal is narrow.
    words = (
        _many(facts.templates, "template"),
        f"pool {facts.pool}",
        ", ".join(facts.queues) or ALL_QUEUES,
        facts.worker,
    )
    head = Text(no_wrap=True, overflow="ellipsis")
    head.append(doing, "bold")
    head.append("".join(f"  {visible(word)}" for word in words))
    if not facts.rows:
        return Group(head)
    table = Table(box=None, padding=(0, 2, 0, 0), header_style="dim")
    # A terminal too narrow takes from the columns that may wrap: names are cut, figures stay whole.
    for title in ("queue", "run", "flow"):
        table.add_column(title)
    table.add_column("since", no_wrap=True)
    for title in ("CPU", "memory", "started in"):
        table.add_column(title, no_wrap=True, justify="right")
    table.add_column("process", no_wrap=True)
    for row in facts.rows:
        table.add_row(*(Text(visible(cell), no_wrap=True, overflow="ellipsis") for cell in _cells(row)))
    return Group(head, table, *([Text(f"and {facts.more} more", "dim")] if facts.more else []))


def _cells(row: Row) -> tuple[str, ...]:
    began = row.warm is not None
    return (
        row.queue,
        row.run,
        row.flow,
        f"{row.since.astimezone():%H:%M:%S}",
        f"{row.use.cpu:.0f} %" if row.use else "",
        f"{row.use.bytes / 1e6:.0f} MB" if row.use else "",
        f"{row.started:.2f} s" if began else "",
        "starting" if not began else "warm" if row.warm else "own",
    )


def _many(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"


class Meter:
    """Measures what runs take. Every run is a session of processes, which has the number of its first one."""

    def __init__(self) -> None:
        self._before: dict[int, tuple[float, float]] = {}

    def measure(self, runs: Iterable[int]) -> dict[int, Use]:
        """Return what each run takes, by its process id; one that has just ended is left out."""
        members: dict[int, list[psutil.Process]] = {run: [] for run in runs}
        for process in psutil.Process().children(recursive=True) if members else ():
            with suppress(OSError):
                members.get(os.getsid(process.pid), []).append(process)
        now = time.monotonic()
        before, self._before = self._before, {}
        uses: dict[int, Use] = {}
        for run, processes in members.items():
            seconds, memory = 0.0, 0
            for process in processes:
                with suppress(psutil.Error):
                    # Processes that have ended are counted with the one that started them.
                    seconds += sum(process.cpu_times()[:4])
                    memory += process.memory_full_info().uss
            # Those that have ended and wait to be looked after have none.
            if memory:
                self._before[run] = (seconds, now)
                last, then = before.get(run, (seconds, now))
                uses[run] = Use(max(0.0, 100 * (seconds - last) / (now - then)) if now > then else 0.0, memory)
        return uses


def look(worker: ShipwayWorker, shown: Sequence[Live], uses: dict[int, Use]) -> Facts:
    """Gather what the table says."""
    return Facts(
        worker.name,
        worker._work_pool_name,
        tuple(sorted(worker._work_queues)),
        worker._limit,
        worker.templates,
        worker.draining,
        tuple(
            Row(
                live.flow_run.name,
                live.flow,
                live.flow_run.work_queue_name or "",
                live.since,
                live.warm if live.handle else None,
                live.started,
                uses.get(_pid(live)),
            )
            for live in shown
        ),
        len(worker.live) - len(shown),
    )


def _pid(live: Live) -> int:
    return (live.handle.pid if live.handle else None) or 0


class Screen:
    """A terminal on which the table stands below everything that this process and its children print.

    They get a pipe in place of the terminal, and what comes out of it is put above the table: a line that went to the
    terminal directly would land in the middle of it. Use it as a context manager.
    """

    def __enter__(self) -> Self:
        """Put the pipe in the place of the terminal."""
        self._terminals = {number: os.dup(number) for number in (1, 2) if os.isatty(number)}
        self._file: IO[str] = os.fdopen(os.dup(self._terminals[1]), "w", encoding=sys.stdout.encoding, errors="replace")
        self.console = Console(file=self._file)
        self._display = Display(
            console=self.console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        source, sink = os.pipe()
        for number in self._terminals:
            os.dup2(sink, number)
        os.close(sink)
        self._reader = threading.Thread(target=self._read, args=(source,), name="screen", daemon=True)
        self._display.start()
        self._reader.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        """Give the terminal back, with all that was printed on it and without the table."""
        sys.stdout.flush()
        sys.stderr.flush()
        for number, terminal in self._terminals.items():
            os.dup2(terminal, number)
            os.close(terminal)
        # It ends with the last process that may print; one that a run has left behind is not waited for.
        self._reader.join(SECONDS)
        self._display.stop()

    def show(self, facts: Facts) -> None:
        """Show the table anew."""
        self._display.update(picture(facts), refresh=True)

    def _read(self, source: int) -> None:
        rest = b""
        while data := os.read(source, LONGEST):
            lines, end, rest = (rest + data).rpartition(b"\n")
            if end:
                self._print(lines)
            if len(rest) >= LONGEST:
                self._print(rest)
                rest = b""
        if rest:
            self._print(rest)

    def _print(self, lines: bytes) -> None:
        # A line that was written over and over, as bars of progress are, is shown as it was last.
        text = lines.replace(b"\r\n", b"\n").decode(errors="replace")
        # Where the terminal is gone runs go on: they must not wait for somebody who reads.
        with suppress(OSError):
            self.console.print(Text.from_ansi(text), soft_wrap=True)


async def watch(worker: ShipwayWorker, screen: Screen) -> None:
    """Keep the table up to date, until cancelled."""
    meter = Meter()
    before: Facts | None = None
    while True:
        # More would not fit, and to measure a run costs something.
        shown = list(worker.live.values())[: max(1, screen.console.height - 4)]
        uses = await asyncio.to_thread(meter.measure, [pid for live in shown if (pid := _pid(live))])
        facts = look(worker, [live for live in shown if live.flow_run.id in worker.live], uses)
        # What does not change stays untouched, so that it can be selected.
        if facts != before:
            screen.show(facts)
            before = facts
        await asyncio.sleep(SECONDS)
