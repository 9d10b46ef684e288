"""A run for the eyes: following it to its end, and what is known of it; shared by `run`, `show` and `demo`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from shipway.cli.output import echo, print_table, size
from shipway.errors import RunCancelledError, RunCrashedError, RunFailedError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.prefect.api import Api

STATES = {"COMPLETED": "green", "RUNNING": "blue", "FAILED": "red", "CRASHED": "red", "CANCELLED": "yellow"}


def watch_run(api: Api, run_id: str, *, settings: Settings) -> dict[str, Any]:
    """Follow a run to its end; return the facts that `shipway show` prints.

    Raises:
        RunFailedError, RunCrashedError, RunCancelledError: it did not complete.
    """
    from shipway.prefect.runs import Happening, find_run, follow

    def tell(what: Happening) -> None:
        if what.kind == "log":
            colour = {"WARNING": "yellow", "ERROR": "red", "CRITICAL": "red"}.get(what.level)
            echo(f"  {what.text}", fg=colour, err=True)
        else:
            head = {"state": "Run ", "task": "Task "}.get(what.kind, "")
            echo(f"{head}{what.text}", fg=STATES.get(what.level), err=True)

    ended = follow(api, run_id, tell)
    errors = {"FAILED": RunFailedError, "CRASHED": RunCrashedError, "CANCELLED": RunCancelledError}
    if error := errors.get(ended["state_type"]):
        raise error(f"run {ended['name']} is {ended['state_name']}", hint="its logs are above")
    return run_facts(api, find_run(api, run_id), settings)


def run_facts(api: Api, run: dict[str, Any], settings: Settings) -> dict[str, Any]:
    """Return what is known of a run: the server's part and, where it completed, its record."""
    from shipway.prefect.labels import release_of
    from shipway.prefect.runs import data_folder, store_block
    from shipway.prefect.stores import store_of
    from shipway.run.record import find_record

    facts: dict[str, Any] = {
        "run": run["name"],
        "id": run["id"],
        "flow": run["flow_name"],
        "state": run["state_name"],
        "message": (run.get("state") or {}).get("message"),
        "release": release_of(run),
        "parameters": run["parameters"],
        "seconds": round(run["total_run_time"], 3),
        "page": f"{api.ui_url}/runs/flow-run/{run['id']}",
        "metrics": {},
        "artifacts": [],
        "models": [],
    }
    block = store_block(api, run, settings)
    if block is None or run["state_type"] != "COMPLETED":
        return facts
    store = store_of(settings, block)
    record = find_record(store, data_folder(run))
    if record is not None:
        facts["metrics"] = dict(record.metrics)
        facts["parameters"] = dict(record.parameters)
        facts["artifacts"] = [
            {**artifact.to_json(), "address": store.url(artifact.key)} for artifact in record.artifacts
        ]
        facts["environment"] = {key: value for key, value in record.environment.items() if key != "packages"}
        facts["inputs"] = list(record.inputs)
        facts["reads"] = list(record.reads)
        facts["reproduces"] = record.reproduces
        facts["models"] = list(record.models)
    return facts


def show_facts(facts: dict[str, Any]) -> None:
    """Print what `run_facts` returned for a person."""
    for name in ("run", "state", "message", "release", "parameters", "seconds", "page"):
        value = facts[name]
        if value not in (None, ""):
            _fact(name, json.dumps(value, ensure_ascii=False) if isinstance(value, dict) else value)
    for name, value in facts["metrics"].items():
        _fact("metric", f"{name} = {value:.6g}")
    for name, what in (("inputs", "loaded from other runs"), ("reads", "files of the release read")):
        if facts.get(name):
            _fact(name, f"{len(facts[name])} {what}; see `shipway why {facts['run']}`")
    if facts["artifacts"]:
        echo()
        rows = [(a["name"], size(a["bytes"]), a["rows"], a["address"]) for a in facts["artifacts"]]
        print_table(("SAVED", "SIZE", "ROWS", "ADDRESS"), rows)
    if facts["models"]:
        echo()
        verdicts = [
            (m["name"], m["version"], (m["decision"] or {}).get("verdict"), m["artifact"]) for m in facts["models"]
        ]
        print_table(("MODEL", "VERSION", "VERDICT", "SAVED AS"), verdicts)


def _fact(name: str, value: object) -> None:
    """Print a fact; what has more lines than one stands apart from the names of facts, so that none is feigned."""
    lines = str(value).splitlines() or [""]
    echo(f"{name + ':':12}" + f"\n{'':12}".join(lines))
