"""How long a person waits for commands that import no flow code."""

from __future__ import annotations

import sys

from benchmarks.measure import Command, Sample, in_turns, samples_table, script
from benchmarks.report import Goal, Table
from benchmarks.stack import Project, running_stack

ROUNDS = 11
WARM_UP = 2

FASTER = 8.0
"""How many times faster than Prefect's own listing ours is to be."""
AT_MOST = 0.3
"""Seconds that no command without flow code is to exceed."""

DEPLOYMENTS = ("hourly", "daily", "weekly", "monthly", "yearly")
FLOW = '''"""A flow as small as can be."""

from prefect import flow

import shipway


@flow(name="tiny")
def main(n: int = 1) -> int:
    """Double a number."""
    shipway.save("result", {"doubled": 2 * n})
    return 2 * n
'''


def run() -> list[Table]:
    """Measure on a stack of its own."""
    with running_stack() as project:
        _prepare(project)
        return [_against_prefect(project), _every_command(project)]


def _prepare(project: Project) -> None:
    """Make a handful of deployments, a run with data, and a deployment file that is applied already."""
    (project.folder / "tiny.py").write_text(FLOW)
    for name in DEPLOYMENTS:
        project.shipway("deploy", "./tiny.py:main", "-n", name, "-p", "n=2")
    project.shipway("run", f"tiny/{DEPLOYMENTS[-1]}", "--name", "first", "--watch")
    project.shipway("block", "s3", "there", "--bucket-path", "there", "--stack")
    project.environment["PREFECT_API_URL"] = project.api_url


def _against_prefect(project: Project) -> Table:
    ours, theirs = "shipway ls", "prefect deployment ls"
    commands = [Command(ours, script("shipway", "ls")), Command(theirs, script("prefect", "deployment", "ls"))]
    samples = _measure(project, commands)
    ratio = samples[theirs].median / samples[ours].median
    pairs = [theirs / ours for theirs, ours in zip(samples[theirs].seconds, samples[ours].seconds, strict=True)]
    found = f"{ratio:.1f} times, {min(pairs):.1f} to {max(pairs):.1f} in single rounds"
    goal = Goal(f"at least {FASTER:g} times faster", found, ratio >= FASTER)
    return samples_table(f"Listing {len(DEPLOYMENTS)} deployments: `{ours}` against `{theirs}`", samples, (goal,))


def _every_command(project: Project) -> Table:
    flow_name, path = f"tiny/{DEPLOYMENTS[-1]}", "tiny-deployment.yaml"
    lines = {
        "shipway --help": ["--help"],
        "shipway ls": ["ls"],
        "shipway ls --json": ["ls", "--json"],
        "shipway inspect": ["inspect", flow_name],
        "shipway runs": ["runs"],
        "shipway show": ["show", "first"],
        "shipway status": ["status"],
        "shipway apply --plan, nothing to do": ["apply", path, "--plan"],
        "shipway get, a small object": ["get", "first", "result", "fetched.json"],
        "shipway block s3, bucket there": ["block", "s3", "there", "--bucket-path", "there", "--stack"],
        "shipway block s3, bucket made": ["block", "s3", "new", "--bucket-path", "made-in-round-{round}", "--stack"],
    }
    commands = [Command(name, script("shipway", *arguments)) for name, arguments in lines.items()]
    bare = "for comparison: python -c pass"
    samples = _measure(project, [Command(bare, (sys.executable, "-c", "pass")), *commands])
    slow = [name.removeprefix("shipway ") for name in lines if samples[name].median > AT_MOST]
    found = f"over it are {'; '.join(slow)}" if slow else "none takes longer"
    goal = Goal(f"at most {AT_MOST:g} s each, as a median", found, not slow)
    return samples_table("Every command that imports no flow code", samples, (goal,))


def _measure(project: Project, commands: list[Command]) -> dict[str, Sample]:
    return in_turns(commands, rounds=ROUNDS, warm_up=WARM_UP, folder=project.folder, environment=project.environment)
