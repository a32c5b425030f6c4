"""A blocking connection: one socket that carries one exchange after the other."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import time
from typing import Final

from ors_gym._system import POLL_READABLE
from ors_gym.client.http._http1 import ReplyReader
from ors_gym.protocol._exchange import Failure, Sink

_READ_BYTES: Final = 2**16
_LARGE_READ_BYTES: Final = 2**18
_TICK_SECONDS: Final = 5.0
_SHORTEST_WAIT: Final = 0.001
_SETTLE_SECONDS: Final = 0.25


class Connection:
    """A plain connection over a connected, blocking socket.

    The kernel keeps the socket's timeout: with a timeout of Python's, a socket asks
    `poll` before each read and write, which doubles the system calls. Setting it is a
    system call too, so it stays at a few seconds, and a longer wait is made of several.
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
        "reused",
        "socket",
    )

    def __init__(self, connected: socket.socket, reader: ReplyReader) -> None:
        self.socket = connected
        self.reader = reader
        self.last_byte = time.monotonic()
        self.now = self.last_byte
        """The time after the last read."""
        self.ended: Failure | OSError | None = None
        """What ended the exchange before its reply was complete, or None."""
        self.reused = False
        """Whether it carried an exchange before this one."""
        self._sink: Sink
        self._deadline = float("inf")
        self._read_bytes = _READ_BYTES
        # Not `select.select`, which knows no descriptor above 1023.
        self._poll = select.poll()
        self._poll.register(connected.fileno(), POLL_READABLE)
        self._tick = 0.0
        self._set_tick(_TICK_SECONDS)

    def begin(
        self, request: bytes, sink: Sink, started: float, deadline: float
    ) -> None:
        """Send a request; both times are on the clock of `time.monotonic`."""
        self._sink = sink
        self._deadline = deadline
        self.now = self.last_byte = started
        self.reader.begin(sink)
        try:
            self._write(request)
        except OSError as error:
            # The server may have answered before it hung up. Then its answer counts.
            self.ended = error

    def step(self) -> bool:
        """Wait for bytes of the reply and read them; tell if the exchange is over.

        `reader` and `ended` say what came of it.
        """
        reader = self.reader
        if reader.finished or self.ended is Failure.TIMEOUT:
            return True
        until = self._deadline
        idle = self._sink.idle_timeout
        if idle is not None and self.last_byte + idle < until:
            until = self.last_byte + idle
        wait = until - self.now
        if not self._tick == _TICK_SECONDS <= wait:
            self._set_tick(min(max(wait, _SHORTEST_WAIT), _TICK_SECONDS))
        try:
            # More than a TLS record holds, so OpenSSL keeps nothing back.
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
        if reader.feed(data):
            return True
        # A server that never stops sending never lets a read time out.
        return self.now >= self._deadline and self._expire(self._deadline)

    def is_settled(self) -> bool:
        """Tell whether the connection is clean.

        It is if the last reply was read to its end and neither a byte nor the end of
        the connection follows (docs/wire.md, point 6).
        """
        return self.reader.drained and not self._poll.poll(0)

    def settle(self, deadline: float) -> bool:
        """Wait a moment for the reply's end; tell whether the connection is clean.

        The deadline, on the clock of `time.monotonic`, is that of the request which
        would be sent.
        """
        try:
            return (self.reader.drained or self._drain(deadline)) and self.is_settled()
        except OSError:
            return False

    def close(self) -> None:
        """Close the descriptor, without a word to the server."""
        self.reader.mark_broken()
        with contextlib.suppress(OSError):
            self.socket.close()

    def interrupt(self) -> None:
        """End the connection under a thread that reads from it."""
        with contextlib.suppress(OSError):
            self.socket.shutdown(socket.SHUT_RDWR)

    def _set_tick(self, seconds: float) -> None:
        """Let a read return after so long without a byte."""
        self._tick = seconds
        whole = int(seconds)
        value = struct.pack("@ll", whole, int((seconds - whole) * 1e6))
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, value)

    def _expire(self, until: float) -> bool:
        """Tell whether the time is over, and note which one."""
        if self.now < until:
            return False
        self.ended = Failure.STALL if until < self._deadline else Failure.TIMEOUT
        return True

    def _drain(self, deadline: float) -> bool:
        """Read what is left of the last reply; tell whether it ended well."""
        reader = self.reader
        until = min(time.monotonic() + _SETTLE_SECONDS, deadline)
        while not reader.drained and reader.reusable:
            data = self._receive_soon(until - time.monotonic())
            if not data:
                return False
            reader.feed(data)
        return reader.reusable

    def _receive_soon(self, seconds: float) -> bytes:
        """Return bytes that are here or come within some seconds, or nothing."""
        try:
            return self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
        except BlockingIOError:
            # Servers write the last chunk of an event stream separately.
            if seconds <= 0 or not self._poll.poll(seconds * 1000):
                return b""
            return self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)

    def _write(self, request: bytes) -> None:
        """Send a request, unless the server answers before it has all of it."""
        sent = self.socket.send(request, socket.MSG_DONTWAIT)
        if sent < len(request):
            self._write_rest(memoryview(request)[sent:])

    def _write_rest(self, data: memoryview) -> None:
        """Send what did not fit into the kernel's buffer."""
        poll = select.poll()
        poll.register(self.socket.fileno(), POLL_READABLE | select.POLLOUT)
        while data:
            wait = self._deadline - time.monotonic()
            if wait <= 0:
                self.ended = Failure.TIMEOUT
                return
            for _, events in poll.poll(min(wait, _TICK_SECONDS) * 1000):
                if not events & select.POLLOUT or events & POLL_READABLE:
                    # An early answer: most of the time it refuses the whole request.
                    early = self.socket.recv(_READ_BYTES, socket.MSG_DONTWAIT)
                    if not early:
                        self.reader.end()
                    if not early or self.reader.feed(early):
                        self.reader.mark_broken()
                        return
                else:
                    data = data[self.socket.send(data, socket.MSG_DONTWAIT) :]


class TLSConnection(Connection):
    """A connection over TLS, with the timeouts of Python's sockets.

    OpenSSL reads whole records and would not pass the kernel's timeout on.
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

    def _receive_soon(self, seconds: float) -> bytes:
        self._set_tick(max(seconds, _SHORTEST_WAIT))
        try:
            return self.socket.recv(_READ_BYTES)
        except TimeoutError:
            return b""
