"""Wall times of processes, taken in turns: whatever else the machine does meets all of them alike."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.report import Goal, Table

LIMIT = 120.0
"""Seconds after which a measured command is given up."""


@dataclass(frozen=True)
class Command:
    """Something to measure.

    Attributes:
        name: what the table calls it.
        argv: the command line; `{round}` in a word becomes the number of the round.
    """

    name: str
    argv: tuple[str, ...]


@dataclass(frozen=True)
class Sample:
    """What several runs of one thing took.

    Attributes:
        seconds: wall time of each run.
        processor: seconds of processor time of each, which other work on the machine changes less.
    """

    seconds: tuple[float, ...]
    processor: tuple[float, ...]

    @property
    def median(self) -> float:
        """How long one waits as a rule."""
        return median(self.seconds)


def in_turns(
    commands: Sequence[Command], *, rounds: int, warm_up: int, folder: Path, environment: Mapping[str, str]
) -> dict[str, Sample]:
    """Run every command once a round and return what each took, without the first `warm_up` rounds.

    Raises:
        RuntimeError: a command failed; nothing is concluded from the time of a failure.
    """
    taken: dict[str, list[tuple[float, float]]] = {command.name: [] for command in commands}
    for number in range(warm_up + rounds):
        for command in commands:
            argv = [word.replace("{round}", str(number)) for word in command.argv]
            took = _run(argv, folder, environment)
            if number >= warm_up:
                taken[command.name].append(took)
    return {name: Sample(*zip(*values, strict=True)) for name, values in taken.items()}


def _run(argv: Sequence[str], folder: Path, environment: Mapping[str, str]) -> tuple[float, float]:
    since, before = time.perf_counter(), _children()
    done = subprocess.run(
        argv, cwd=folder, env=environment, stdin=subprocess.DEVNULL, capture_output=True, timeout=LIMIT, check=False
    )
    took = time.perf_counter() - since, _children() - before
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip()
        raise RuntimeError(f"{' '.join(argv)} exited with {done.returncode}:\n{said}")
    return took


def _children() -> float:
    """Return the processor time of all processes that this one has waited for."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """Return this process's environment without what the person at this machine has configured.

    Bytecode is written: a program that is compiled anew at each start is not what a user has. The programs beside this
    Python come first on the path, as where its environment is active.
    """
    foreign = ("AWS_", "PREFECT_", "SHIPWAY_", "PYTHONDONTWRITEBYTECODE")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    own = {"HOME": str(home), "PREFECT_HOME": str(home / ".prefect"), "AWS_EC2_METADATA_DISABLED": "true"}
    own["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return kept | own | variables


def samples_table(title: str, samples: Mapping[str, Sample], goals: tuple[Goal, ...]) -> Table:
    """Return a table of what commands took."""
    rows = tuple((name, *(f"{value:.3f}" for value in _figures(sample))) for name, sample in samples.items())
    rounds = len(next(iter(samples.values())).seconds)
    return Table(title, (f"seconds, {rounds} rounds", "median", "min", "max", "processor"), rows, goals)


def script(name: str, *arguments: str) -> tuple[str, ...]:
    """Return the command line of a program installed beside this Python, as a user starts it."""
    return (str(Path(sys.executable).parent / name), *arguments)


def _figures(sample: Sample) -> tuple[float, ...]:
    return sample.median, min(sample.seconds), max(sample.seconds), median(sample.processor)
