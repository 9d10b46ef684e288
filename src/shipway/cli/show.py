"""`shipway show`: show one run and what it saved."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from shipway.cli.output import epilog, json_option, print_json, print_table, size
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.prefect.api import Api


@click.command(
    epilog=epilog(
        ["shipway show brave-otter", "shipway show brave-otter --json", "shipway show brave-otter --watch"], [4, 5, 6]
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
    if watch:
        from shipway.cli.run import watch_run

        facts = watch_run(api, found["id"], settings=settings)
    else:
        facts = run_facts(api, found, settings)
    if as_json:
        print_json(facts)
    else:
        show_facts(facts)


def run_facts(api: Api, run: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what is known of a run: the server's part and, where it completed, its record."""
    from shipway.prefect.runs import data_folder, store_block
    from shipway.prefect.stores import store_of
    from shipway.run.record import find_record

    facts: dict[str, Any] = {
        "run": run["name"],
        "id": run["id"],
        "flow": run["flow_name"],
        "state": run["state_name"],
        "message": (run.get("state") or {}).get("message"),
        "release": run.get("deployment_version"),
        "parameters": run["parameters"],
        "seconds": round(run["total_run_time"], 3),
        "page": f"{api.ui_url}/runs/flow-run/{run['id']}",
        "metrics": {},
        "artifacts": [],
    }
    block = store_block(api, run, settings)
    if block is None or run["state_type"] != "COMPLETED":
        return facts
    store = store_of(settings, block)
    record = find_record(store, data_folder(run))
    if record is not None:
        facts["metrics"] = dict(record.metrics)
        facts["artifacts"] = [
            {**artifact.to_json(), "address": store.url(artifact.key)} for artifact in record.artifacts
        ]
        facts["environment"] = {key: value for key, value in record.environment.items() if key != "packages"}
        facts["inputs"] = list(record.inputs)
    return facts


def show_facts(facts: dict[str, Any]) -> None:
    """Print what `run_facts` returned for a person."""
    for name in ("run", "state", "message", "release", "parameters", "seconds", "page"):
        value = facts[name]
        if value not in (None, ""):
            click.echo(f"{name + ':':12}{json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value}")
    for name, value in facts["metrics"].items():
        click.echo(f"{'metric:':12}{name} = {value:.6g}")
    if facts["artifacts"]:
        click.echo()
        rows = [(a["name"], size(a["bytes"]), a["rows"], a["address"]) for a in facts["artifacts"]]
        print_table(("SAVED", "SIZE", "ROWS", "ADDRESS"), rows)
