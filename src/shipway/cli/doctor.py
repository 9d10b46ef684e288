"""`shipway doctor`: what is wrong with this installation and project, and the command that mends it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

import click

from shipway.cli.output import echo, epilog, json_option, print_json, say
from shipway.doctor import Check, Finding, examine
from shipway.errors import InputError
from shipway.settings import Settings, find_project

COLORS = {"ok": "green", "note": "blue", "warning": "yellow", "error": "red"}


@click.command(epilog=epilog(("shipway doctor", "shipway doctor --json | jq -r '.findings[].mend'"), (1,)))
@json_option
def command(as_json: bool) -> int:
    """Examine installation, machine, project, server and store; print what is wrong and the command that mends it.

    Nothing is mended. The store is tried out with one small object, which is removed again. The exit status is 0 when
    all is well, or only notes were made, else 1.
    """
    findings = _examine()
    wrong = sum(finding.to_mend for finding in findings)
    if as_json:
        print_json({"well": not wrong, "findings": [asdict(finding) for finding in findings]})
    else:
        _print(findings)
        say(f"\n{wrong} {'thing is' if wrong == 1 else 'things are'} to be mended." if wrong else "\nAll is well.")
    return 1 if wrong else 0


def _examine() -> list[Finding]:
    from shipway.doctor.project import unreadable
    from shipway.prefect.doctor import checks, server_checks

    try:
        settings = Settings.load()
    except InputError as error:
        settings = Settings(project=find_project(Path.cwd()))
        return [unreadable(error, settings), *examine(_local(settings))]
    first = examine({**_local(settings), **server_checks(settings)})
    answers = any(finding.check == "server" and finding.level == "ok" for finding in first)
    return [*first, *(examine(checks(settings)) if answers else ())]


def _local(settings: Settings) -> Mapping[str, Check]:
    """Return the checks that need no server."""
    from shipway.doctor import installation, machine, project, surroundings

    return {
        "python": installation.python_version,
        "packages": installation.requirements,
        "lock": lambda: installation.lock(settings),
        "bytecode": installation.bytecode,
        "s3 server": lambda: installation.s3_server(settings),
        "disk": lambda: machine.disks(settings),
        "descriptors": machine.descriptors,
        "ports": lambda: machine.ports(settings),
        "permissions": lambda: project.permissions(settings),
        "stack": lambda: project.leftovers(settings),
        "environment": lambda: surroundings.environment(settings),
        "profile": lambda: surroundings.profile(settings),
        "secrets": lambda: surroundings.secrets_in_files(settings),
    }


def _print(findings: Iterable[Finding]) -> None:
    for finding in findings:
        echo(f"{finding.level:<8}", fg=COLORS[finding.level], bold=finding.to_mend, nl=False)
        echo(f" {finding.check:<12} {finding.what}")
        if finding.level != "ok":
            if finding.why:
                echo(f"{'':<21} why: {finding.why}")
            if finding.mend:
                echo(f"{'':<21} mend: {finding.mend}")
