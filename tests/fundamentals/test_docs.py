"""The docs are true: links lead somewhere, commands can be typed, and tables say what the code says."""

from __future__ import annotations

import dataclasses
import re
import runpy
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest

import shipway
from shipway import errors
from shipway.artifact import Artifact
from shipway.cli import cli
from shipway.cli.output import EXIT_STATUSES
from shipway.deployment.spec import DeploymentSpec, Schedule
from shipway.manifest import tree_digest
from shipway.release.scan import scan
from shipway.run.record import RunRecord
from shipway.settings import _PREFECT_NAMES, _SECRETS, Settings

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs/reference"
PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted((ROOT / "docs").rglob("*.md")),
    *sorted((ROOT / "examples").glob("*/README.md")),
]
FENCE = re.compile(r"^( *)```(\w*)\n(.*?)^ *```$", re.MULTILINE | re.DOTALL)
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]


def prose(text: str) -> str:
    """Return a page without its blocks of code."""
    return FENCE.sub("", text)


def anchors(page: Path) -> set[str]:
    """Return what a page's headings can be linked as."""
    titles = re.findall(r"^#+ (.+)$", prose(page.read_text()), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def table(page: Path, first: str) -> list[list[str]]:
    """Return the rows of the table whose first column is headed `first`, without backticks."""
    found = re.search(rf"^\| {first} \|.*\n\|[-|: ]+\|\n((?:\|.*\n)+)", page.read_text(), re.MULTILINE)
    assert found, f"{page.name} has no table of {first}"
    return [[cell.replace("`", "").strip() for cell in line[1:-1].split("|")] for line in found[1].splitlines()]


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", prose(page.read_text())):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        # Made by `make screenshots`.
        if found.parent == ROOT / "results" and found.suffix == ".png":
            continue
        assert found.exists(), f"{page.name} links {target}"
        if anchor:
            assert anchor in anchors(found), f"{page.name} links {target}, and {found.name} has no such heading"


def commands(text: str) -> Iterator[tuple[str, bool]]:
    """Yield every `shipway ...` in a page, and whether it stands in a block, where it must be complete."""
    for _, language, block in FENCE.findall(text):
        if language in ("sh", ""):
            lines = re.sub(r"\\\n\s*", "", block).splitlines()
            yield from ((line.strip().removeprefix("$ "), True) for line in lines)
    for code in re.findall(r"`([^`]+)`", prose(text)):
        yield " ".join(code.split()), False


def calls(line: str) -> Iterator[list[str]]:
    """Yield the arguments of each call of shipway in a line of shell."""
    if not re.match(r"([A-Z_]+=\S+ )*shipway [a-z-]", line):
        return
    # In a help text an example is told from what it does by a wide gap.
    words = shlex.shlex(re.split(r"\s{3,}(?=[a-z])", line)[0], posix=True, punctuation_chars=True)
    words.whitespace_split = True
    call: list[str] = []
    for word in [*words, ";"]:
        if set(word) <= set(";|&<>"):
            while call and re.match(r"[A-Z_]+=", call[0]):
                call.pop(0)
            if call and call[0] == "shipway":
                yield [word for word in call[1:] if word != "..."]
            call = []
        else:
            call.append(word)


def mistake(arguments: list[str]) -> str | None:
    """Let click understand a command line without running it, and return what it minds."""
    context = click.Context(cli, info_name="shipway", **cli.context_settings)
    try:
        while isinstance(context.command, click.Group):
            if not arguments:
                return f"{context.command_path} is a group"
            if arguments[0] in context.help_option_names:
                return None
            name, command, arguments = context.command.resolve_command(context, arguments)
            assert command is not None
            if not isinstance(command, click.Group):
                command.make_context(name, arguments, parent=context)
                return None
            context = click.Context(command, info_name=name, parent=context)
    except click.MissingParameter as error:
        return f"{error.param.name if error.param else 'something'} is missing"
    except click.UsageError as error:
        return error.format_message()
    return None


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_commands_can_be_typed(page: Path) -> None:
    for line, complete in commands(page.read_text()):
        for call in calls(line):
            found = mistake(call)
            # A sentence may name a command without all it needs, as in `shipway block`.
            if found is not None and not complete:
                assert found.endswith(("is missing", "is a group")), f"{page.name}: {line}: {found}"
            else:
                assert found is None, f"{page.name}: {line}: {found}"


def test_there_are_commands_to_check() -> None:
    found = [call for page in PAGES for line, _ in commands(page.read_text()) for call in calls(line)]
    assert len(found) > 100
    assert ["run", "braking/cars", "-p", "speed=25", "--name", "first", "--watch"] in found
    assert "--wach" in str(mistake(["run", "main/x", "--wach"]))
    assert "runn" in str(mistake(["runn", "main/x"]))


def test_the_page_of_commands_is_what_help_says() -> None:
    page: str = runpy.run_path(str(ROOT / "scripts/reference"))["page"]()
    assert (REFERENCE / "commands.md").read_text() == page, "run scripts/reference"


def test_exit_statuses() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ShipwayError)]
    expected = [
        [str(status), meaning, ", ".join(kind.__name__ for kind in kinds if kind.exit_code == status)]
        for status, meaning in EXIT_STATUSES.items()
    ]
    assert [row for row in table(REFERENCE / "exit-statuses.md", "status") if row[0].isdigit()] == expected


def test_settings() -> None:
    rows = {row[0]: row[1:] for row in table(REFERENCE / "settings.md", "setting")}
    fields = {field.name: field for field in dataclasses.fields(Settings) if field.name != "project"}
    assert list(rows) == list(fields)
    for name, (default, variable, meaning) in rows.items():
        assert variable == _PREFECT_NAMES.get(name, ""), name
        assert meaning.endswith("a secret") == (name in _SECRETS), name
        if fields[name].default not in (None, ""):
            assert default == str(fields[name].default), name


def test_the_deployment_file() -> None:
    page = REFERENCE / "deployment-file.md"
    rows = {row[0]: row[1] for row in table(page, "key \\| needed")}
    fields = msgspec.structs.fields(DeploymentSpec)
    assert set(rows) == {field.name for field in fields}
    for field in fields:
        assert (rows[field.name] == "yes") == field.required, field.name
    schedule = page.read_text().partition("## Schedules")[2].partition("## ")[0]
    assert set(re.findall(r"^\| `(\w+)`", schedule, re.MULTILINE)) == {
        field.name for field in msgspec.structs.fields(Schedule)
    }


def test_the_object_layout() -> None:
    text = (REFERENCE / "object-layout.md").read_text()
    record, _, artifact = text.partition("## Run record")[2].partition("Each artifact:")

    def keys(part: str) -> set[str]:
        return {key for row in re.findall(r"^\| (`.+?`) \|", part, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)}

    assert keys(record) == {field.name for field in dataclasses.fields(RunRecord)} | {"version"}
    assert keys(artifact) == {field.name for field in dataclasses.fields(Artifact)}


def test_every_public_name_is_documented() -> None:
    text = (REFERENCE / "python.md").read_text()
    assert set(re.findall(r"^### `shipway\.(\w+)", text, re.MULTILINE)) == set(shipway.__all__)


def test_every_page_of_docs_is_in_the_index() -> None:
    index = ROOT / "docs/index.md"
    linked = {(index.parent / target).resolve() for target in re.findall(r"\]\(([^)#]+)\)", index.read_text())}
    missing = [page.name for page in PAGES if index.parent in page.parents and page != index and page not in linked]
    assert not missing


def test_the_pins_that_decision_0002_tells_of_are_in_force() -> None:
    text = (ROOT / "docs/decisions/0002-pins.md").read_text().partition("**Decision.**")[2]
    dependencies = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    pins = re.findall(r"`(\w+[>=<][^`]+)`", text)
    assert len(pins) == 3
    assert set(pins) <= set(dependencies)


def test_the_release_that_the_tour_shows_is_that_of_its_files(tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text()
    block = next(block for _, _, block in FENCE.findall(text) if "cat > braking.py" in block)
    subprocess.run(["bash", "-c", block], env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}, check=True)
    digest = tree_digest(scan(tmp_path / "braking").entries)
    assert f"Release {digest[:12]} of braking/cars" in text
