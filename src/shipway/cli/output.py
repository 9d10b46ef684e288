"""How commands speak: facts on standard output, progress and notes on standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import click

from shipway.terminal import escaped, visible

EXIT_STATUSES = {
    0: "it worked",
    1: "the run failed, or something unexpected happened",
    2: "the command line was not understood",
    3: "something given cannot be used (file, name, parameter, folder)",
    4: "something named does not exist",
    5: "the Prefect API does not answer, or refused",
    6: "the store does not answer, or refused",
    7: "somebody else changed the same thing meanwhile",
    8: "the local stack could not start or stop, or is not up",
    9: "stored bytes are damaged",
    10: "the run crashed",
    11: "the run was cancelled",
    12: "a run that repeats another one saved something else",
    13: "MLflow does not answer, or refused",
}
"""What the exit statuses mean; `docs/reference/exit-statuses.md` says the same."""

json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON instead of text.")

block_option = click.option(
    "-sb", "--storage-block", "block", metavar="TYPE/NAME", help="Block of the store; see `shipway build`."
)


def epilog(examples: Sequence[str], statuses: Sequence[int] = ()) -> str:
    """Return the end of a command's help: examples and exit statuses."""
    lines = ["\b", "Examples:", *(f"  {example}" for example in examples)]
    lines += [
        "",
        "\b",
        "Exit status:",
        *(f"  {status:<3} {EXIT_STATUSES[status]}" for status in sorted({0, 2, *statuses})),
    ]
    return "\n".join(lines)


def echo(text: str = "", *, fg: str | None = None, bold: bool = False, err: bool = False, nl: bool = True) -> None:
    """Print text for a person: the only way to a terminal, on which nothing but our own colours has an effect."""
    shown = visible(text)
    click.echo(click.style(shown, fg=fg, bold=bold) if fg or bold else shown, err=err, nl=nl)


def say(text: str) -> None:
    """Tell the person something that is not the command's answer."""
    echo(text, err=True)


def person() -> str:
    """Return what this machine calls the person at it."""
    from getpass import getuser

    try:
        return getuser()
    except (OSError, KeyError, ImportError):
        return "somebody"


def print_json(value: Any) -> None:
    """Print a value as JSON."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=str)
    # What JSON itself lets stand is escaped as JSON escapes the rest: to whoever reads it, it is the same value.
    click.echo(escaped(text))


def print_table(headers: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under headers, columns as wide as their widest text."""
    # A row is one line, whatever its cells hold; and it is as wide as what is shown of it.
    texts = [[("" if cell is None else visible(str(cell)).replace("\n", "\\n")) for cell in row] for row in rows]
    widths = [max(len(line[i]) for line in [list(headers), *texts]) for i in range(len(headers))]
    for line in [list(headers), *texts]:
        row = "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        echo(row, bold=line == list(headers))


def size(count: int) -> str:
    """Write a number of bytes for people, in powers of 1,000."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


@contextmanager
def progress(what: str) -> Iterator[Callable[..., None]]:
    """Show how far something is: a bar on a terminal, a line when it ends elsewhere.

    What is yielded is called with bytes done and bytes in all, and with files done and files in all where files are
    what it is about.
    """
    if sys.stderr.isatty():
        from rich.console import Console
        from rich.progress import BarColumn, DownloadColumn, Progress, TaskID, TextColumn, TransferSpeedColumn

        columns = (
            *(TextColumn("{task.description}"), BarColumn(), DownloadColumn()),
            *(TextColumn("{task.fields[files]}"), TransferSpeedColumn()),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
            tasks: list[TaskID] = []

            def show(done: int, total: int, files: int = 0, of_files: int = 0) -> None:
                # The bar appears with the first byte: until then there is nothing it could tell.
                if not tasks:
                    tasks.append(bar.add_task(what, total=total, files=""))
                shown = f"{files}/{of_files} files" if of_files else ""
                bar.update(tasks[0], completed=done, total=total, files=shown)

            yield show
        return
    last = ""

    def note(done: int, _total: int, files: int = 0, of_files: int = 0) -> None:
        nonlocal last
        count = f"{files} {'file' if files == 1 else 'files'}" if of_files else ""
        last = ", ".join(filter(None, (size(done) if done else "", count)))

    yield note
    if last:
        say(f"{what}: {last}")
