"""`shipway deploy`: build and apply in one go."""

from __future__ import annotations

import shlex
from typing import Any

import click

from shipway.cli.apply import apply_files
from shipway.cli.build import build_options, run_build
from shipway.cli.output import echo, epilog, print_json


@click.command(
    epilog=epilog(
        [
            "shipway deploy ./orchestration.py:main -n daily",
            "shipway deploy ./orchestration.py:main -n daily -t gpu --interval 1h",
        ],
        [3, 4, 5, 6, 7, 9],
    )
)
@build_options
def command(entrypoint: str, as_json: bool, **options: Any) -> int:
    """Build a release of the current folder and apply its deployment file."""
    facts, path = run_build(entrypoint, **options)
    status = apply_files((path,), quiet=as_json)
    if as_json:
        print_json(facts)
    else:
        echo(f"Start a run with: shipway run {shlex.quote(facts['deployment'])} --watch")
    return status
