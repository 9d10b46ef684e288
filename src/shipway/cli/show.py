"""`shipway show`: show one run and what it saved."""

from __future__ import annotations

import click

from shipway.cli.follow import run_facts, show_facts, watch_run
from shipway.cli.output import epilog, json_option, print_json
from shipway.settings import Settings


@click.command(
    epilog=epilog(
        ["shipway show brave-otter", "shipway show brave-otter --json", "shipway show brave-otter --watch"],
        [1, 4, 5, 6, 9, 10, 11],
    )
)
@click.argument("run")
@click.option("-w", "--watch", is_flag=True, help="Follow the run to its end first; the exit status is the run's.")
@json_option
def command(run: str, watch: bool, as_json: bool) -> None:
    """Show a run, named by name or id: state, parameters, metrics, and every object it saved."""
    from shipway.prefect.api import Api
    from shipway.prefect.runs import find_run

    settings = Settings.load()
    api = Api(settings)
    found = find_run(api, run)
    facts = watch_run(api, found["id"], settings=settings) if watch else run_facts(api, found, settings)
    if as_json:
        print_json(facts)
    else:
        show_facts(facts)
