"""What a process has seen of other runs' records: they never change, and which there are is asked once in a while."""

from __future__ import annotations

import time
from collections.abc import Iterator

from shipway.run.record import RunRecord, read_record, record_keys
from shipway.store.base import Store

FRESH_SECONDS = 0.2
"""How long a list of a flow's runs is taken for true: somebody who loads a thousand things does not ask each time, and
no run that one waited for is over so soon after one looked."""
REMEMBERED = 256
"""Records and lists kept; with one more, all begins anew."""

_Keys = list[tuple[str, str, str]]
_records: dict[tuple[Store, str], RunRecord] = {}
_lists: dict[tuple[Store, str], tuple[float, _Keys]] = {}


def records_of(store: Store, flow: str, *, fresh: bool = False) -> Iterator[tuple[str, str, str]]:
    """Return what `record_keys` does; what this process itself has committed is among it.

    Args:
        store: where the records lie.
        flow: whose runs.
        fresh: ask the store, whatever is remembered.
    """
    since, keys = (0.0, None) if fresh else _lists.get((store, flow), (0.0, None))
    if keys is None or time.monotonic() - since > FRESH_SECONDS:
        if len(_lists) >= REMEMBERED:
            _lists.clear()
        since, keys = time.monotonic(), list(record_keys(store, flow))
        _lists[store, flow] = since, keys
    return iter(keys)


def record_at(store: Store, key: str) -> RunRecord:
    """Return the record under a key; raises as `read_record`."""
    if (store, key) not in _records:
        if len(_records) >= REMEMBERED:
            _records.clear()
        _records[store, key] = read_record(store, key)
    return _records[store, key]


def forget() -> None:
    """Ask anew which runs there are: this process has committed one, or has waited for one."""
    _lists.clear()
