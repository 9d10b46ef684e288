"""The command line: one file per command. This is the only place that catches `ShipwayError`."""

from __future__ import annotations

import errno
import os
import sys
from importlib import import_module

import click

from shipway.cli.output import echo
from shipway.errors import ShipwayError

COMMANDS = {
    "demo": "Run the whole walk on the flights example; leaves the stack up.",
    "up": "Start the local stack: API server, object store, worker.",
    "down": "Stop the local stack.",
    "status": "Show what of the local stack runs, and where.",
    "logs": "Show the logs of the local stack.",
    "block": "Save a store as a Prefect block.",
    "build": "Make a release of a flow's folder, and its deployment file.",
    "apply": "Make deployments what their files say.",
    "deploy": "Build and apply in one go.",
    "ls": "List deployments.",
    "inspect": "Show one deployment.",
    "releases": "List a deployment's releases.",
    "rollback": "Make an earlier release, or an earlier champion of a model, current again.",
    "worker": "Run what is in a queue.",
    "run": "Start a run of a deployment.",
    "backfill": "Run a deployment once for each of many values.",
    "runs": "List runs.",
    "show": "Show one run and what it saved.",
    "get": "Fetch something a run saved.",
    "report": "Open the page of a run, or one over all of them.",
    "models": "List models, their versions and champions.",
    "promote": "Make a version of a model champion.",
    "why": "Show what something was made of, down to raw inputs.",
    "reproduce": "Do a run again and compare what it saves.",
    "mlflow": "Mirror runs in MLflow.",
    "verify": "Check everything in the store that is in use.",
    "gc": "Remove what nothing in the store needs any more.",
    "doctor": "Find what is wrong here, and the command that mends it.",
}
"""Commands by name with their one-line help, so that `shipway --help` need not import them."""

ALIASES = ("orion", "server", "config", "deployment", "agent")
"""Groups of the 2022 commands, kept in `cli/aliases.py` and not listed."""


class Commands(click.Group):
    """Imports a command's module when the command is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the commands in the order of the walk."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import and return one command, or None."""
        if cmd_name in ALIASES:
            alias: click.Command = getattr(import_module("shipway.cli.aliases"), cmd_name)
            return alias
        if cmd_name in COMMANDS:
            command: click.Command = import_module(f"shipway.cli.{cmd_name}").command
            return command
        return None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands without importing them."""
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


REMEDIES = {
    errno.ENOSPC: "make room on that disk",
    errno.EDQUOT: "make room within your quota",
    errno.EROFS: "choose another folder",
    errno.EMFILE: "let the process have more open files, with `ulimit -n 4096`",
    errno.ENFILE: "the machine has too many open files; end what holds them",
}
"""What to do about what a machine may lack at any moment, whatever is being done."""


@click.command(cls=Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(package_name="shipway")
def cli() -> None:
    """Take a machine-learning workflow from a script to a deployed one, on Prefect 3 and S3."""


def main(args: list[str] | None = None) -> None:
    """Run the command line and exit with its status; an error is one line on standard error."""
    _spare_this_machine()
    try:
        color = False if os.environ.get("NO_COLOR") else None
        status = cli.main(args=args, prog_name="shipway", standalone_mode=False, color=color)
        _leave(status if isinstance(status, int) else 0)
    except ShipwayError as error:
        echo(f"shipway: {' '.join(str(error).split())}", err=True)
        _leave(error.exit_code)
    except click.ClickException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "shipway"
        echo(f"shipway: {error.format_message()} See `{path} --help`.", err=True)
        _leave(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        echo("shipway: interrupted", err=True)
        _leave(130)
    except BrokenPipeError:
        # The reader (`| head`) has seen enough; flushing at exit would complain about it once more.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        _leave(0)
    except OSError as error:
        if (remedy := REMEDIES.get(error.errno or 0)) is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        echo(f"shipway: {error.strerror}{where}: {remedy}", err=True)
        _leave(1)


def _spare_this_machine() -> None:
    """Have no proxy of the environment asked for what runs on this machine, here and in what is started from here."""
    if not any(
        os.environ.get(name) or os.environ.get(name.upper()) for name in ("http_proxy", "https_proxy", "all_proxy")
    ):
        return
    from shipway.settings import THIS_MACHINE

    spared = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    missing = [host for host in THIS_MACHINE if host not in spared.replace(" ", "").split(",")]
    os.environ["no_proxy"] = os.environ["NO_PROXY"] = ",".join([spared, *missing] if spared else missing)


def _leave(status: int) -> None:
    sys.exit(status)
