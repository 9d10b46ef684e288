"""A run's data beside what others do with it: one large frame, and many small values, saved and loaded again."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

from benchmarks.alone import Job, Took, measure
from benchmarks.data_works import COLUMNS, ROWS, SMALL
from benchmarks.measure import clean_environment
from benchmarks.report import Goal, Table
from shipway.store.object_store import ObjectStore
from shipway.testing import S3Server, running_s3_server

OURS, PREFECT, POLARS, S3FS, METAFLOW = "Shipway", "prefect-aws S3Bucket", "polars to s3://", "s3fs", "Metaflow"
FRAME, VALUES = f"a frame of {ROWS * COLUMNS * 8 / 1e9:.2f} GB", f"{SMALL:,} small values"
SHORT = {OURS: "shipway", PREFECT: "prefect", POLARS: "polars", S3FS: "s3fs", METAFLOW: "metaflow"}
TOOLS = {FRAME: (OURS, PREFECT, POLARS, S3FS, METAFLOW), VALUES: (OURS, PREFECT, S3FS, METAFLOW)}
ROUNDS = {FRAME: 3, VALUES: 5}
WHAT = {FRAME: "frame", VALUES: "small"}

S3FS_PYTHON = Path(__file__).parents[1] / ".venv-s3fs/bin/python"
"""The interpreter that has s3fs, whose own pins of botocore do not go along with ours."""

LEVEL = 0.95
"""Level with the fastest is what comes within a twentieth of it: rounds differ by more."""
SLOWEST = 5.0
OVERHEAD_MS = 50.0
OVERHEAD_ROUNDS = 20


@dataclass
class Found:
    """What saving and loading took one tool.

    Attributes:
        save: each time.
        load: each time.
    """

    save: list[Took] = field(default_factory=list)
    load: list[Took] = field(default_factory=list)


def run() -> list[Table]:
    """Measure on an S3 server of its own."""
    tables = []
    with tempfile.TemporaryDirectory(prefix="shipway-bench-") as place, running_s3_server() as server:
        bucket = server.new_bucket()
        ObjectStore(server.config(bucket)).put("ready", bytes(1 << 20))
        environment = clean_environment(
            Path(place),
            AWS_ACCESS_KEY_ID=server.access_key,
            AWS_SECRET_ACCESS_KEY=server.secret_key,
            AWS_DEFAULT_REGION="us-east-1",
            PREFECT_SERVER_ALLOW_EPHEMERAL_MODE="true",
            PREFECT_LOGGING_LEVEL="ERROR",
        )
        for thing in (FRAME, VALUES):
            tools = [tool for tool in TOOLS[thing] if tool != S3FS or S3FS_PYTHON.exists()]
            found = {tool: Found() for tool in tools}
            for number in range(ROUNDS[thing]):
                for tool in tools:
                    print(f"  {thing}, {tool}", flush=True)
                    room = Path(place) / WHAT[thing] / SHORT[tool] / str(number)
                    job = Job(
                        folder=str(room),
                        target=str(room / "target"),
                        state=str(room / "state"),
                        bucket=bucket,
                        prefix=f"{WHAT[thing]}/{SHORT[tool]}/{number}",
                        endpoint_url=server.endpoint_url,
                        server=server.endpoint_url,
                    )
                    for verb, results in (("save", found[tool].save), ("load", found[tool].load)):
                        os.sync()
                        work = f"benchmarks.data_works:{SHORT[tool]}_{verb}_{WHAT[thing]}"
                        python = (str(S3FS_PYTHON),) if tool == S3FS else ()
                        results.append(measure(work, job, environment, *python))
            tables += [_table(verb, thing, found) for verb in ("save", "load")]
        tables.append(_overhead(Path(place), environment, server))
    return tables


def _table(verb: str, thing: str, found: dict[str, Found]) -> Table:
    taken: dict[str, list[Took]] = {tool: getattr(each, verb) for tool, each in found.items()}
    seconds = {tool: median(took.seconds for took in rounds) for tool, rounds in taken.items()}
    rows = [_row(tool, rounds, seconds[tool] / seconds[OURS], thing) for tool, rounds in taken.items()]
    others = {tool: value for tool, value in seconds.items() if tool != OURS}
    fastest, slowest = min(others, key=others.__getitem__), max(others, key=others.__getitem__)
    level, times = others[fastest] / seconds[OURS], others[slowest] / seconds[OURS]
    goals = (
        Goal(f"at least level with the fastest, {fastest}", f"{level:.2f} times its speed", level >= LEVEL),
        Goal(f"at least {SLOWEST:g} times the slowest, {slowest}", f"{times:.1f} times its speed", times >= SLOWEST),
    )
    if thing == FRAME and verb == "save":
        goals += (_memory(taken),)
    headers = (thing, "rounds", "median s", "min", "max", "of Shipway's", "rate", "processor s", "peak MB")
    return Table(f"{verb.title()} {thing}", headers, tuple(rows), goals)


def _row(tool: str, rounds: Sequence[Took], ratio: float, thing: str) -> tuple[str, ...]:
    times = [took.seconds for took in rounds]
    count = ROWS * COLUMNS * 8 / 1e6 if thing == FRAME else SMALL
    unit = "MB/s" if thing == FRAME else "a second"
    return (
        tool,
        str(len(times)),
        *(f"{value:.2f}" for value in (median(times), min(times), max(times))),
        f"{ratio:.2f}",
        f"{count / median(times):,.0f} {unit}",
        f"{median(took.processor for took in rounds):.2f}",
        f"{max(took.peak for took in rounds) / 1e6:,.0f}",
    )


def _memory(taken: dict[str, list[Took]]) -> Goal:
    # Each process holds the frame itself, and what its library needs to write it.
    peak, least = (
        max(took.peak for took in taken[OURS]) / 1e6,
        min(max(took.peak for took in rounds) for tool, rounds in taken.items() if tool != OURS) / 1e6,
    )
    text = "memory bounded: at most a tenth more than the least of the others"
    return Goal(text, f"{peak:,.0f} MB, the least other {least:,.0f} MB", peak <= 1.1 * least)


def _overhead(place: Path, environment: Mapping[str, str], server: S3Server) -> Table:
    """Measure what keeping data adds to a run that saves nothing."""
    bucket = server.new_bucket()
    ObjectStore(server.config(bucket)).put("ready", bytes(1 << 20))
    taken = []
    for number in range(OVERHEAD_ROUNDS):
        room = place / "nothing" / str(number)
        job = Job(
            *(str(room / name) for name in ("code", "target", "state")), bucket, f"{number}", *[server.endpoint_url] * 2
        )
        taken.append(measure("benchmarks.data_works:shipway_keep_nothing", job, environment))
    times = [1000 * took.seconds for took in taken]
    row = ("capture and record", *(f"{value:.1f}" for value in (median(times), min(times), max(times))))
    goal = Goal(f"at most {OVERHEAD_MS:g} ms", f"{median(times):.1f} ms", median(times) <= OVERHEAD_MS)
    headers = (f"milliseconds, {len(times)} runs", "median", "min", "max")
    return Table("What capture and record add to a run that saves nothing", headers, (row,), (goal,))
