"""`python -m benchmarks [NAME...]`: run benchmarks, print their tables, write them into `results/bench.md`."""

from __future__ import annotations

import argparse
import os
import sys
from importlib import import_module
from pathlib import Path

from benchmarks.report import Table, section, write

PREFIX = "bench_"
HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "bench.md"


def main() -> None:
    known = sorted(path.stem.removeprefix(PREFIX) for path in HERE.glob(f"{PREFIX}*.py"))
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description="Measure, print tables, write results.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which ones; by default all of {', '.join(known)}")
    names = parser.parse_args().names or known
    if unknown := sorted(set(names) - set(known)):
        parser.error(f"there is no benchmark {', '.join(unknown)}; there are {', '.join(known)}")
    missed = 0
    for name in names:
        print(f"Measuring {name}; best on a machine that does nothing else.", flush=True)
        load = os.getloadavg()[0]
        try:
            tables: list[Table] = import_module(f"benchmarks.{PREFIX}{name}").run()
        except RuntimeError as error:
            sys.exit(f"{name} was not measured: {error}")
        text = section(name, tables, load)
        print(f"\n{text}", flush=True)
        # After each of them: a later one that fails takes nothing away.
        write(RESULTS, {name: text})
        missed += sum(not goal.met for table in tables for goal in table.goals)
    # A missed goal is said, and is no failure: the time a machine takes is not for a test.
    print(f"{missed} of the goals missed." if missed else "Every goal met.")


if __name__ == "__main__":
    main()
