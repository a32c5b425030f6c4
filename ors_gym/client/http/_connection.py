"""Blocking connections: one socket, and the pool that lends them."""

from __future__ import annotations

import contextlib
import errno
import select
import socket
import struct
import threading
import time
from collections.abc import Generator
from typing import Final

from ors_gym.client.http._address import (
    Address,
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

__all__ = ["BlockingSocket", "TLSBlockingSocket", "Transport"]

_READ_BYTES: Final = 2**16
_LARGE_READ_BYTES: Final = 2**18
_TICK: Final = 5.0
_SHORTEST_WAIT: Final = 0.001
_SETTLE_SECONDS: Final = 0.25
_SETTLE_READS: Final = 8
_READABLE: Final = select.POLLIN | select.POLLPRI


class BlockingSocket:
    """A plain connection.

    The socket blocks, with a timeout inside of the kernel: a socket with a timeout of
    Python's asks `poll` before each read and write, which doubles the system calls.
    That timeout is only set when it is to change, so it is a few seconds at most and
    a longer wait is made of several.

    Args:
        connected: The socket, connected and blocking.
        reader: Reads its replies.
    """

    __slots__ = (
        "_deadline",
        "_poll",
        "_read_bytes",
        "_sink",
        "_tick",
        "ended",
        "last_byte",
        "now",
        "reader",
        "socket",
    )

    def __init__(self, connected: socket.socket, reader: ReplyReader) -> None:
        self.socket = connected
        self.reader = reader
        self.last_byte = time.monotonic()
        self.now = self.last_byte
        """The time after the last read."""
        self.ended: Failure | OSError | None = None
        """Why the exchange ended before its reply did, if it did."""
        self._sink: Sink
        self._deadline = float("inf")
        self._read_bytes = _READ_BYTES
        # Not `select.select`, which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(connected.fileno(), _READABLE)
        self._tick = 0.0
        self._set_tick(_TICK)

    def begin(
        self, request: bytes, sink: Sink, started: float, deadline: float
    ) -> None:
        """Send a request.

        Args:
            request: Its bytes.
            sink: Reads the reply.
            started: The time, on the clock of `time.monotonic`.
            deadline: When to give up, on the same clock.
        """
        self._sink = sink
        self._deadline = deadline
        self.now = self.last_byte = started
        self.reader.begin(sink)
        try:
            self._write(request)
        except OSError as error:
            # The server may have answered before it hung up; then its answer counts.
            self.ended = error

    def step(self) -> bool:
        """Wait for bytes of the reply, and read them.

        Returns:
            Whether the exchange is over: see `reader` and `ended`.
        """
        reader = self.reader
        if reader.finished or self.ended is Failure.TIMEOUT:
            return True
        until = self._deadline
        idle = self._sink.idle_timeout
        if idle is not None and self.last_byte + idle < until:
            until = self.last_byte + idle
        wait = until - self.now
        if not self._tick == _TICK <= wait:
            self._set_tick(min(max(wait, _SHORTEST_WAIT), _TICK))
        try:
            # More than a TLS record: what OpenSSL has read, it gives.
            data = self.socket.recv(self._read_bytes)
        except (BlockingIOError, TimeoutError):
            self.now = time.monotonic()
            return self._expire(until)
        except OSError as error:
            self.ended = error
            return True
        self.now = self.last_byte = time.monotonic()
        if not data:
            reader.end()
            return True
        if len(data) == _READ_BYTES:
            # A large reply: take more of it with each call from now on.
            self._read_bytes = _LARGE_READ_BYTES
        return reader.feed(data)

    def settle(self) -> bool:
        """Read the last reply to its end, and look for anything behind it.

        Returns:
            Whether the connection is clean: the reply was read to its end, and neither
            a byte nor the end of the connection follows it (docs/wire.md, point 6).
        """
        try:
            return (self.reader.drained or self._drain()) and not self._poll.poll(0)
        except OSError:
            return False

    def close(self) -> None:
        """Close the descriptor, without a word to the server."""
        self.reader.abandon()
        with contextlib.suppress(OSError):
            self.socket.close()

    def interrupt(self) -> None:
        """End the connection under a thread that is reading from it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _set_tick(self, seconds: float) -> None:
        """Let a read return after so long without a byte."""
        self._tick = seconds
        whole = int(seconds)
        value = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)

    def _drain(self) -> bool:
        """Read what is left of the last reply; tell whether it ended well."""
        reader = self.reader
        for _ in range(_SETTLE_READS):
            data = self._receive_soon()
            if not data:
                return False
            reader.feed(data)
            if reader.drained or not reader.reusable:
                break
        return reader.drained and reader.reusable

    def _receive_soon(self) -> bytes:
        """Return bytes that are here or on their way, or nothing."""
        try:
            return self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            # The last chunk of an event stream is a write of its own.
            if not self._poll.poll(_SETTLE_SECONDS * 1000):
                return b""
            return self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)

    def _expire(self, until: float) -> bool:
        """Tell whether a wait was the last one."""
        if self.now < until:
            return False
        self.ended = Failure.STALL if until < self._deadline else Failure.TIMEOUT
        return True

    def _write(self, request: bytes) -> None:
        """Send a request, unless the server answers before it has all of it."""
        sent = self.socket.send(request, socket.MSG_DONTWAIT)
        if sent < len(request):
            self._write_rest(memoryview(request)[sent:])

    def _write_rest(self, data: memoryview) -> None:
        """Send what did not fit into the kernel's buffer."""
        poll = select.poll()
        poll.register(self.socket.fileno(), _READABLE | select.POLLOUT)
        while data:
            wait = self._deadline - time.monotonic()
            if wait <= 0:
                self.ended = Failure.TIMEOUT
                return
            for _, events in poll.poll(min(wait, _TICK) * 1000):
                if not events & select.POLLOUT or events & _READABLE:
                    # Early words: a refusal of the whole request, most of the time.
                    early = self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
                    if not early:
                        self.reader.end()
                    if not early or self.reader.feed(early):
                        self.reader.abandon()
                        return
                else:
                    data = data[self.socket.send(data, socket.MSG_DONTWAIT) :]


class TLSBlockingSocket(BlockingSocket):
    """A connection over TLS: the same, with the timeouts of Python's sockets.

    OpenSSL reads records, not bytes: the kernel's timeout would not reach us.
    """

    __slots__ = ()

    def _write(self, request: bytes) -> None:
        data = memoryview(request)
        while data:
            wait = self._deadline - time.monotonic()
            if wait <= 0:
                self.ended = Failure.TIMEOUT
                return
            if wait < self._tick:
                self._set_tick(wait)
            with contextlib.suppress(TimeoutError):
                data = data[self.socket.send(data[:_LARGE_READ_BYTES]) :]

    def _set_tick(self, seconds: float) -> None:
        self._tick = seconds
        self.socket.settimeout(seconds)

    def _receive_soon(self) -> bytes:
        self._set_tick(_SETTLE_SECONDS)
        try:
            return self.socket.recv(_READ_BYTES)
        except TimeoutError:
            return b""


class Transport(PooledConnections):
    """Exchanges over pooled connections to one server, for any number of threads.

    It takes what `PooledConnections` takes.

    Raises:
        InvalidRequestError: If the URL or a header cannot be used.

    Example:
        >>> from ors_gym.protocol._exchange import Head
        >>> transport = Transport("http://127.0.0.1:1")
        >>> outcome = transport.exchange(Send(Head("GET", "/"), None, None, 5.0, 3.0))
        >>> outcome.failure, outcome.sent
        (<Failure.CONNECT: 'connect'>, False)
        >>> transport.close()
    """

    def _reset(self) -> None:
        """Begin with an empty pool."""
        self._free: FreeList[BlockingSocket] = FreeList(self._drop)
        self._open: set[BlockingSocket] = set()
        self._changed = threading.Condition()
        self._dialing = 0
        self._waiting = 0

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange.

        Args:
            send: What to send, and the sink that reads the reply.

        Returns:
            What came of it; failures of the network and the server too.

        Raises:
            InvalidRequestError: If a header of the request is the connection's own.
        """
        started = time.monotonic()
        connection = self._begin(send, started)
        if isinstance(connection, Outcome):
            return connection
        try:
            while not connection.step():
                pass
        except BaseException:
            self._drop(connection)
            raise
        return self._finish(connection, send, started)

    def steps(self, send: Send) -> Generator[Outcome | None]:
        """Do one exchange, read by read.

        Closing the iterator early closes the connection.

        Args:
            send: What to send, and the sink that reads the reply.

        Yields:
            None after each read, and at last what came of the exchange.

        Raises:
            InvalidRequestError: If a header of the request is the connection's own.
        """
        started = time.monotonic()
        connection = self._begin(send, started)
        if isinstance(connection, Outcome):
            yield connection
            return
        try:
            while not connection.step():
                yield None
        except BaseException:
            self._drop(connection)
            raise
        yield self._finish(connection, send, started)

    def close(self) -> None:
        """Close every connection; exchanges that are under way end as failures."""
        self._closed = True
        while self._free.close_oldest():
            pass
        with self._changed:
            busy = list(self._open)
            self._changed.notify_all()
        for connection in busy:
            connection.interrupt()

    def reset_after_fork(self) -> None:
        """Drop the connections of the parent process, in a child that was forked."""
        inherited = list(self._open)
        self._reset()
        for connection in inherited:
            connection.close()

    def __del__(self) -> None:
        for connection in list(getattr(self, "_open", ())):
            connection.close()

    def _begin(self, send: Send, started: float) -> BlockingSocket | Outcome:
        """Send a request over an idle connection, or over a new one."""
        request = self._writer.render(send.head, send.body)
        connection = self._reuse(started, send.reuse_within)
        if connection is None:
            opened = self._connect(send, started)
            if isinstance(opened, Outcome):
                return opened
            connection = opened
        try:
            connection.begin(request, send.sink, started, started + send.timeout)
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _finish(
        self, connection: BlockingSocket, send: Send, started: float
    ) -> Outcome:
        """Put the connection back, if it is good for more, and say what came."""
        reader = connection.reader
        elapsed = connection.now - started
        if connection.ended is None and reader.failure is None:
            outcome = Outcome(
                status=reader.status, headers=reader.headers, elapsed=elapsed
            )
        else:
            outcome = explain_failure(
                self.origin, send, reader, connection.ended, elapsed
            )
        if reader.reusable and not self._closed:
            self._free.give(connection)
            if self._waiting:
                with self._changed:
                    self._changed.notify()
        else:
            self._drop(connection)
        return outcome

    def _reuse(self, now: float, reuse_within: float) -> BlockingSocket | None:
        """Take an idle connection that may carry a request."""
        while (connection := self._free.take(now, reuse_within)) is not None:
            if connection.settle():
                return connection
            self._drop(connection)
        return None

    def _drop(self, connection: BlockingSocket) -> None:
        """Close a connection."""
        with self._changed:
            self._open.discard(connection)
            connection.close()
            self._changed.notify()

    def _connect(self, send: Send, started: float) -> BlockingSocket | Outcome:
        """Open a connection, when there is a place for one."""
        if self._closed:
            return refuse(CLOSED, started)
        deadline = started + min(self._connect_timeout, send.timeout)
        with self._changed:
            # Before looking for an idle one: whoever gives one back looks here after.
            self._waiting += 1
            try:
                while self._is_full() and not self._free.close_oldest():
                    self._changed.wait(max(deadline - time.monotonic(), 0.0))
                    now = time.monotonic()
                    if (connection := self._reuse(now, send.reuse_within)) is not None:
                        return connection
                    if now >= deadline:
                        return refuse(describe_full(self.origin, self._limits), started)
            finally:
                self._waiting -= 1
            self._dialing += 1
        try:
            return self._dial(deadline)
        except OSError as error:
            return refuse(explain_connect_error(self.origin, error), started)
        finally:
            with self._changed:
                self._dialing -= 1
                self._changed.notify()

    def _is_full(self) -> bool:
        return len(self._open) + self._dialing >= self._limits.connections

    def _dial(self, deadline: float) -> BlockingSocket:
        """Connect to the first address that answers."""
        origin = self.origin
        addresses = literal_address(origin) or read_addresses(
            socket.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        )
        for address, share, last in attempts(addresses, deadline):
            try:
                connected = self._dial_address(address, share)
            except OSError:
                if last:
                    raise
            else:
                break
        with self._changed:
            if self._closed:
                connected.close()
                raise ConnectionAbortedError(errno.ECONNABORTED, CLOSED[1])
            self._open.add(connected)
        return connected

    def _dial_address(self, address: Address, timeout: float) -> BlockingSocket:
        """Connect to one address."""
        connected = open_socket(address[0])
        try:
            connected.settimeout(timeout)
            connected.connect(address[1])
            refuse_self_connection(connected)
            reader = ReplyReader(self._limits, self._heads)
            if self._ssl_context is None:
                connected.settimeout(None)
                return BlockingSocket(connected, reader)
            connected = secured = secure(connected, self._ssl_context, self.origin)
            secured.do_handshake()
            return TLSBlockingSocket(secured, reader)
        except BaseException:
            connected.close()
            raise
