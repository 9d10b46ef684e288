"""A template as its worker sees it: started, spoken to, heard, ended."""

from __future__ import annotations

import asyncio
import signal
import socket
import sys
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

from shipway.worker.fork import Fork, TemplateLostError
from shipway.worker.wire import (
    GO,
    LENGTH,
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
)

START_SECONDS = 120.0
"""How long a template may take to import what it is to."""

END_SECONDS = 35.0
"""How long a template may take to end when its worker does: a little more than the grace that it gives to its runs."""

NUMBER_BYTES = 20

CLOSE_SECONDS = 5.0
"""How long a template may take to end when it has closed its connection."""

FORK_SECONDS = 20.0
"""How long a template may take to fork. One that takes longer does nothing at all any more, and is ended."""

Lost = Callable[["Host", Sequence[Fork]], None]
"""Called when a template has ended, with the runs that it has left behind."""


class Host:
    """One template.

    Attributes:
        ready: whether runs can be forked.
        bytes: its memory.
    """

    def __init__(self, process: Process, link: socket.socket, reader: asyncio.StreamReader, lost: Lost) -> None:
        self.ready = False
        self.bytes = 0
        self.process = process
        self._link = link
        self._reader = reader
        self._lost = lost
        self._turn = asyncio.Lock()
        self._forks: dict[int, Fork] = {}
        self._waiting: dict[int, asyncio.Future[Fork]] = {}
        self._listening: asyncio.Task[None] | None = None
        self._retired: Callable[[Host], None] | None = None

    @classmethod
    async def start(
        cls, environment: Mapping[str, str], preload: Preload, *, keep: Sequence[int] = (), lost: Lost
    ) -> Host:
        """Start a template and wait until it has done what `preload` says.

        Args:
            environment: its environment variables, and so those of its runs.
            preload: what it is told first.
            keep: descriptors that it holds open.
            lost: see `Lost`.

        Raises:
            TemplateLostError: it ended before it was ready, or cannot be forked from.
        """
        try:
            ours, theirs = socket.socketpair()
        except OSError as error:
            raise TemplateLostError(f"a template could not be started: {error}") from None
        ours.setblocking(False)
        try:
            with theirs:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-m", "shipway.worker.template", str(theirs.fileno())),
                    env=environment,
                    pass_fds=(theirs.fileno(), *keep),
                    stdin=DEVNULL,
                    cwd="/",
                    start_new_session=True,
                )
            # The stream takes one descriptor to read from; what is sent, with descriptors, goes by another.
            reader, writer = await asyncio.open_unix_connection(sock=ours.dup())
        except OSError as error:
            ours.close()
            raise TemplateLostError(f"a template could not be started: {error}") from None
        except BaseException:
            ours.close()
            raise
        host = cls(process, ours, reader, lost)
        try:
            async with asyncio.timeout(START_SECONDS):
                await host._send(preload)
                answer = await host._receive()
        except TimeoutError:
            host._kill()
            await host._end(writer)
            raise TemplateLostError("a template could not be started: it took too long") from None
        except (EOFError, OSError, ValueError):
            await host._end(writer)
            raise TemplateLostError("a template could not be started: it ended") from None
        except BaseException:
            host._kill()
            await host._end(writer)
            raise
        if not isinstance(answer, Ready):
            await host._end(writer)
            raise TemplateLostError(answer.reason if isinstance(answer, Unfit) else "it spoke nonsense", unfit=True)
        host.bytes = answer.bytes
        host.ready = True
        host._listening = asyncio.create_task(host._listen(writer))
        return host

    async def fork(self, order: Order, descriptors: Sequence[int]) -> Fork:
        """Begin a run.

        Raises:
            TemplateLostError: the template has ended meanwhile, or cannot fork; the run has not begun.
        """
        waiting: asyncio.Future[Fork] = asyncio.get_running_loop().create_future()
        self._waiting[order.number] = waiting
        leash, end = socket.socketpair()
        leash.setblocking(False)
        try:
            with end:
                async with asyncio.timeout(FORK_SECONDS):
                    await self._send(order, (*descriptors, end.fileno()))
                    fork = await waiting
        except TimeoutError:
            # What it has forked before goes on.
            self.ready = False
            self._kill()
            if self._listening:
                await asyncio.wait([self._listening])
            await _call_off(leash)
            raise TemplateLostError("a template did not answer") from None
        except TemplateLostError:
            await _call_off(leash)
            raise
        except (OSError, ValueError) as error:
            raise TemplateLostError(f"a template could not be told: {error}") from None
        else:
            with suppress(OSError):
                leash.recv(NUMBER_BYTES)
                leash.send(GO)
            return fork
        finally:
            self._waiting.pop(order.number, None)
            leash.close()

    def retire(self, done: Callable[[Host], None]) -> None:
        """Take no more orders; the template ends after its last run, and then `done` is called."""
        self.ready = False
        self._retired = done
        asyncio.ensure_future(self._say_retire())  # noqa: RUF006 - its end is heard by the listener

    async def _say_retire(self) -> None:
        with suppress(OSError):
            await self._send(Retire())

    async def close(self) -> None:
        """End the template, and with it its runs: they are asked first, then made to."""
        self.ready = False
        # What the template hears when its worker is gone, for whatever reason.
        with suppress(OSError):
            self._link.shutdown(socket.SHUT_WR)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self._kill()
            await self.process.wait()
        if self._listening:
            await asyncio.wait([self._listening])

    async def _listen(self, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                message = await self._receive()
                if isinstance(message, Forked):
                    self._forks[message.number] = fork = Fork(message.pid)
                    waiting = self._waiting.get(message.number)
                    if waiting and not waiting.done():
                        waiting.set_result(fork)
                    else:
                        # Whoever ordered it was cancelled meanwhile: nobody would look after it.
                        fork.send_signal(signal.SIGKILL)
                elif isinstance(message, Refused):
                    waiting = self._waiting.get(message.number)
                    if waiting and not waiting.done():
                        waiting.set_exception(TemplateLostError(message.reason))
                elif isinstance(message, Ended) and (ended := self._forks.pop(message.number, None)):
                    ended.end(message.status, message.seconds, message.bytes)
        except (EOFError, OSError, ValueError):
            pass
        finally:
            self.ready = False
            await self._end(writer)
            for waiting in self._waiting.values():
                if not waiting.done():
                    waiting.set_exception(TemplateLostError("a template ended"))
            if self._retired:
                self._retired(self)
            self._lost(self, tuple(self._forks.values()))

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        writer.close()
        self._link.close()
        try:
            # Whoever ends by itself is not killed: asyncio would lose how it ended.
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.process.wait()
        except TimeoutError:
            self._kill()
            await self.process.wait()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()

    async def _send(self, message: Message, descriptors: Sequence[int] = ()) -> None:
        data = encode(message)
        head = LENGTH.pack(len(data))
        await self._turn.acquire()
        try:
            while True:
                try:
                    sent = socket.send_fds(self._link, [head], descriptors) if descriptors else self._link.send(head)
                    break
                except BlockingIOError:
                    # The template is behind with reading, by some hundred KiB.
                    await asyncio.sleep(0.005)
        except BaseException:
            self._turn.release()
            raise
        # What has begun is completed, also for a sender that is cancelled: the next message comes after it.
        rest = asyncio.ensure_future(asyncio.get_running_loop().sock_sendall(self._link, head[sent:] + data))
        rest.add_done_callback(lambda _: self._turn.release())
        await asyncio.shield(rest)

    async def _receive(self) -> Message:
        try:
            head = await self._reader.readexactly(LENGTH.size)
            return decode(await self._reader.readexactly(length_of(head)))
        except asyncio.IncompleteReadError:
            raise EOFError("the template has ended") from None


async def _call_off(leash: socket.socket) -> None:
    """See to it that a run of which a template has not told does not begin, and leaves no zombie.

    Without the template, only the run itself can hold the other end: it says which it is, or there is none.
    """
    with suppress(TimeoutError, OSError):
        async with asyncio.timeout(CLOSE_SECONDS):
            number = await asyncio.get_running_loop().sock_recv(leash, NUMBER_BYTES)
        leash.close()
        if number:
            await Fork(int(number)).wait_without_template()
