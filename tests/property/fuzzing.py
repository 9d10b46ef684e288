"""What the fuzzing tests share: documents that are nearly right, and how many of them are tried.

The suite tries a few of each, `make fuzz` as many as `FUZZ_EXAMPLES` says, and keeps in `.hypothesis/` what failed so
that it is tried first the next time. What has failed once stands as an `@example` for good.
"""

from __future__ import annotations

import copy
import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "30"))
CPU_SECONDS = 10.0
"""Processor time that no input of a few kilobytes may take, on a slow machine either."""

budget = settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))

texts = st.one_of(
    st.text(max_size=8),
    st.sampled_from(
        ["", ".", "..", "/", "../x", "/etc/passwd", "a/../b", "a\0b", "\ud800", "x" * 2000, "1e400", "null", "9" * 5000]
    ),
    st.sampled_from(["runs/f/2024-01-01/r-00000000", "code/1/packs/x", "2024-01-01T00:00:00+00:00", "a" * 64]),
)
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.sampled_from([-1, 0, 1 << 31, 1 << 63, 1 << 70, 10**400]),
    st.floats(),
    texts,
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=8
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the way to every value in a document."""
    if path:
        yield path
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in pairs:
        yield from places(item, (*path, key))


@st.composite
def nearly(draw: st.DrawFn, document: Any) -> Any:
    """Draw a document in which up to three values are others, gone, or there under other names."""
    made = copy.deepcopy(document)
    for _ in range(draw(st.integers(1, 3))):
        path = draw(st.sampled_from(list(places(made)) or [()]))
        if not path:
            return draw(values)
        node = made
        for step in path[:-1]:
            node = node[step]
        match draw(st.sampled_from(["other", "other", "gone", "more"])):
            case "other":
                node[path[-1]] = draw(values)
            case "gone":
                del node[path[-1]]
            case "more" if isinstance(node, dict):
                node[draw(texts)] = draw(values)
            case "more":
                node.append(draw(values))
    return made


def encoded(document: Any) -> bytes:
    """Encode as JSON; what is not Unicode is escaped, as a bad writer may have done."""
    return json.dumps(document).encode()


def damaged(data: bytes) -> st.SearchStrategy[bytes]:
    """Draw bytes that are cut, or in which some are others."""

    def spoil(cut: int, changes: list[tuple[int, int]]) -> bytes:
        made = bytearray(data[: max(1, len(data) - cut)])
        for place, byte in changes:
            made[place % len(made)] = byte
        return bytes(made)

    changes = st.lists(st.tuples(st.integers(0, len(data)), st.integers(0, 255)), max_size=4)
    return st.builds(spoil, st.integers(0, len(data)) | st.just(0), changes)


def documents(document: Any) -> st.SearchStrategy[bytes]:
    """Draw what might stand where `document` should: that itself with mistakes, any JSON, any bytes."""
    return st.one_of(
        nearly(document).map(encoded),
        nearly(document).map(encoded),
        values.map(encoded),
        damaged(encoded(document)),
        st.binary(max_size=40),
    )


@contextmanager
def soon() -> Iterator[None]:
    """Check that what is done within takes no time to speak of."""
    start = time.thread_time()
    yield
    assert time.thread_time() - start < CPU_SECONDS


def only(allowed: type[Exception] | tuple[type[Exception], ...], call: Callable[[], object]) -> object:
    """Call something, let it raise only what it says it raises, in one line, and return its result or None."""
    said = ""
    with soon():
        try:
            return call()
        except allowed as error:
            said = str(error)
    assert len(said) < 2000, "the message repeats what was given"
    return None


@contextmanager
def talking(said: bytes) -> Iterator[str]:
    """Listen, say that to whoever comes, hang up, and return the address."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def talk() -> None:
            link, _ = listening.accept()
            with link, suppress(OSError):
                link.settimeout(10)
                link.recv(65536)
                link.sendall(said)
                # What was not read yet would have the end of the connection take away what was said.
                link.shutdown(socket.SHUT_WR)
                while link.recv(65536):
                    pass

        thread = threading.Thread(target=talk)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        thread.join()
