"""Whether the pages of runs lie under `reports/` as they were written."""

from __future__ import annotations

from functools import partial

from shipway.digest import is_sealed_page
from shipway.errors import ObjectNotFoundError
from shipway.release.retention import in_parallel
from shipway.release.verify import DAMAGED, PACKS_AT_ONCE, Finding
from shipway.run.references import PAGES
from shipway.store.base import Store

MAX_BYTES = 256 << 20
"""A longer one is no page: a record that makes one is a quarter of that at most."""


def check_pages(store: Store) -> tuple[int, list[Finding]]:
    """Read every page, and compare it with the digest that it ends with.

    Nothing depends on one: it is made again out of the run's record.

    Returns:
        The number of pages, and what is wrong.
    """
    keys = (info.key for info in store.list(f"{PAGES}/") if info.key.endswith(".html"))
    found = list(in_parallel(partial(_check, store), keys, threads=PACKS_AT_ONCE))
    return len(found), [finding for finding in found if finding]


def _check(store: Store, key: str) -> Finding | None:
    try:
        data = store.read(key, length=MAX_BYTES + 1)
    except ObjectNotFoundError:
        return None
    if len(data) <= MAX_BYTES and is_sealed_page(data):
        return None
    name = key.removeprefix(f"{PAGES}/").removesuffix(".html")
    return Finding("page", name, DAMAGED, key, reason="it does not match the digest at its end")
