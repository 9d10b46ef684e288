"""The messages between a worker and a template: they arrive as they were sent, and nothing else is taken for one."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shipway.worker import wire
from shipway.worker.wire import (
    LENGTH,
    MAX_BYTES,
    Ended,
    Forked,
    Message,
    Order,
    Preload,
    Ready,
    Refused,
    Retire,
    Unfit,
    decode,
    encode,
    length_of,
    receive,
    send,
)

numbers = st.integers(min_value=0, max_value=2**63 - 1)
texts = st.text(max_size=50)
names = st.lists(texts, max_size=5).map(tuple)
messages: st.SearchStrategy[Message] = st.one_of(
    st.builds(Preload, names, names),
    st.builds(Order, numbers, texts, texts, st.dictionaries(texts, texts, max_size=5), texts),
    st.just(Retire()),
    st.builds(Ready, st.floats(allow_nan=False, allow_infinity=False), numbers, names),
    st.builds(Unfit, texts),
    st.builds(Forked, numbers, numbers),
    st.builds(Refused, numbers, texts),
    st.builds(Ended, numbers, st.integers(-64, 255), st.floats(0, 1e9), numbers),
)


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, theirs


@settings(max_examples=50)
@given(st.lists(messages, min_size=1, max_size=4))
def test_messages_arrive_as_they_were_sent(sent: list[Message]) -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for message in sent:
            send(ours, message)
        assert [receive(theirs) for _ in sent] == [(message, []) for message in sent]


@given(messages, st.data())
def test_a_message_that_is_cut_off_is_an_end(message: Message, data: st.DataObject) -> None:
    body = encode(message)
    whole = LENGTH.pack(len(body)) + body
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(whole[: data.draw(st.integers(0, len(whole) - 1))])
        with pytest.raises(EOFError, match="connection ended"):
            receive(theirs)


@given(st.binary(max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    try:
        message = decode(garbage)
    except ValueError:
        return
    assert decode(encode(message)) == message


@given(st.binary(max_size=200))
def test_a_connection_full_of_garbage_ends_in_an_error(garbage: bytes) -> None:
    ours, theirs = socket.socketpair()
    with theirs:
        with ours:
            ours.sendall(garbage)
        with pytest.raises((EOFError, ValueError)):
            list(iter(lambda: receive(theirs), None))


def test_in_pieces(link: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = link
    body = encode(Forked(1, 2))
    for byte in LENGTH.pack(len(body)) + body:
        ours.send(bytes([byte]))
    assert receive(theirs) == (Forked(1, 2), [])


def test_too_long_to_receive(link: tuple[socket.socket, socket.socket]) -> None:
    ours, theirs = link
    assert length_of(LENGTH.pack(MAX_BYTES)) == MAX_BYTES
    ours.sendall(LENGTH.pack(MAX_BYTES + 1))
    with pytest.raises(ValueError, match=f"a message of {MAX_BYTES + 1} bytes"):
        receive(theirs)


def test_too_long_to_send(link: tuple[socket.socket, socket.socket], monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = link
    monkeypatch.setattr(wire, "MAX_BYTES", 1000)
    with pytest.raises(ValueError, match="a message of"):
        send(ours, Unfit("x" * 1000))
    send(ours, Retire())
    # The other end has seen nothing of it.
    assert receive(theirs) == (Retire(), [])


def test_text_that_is_not_unicode(link: tuple[socket.socket, socket.socket]) -> None:
    order = Order(1, "a:b", "", {"NAME": os.fsdecode(b"\xff")}, "/")
    with pytest.raises(ValueError, match="surrogates"):
        send(link[0], order)


def test_descriptors_come_with_their_message(link: tuple[socket.socket, socket.socket], tmp_path: Path) -> None:
    ours, theirs = link
    path = tmp_path / "file"
    descriptor = os.open(path, os.O_CREAT | os.O_RDWR)
    try:
        body = encode(Retire())
        send(ours, Forked(1, 2))
        socket.send_fds(ours, [LENGTH.pack(len(body)) + body], [descriptor])
        send(ours, Forked(3, 4))
    finally:
        os.close(descriptor)
    assert receive(theirs) == (Forked(1, 2), [])
    message, descriptors = receive(theirs)
    assert message == Retire()
    (arrived,) = descriptors
    try:
        os.write(arrived, b"written")
    finally:
        os.close(arrived)
    assert path.read_bytes() == b"written"
    assert receive(theirs) == (Forked(3, 4), [])
