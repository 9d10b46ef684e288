"""Calls that outlast an outage of the store."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable
from typing import Concatenate, ParamSpec, Protocol, TypeVar

from shipway.errors import StoreUnreachableError


class Known(Protocol):
    """A store that may be known to exist.

    Attributes:
        known: whether it has answered before, so that its silence must be an outage.
        outage_seconds: how long that is waited out.
    """

    known: bool
    outage_seconds: float


_S = TypeVar("_S", bound=Known)
_P = ParamSpec("_P")
_R = TypeVar("_R")


def patient(method: Callable[Concatenate[_S, _P], _R]) -> Callable[Concatenate[_S, _P], _R]:
    """Have a method tried again while the store does not answer, if it has answered before.

    An S3 client itself sends a write again only where it is sure that the first one did not arrive, and never goes on
    with what it has begun to read. The method must be one that may be called twice: it looks whether what it finds in
    the store is its own doing.
    """

    @functools.wraps(method)
    def wrapped(self: _S, /, *args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            result = method(self, *args, **kwargs)
        except StoreUnreachableError as error:
            if not self.known:
                raise
            logging.getLogger(__name__).warning("%s; trying again for up to %g s", error, self.outage_seconds)
            # Imported where it is needed, which most processes never do.
            from tenacity import Retrying, retry_if_exception_type, stop_after_delay, wait_exponential

            again = Retrying(
                retry=retry_if_exception_type(StoreUnreachableError),
                stop=stop_after_delay(self.outage_seconds),
                wait=wait_exponential(multiplier=0.1, max=5),
                reraise=True,
            )
            return again(method, self, *args, **kwargs)
        self.known = True
        return result

    return wrapped
