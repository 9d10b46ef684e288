"""`shipway apply`: make deployments what their files say."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from shipway.cli.output import echo, epilog, json_option, print_json, say
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.deployment.plan import Plan
    from shipway.deployment.spec import DeploymentSpec

WORDS = {
    "create": ("Would create", "Creating"),
    "change": ("Would change", "Changing"),
    "keep": ("Nothing to do for", "Nothing to do for"),
}
"""How a plan begins that is only shown, and one that is carried out next."""

DONE = {"create": "Created", "change": "Changed"}


@click.command(
    epilog=epilog(["shipway apply main-deployment.yaml", "shipway apply *-deployment.yaml --plan"], [3, 4, 5, 6, 7, 9])
    + "\n\nWith --plan, exit status 2 says that there is something to do."
)
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option(
    "--plan",
    "plan_only",
    is_flag=True,
    help="Show what would change, change nothing; exit status 2 when something would.",
)
@json_option
def command(files: tuple[Path, ...], plan_only: bool, as_json: bool) -> int:
    """Create or change deployments as their files say; all of them or none.

    Shows the plan first, makes work pool and queue where missing, and leaves a schedule that somebody paused as it is.
    """
    return apply_files(files, plan_only=plan_only, as_json=as_json)


def apply_files(files: tuple[Path, ...], *, plan_only: bool = False, as_json: bool = False, quiet: bool = False) -> int:
    """Plan and, unless `plan_only`, apply deployment files; return the exit status.

    The plan is shown before anything is changed, unless `quiet`; as JSON it is the answer, and comes when all is done.
    """
    from shipway.prefect.apply import apply, make_plans

    settings = Settings.load()
    plans = make_plans(settings, [_read(settings, path) for path in files])
    speaks = not (quiet or as_json)
    if speaks:
        for plan in plans:
            _show(plan, plan_only=plan_only)
    if not plan_only:
        apply(settings, plans)
    if as_json:
        print_json([_facts(plan) for plan in plans])
    elif speaks and not plan_only:
        for plan in plans:
            if plan.verb != "keep":
                echo(f"{DONE[plan.verb]} deployment {plan.spec.full_name}", bold=True)
    return 2 if plan_only and any(plan.changes for plan in plans) else 0


def _read(settings: Settings, path: Path) -> DeploymentSpec:
    """Read a deployment file; one of Prefect 2 names no code, so its folder is released first."""
    from shipway.deployment.prefect2 import is_prefect2, translate
    from shipway.deployment.spec import read

    if not is_prefect2(path):
        return read(path)
    from shipway.prefect.build import build_translated

    translated = translate(path)
    say(f"{path} is a deployment file of Prefect 2; releasing its folder")
    for reason in translated.dropped:
        say(f"Dropped: {reason}")
    return build_translated(settings, path.resolve(), translated.values).spec


def _facts(plan: Plan) -> dict[str, Any]:
    changes = [{"field": c.field, "before": c.before, "after": c.after} for c in plan.changes]
    return {"deployment": plan.spec.full_name, "action": plan.verb, "changes": changes}


def _show(plan: Plan, *, plan_only: bool) -> None:
    would, does = WORDS[plan.verb]
    echo(f"{would if plan_only else does} deployment {plan.spec.full_name}", bold=True)
    colours = {"+": "green", "-": "red", "~": "yellow"}
    for change in plan.changes:
        line = str(change)
        echo(f"  {line}", fg=colours[line[0]])
