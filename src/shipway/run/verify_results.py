"""Whether what tasks returned lies under `results/` as it was written."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from shipway.errors import IntegrityError, ObjectNotFoundError
from shipway.release.retention import in_parallel
from shipway.release.verify import DAMAGED, MISSING, Finding, hash_object
from shipway.run.results import AREA, read_kept
from shipway.store.base import Store


def check_results(store: Store) -> Iterator[Finding]:
    """Read every result of a task with its parts, and yield what is wrong.

    Nothing depends on one: a resumed run does again what it cannot read. What a collection removes meanwhile is not
    reported.
    """
    keys = (info.key for info in store.list(f"{AREA}/") if info.key.endswith(".json"))
    for findings in in_parallel(partial(_check, store), keys):
        yield from findings


def _check(store: Store, key: str) -> list[Finding]:
    name = key.removeprefix(f"{AREA}/").removesuffix(".json")
    try:
        kept = read_kept(store, key)
    except ObjectNotFoundError:
        return []
    except IntegrityError as error:
        return [Finding("result", name, DAMAGED, key, reason=error.message)]
    findings = []
    for part in kept.parts:
        try:
            problem = None if hash_object(store, part.key) == (part.bytes, part.sha256) else DAMAGED
        except ObjectNotFoundError:
            problem = MISSING
        if problem:
            findings.append(Finding("result", name, problem, part.key, (kept.task,)))
    # Its document goes first when it is collected.
    return findings if not findings or key in {info.key for info in store.list(key)} else []
