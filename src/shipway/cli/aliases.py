"""The commands of the 2022 walkthrough, word for word with `shipway` in place of `prefect`."""

from __future__ import annotations

import click

from shipway.cli import apply, build, ls, run, up, worker
from shipway.cli.output import epilog, say
from shipway.errors import UsageError
from shipway.settings import CONFIG_FILE, Settings, convert

WITHOUT_WORKER = [option for option in up.command.params if option.name != "no_worker"]


@click.group()
def orion() -> None:
    """What Prefect's server was called in 2022."""


@orion.command("start", epilog=up.command.epilog, params=WITHOUT_WORKER)
@click.pass_context
def orion_start(context: click.Context, /, **options: object) -> int:
    """Start the API server and the object store, without a worker: `shipway up --no-worker`."""
    status: int = context.invoke(up.command, **options, no_worker=True)
    return status


@click.group()
def server() -> None:
    """Prefect's server."""


server.add_command(orion_start, "start")


@click.group()
def config() -> None:
    """Settings of this project."""


@config.command("set", epilog=epilog(["shipway config set PREFECT_API_URL=http://127.0.0.1:4200/api"], [3]))
@click.argument("pairs", nargs=-1, required=True, metavar="NAME=VALUE...")
def config_set(pairs: tuple[str, ...]) -> None:
    """Write settings into shipway.toml, such as PREFECT_API_URL=http://127.0.0.1:4200/api."""
    import tomlkit

    settings = Settings.load()
    path = settings.project / CONFIG_FILE
    document = tomlkit.parse(path.read_text()) if path.exists() else tomlkit.document()
    for pair in pairs:
        variable, equals, text = pair.partition("=")
        name = variable.strip().lower().removeprefix("prefect_").removeprefix("shipway_")
        if not equals:
            raise UsageError(f"{pair!r} is not NAME=VALUE")
        if name in ("api_key", "api_auth_string", "auth_string", "database_url"):
            raise UsageError(
                f"{variable} is a secret and goes into no file", hint=f"export {variable} in the environment"
            )
        document[name] = convert(name, text.strip(), "the command line")
    path.write_text(tomlkit.dumps(document))
    say(f"Wrote {', '.join(pair.partition('=')[0] for pair in pairs)} to {path}")


@click.group()
def deployment() -> None:
    """Deployments."""


deployment.add_command(build.command, "build")
deployment.add_command(apply.command, "apply")
deployment.add_command(ls.command, "ls")
deployment.add_command(run.command, "run")


@click.group()
def agent() -> None:
    """What a worker was called in 2022."""


agent.add_command(worker.start, "start")
