"""`shipway run`: start a run of a deployment."""

from __future__ import annotations

import click

from shipway.cli.follow import show_facts, watch_run
from shipway.cli.output import epilog, json_option, print_json, say
from shipway.settings import Settings


@click.command(
    epilog=epilog(
        [
            "shipway run main/daily",
            "shipway run main/daily -p month=2013-03 --watch",
            "shipway run main/daily --watch --json",
        ],
        [1, 3, 4, 5, 6, 9, 10, 11],
    )
)
@click.argument("deployment", metavar="FLOW/NAME")
@click.option(
    "-p", "--param", "parameters", multiple=True, metavar="KEY=VALUE", help="Parameter, as JSON or text. Repeatable."
)
@click.option(
    "-w", "--watch", is_flag=True, help="Show logs and task states as they happen; the exit status is the run's."
)
@click.option("--name", help="Name of the run; by default the server makes one up.")
@click.option("-t", "--tag", "tags", multiple=True, help="Tag of the run. Repeatable.")
@json_option
def command(
    deployment: str, parameters: tuple[str, ...], watch: bool, name: str | None, tags: tuple[str, ...], as_json: bool
) -> None:
    """Start a run of a deployment, and watch it to its end with --watch."""
    from shipway.deployment.parameters import check_parameters, parse_parameters
    from shipway.prefect.api import Api
    from shipway.prefect.runs import create_run

    settings = Settings.load()
    api = Api(settings)
    found = api.deployment(deployment)
    schema = found.get("parameter_openapi_schema") or {}
    values = parse_parameters(parameters, schema)
    if schema:
        check_parameters({**found["parameters"], **values}, schema, complete=True)
    created = create_run(api, found, values, tags=list(tags), name=name)
    page = f"{api.ui_url}/runs/flow-run/{created['id']}"
    if not watch:
        if as_json:
            print_json({"id": created["id"], "name": created["name"], "page": page})
        else:
            click.echo(f"Created run {created['name']} of {deployment}: {page}")
            say(f"Watch it with: shipway show {created['name']} --watch")
        return
    say(f"Run {created['name']} of {deployment}: {page}")
    facts = watch_run(api, created["id"], settings=settings)
    if as_json:
        print_json(facts)
    else:
        show_facts(facts)
