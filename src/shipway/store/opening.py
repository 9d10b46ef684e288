"""From where a store is to the store, importing the client of its kind only."""

from __future__ import annotations

from shipway.store.base import Store
from shipway.store.url import StoreConfig


def open_store(
    config: StoreConfig,
    *,
    retry_seconds: float | None = None,
    known: bool = False,
    outage_seconds: float | None = None,
) -> Store:
    """Open the store that `config` describes; nothing is sent yet.

    Args:
        config: where the store is.
        retry_seconds: how long a failing request is tried again, where the store is a bucket; by default a minute.
        known: whether it has answered somebody before, so that its silence is an outage, to be waited out.
        outage_seconds: how long it may be away in all where it is known, instead of the time that is usual.

    Raises:
        AccessDeniedError: no credentials are given and the standard AWS chain has none.
    """
    if config.kind == "folder":
        from shipway.store.folder import FolderStore

        return FolderStore(config.folder)
    from shipway.store.object_store import RETRY_SECONDS, ObjectStore

    if outage_seconds is not None:
        retry_seconds = min(RETRY_SECONDS, outage_seconds) if retry_seconds is None else retry_seconds
        outage_seconds = max(0.0, outage_seconds - retry_seconds)
    store = ObjectStore(config, retry_seconds=retry_seconds, outage_seconds=outage_seconds)
    store.known = known
    return store
