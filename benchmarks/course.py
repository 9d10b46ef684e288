"""Releases by several tools in turns: every piece of work, on one folder, timed and then counted at a proxy."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.alone import Job, Took, measure
from benchmarks.folders import SETTLED_SECONDS, Kind, change_one, make
from benchmarks.proxy import Proxy
from shipway.blob import LARGE_FILE

FIRST, UNCHANGED, CHANGED = "first build", "nothing changed", "one file changed"
COLD, WARM = "cold checkout", "warm checkout"
WORKS = (FIRST, UNCHANGED, CHANGED, COLD, WARM)
"""The pieces of work, in the order they build on each other."""

COLD_COPY = "copy"
"""Name of the folder that a cold checkout makes; what serves the warm ones after it lies beside it."""

WARM_UP = -1
"""Number of a round that is not measured."""


@dataclass(frozen=True)
class Tool:
    """Something that brings code into a bucket and back.

    Attributes:
        name: what the tables call it.
        works: which function does which piece of work, `module:function`.
        slow: whether one round of it takes as long as many of the others.
        after: tool whose uploads it checks out, where it is not its own.
        kinds: the kinds of folder it is measured with; by default all.
    """

    name: str
    works: Mapping[str, str]
    slow: bool = False
    after: str = ""
    kinds: tuple[Kind, ...] = ()

    @property
    def home(self) -> str:
        """The tool that has the state and the objects this one works on."""
        return self.after or self.name


@dataclass
class Found:
    """What one piece of work took one tool.

    Attributes:
        rounds: each time it was done, but for those that were counted.
        requests: requests seen at the proxy.
    """

    rounds: list[Took] = field(default_factory=list)
    requests: int = 0

    @property
    def seconds(self) -> float:
        """Median of the wall times."""
        return median(took.seconds for took in self.rounds)

    @property
    def peak(self) -> int:
        """Most bytes of memory in any round."""
        return max(took.peak for took in self.rounds)


Results = dict[tuple[str, str], Found]
"""By piece of work and tool."""


@dataclass(frozen=True)
class Course:
    """One kind of folder, and the tools that are measured on it.

    Attributes:
        kind: what the folder holds.
        tools: the tools, which take turns.
        place: folder for all files.
        bucket: bucket for all objects.
        proxy: proxy in front of the server.
        server: the server's own address.
        environment: what the processes run with.
    """

    kind: Kind
    tools: Sequence[Tool]
    place: Path
    bucket: str
    proxy: Proxy
    server: str
    environment: Mapping[str, str]

    def run(self, *, rounds: int, slow_rounds: int) -> Results:
        """Do everything so many times against the server, and once through the proxy.

        Raises:
            RuntimeError: a tool failed.
        """
        make(self.kind, self._folder)
        time.sleep(SETTLED_SECONDS)
        results = {(work, tool.name): Found() for tool in self.tools for work in tool.works}
        self._turns(results, rounds, slow_rounds, counted=False)
        self._turns(results, 1, 1, counted=True)
        return results

    def _turns(self, results: Results, rounds: int, slow_rounds: int, *, counted: bool) -> None:
        for work in WORKS:
            for number in range(rounds):
                if work == CHANGED:
                    change_one(self.kind, self._folder)
                # Each is first in turn: whoever comes after all the others finds another machine than who comes first.
                for tool in (*self.tools[number % len(self.tools) :], *self.tools[: number % len(self.tools)]):
                    # The slow ones join in the last rounds, so that in the end all have seen the same changes.
                    late = tool.slow and number < rounds - slow_rounds
                    if work not in tool.works or late:
                        continue
                    if work == COLD and number == 0 and not counted and self.kind.size >= LARGE_FILE:
                        # What its server has in memory is what was uploaded last; the first would wait for the disk.
                        self._do(tool, work, WARM_UP, rounds - 1, counted)
                    before = self.proxy.requests
                    took = self._do(tool, work, number, rounds - 1, counted)
                    found = results[work, tool.name]
                    if counted:
                        found.requests = self.proxy.requests - before
                    else:
                        found.rounds.append(took)

    def _do(self, tool: Tool, work: str, number: int, last: int, counted: bool) -> Took:
        # Every first build begins with nothing; what comes after stands on the last of them.
        build = "counted" if counted else f"round-{number if work == FIRST else last}"
        room = self.place / self.kind.slug / tool.home / build
        # Likewise every cold checkout, and beside the last of them the warm ones.
        copies = room / tool.name / f"{number if work == COLD else last}"
        job = Job(
            folder=str(self._folder),
            target=str(copies / (f"warm-{number}" if work == WARM else COLD_COPY)),
            state=str(room / "state"),
            bucket=self.bucket,
            prefix=f"{self.kind.slug}/{tool.home}/{build}",
            endpoint_url=self.proxy.endpoint_url if counted else self.server,
            server=self.server,
        )
        # What was written before is on the disk and no longer in the way.
        os.sync()
        took = measure(tool.works[work], job, self.environment)
        if work == COLD and number != last and self.kind.size >= LARGE_FILE:
            # Gigabytes of old copies fill the machine's memory; small files stay, see `bench_release._place`.
            shutil.rmtree(copies)
        return took

    @property
    def _folder(self) -> Path:
        return self.place / self.kind.slug / "code"
