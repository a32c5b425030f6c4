"""Async connections: one socket, and the pool that lends them."""

from __future__ import annotations

import asyncio
import collections
import contextlib
import errno
import functools
import select
import socket
import ssl
import time
from collections.abc import Callable
from typing import Any, Final

from ors_gym.client.http._address import (
    Address,
    Origin,
    attempts,
    literal_address,
    open_socket,
    read_addresses,
    refuse_self_connection,
    secure,
)
from ors_gym.client.http._failures import (
    CLOSED,
    describe_full,
    explain_connect_error,
    explain_failure,
    refuse,
)
from ors_gym.client.http._http1 import ReplyReader
from ors_gym.client.http._pool import FreeList, PooledConnections
from ors_gym.protocol._exchange import Failure, Outcome, Send, Sink

__all__ = ["AsyncSocket", "AsyncTransport", "Deadlines"]

_READ_BYTES: Final = 2**16
_LARGE_READ_BYTES: Final = 2**18
_SETTLE_SECONDS: Final = 0.25
_SWEEP_SECONDS: Final = 0.05
_READABLE: Final = select.POLLIN | select.POLLPRI
_AGAIN: Final = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class Deadlines:
    """One timer for all exchanges of an event loop.

    A timer for each would be made and cancelled with each exchange, and again with
    each byte where silence is limited. This one is set when some deadline is the
    first of all; when it fires it looks for the next.

    Args:
        loop: The event loop.
    """

    __slots__ = ("_busy", "_loop", "_timer", "due")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._busy: set[AsyncSocket] = set()
        self._timer: asyncio.TimerHandle | None = None
        self.due = float("inf")
        """When the timer fires, on the clock of `time.monotonic`."""

    def watch(self, connection: AsyncSocket) -> None:
        """End the connection's exchange when its time is over.

        Args:
            connection: A connection that has begun an exchange.
        """
        self._busy.add(connection)
        due = connection.due()
        if due < self.due:
            self.set(due)

    def release(self, connection: AsyncSocket) -> None:
        """Stop watching a connection.

        Args:
            connection: The connection.
        """
        self._busy.discard(connection)

    def set(self, due: float) -> None:
        """Let the timer fire earlier.

        Args:
            due: When, on the clock of `time.monotonic`.
        """
        if self._timer is not None:
            self._timer.cancel()
        self.due = due
        delay = max(due - time.monotonic(), 0.0)
        self._timer = self._loop.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        """End what is over, and wait for the next."""
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


class AsyncSocket:
    """A connection on an event loop.

    It reads the descriptor itself when the loop says so, instead of through an asyncio
    transport: it costs less, a forked child can close it without touching the loop of
    its parent, and what the kernel holds can be looked at before the loop turns.

    Args:
        loop: The running event loop.
        connected: The socket, connected, not blocking, after its TLS handshake.
        reader: Reads its replies.
        deadlines: Watches its exchanges.
        opened: Where it is listed for as long as it is open.
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
        "socket",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connected: socket.socket,
        reader: ReplyReader,
        deadlines: Deadlines,
        opened: set[AsyncSocket],
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
        self.closed = False
        """Whether the descriptor is closed."""
        self.ended: Failure | OSError | None = None
        """Why the exchange ended before its reply did, if it did."""
        self.last_byte = time.monotonic()
        # Not `select.select`, which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(connected.fileno(), _READABLE)
        loop.add_reader(connected.fileno(), self._read)
        opened.add(self)

    def begin(
        self, request: bytes, sink: Sink, deadline: float
    ) -> asyncio.Future[None]:
        """Send a request.

        Args:
            request: Its bytes.
            sink: Reads the reply.
            deadline: When to give up, on the clock of `time.monotonic`.

        Returns:
            Done when the exchange is over: see `reader` and `ended`.
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
            pass
        except OSError as error:
            # The server may have answered before it hung up; then its answer counts.
            self.ended = error
        if sent < len(request) and self.ended is None:
            self._unsent = memoryview(request)[sent:]
            self._loop.add_writer(self.socket.fileno(), self._write)
        self._deadlines.watch(self)
        return waiter

    def finish(self) -> None:
        """Take note that the exchange is over."""
        self._deadlines.release(self)
        self._sink = self._waiter = None
        if self._unsent:
            # An answer to half a request: the other half must not follow.
            self.reader.abandon()

    def due(self) -> float:
        """Return when the exchange is over if nothing comes.

        Returns:
            A time on the clock of `time.monotonic`.
        """
        idle = self._sink.idle_timeout if self._sink is not None else None
        if idle is None:
            return self._deadline
        return min(self._deadline, self.last_byte + idle)

    def expire(self, now: float) -> None:
        """End the exchange, which took too long.

        Args:
            now: The time, on the clock of `time.monotonic`.
        """
        self.ended = Failure.TIMEOUT if now >= self._deadline else Failure.STALL
        self._wake()

    def settled(self) -> bool | None:
        """Look whether the connection is clean (docs/wire.md, point 6).

        Returns:
            True if the last reply was read to its end and neither a byte nor the end
            of the connection follows it, False if the connection is of no use, None
            if the end of the reply may be on its way.
        """
        if not self.closed and not self.reader.drained:
            # What the loop has not read yet may be all that is missing.
            self._read()
            if not self.closed and not self.reader.drained:
                return None
        return not self.closed and not self._poll.poll(0)

    async def settle(self) -> bool:
        """Wait a moment for the end of the last reply.

        Returns:
            Whether the connection is clean.
        """
        self._waiter = self._loop.create_future()
        timer = self._loop.call_later(_SETTLE_SECONDS, self.close)
        try:
            await self._waiter
        finally:
            self._waiter = None
            timer.cancel()
        return self.settled() is True

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
        self._deadlines.release(self)
        self.reader.abandon()
        with contextlib.suppress(OSError):
            self.socket.close()

    def _wake(self) -> None:
        """Let whoever waits for this connection go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _read(self) -> None:
        """Read what there is; the loop's callback."""
        try:
            # More than a TLS record: what OpenSSL has read, it gives.
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
        """Take the end of the connection."""
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
        """Send more of a request that did not fit; the loop's callback."""
        try:
            self._unsent = self._unsent[self.socket.send(self._unsent) :]
        except _AGAIN:
            return
        except OSError as error:
            self.ended = error
        if not self._unsent or self.ended is not None:
            self._loop.remove_writer(self.socket.fileno())


class AsyncTransport(PooledConnections):
    """Exchanges over pooled connections to one server, on the running event loop.

    The first exchange binds it to its loop. When another loop comes, the connections
    of the one before are dropped. A forked child starts with an empty pool and leaves
    its parent's alone.

    It takes what `PooledConnections` takes.

    Raises:
        InvalidRequestError: If the URL or a header cannot be used.

    Example:
        >>> from ors_gym.protocol._exchange import Head
        >>> async def ask(transport):
        ...     send = Send(Head("GET", "/"), None, None, 5.0, 3.0)
        ...     return (await transport.exchange(send)).failure
        >>> asyncio.run(ask(AsyncTransport("http://127.0.0.1:1")))
        <Failure.CONNECT: 'connect'>
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def _reset(self) -> None:
        """Begin with an empty pool."""
        self._free: FreeList[AsyncSocket] = FreeList(AsyncSocket.close)
        self._open: set[AsyncSocket] = set()
        self._waiters: collections.deque[asyncio.Future[None]] = collections.deque()
        self._dialing = 0

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange; being cancelled closes its connection.

        Args:
            send: What to send, and the sink that reads the reply.

        Returns:
            What came of it; failures of the network and the server too.

        Raises:
            InvalidRequestError: If a header of the request is the connection's own.
        """
        started = time.monotonic()
        request = self._writer.render(send.head, send.body)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        connection = self._free.take(started, send.reuse_within)
        try:
            if connection is None or connection.settled() is not True:
                connection = await self._reuse(connection, send)
            if connection is None:
                opened = await self._connect(send, started)
                if isinstance(opened, Outcome):
                    return opened
                connection = opened
            waiter = connection.begin(request, send.sink, started + send.timeout)
            await waiter
        except BaseException:
            if connection is not None:
                connection.close()
                self._admit()
            raise
        return self._finish(connection, send, started)

    async def aclose(self) -> None:
        """Close every connection; exchanges that are under way end as failures."""
        self._closed = True
        self._unbind()
        while self._waiters:
            self._admit()

    def reset_after_fork(self) -> None:
        """Drop the connections of the parent process, in a child that was forked."""
        inherited = list(self._open)
        self._loop = None
        self._reset()
        for connection in inherited:
            connection.close_descriptor()

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self._unbind()

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on this event loop from now on."""
        self._unbind()
        self._reset()
        self._loop = loop
        self._deadlines = Deadlines(loop)

    def _unbind(self) -> None:
        """Drop the connections of the event loop, which may run in another thread."""
        loop = self._loop
        for connection in list(self._open):
            if loop is None or loop.is_closed():
                connection.close_descriptor()
            elif loop is _running_loop():
                connection.close()
            else:
                loop.call_soon_threadsafe(connection.close)

    def _finish(self, connection: AsyncSocket, send: Send, started: float) -> Outcome:
        """Put the connection back, if it is good for more, and say what came."""
        connection.finish()
        reader = connection.reader
        elapsed = time.monotonic() - started
        if connection.ended is None and reader.failure is None:
            outcome = Outcome(
                status=reader.status, headers=reader.headers, elapsed=elapsed
            )
        else:
            outcome = explain_failure(
                self.origin, send, reader, connection.ended, elapsed
            )
        if reader.reusable and not connection.closed:
            self._free.give(connection)
        else:
            connection.close()
        if self._waiters:
            self._admit()
        return outcome

    async def _reuse(
        self, connection: AsyncSocket | None, send: Send
    ) -> AsyncSocket | None:
        """Take an idle connection that may carry a request, this one if it may."""
        while connection is not None:
            try:
                clean = connection.settled()
                if clean is None:
                    clean = await connection.settle()
            except BaseException:
                connection.close()
                raise
            if clean:
                return connection
            connection.close()
            connection = self._free.take(time.monotonic(), send.reuse_within)
        return None

    async def _connect(self, send: Send, started: float) -> AsyncSocket | Outcome:
        """Open a connection, when there is a place for one."""
        if self._closed:
            return refuse(CLOSED, started)
        deadline = started + min(self._connect_timeout, send.timeout)
        while self._is_full() and not self._free.close_oldest():
            if not await self._wait(deadline):
                return refuse(describe_full(self.origin, self._limits), started)
            idle = self._free.take(time.monotonic(), send.reuse_within)
            if (connection := await self._reuse(idle, send)) is not None:
                return connection
        self._dialing += 1
        try:
            return await self._dial(deadline)
        except OSError as error:
            return refuse(explain_connect_error(self.origin, error), started)
        finally:
            self._dialing -= 1
            self._admit()

    def _is_full(self) -> bool:
        return len(self._open) + self._dialing >= self._limits.connections

    async def _wait(self, deadline: float) -> bool:
        """Wait for a place in the pool."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await waiter
        except TimeoutError:
            return False
        except BaseException:
            if waiter.done() and not waiter.cancelled():
                self._admit()
            raise
        return True

    def _admit(self) -> None:
        """Let the next that waits for a place look again."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _dial(self, deadline: float) -> AsyncSocket:
        """Connect to the first address that answers."""
        origin = self.origin
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(deadline - time.monotonic()):
            addresses = literal_address(origin) or await _look_up(loop, origin)
        for address, share, last in attempts(addresses, deadline):
            try:
                async with asyncio.timeout(share):
                    connected = await self._dial_address(loop, address)
            except OSError:
                if last:
                    raise
            else:
                break
        if self._closed:
            connected.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, CLOSED[1])
        reader = ReplyReader(self._limits, self._heads)
        return AsyncSocket(loop, connected, reader, self._deadlines, self._open)

    async def _dial_address(
        self, loop: asyncio.AbstractEventLoop, address: Address
    ) -> socket.socket:
        """Connect to one address."""
        connected = open_socket(address[0])
        try:
            connected.setblocking(False)
            await loop.sock_connect(connected, address[1])
            refuse_self_connection(connected)
            if self._ssl_context is not None:
                connected = secured = secure(connected, self._ssl_context, self.origin)
                await _shake_hands(loop, secured)
        except BaseException:
            connected.close()
            raise
        return connected


async def _look_up(loop: asyncio.AbstractEventLoop, origin: Origin) -> list[Address]:
    """Return the addresses of a name."""
    sought: Any = functools.partial(
        socket.getaddrinfo, origin.host, origin.port, type=socket.SOCK_STREAM
    )
    try:
        return read_addresses(await loop.run_in_executor(None, sought))
    except RuntimeError:
        # A process that ends starts no thread any more, and has sessions to delete.
        return read_addresses(sought())


async def _shake_hands(loop: asyncio.AbstractEventLoop, secured: ssl.SSLSocket) -> None:
    """Do the TLS handshake without blocking the event loop."""
    while True:
        try:
            secured.do_handshake()
        except ssl.SSLWantReadError:
            await _ready(secured, loop.add_reader, loop.remove_reader)
        except ssl.SSLWantWriteError:
            await _ready(secured, loop.add_writer, loop.remove_writer)
        else:
            return


async def _ready(
    waiting: socket.socket,
    add: Callable[..., None],
    remove: Callable[[int], object],
) -> None:
    """Wait until the loop says that a socket is ready."""
    ready = asyncio.get_running_loop().create_future()
    add(waiting.fileno(), _set_ready, ready)
    try:
        await ready
    finally:
        remove(waiting.fileno())


def _set_ready(ready: asyncio.Future[None]) -> None:
    if not ready.done():
        ready.set_result(None)


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of this thread, if it has one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
