"""Who refers to what in a store: pointers to releases, run records to a release and to artifacts."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial

from shipway.deployment.history import Pointer, read_pointer_at
from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.release.retention import in_parallel
from shipway.run.record import RunRecord, read_record
from shipway.store.base import Store

PAGES = "reports"


def is_pointer(key: str) -> bool:
    """Tell whether a deployment's pointer lies under `key`."""
    return key.startswith("deployments/") and key.count("/") == 2 and key.endswith(".json")


def is_record(key: str) -> bool:
    """Tell whether a run's record lies under `key`."""
    return key.startswith("runs/") and key.count("/") == 4 and key.endswith("/run.json")


def is_data(key: str) -> bool:
    """Tell whether something that an attempt of a run saved lies under `key`."""
    parts = key.split("/")
    return len(parts) > 5 and parts[0] == "runs" and parts[4].isdigit()


def run_of(key: str) -> str:
    """Return the folder of the run that an object under `runs/` is of."""
    return "/".join(key.split("/")[:4])


def run_of_page(key: str) -> str:
    """Return the folder of the run that a page under `reports/` is of."""
    return f"runs/{key.removeprefix(f'{PAGES}/').removesuffix('.html')}"


def deployment_of(key: str) -> str:
    """Return `FLOW/NAME`, as the key of a pointer says it."""
    return key.removeprefix("deployments/").removesuffix(".json")


def read_pointers(store: Store) -> Iterator[tuple[str, Pointer | IntegrityError]]:
    """Yield the key of every pointer, and the pointer or what is wrong with it."""
    keys = (info.key for info in store.list("deployments/") if is_pointer(info.key))
    for key, found in in_parallel(partial(_pointer, store), keys):
        if found is not None:
            yield key, found


def read_records(store: Store, keys: Iterable[str]) -> Iterator[tuple[str, RunRecord | IntegrityError]]:
    """Yield the key of every record that is there, and the record or what is wrong with it."""
    for key, found in in_parallel(partial(_record, store), keys):
        if found is not None:
            yield key, found


def _pointer(store: Store, key: str) -> tuple[str, Pointer | IntegrityError | None]:
    try:
        return key, read_pointer_at(store, key)
    except IntegrityError as error:
        return key, error


def _record(store: Store, key: str) -> tuple[str, RunRecord | IntegrityError | None]:
    try:
        return key, read_record(store, key)
    except ObjectNotFoundError:
        return key, None
    except IntegrityError as error:
        return key, error
