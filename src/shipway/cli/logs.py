"""`shipway logs`: what the parts of the local stack wrote."""

from __future__ import annotations

import os
import time
from collections import deque
from contextlib import ExitStack
from pathlib import Path
from typing import IO

import click

from shipway.cli.output import echo, epilog
from shipway.errors import NotFoundError
from shipway.settings import Settings

POLL = 0.2

EXAMPLES = ("shipway logs", "shipway logs server --lines 200", "shipway logs worker --follow")


@click.command(name="logs", epilog=epilog(EXAMPLES, (4,)))
@click.argument("name", required=False)
@click.option("--follow", "-f", is_flag=True, help="Go on with what is written from now; Ctrl-C ends it.")
@click.option(
    "--lines", "-n", type=click.IntRange(min=0), default=50, show_default=True, help="Last lines of each log."
)
def command(name: str | None, follow: bool, lines: int) -> None:
    """Show the logs of the local stack: of server, store, worker or supervisor, or of all."""
    folder = Settings.load().state / "logs"
    found = {path.stem: path for path in sorted(folder.glob("*.log"))}
    if not found:
        raise NotFoundError(f"there are no logs in {folder}", hint="start the stack with `shipway up`")
    if name is not None and name not in found:
        raise NotFoundError(f"there is no log of {name!r}", hint=f"there are {', '.join(found)}")
    with ExitStack() as opened:
        tails = [opened.enter_context(_Tail(each, path)) for each, path in found.items() if name in (None, each)]
        width = 0 if name else max(len(tail.name) for tail in tails)
        for tail in tails:
            for line in tail.last(lines):
                _print(tail.name, line, width)
        while follow:
            time.sleep(POLL)
            for tail in tails:
                for line in tail.new():
                    _print(tail.name, line, width)


class _Tail:
    """One log that is read to its end, and on when it grows or is replaced by a new one."""

    def __init__(self, name: str, path: Path) -> None:
        self.name = name
        self._path = path
        self._file: IO[str] = path.open(errors="replace")

    def __enter__(self) -> _Tail:
        return self

    def __exit__(self, *_exc: object) -> None:
        self._file.close()

    def last(self, count: int) -> list[str]:
        return list(deque(self._file, maxlen=count))

    def new(self) -> list[str]:
        lines = self._file.readlines()
        try:
            replaced = self._path.stat().st_ino != _inode(self._file)
        except FileNotFoundError:
            return lines
        if replaced:
            self._file.close()
            self._file = self._path.open(errors="replace")
            lines += self._file.readlines()
        return lines


def _inode(file: IO[str]) -> int:
    return os.fstat(file.fileno()).st_ino


def _print(name: str, line: str, width: int) -> None:
    echo(f"{name:<{width}} | {line.rstrip()}" if width else line.rstrip())
