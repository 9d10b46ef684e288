"""The messages between a worker and a template, over the pair of sockets that they share.

A message is its length in eight bytes, then JSON. File descriptors travel with the length.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Sequence

import msgspec

LENGTH = struct.Struct("!Q")

MAX_BYTES = 16 << 20
"""No message is longer; an environment has at most a few MiB on any system."""

DESCRIPTORS = 5
"""At most so many come with a message: standard input, output and error of a run, one more, and the one below."""

GO = b"."
"""What a run hears from its worker over the last descriptor of its order, after it has said its process number there.

Only the worker knows for sure that it has heard of a run. Should the template die, a run that it has not heard of is
called off, and the worker may start it in another way.
"""


class Preload(msgspec.Struct, frozen=True, tag=True):
    """Worker to template, first: what to import.

    Attributes:
        modules: names of modules, in the order in which to import them.
        calls: functions to call then, `package.module:function`: what they remember, every run knows.
    """

    modules: tuple[str, ...]
    calls: tuple[str, ...] = ()


class Order(msgspec.Struct, frozen=True, tag=True):
    """Worker to template: fork a run. Its first descriptors come with it, then a connection to hear `GO`.

    Attributes:
        number: names the run on this connection.
        entry: what the run executes, `package.module:function`.
        argument: what it is called with.
        environment: the run's environment variables, all of them.
        folder: where it starts.
    """

    number: int
    entry: str
    argument: str
    environment: dict[str, str]
    folder: str


class Retire(msgspec.Struct, frozen=True, tag=True):
    """Worker to template: take no more orders, and end when the last run has."""


class Ready(msgspec.Struct, frozen=True, tag=True):
    """Template to worker: runs can be forked.

    Attributes:
        seconds: time that the imports took.
        bytes: memory of the template.
        without: modules of `Preload` that could not be imported, as a flow may have imported them in another way.
    """

    seconds: float
    bytes: int
    without: tuple[str, ...]


class Unfit(msgspec.Struct, frozen=True, tag=True):
    """Template to worker, last: no run can be forked from here, and why."""

    reason: str


class Forked(msgspec.Struct, frozen=True, tag=True):
    """Template to worker: a run has begun."""

    number: int
    pid: int


class Refused(msgspec.Struct, frozen=True, tag=True):
    """Template to worker: a run has not begun, and why."""

    number: int
    reason: str


class Ended(msgspec.Struct, frozen=True, tag=True):
    """Template to worker: a run's process has ended.

    Attributes:
        number: which.
        status: exit status, negative for the number of the signal that ended it.
        seconds: processor time that it took, with that of its children.
        bytes: the most memory that it had.
    """

    number: int
    status: int
    seconds: float
    bytes: int


Message = Preload | Order | Retire | Ready | Unfit | Forked | Refused | Ended

_encoder = msgspec.json.Encoder()
_decoder: msgspec.json.Decoder[Message] = msgspec.json.Decoder(Message)


def encode(message: Message) -> bytes:
    """Return a message's bytes without its length.

    Raises:
        ValueError: it is too long, or holds text that is not Unicode, as an environment may.
    """
    data = _encoder.encode(message)
    _check(len(data))
    return data


def decode(data: bytes) -> Message:
    """Return the message that `encode` made `data` of.

    Raises:
        ValueError: it did not.
    """
    try:
        return _decoder.decode(data)
    except RecursionError:
        raise ValueError("a message nested too deeply") from None


def length_of(data: bytes) -> int:
    """Return the length that `data`, eight bytes, announce.

    Raises:
        ValueError: no message is that long.
    """
    (length,) = LENGTH.unpack(data)
    _check(length)
    return int(length)


def _check(length: int) -> None:
    if length > MAX_BYTES:
        raise ValueError(f"a message of {length} bytes")


def send(link: socket.socket, message: Message) -> None:
    """Send a message without descriptors.

    Raises:
        OSError: nobody is at the other end.
        ValueError: as `encode`.
    """
    data = encode(message)
    link.sendall(LENGTH.pack(len(data)) + data)


def receive(link: socket.socket) -> tuple[Message, Sequence[int]]:
    """Wait for a message; return it with the descriptors that came with it.

    Raises:
        EOFError: the other end is closed.
        ValueError: what came is no message.
    """
    head, descriptors, _flags, _address = socket.recv_fds(link, LENGTH.size, DESCRIPTORS)
    head += _receive(link, LENGTH.size - len(head), begun=bool(head))
    return decode(_receive(link, length_of(head), begun=True)), descriptors


def _receive(link: socket.socket, count: int, *, begun: bool) -> bytes:
    data = bytearray()
    while len(data) < count:
        piece = link.recv(count - len(data))
        if not piece:
            raise EOFError("the connection ended within a message" if begun or data else "the connection ended")
        data += piece
    return bytes(data)
