"""`shipway get`: fetch something a run saved."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from shipway.cli.output import echo, epilog, size
from shipway.errors import InputError, NotFoundError, UsageError
from shipway.settings import Settings

if TYPE_CHECKING:
    from shipway.artifact import Artifact
    from shipway.store.base import Store


@click.command(
    epilog=epilog(
        [
            "shipway get brave-otter metrics",
            "shipway get brave-otter model model.txt",
            "shipway get brave-otter plots/ plots",
            "shipway get brave-otter metrics - | jq .rmse",
        ],
        [3, 4, 5, 6, 9],
    )
)
@click.argument("run")
@click.argument("artifact")
@click.argument("dest", required=False, type=click.Path(path_type=Path))
def command(run: str, artifact: str, dest: Path | None) -> None:
    """Fetch an artifact of a completed run into a file; its digest is checked.

    A name that ends in `/` fetches everything below it. DEST is a file, a folder that exists, or `-` for standard
    output; by default the artifact's own file name in the current folder.
    """
    from shipway.prefect.api import Api
    from shipway.prefect.runs import data_folder, find_run, store_block
    from shipway.prefect.stores import store_of
    from shipway.run.fetch import download, files_of
    from shipway.run.record import find_record

    settings = Settings.load()
    api = Api(settings)
    found = find_run(api, run)
    block = store_block(api, found, settings)
    store = store_of(settings, block) if block else None
    record = find_record(store, data_folder(found)) if store else None
    if store is None or record is None:
        raise NotFoundError(
            f"run {found['name']} has no data", hint=f"it is {found['state_name']}; data is there once it completed"
        )
    whole = [item for item in record.artifacts if artifact.endswith("/") and item.name.startswith(artifact)]
    chosen = record.artifact(artifact.rstrip("/")) if not whole else None
    if chosen is not None and chosen.codec == "folder":
        whole = files_of(store, chosen, record.artifacts)
        artifact = f"{chosen.name}/"
    # A name has no ending, its object has: a file that people open needs it.
    jobs = [
        ((dest or Path(artifact)) / Path(item.name.removeprefix(artifact)).parent / _file_name(item), item)
        for item in whole
    ]
    if not whole and chosen is not None:
        jobs = [(dest / _file_name(chosen) if dest and dest.is_dir() else dest or Path(_file_name(chosen)), chosen)]
    if dest == Path("-"):
        _print(store, jobs)
        return
    for path, item in jobs:
        try:
            download(store, item, path)
        except OSError as error:
            raise InputError(f"{path} cannot be written: {error.strerror}") from None
        echo(f"{path}  {size(item.bytes)}")


def _print(store: Store, jobs: list[tuple[Path, Artifact]]) -> None:
    from tempfile import TemporaryDirectory

    from shipway.run.fetch import download

    if len(jobs) != 1:
        raise UsageError(f"{len(jobs)} artifacts do not fit into one standard output")
    # Checked before the first byte is shown: what reads us must not work on damaged data.
    with TemporaryDirectory(prefix="shipway-get-") as folder:
        path = download(store, jobs[0][1], Path(folder) / "artifact")
        with path.open("rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)


def _file_name(artifact: Artifact) -> str:
    """Return what a fetched artifact is called: its own name, with the ending of its object."""
    name = artifact.name.rpartition("/")[2]
    ending = Path(artifact.key).suffix
    return name if name.endswith(ending) else f"{name}{ending}"
