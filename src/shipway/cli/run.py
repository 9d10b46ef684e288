"""`shipway run`: start a run of a deployment."""

from __future__ import annotations

import click

from shipway.cli.follow import show_facts, watch_run
from shipway.cli.output import echo, epilog, json_option, print_json, say
from shipway.errors import UsageError
from shipway.settings import Settings


@click.command(
    epilog=epilog(
        [
            "shipway run main/daily",
            "shipway run main/daily -p month=2013-03 --watch",
            "shipway run main/daily --watch --json",
            "shipway run main/daily --release 484fb",
            "shipway run --resume eager-otter --watch",
        ],
        [1, 3, 4, 5, 6, 9, 10, 11],
    )
)
@click.argument("deployment", metavar="[FLOW/NAME]", required=False)
@click.option(
    "-p", "--param", "parameters", multiple=True, metavar="KEY=VALUE", help="Parameter, as JSON or text. Repeatable."
)
@click.option(
    "-w", "--watch", is_flag=True, help="Show logs and task states as they happen; the exit status is the run's."
)
@click.option("--release", metavar="RELEASE", help="Run this release of the deployment's history, by its first digits.")
@click.option(
    "--resume",
    "resumed",
    metavar="RUN",
    help="Run a failed run again, by name or id, without the tasks that completed in it; FLOW/NAME is not given then.",
)
@click.option("--name", help="Name of the run; by default the server makes one up.")
@click.option("-t", "--tag", "tags", multiple=True, help="Tag of the run. Repeatable.")
@json_option
def command(
    deployment: str | None,
    parameters: tuple[str, ...],
    watch: bool,
    release: str | None,
    resumed: str | None,
    name: str | None,
    tags: tuple[str, ...],
    as_json: bool,
) -> None:
    """Start a run of a deployment, and watch it to its end with --watch.

    It executes the deployment's current release, or the one that is asked for. A run that resumes a failed one has
    the same parameters; tasks that completed in that one, with the same code and inputs, are not executed again.
    """
    from shipway.deployment.parameters import check_parameters, parse_parameters
    from shipway.prefect.api import Api
    from shipway.prefect.runs import create_run

    if (deployment is None) == (resumed is None):
        raise UsageError("give either FLOW/NAME or --resume RUN", hint="see `shipway run --help`")
    if resumed is not None and parameters:
        raise UsageError("a resumed run has the parameters it had", hint="with others, start a new run of FLOW/NAME")
    settings = Settings.load()
    api = Api(settings)
    labels: dict[str, str] = {}
    if resumed is not None:
        from shipway.prefect.again import resume

        again = resume(api, resumed)
        found, deployment, labels = dict(again.deployment), again.full_name, dict(again.labels)
    else:
        found = api.deployment(str(deployment))
    schema = found.get("parameter_openapi_schema") or {}
    if release is not None:
        from shipway.prefect.again import ask_for_release

        asked, known = ask_for_release(settings, str(deployment), release)
        labels |= asked
        schema = schema if known is None else known
    values = again.run["parameters"] if resumed is not None else parse_parameters(parameters, schema)
    if schema:
        check_parameters({**found["parameters"], **values}, schema, complete=True)
    created = create_run(api, found, values, tags=list(tags), name=name, labels=labels)
    page = f"{api.ui_url}/runs/flow-run/{created['id']}"
    if not watch:
        if as_json:
            print_json({"id": created["id"], "name": created["name"], "page": page})
        else:
            echo(f"Created run {created['name']} of {deployment}: {page}")
            say(f"Watch it with: shipway show {created['name']} --watch")
        return
    say(f"Run {created['name']} of {deployment}: {page}")
    facts = watch_run(api, created["id"], settings=settings)
    if as_json:
        print_json(facts)
    else:
        show_facts(facts)
