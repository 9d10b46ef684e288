"""Documents that several people change: each change is made to the version that it replaces."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable

from shipway.errors import ConflictError, ObjectExistsError, ObjectNotFoundError
from shipway.store.base import Store

TRIES = 8
PAUSE_SECONDS = 0.02


def change(store: Store, key: str, make: Callable[[bytes | None], bytes | None]) -> str | None:
    """Put in a document's place what `make` makes of it, by compare-and-swap; create it where there is none.

    `make` is asked anew for every version of the document that is met, and for None where there is none. What it
    returns needs a nonce: a writer whose answer was lost tells its own write from another's by the bytes.

    Returns:
        The ETag of what was written, or None where `make` returned None, as there is nothing to change.

    Raises:
        ConflictError: somebody else kept changing it.
    """
    for attempt in range(TRIES):
        # Two who met once would meet again.
        time.sleep(attempt * random.uniform(0, PAUSE_SECONDS))  # noqa: S311 - a pause is no secret
        etag: str | None = None
        data: bytes | None = None
        with contextlib.suppress(ObjectNotFoundError):
            data, etag = store.read_tagged(key)
        wanted = make(data)
        if wanted is None:
            return None
        try:
            return store.create(key, wanted) if etag is None else store.replace(key, wanted, etag=etag)
        except (ObjectExistsError, ConflictError):
            continue
    raise ConflictError(f"{store.url(key)} keeps being changed by somebody else", hint="try again")
