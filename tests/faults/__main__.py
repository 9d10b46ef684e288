"""The long list: `python -m tests.faults [--store N] [--processes N] [--points N] [--stacks N] [--api N] [--seed S]`.

Plays seeded scenarios and prints a table of them: how often each was played, what was lost, how long it took.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
import traceback
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from pathlib import Path

from tests.faults import api_scenarios, point_scenarios, process_scenarios, stack_hardship, store_scenarios
from tests.faults.proxy import faulty_proxy
from tests.faults.stage import HEARTBEAT, staged

from shipway.testing import running_s3_server

ON_ONE_STACK = 40


class Table:
    """Rows of scenarios by name."""

    def __init__(self) -> None:
        self.played: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.recovered: defaultdict[str, list[float]] = defaultdict(list)
        self.faults: Counter[str] = Counter()

    def note(
        self,
        name: str,
        seconds: float,
        *,
        recovered: float | None = None,
        lost: bool = False,
        failed: bool = False,
        faults: int = 1,
    ) -> None:
        """Take note of one scenario."""
        self.played[name] += 1
        self.lost[name] += lost
        self.failed[name] += failed
        self.faults[name] += faults
        self.seconds[name].append(seconds)
        if recovered is not None:
            self.recovered[name].append(recovered)

    def lines(self, failed: str) -> list[str]:
        """Return the table as Markdown."""
        heads = ["scenario", "played", "faults", "lost", failed, "seconds, median", "most"]
        heads += ["recovered after, median", "most"] if self.recovered else []
        rows = [heads, ["---", *["--:"] * (len(heads) - 1)]]
        for name in sorted(self.played):
            counts = [str(count[name]) for count in (self.played, self.faults, self.lost, self.failed)]
            rows.append([name, *counts, *median_and_most(self.seconds[name])])
            rows[-1] += median_and_most(self.recovered[name]) if self.recovered else []
        totals = [str(count.total()) for count in (self.played, self.faults, self.lost, self.failed)]
        rows.append(["**all**", *totals, *[""] * (len(heads) - 5)])
        return [f"| {' | '.join(row)} |" for row in rows] + self.against_heartbeats()

    def against_heartbeats(self) -> list[str]:
        """Return how many recovered within three heartbeats, which is the goal."""
        seconds, goal = [each for some in self.recovered.values() for each in some], 3 * HEARTBEAT
        if not seconds:
            return []
        within = sum(each <= goal for each in seconds)
        return ["", f"Within three heartbeats, {goal} s, {within} of {len(seconds)} recovered."]


def median_and_most(seconds: list[float]) -> list[str]:
    """Return two numbers for a table."""
    return [f"{statistics.median(seconds):.1f}", f"{max(seconds):.1f}"] if seconds else ["", ""]


def play_store(seeds: range) -> Table:
    """Play scenarios of the store."""
    table = Table()
    with running_s3_server() as server, faulty_proxy(server.endpoint_url) as proxy:
        store_scenarios.PROXIES[server.endpoint_url] = proxy
        for seed in seeds:
            began = time.monotonic()
            try:
                outcome = store_scenarios.play(server, seed)
            except Exception as error:  # noqa: BLE001 - what it is is told, and counts as lost
                tell(seed, error)
                table.note(store_scenarios.chosen(seed)[1], time.monotonic() - began, lost=True)
            else:
                failed = outcome.failed is not None
                if failed:
                    print(seed, outcome, flush=True)
                kind = store_scenarios.chosen(seed)[1]
                table.note(kind, time.monotonic() - began, failed=failed, faults=outcome.faults)
    return table


def play_processes(seeds: range) -> Table:
    """Play scenarios of processes, some on each of a few stacks, one after the other."""
    table = Table()
    for some in batched(seeds):
        with tempfile.TemporaryDirectory(prefix="swf-") as folder, staged(Path(folder) / "s") as stage:
            play_each(table, some, partial(process_scenarios.play, stage), process_scenarios.name)
    return table


def play_points(seeds: range) -> Table:
    """Play scenarios of points of a run's life, some on each of a few stacks, one after the other."""
    table = Table()
    for some in batched(seeds):
        with (
            tempfile.TemporaryDirectory(prefix="swp-") as folder,
            staged(Path(folder) / "s") as stage,
            point_scenarios.watched_runs(stage) as watched,
        ):
            play_each(table, some, partial(point_scenarios.play, watched), point_scenarios.name)
    return table


def play_stacks(seeds: range) -> Table:
    """Play scenarios of a stack in trouble, some on each of a few stacks, one after the other."""
    table = Table()
    for some in batched(seeds):
        with tempfile.TemporaryDirectory(prefix="swt-") as folder, stack_hardship.troubled(Path(folder)) as it:
            play_each(table, some, partial(stack_hardship.play, it), stack_hardship.name)
    return table


def batched(seeds: range) -> Iterator[range]:
    """Yield so many seeds at a time as are played on one stack."""
    for begin in range(0, len(seeds), ON_ONE_STACK):
        yield seeds[begin : begin + ON_ONE_STACK]


def play_api(seeds: range) -> Table:
    """Play scenarios of the API, all on one stack."""
    table = Table()
    with (
        tempfile.TemporaryDirectory(prefix="swn-") as folder,
        staged(Path(folder) / "s") as stage,
        api_scenarios.far_worker(stage) as worker,
    ):
        play_each(table, seeds, partial(api_scenarios.play, worker), api_scenarios.name)
    return table


def play_each(
    table: Table,
    seeds: Iterable[int],
    play: Callable[[int], process_scenarios.Outcome | api_scenarios.Outcome],
    name: Callable[[int], str],
) -> None:
    """Play scenarios on a stack, one after the other, and take note of each."""
    for seed in seeds:
        try:
            outcome = play(seed)
        except Exception as error:  # noqa: BLE001
            tell(seed, error)
            table.note(name(seed), 0.0, lost=True)
        else:
            print(seed, name(seed), outcome, flush=True)
            table.note(
                outcome.name,
                outcome.seconds,
                recovered=getattr(outcome, "recovered", None),
                failed=outcome.again > 0,
                faults=outcome.faults,
            )


def tell(seed: int, error: Exception) -> None:
    """Say what went wrong."""
    last = "".join(traceback.format_exception(error)[-3:])
    print(f"seed {seed}: {last}", file=sys.stderr, flush=True)


def main() -> int:
    """Play the lists; return 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--store", type=int, default=450, help="scenarios of the store")
    parser.add_argument("--processes", type=int, default=81, help="scenarios of processes")
    parser.add_argument("--points", type=int, default=64, help="scenarios of points of a run's life")
    parser.add_argument("--stacks", type=int, default=25, help="scenarios of a stack on a machine in trouble")
    parser.add_argument("--api", type=int, default=40, help="scenarios of the API")
    parser.add_argument("--seed", type=int, default=0, help="the first seed")
    options = parser.parse_args()
    tables = []
    if options.api:
        tables.append(("API", play_api(range(options.seed, options.seed + options.api)), "begun again"))
    if options.store:
        tables.append(("Store", play_store(range(options.seed, options.seed + options.store)), "said so"))
    if options.processes:
        table = play_processes(range(options.seed, options.seed + options.processes))
        tables.append(("Processes", table, "begun again"))
    if options.points:
        table = play_points(range(options.seed, options.seed + options.points))
        tables.append(("Points of a run's life", table, "begun again"))
    if options.stacks:
        table = play_stacks(range(options.seed, options.seed + options.stacks))
        tables.append(("A stack on a machine in trouble", table, "begun again"))
    for title, table, failed in tables:
        print(f"\n### {title}\n", *table.lines(failed), sep="\n")
    return 1 if any(table.lost.total() for _, table, _ in tables) else 0


if __name__ == "__main__":
    sys.exit(main())
