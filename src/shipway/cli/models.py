"""`shipway models`: list models, their versions, and their champions."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from shipway.cli.output import block_option, echo, epilog, json_option, print_json, print_table, say
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.model.registry import Line
    from shipway.model.version import ModelVersion

EXAMPLES = ["shipway models", "shipway models arrival-delay", "shipway models --json -sb s3/prod"]


@click.command(epilog=epilog(EXAMPLES, [3, 4, 5, 6, 9]))
@click.argument("name", required=False)
@block_option
@json_option
def command(name: str | None, block: str | None, as_json: bool) -> None:
    """List models with their champions; with NAME, the model's versions, newest first, and its champions so far.

    A version is `champion` or `was champion`; `kept`: its gate did not pass, or it was not checked, so that the
    champion was kept; `held`: its gate passed, but another had become champion meanwhile; `waiting`: its run was killed
    before it could promote it.
    """
    from shipway.model.registry import read_line, read_lines
    from shipway.prefect.stores import default_block, store_of

    settings = Settings.load()
    store = store_of(settings, block or default_block(settings))
    if name is not None:
        line = read_line(store, name)
        if as_json:
            print_json(_facts(line))
        else:
            _show(line)
        return
    lines = read_lines(store)
    if as_json:
        print_json([{key: value for key, value in _facts(line).items() if key != "versions"} for line in lines])
    elif not lines:
        say(f"There are no models in {store.address}.")
    else:
        print_table(("MODEL", "VERSIONS", "CHAMPION", "SINCE", "METRIC"), [_row(line) for line in lines])


def _facts(line: Line) -> dict[str, Any]:
    champion = _champion(line)
    return {
        "name": line.name,
        "count": len(line.versions),
        "champion": line.champion.current,
        "since": line.champion.history[0].at if line.champion.history else None,
        "metric": champion.decision.metric if champion and champion.decision else None,
        "score": champion.decision.scores["candidate"] if champion and champion.decision else None,
        "history": [asdict(move) for move in line.champion.history],
        "held": [asdict(move) for move in line.champion.held],
        "versions": [
            {**version.to_json(), "status": line.status(version), "reasons": line.reasons(version)}
            for version in line.versions
        ],
    }


def _champion(line: Line) -> ModelVersion | None:
    return next((version for version in line.versions if version.version == line.champion.current), None)


def _row(line: Line) -> tuple[object, ...]:
    since = line.champion.history[0].at if line.champion.history else ""
    return line.name, len(line.versions), line.champion.current, since, _metric(_champion(line))


def _metric(version: ModelVersion | None) -> str:
    decision = version.decision if version else None
    return f"{decision.metric} {decision.scores['candidate']:.6g}" if decision else ""


def _show(line: Line) -> None:
    rows = [
        (
            version.version,
            line.status(version),
            _metric(version),
            version.run_name,
            (version.release or "").partition(".")[2][:12],
            version.at,
        )
        for version in line.versions
    ]
    print_table(("VERSION", "STATUS", "METRIC", "RUN", "RELEASE", "REGISTERED"), rows)
    for version in line.versions:
        echo()
        echo(f"Version {version.version}: {line.status(version)}")
        for reason in line.reasons(version):
            echo(f"  {reason}")
    if line.champion.history:
        names = {version.run: version.run_name for version in line.versions}
        moves = [(move.version, move.at, names.get(move.by, move.by), move.reason) for move in line.champion.history]
        echo()
        print_table(("CHAMPION", "SINCE", "BY", "REASON"), moves)
