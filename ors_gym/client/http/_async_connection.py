"""An async connection: one socket that carries one exchange after the other."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import select
import socket
import ssl
import time
from typing import Final

from ors_gym._system import POLL_READABLE
from ors_gym.client.http._http1 import ReplyReader
from ors_gym.protocol._exchange import Failure, Sink

_READ_BYTES: Final = 2**16
_LARGE_READ_BYTES: Final = 2**18
_SETTLE_SECONDS: Final = 0.25
_SWEEP_SECONDS: Final = 0.05
_AGAIN: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class AsyncConnection:
    """A connection on a running event loop, over a connected socket that never blocks.

    It reads the descriptor itself when the loop says so, instead of through an asyncio
    transport. That costs less, a forked child can close it without touching its
    parent's loop, and it can look at what the kernel holds before the loop turns.
    It is a member of ``opened`` for as long as it is open.
    """

    __slots__ = (
        "_deadline",
        "_deadlines",
        "_loop",
        "_opened",
        "_poll",
        "_read_bytes",
        "_sink",
        "_unsent",
        "_waiter",
        "closed",
        "ended",
        "last_byte",
        "reader",
        "reused",
        "socket",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        reader: ReplyReader,
        deadlines: Deadlines,
        opened: set[AsyncConnection],
    ) -> None:
        self._loop = loop
        self.socket = connected
        self.reader = reader
        self._deadlines = deadlines
        self._opened = opened
        self._sink: Sink | None = None
        self._deadline = float("inf")
        self._read_bytes = _READ_BYTES
        self._unsent = memoryview(b"")
        self._waiter: asyncio.Future[None] | None = None
        self.reused = False
        """Whether it carried an exchange before this one."""
        self.closed = False
        """Whether the descriptor is closed."""
        self.ended: Failure | OSError | None = None
        """What ended the exchange before its reply was complete, or None."""
        self.last_byte = time.monotonic()
        # Not `select.select`, which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(connected.fileno(), POLL_READABLE)
        try:
            loop.add_reader(connected.fileno(), self._read)
            opened.add(self)
        except BaseException:
            self.close()
            raise

    def begin(
        self, request: bytes, sink: Sink, deadline: float
    ) -> asyncio.Future[None]:
        """Send a request; the future is done when the exchange is over.

        `reader` and `ended` say what came of it. The deadline is on the clock of
        `time.monotonic`.
        """
        self._sink = sink
        self._deadline = deadline
        self.last_byte = time.monotonic()
        self.reader.begin(sink)
        self._waiter = waiter = self._loop.create_future()
        sent = 0
        try:
            sent = self.socket.send(request)
        except _AGAIN:
            pass  # The buffer is full: `_write` sends all of it later.
        except OSError as error:
            # The server may have answered before it hung up. Then its answer counts.
            self.ended = error
        if sent < len(request) and self.ended is None:
            self._unsent = memoryview(request)[sent:]
            self._loop.add_writer(self.socket.fileno(), self._write)
        self._deadlines.watch(self)
        return waiter

    def finish(self) -> None:
        self._deadlines.unwatch(self)
        self._sink = self._waiter = None
        if self._unsent:
            # The server answered half a request. The other half must not follow.
            self.reader.mark_broken()

    def due(self) -> float:
        """Return when the exchange is over if nothing comes."""
        idle = self._sink.idle_timeout if self._sink is not None else None
        if idle is None:
            return self._deadline
        return min(self._deadline, self.last_byte + idle)

    def expire(self, now: float) -> None:
        """End the exchange, which took too long."""
        self.ended = Failure.TIMEOUT if now >= self._deadline else Failure.STALL
        self._wake()

    def is_settled(self) -> bool | None:
        """Tell whether the connection is clean, or None: the reply's end may yet come.

        It is clean if the last reply was read to its end and neither a byte nor the end
        of the connection follows (docs/wire.md, point 6).
        """
        if not self.closed and not self.reader.drained:
            # What the loop has not read yet may be all that is missing.
            self._read()
            if not self.closed and not self.reader.drained:
                return None
        return not self.closed and not self._poll.poll(0)

    async def settle(self, deadline: float) -> bool:
        """Wait a moment for the reply's end; tell whether the connection is clean.

        The deadline, on the clock of `time.monotonic`, is that of the request which
        would be sent.
        """
        self._waiter = self._loop.create_future()
        wait = min(_SETTLE_SECONDS, deadline - time.monotonic())
        timer = self._loop.call_later(wait, self.close)
        try:
            await self._waiter
        finally:
            self._waiter = None
            timer.cancel()
        return self.is_settled() is True

    def close(self) -> None:
        """Close the descriptor, without a word to the server."""
        if self.closed:
            return
        if not self.reader.finished and self.ended is None:
            reason = "closed on this side"
            self.ended = ConnectionAbortedError(errno.ECONNABORTED, reason)
        if not self._loop.is_closed():
            self._loop.remove_reader(self.socket.fileno())
            self._loop.remove_writer(self.socket.fileno())
            self._wake()
        self.close_descriptor()

    def close_descriptor(self) -> None:
        """Close the descriptor without touching the event loop."""
        self.closed = True
        self._opened.discard(self)
        self._deadlines.unwatch(self)
        self.reader.mark_broken()
        with contextlib.suppress(OSError):
            self.socket.close()

    def _wake(self) -> None:
        """Let whoever waits for this connection go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self) -> None:
        """Read what there is; the loop calls it."""
        try:
            # More than a TLS record holds, so OpenSSL keeps nothing back.
            data = self.socket.recv(self._read_bytes)
        except _AGAIN:
            return
        except OSError as error:
            self._take_end(error)
            return
        if not data:
            self._take_end(None)
            return
        if len(data) == _READ_BYTES:
            # A large reply: take more of it with each call from now on.
            self._read_bytes = _LARGE_READ_BYTES
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Take bytes of the reply, or bytes that nobody asked for."""
        reader = self.reader
        if reader.finished:
            reader.feed(data)
            if not reader.reusable:
                self.close()
            elif reader.drained:
                self._wake()
            return
        self.last_byte = now = time.monotonic()
        if reader.feed(data):
            self._wake()
        elif self._sink is not None and self._sink.idle_timeout is not None:
            due = now + self._sink.idle_timeout
            if due < self._deadlines.due:
                self._deadlines.set(due)

    def _take_end(self, error: OSError | None) -> None:
        if self.reader.finished:
            self.close()
            return
        if error is None:
            self.reader.end()
        elif self.ended is None:
            self.ended = error
        # Nothing more can come, and the loop would say so again and again.
        self._loop.remove_reader(self.socket.fileno())
        self._wake()

    def _write(self) -> None:
        """Send more of a request that did not fit; the loop calls it."""
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except _AGAIN:
            return
        except OSError as error:
            self.ended = error
        if not self._unsent or self.ended is not None:
            self._loop.remove_writer(self.socket.fileno())


class Deadlines:
    """One timer for all exchanges of an event loop.

    A timer for each would be made and cancelled with each exchange, and with each byte
    where silence is limited. This one is set for the first deadline of all; when it
    fires, it looks for the next.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy: set[AsyncConnection] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.due = float("inf")
        """When the timer fires, on the clock of `time.monotonic`."""

    def watch(self, connection: AsyncConnection) -> None:
        """End the connection's exchange when its time is over."""
        self._busy.add(connection)
        due = connection.due()
        if due < self.due:
            self.set(due)

    def unwatch(self, connection: AsyncConnection) -> None:
        self._busy.discard(connection)

    def set(self, due: float) -> None:
        """Let the timer fire earlier."""
        delay = max(due - time.monotonic(), 0.0)
        # First of all: an interrupt must not leave a time that no timer is set for.
        timer = self._loop.call_later(delay, self._sweep)
        if self._timer is not None:
            self._timer.cancel()
        self._timer = timer
        self.due = due

    def _sweep(self) -> None:
        """End the exchanges that are due, and set the timer for the next."""
        self._timer = None
        self.due = float("inf")
        now = time.monotonic()
        following = float("inf")
        for connection in list(self._busy):
            due = connection.due()
            if due <= now:
                connection.expire(now)
            elif due < following:
                following = due
        if following < float("inf"):
            # Not once for each of a thousand deadlines that are close together.
            self.set(max(following, now + _SWEEP_SECONDS))
