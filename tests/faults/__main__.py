"""The long list: `python -m tests.faults [--store N] [--processes N] [--api N] [--seed S]`, or `make faults`.

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
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

from tests.faults import api_scenarios, process_scenarios, store_scenarios
from tests.faults.proxy import faulty_proxy
from tests.faults.stage import staged

from shipway.testing import running_s3_server


class Table:
    """Rows of scenarios by name."""

    def __init__(self) -> None:
        self.played: Counter[str] = Counter()
        self.lost: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.seconds: defaultdict[str, list[float]] = defaultdict(list)
        self.faults: Counter[str] = Counter()

    def note(self, name: str, seconds: float, *, lost: bool = False, failed: bool = False, faults: int = 1) -> None:
        """Take note of one scenario."""
        self.played[name] += 1
        self.lost[name] += lost
        self.failed[name] += failed
        self.faults[name] += faults
        self.seconds[name].append(seconds)

    def lines(self, failed: str) -> list[str]:
        """Return the table as Markdown."""
        rows = [f"| scenario | played | faults | lost | {failed} | seconds, median | most |", "|---|" + "--:|" * 6]
        for name in sorted(self.played):
            took = self.seconds[name]
            rows.append(
                f"| {name} | {self.played[name]} | {self.faults[name]} | {self.lost[name]} "
                f"| {self.failed[name]} | {statistics.median(took):.1f} | {max(took):.1f} |"
            )
        rows.append(
            f"| **all** | {self.played.total()} | {self.faults.total()} | {self.lost.total()} "
            f"| {self.failed.total()} | | |"
        )
        return rows


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
    left = list(seeds)
    while left:
        some, left = left[:40], left[40:]
        with tempfile.TemporaryDirectory(prefix="swf-") as folder, staged(Path(folder) / "s") as stage:
            play_each(table, some, partial(process_scenarios.play, stage), process_scenarios.name)
    return table


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
            print(seed, outcome, flush=True)
            table.note(outcome.name, outcome.seconds, failed=outcome.again > 0, faults=outcome.faults)


def tell(seed: int, error: Exception) -> None:
    """Say what went wrong."""
    last = "".join(traceback.format_exception(error)[-3:])
    print(f"seed {seed}: {last}", file=sys.stderr, flush=True)


def main() -> int:
    """Play the lists; return 1 where anything was lost."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--store", type=int, default=450, help="scenarios of the store")
    parser.add_argument("--processes", type=int, default=72, help="scenarios of processes")
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
    for title, table, failed in tables:
        print(f"\n### {title}\n", *table.lines(failed), sep="\n")
    return 1 if any(table.lost.total() for _, table, _ in tables) else 0


if __name__ == "__main__":
    sys.exit(main())
