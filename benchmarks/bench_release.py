"""Releases beside what others do for the same purpose: time, processor, memory, and requests counted at a proxy.

`bench_large` does the same with a folder of large files.
"""

from __future__ import annotations

import math
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median

from benchmarks.course import CHANGED, COLD, FIRST, UNCHANGED, WARM, Course, Found, Results, Tool
from benchmarks.folders import FIVE_THOUSAND, GIGABYTE, KINDS, SETTLED_SECONDS, TEN, THOUSAND, Kind, make
from benchmarks.measure import Command, clean_environment, in_turns, samples_table, script
from benchmarks.proxy import counting_proxy
from benchmarks.report import Goal, Table
from benchmarks.stack import running_stack
from shipway.blob import LARGE_FILE, PACK_BYTES

OURS, BARE, PREFECT, METAFLOW, S5CMD = "Shipway", "Shipway, cache off", "prefect-aws", "Metaflow", "s5cmd sync"
OBSTORE = "obstore's put"

TOOLS = (
    Tool(
        OURS,
        {
            FIRST: "benchmarks.ours:build",
            UNCHANGED: "benchmarks.ours:build",
            CHANGED: "benchmarks.ours:build",
            COLD: "benchmarks.ours:workspace",
            WARM: "benchmarks.ours:workspace",
        },
    ),
    Tool(BARE, {COLD: "benchmarks.ours:checkout"}, after=OURS),
    Tool(
        S5CMD,
        {
            FIRST: "benchmarks.rivals:s5cmd_up",
            UNCHANGED: "benchmarks.rivals:s5cmd_up",
            CHANGED: "benchmarks.rivals:s5cmd_up",
            COLD: "benchmarks.rivals:s5cmd_down",
            WARM: "benchmarks.rivals:s5cmd_again",
        },
    ),
    Tool(
        METAFLOW,
        {
            FIRST: "benchmarks.rivals:metaflow_package",
            UNCHANGED: "benchmarks.rivals:metaflow_package",
            CHANGED: "benchmarks.rivals:metaflow_package",
            COLD: "benchmarks.rivals:metaflow_unpack",
        },
        slow=True,
    ),
    Tool(
        PREFECT,
        {
            FIRST: "benchmarks.rivals:push_to_s3",
            UNCHANGED: "benchmarks.rivals:push_to_s3",
            CHANGED: "benchmarks.rivals:push_to_s3",
            COLD: "benchmarks.rivals:pull_from_s3",
        },
        slow=True,
    ),
    Tool(OBSTORE, {FIRST: "benchmarks.rivals:obstore_put"}, kinds=(GIGABYTE,)),
)

ROUNDS = {TEN: (5, 3), THOUSAND: (5, 1), FIVE_THOUSAND: (3, 1), GIGABYTE: (5, 1)}
"""How often each tool is measured, and how often a slow one."""

FASTER = {FIRST: 10.0, UNCHANGED: 100.0, CHANGED: 50.0, COLD: 10.0}
"""How many times faster than prefect-aws ours is to be with 5,000 files."""
REQUESTS = {
    FIRST: "2 requests and 1 for each pack of at most 8 MiB",
    UNCHANGED: "1 request",
    CHANGED: "at most 4 requests where the file is small",
    COLD: "1 request and 1 for each pack or large file",
    WARM: "no request",
}
"""What the design allows."""
UNCHANGED_SECONDS = 0.4
COMMAND_ROUNDS = 7
WARM_SECONDS = 0.05
THROUGHPUT = 0.8
LEVEL = 1.05
"""No slower is what comes within a twentieth: rounds of the same tool differ by more."""
MEGABYTES = 200

FLOW = '''"""A flow as small as can be."""

from prefect import flow


@flow(name="tiny")
def main() -> int:
    """Return one."""
    return 1
'''

Everything = dict[Kind, Results]


def run() -> list[Table]:
    """Measure on an S3 server of its own, then the command on a stack of its own."""
    return [*beside(tuple(kind for kind in KINDS if kind != GIGABYTE)), _command()]


def beside(kinds: Sequence[Kind]) -> list[Table]:
    """Measure all tools with some kinds of folders."""
    with _place() as place:
        found = _measure(place, kinds)
        return [_work(work, found) for work in (FIRST, UNCHANGED, CHANGED, COLD, WARM)] + _throughput(found)


@contextmanager
def _place() -> Iterator[Path]:
    """Give a folder, removed when all is measured: ext4 makes files slowly where others were removed just before."""
    place = Path(tempfile.mkdtemp(prefix="shipway-bench-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _measure(place: Path, kinds: Sequence[Kind]) -> Everything:
    from shipway.store.object_store import ObjectStore
    from shipway.testing import running_s3_server

    with running_s3_server() as server, counting_proxy(server.endpoint_url) as proxy:
        bucket = server.new_bucket()
        # The first object in a bucket makes the server set up its files.
        ObjectStore(server.config(bucket)).put("ready", bytes(1 << 20))
        environment = clean_environment(
            place,
            AWS_ACCESS_KEY_ID=server.access_key,
            AWS_SECRET_ACCESS_KEY=server.secret_key,
            AWS_DEFAULT_REGION="us-east-1",
        )
        found = {}
        for kind in kinds:
            print(f"  {kind.name}", flush=True)
            tools = [tool for tool in TOOLS if not tool.kinds or kind in tool.kinds]
            course = Course(kind, tools, place, bucket, proxy, server.endpoint_url, environment)
            rounds, slow_rounds = ROUNDS[kind]
            found[kind] = course.run(rounds=rounds, slow_rounds=slow_rounds)
        return found


def _work(work: str, found: Everything) -> Table:
    rows = [
        _row(f"{kind.name}: {name}", result, result.seconds / results[work, OURS].seconds)
        for kind, results in found.items()
        for (done, name), result in results.items()
        if done == work and name != OBSTORE
    ]
    headers = ("folder: tool", "rounds", "median s", "min", "max", "of Shipway's", "processor s", "peak MB", "requests")
    goals = [*_time_goals(work, found), *_requests_goal(work, found), _memory_goal(work, found)]
    return Table(f"{work[0].upper()}{work[1:]}", headers, tuple(rows), tuple(goals))


def _row(name: str, result: Found, ratio: float) -> tuple[str, ...]:
    times = [took.seconds for took in result.rounds]
    processor = median(took.processor for took in result.rounds)
    return (
        name,
        str(len(times)),
        *(f"{value:.3f}" for value in (median(times), min(times), max(times))),
        f"{ratio:.2f}",
        f"{processor:.2f}",
        f"{result.peak / 1e6:.0f}",
        f"{result.requests:,}",
    )


def _time_goals(work: str, found: Everything) -> Iterator[Goal]:
    ours = {kind: results[work, OURS].seconds for kind, results in found.items()}
    if work in FASTER and FIVE_THOUSAND in found:
        ratio = found[FIVE_THOUSAND][work, PREFECT].seconds / ours[FIVE_THOUSAND]
        text = f"at least {FASTER[work]:g} times faster than prefect-aws with 5,000 files"
        yield Goal(text, f"{ratio:.0f} times", ratio >= FASTER[work])
    if work == UNCHANGED and FIVE_THOUSAND in found:
        seconds = ours[FIVE_THOUSAND]
        text = f"at most {UNCHANGED_SECONDS:g} s with 5,000 files"
        yield Goal(text, f"{seconds:.3f} s", seconds <= UNCHANGED_SECONDS)
    if work == WARM and THOUSAND in found:
        seconds = ours[THOUSAND]
        yield Goal(f"at most {WARM_SECONDS:g} s with 1,000 files", f"{seconds:.3f} s", seconds <= WARM_SECONDS)
    if work == COLD:
        for name, text in ((BARE, "without a cache, as s5cmd has none"), (OURS, "filling the cache too")):
            slower = [
                kind.name
                for kind, results in found.items()
                if results[COLD, name].seconds > LEVEL * results[COLD, S5CMD].seconds
            ]
            found_text = f"slower with {'; '.join(slower)}" if slower else "never slower"
            yield Goal(f"no slower than s5cmd, within a twentieth, {text}", found_text, not slower)


def _requests_goal(work: str, found: Everything) -> Iterator[Goal]:
    # A large file is sent in parts, which is a matter of its size.
    kinds = [kind for kind in found if kind.size < LARGE_FILE or work not in (FIRST, CHANGED)]
    counts = [found[kind][work, OURS].requests for kind in kinds]
    met = all(count <= _budget(work, kind) for count, kind in zip(counts, kinds, strict=True))
    if counts:
        yield Goal(REQUESTS[work], ", ".join(map(str, counts)), met)


def _budget(work: str, kind: Kind) -> int:
    objects = _objects(kind)
    # The file that was changed before the checkout lies in a pack of its own.
    return {FIRST: 2 + objects, UNCHANGED: 1, CHANGED: 4, COLD: 2 + objects, WARM: 0}[work]


def _objects(kind: Kind) -> int:
    """Return how many packs or blobs hold a folder's files."""
    return kind.files if kind.size >= LARGE_FILE else math.ceil(kind.files / (PACK_BYTES // kind.size))


def _memory_goal(work: str, found: Everything) -> Goal:
    own = [name for name in (OURS, BARE) if all((work, name) in results for results in found.values())]
    peak = max(results[work, name].peak for results in found.values() for name in own) / 1e6
    return Goal(f"at most {MEGABYTES} MB of memory in each of Shipway's", f"{peak:.0f} MB", peak <= MEGABYTES)


def _throughput(found: Everything) -> list[Table]:
    if GIGABYTE not in found:
        return []
    results = {name: found[GIGABYTE][FIRST, name] for name in (OBSTORE, OURS)}
    speeds = {name: GIGABYTE.total / result.seconds / 1e6 for name, result in results.items()}
    rows = [(name, f"{result.seconds:.2f}", f"{speeds[name]:.0f}") for name, result in results.items()]
    ratio = speeds[OURS] / speeds[OBSTORE]
    goal = Goal(f"at least {THROUGHPUT:g} of it", f"{ratio:.2f}", ratio >= THROUGHPUT)
    headers = ("20 files, 1 GB", "median s", "MB/s")
    return [Table("A build of 1 GB against the bare put of its files", headers, tuple(rows), (goal,))]


def _command() -> Table:
    """Measure `shipway build` itself, from the start of its process to the end, where nothing has changed."""
    arguments = ("build", "./flow.py:main", "-n", "bench")
    with running_stack() as project:
        make(FIVE_THOUSAND, project.folder)
        (project.folder / "flow.py").write_text(FLOW)
        time.sleep(SETTLED_SECONDS)
        project.shipway("deploy", *arguments[1:])
        commands = [
            Command("for comparison: python -c pass", (sys.executable, "-c", "pass")),
            Command("shipway build", script("shipway", *arguments)),
            Command("shipway build --fresh", script("shipway", *arguments, "--fresh")),
        ]
        samples = in_turns(
            commands, rounds=COMMAND_ROUNDS, warm_up=1, folder=project.folder, environment=project.environment
        )
    seconds = samples["shipway build"].median
    goal = Goal(f"at most {UNCHANGED_SECONDS:g} s", f"{seconds:.3f} s", seconds <= UNCHANGED_SECONDS)
    return samples_table("The command, where none of 5,000 files has changed", samples, (goal,))
