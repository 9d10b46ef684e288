"""What a machine does to a stack while runs go on: a full disk, no descriptors left, a clock that jumps; seeded."""

from __future__ import annotations

import random
import resource
import struct
import subprocess
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from tests.faults.hardship import full, small_disk
from tests.faults.process_scenarios import RUNS, Outcome
from tests.faults.stage import FINAL, Stage, audit, staged, state_type

from shipway.errors import ShipwayError
from shipway.testing import skip_or_fail

DISK_BYTES = 512 << 20
LONGEST = 20.0
"""Seconds for which it lasts at most; what is to be mended afterwards is mended without."""
SHIFTS = (-600, -60, 60, 600)
"""Seconds. The store's server, whose clock stays right, refuses whose is off by more than a quarter of an hour."""
LEFT = (0, 1, 2, 4, 8)
"""How many descriptors are left."""


@dataclass
class Troubled:
    """A stack whose disk and clock are its own.

    Attributes:
        stage: the stack.
        disk: a folder on its disk.
        clock: the file that says by how many seconds its clock is off.
    """

    stage: Stage
    disk: Path
    clock: Path

    def shift(self, seconds: int) -> None:
        """Set the clock of the server, the worker, its runs and the supervisor."""
        # In place: they have the file's page in their memory.
        with self.clock.open("r+b") as file:
            file.write(struct.pack("q", seconds))


Hardship = Callable[[Troubled, random.Random], AbstractContextManager[None]]


@contextmanager
def troubled(folder: Path) -> Iterator[Troubled]:
    """Start a stack that can be brought into trouble; skips where this machine does not allow that."""
    library, clock = folder / "other_clock.so", folder / "clock"
    clock.write_bytes(bytes(8))
    source = Path(__file__).with_name("other_clock.c")
    with ExitStack() as stack:
        try:
            subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source], check=True)
            disk = stack.enter_context(small_disk(folder / "disk", DISK_BYTES))
        except (OSError, subprocess.CalledProcessError) as error:
            skip_or_fail(f"no clock or disk of one's own: {error}")
        stage = stack.enter_context(staged(disk / "s", LD_PRELOAD=str(library), CLOCK_SHIFT=str(clock)))
        yield Troubled(stage, disk, clock)


@contextmanager
def full_disk(it: Troubled, dice: random.Random) -> Iterator[None]:
    """Fill the disk up on which the stack has all it keeps, its store and database too."""
    with full(it.disk, dice):
        yield


def few_descriptors(service: str) -> Hardship:
    """Let a service open a few more files and connections, or none."""

    @contextmanager
    def few(it: Troubled, dice: random.Random) -> Iterator[None]:
        process = psutil.Process(it.stage.service(service))
        before = process.rlimit(resource.RLIMIT_NOFILE)
        taken = {int(path.name) for path in Path(f"/proc/{process.pid}/fd").iterdir()}
        free = (number for number in range(before[0]) if number not in taken)
        # A new one gets the lowest number that is free; what is open above the limit stays open.
        limit = [next(free) for _ in range(dice.choice(LEFT) + 1)][-1]
        process.rlimit(resource.RLIMIT_NOFILE, (limit, before[1]))
        try:
            yield
        finally:
            with suppress(psutil.NoSuchProcess):  # it has ended of it, and was started again
                process.rlimit(resource.RLIMIT_NOFILE, before)

    return few


@contextmanager
def clock_jump(it: Troubled, dice: random.Random) -> Iterator[None]:
    """Set the clock; it stays so: what is due at some time is due then, by whatever clock."""
    now = struct.unpack("q", it.clock.read_bytes())[0]
    it.shift(dice.choice([shift for shift in SHIFTS if shift != now]))
    yield


HARDSHIPS: dict[str, Hardship] = {
    "full disk": full_disk,
    "clock jumps": clock_jump,
    **{f"{service}: few descriptors": few_descriptors(service) for service in ("server", "store", "worker")},
}
NAMES = tuple(HARDSHIPS)


def play(it: Troubled, seed: int) -> Outcome:
    """Play the scenario of a seed and check what it left; raises AssertionError where a guarantee was broken."""
    stage, dice, kind = it.stage, random.Random(seed), name(seed)  # noqa: S311
    stage.ready()
    runs = [stage.start(seconds=round(dice.uniform(0, 6), 2))]
    stage.pid(runs[0])
    began = time.monotonic()
    with HARDSHIPS[kind](it, dice):
        # What cannot be asked for is not lost: whoever asks for it hears so.
        for _ in range(RUNS - 1):
            with suppress(ShipwayError):
                runs.append(stage.start(seconds=round(dice.uniform(0, 2), 2)))
        while time.monotonic() < began + LONGEST and not all(ended(stage, run) for run in runs):
            time.sleep(0.5)
    over = time.monotonic()
    stage.ready()
    ready = time.monotonic()
    # A run that the machine has no room for fails, and says so.
    audit(stage, runs, completed=kind == "clock jumps")
    states = Counter(state_type(stage, run) for run in runs)
    again = sum(stage.run(run)["run_count"] > 1 for run in runs)
    return Outcome(kind, time.monotonic() - began, ready - over, dict(states), again)


def ended(stage: Stage, run: str) -> bool:
    """Tell whether a run is known to have ended."""
    with suppress(ShipwayError):
        return stage.api.request("GET", f"/flow_runs/{run}")["state_type"] in FINAL
    return False


def name(seed: int) -> str:
    """Return the trouble of a seed."""
    return NAMES[seed % len(NAMES)]
