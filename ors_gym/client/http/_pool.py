"""The blocking pool, which of its idle connections is used, and what a fork does to it.

How old a connection may be is said by each request: `ors_gym.protocol._exchange`.
"""

from __future__ import annotations

import abc
import collections
import errno
import socket
import ssl
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from typing import Final, Generic, Protocol, Self, TypeVar

from ors_gym._shown_text import even_half_made
from ors_gym._system import register_for_fork
from ors_gym.client.http._address import Origin, connect, default_ssl_context
from ors_gym.client.http._connection import Connection, TLSConnection
from ors_gym.client.http._failures import (
    CLOSED,
    describe_full,
    explain_connect_error,
    explain_failure,
    refuse,
)
from ors_gym.client.http._http1 import HeadReader, ReplyReader, RequestWriter
from ors_gym.protocol._exchange import Limits, Outcome, Send
from ors_gym.protocol._server_state import ClientSettings

DEFAULT_LIMITS: Final = Limits()
_KEPT_SECONDS: Final = 60.0
"""An idle connection is closed once another one was used so many seconds later.

This only tidies up. Whether a connection may carry a request is decided by the ages in
`ors_gym.protocol._exchange`, which are shorter."""


class BasePool(abc.ABC):
    """The settings of a pool, blocking or async: server, headers, bounds and TLS.

    ``connect_timeout`` bounds waiting for a place in the pool, connecting and the TLS
    handshake together. Without ``ssl_context``, all pools share one for https.
    """

    def __init__(
        self,
        base_url: str,
        *,
        headers: Sequence[tuple[str, str]] = (),
        limits: Limits = DEFAULT_LIMITS,
        connect_timeout: float = 10.0,
        ssl_context: ssl.SSLContext | None = None,
    ) -> None:
        self.origin = Origin(base_url)
        self._writer = RequestWriter(self.origin, headers)
        self._limits = limits
        self._connect_timeout = connect_timeout
        if self.origin.scheme == "https" and ssl_context is None:
            ssl_context = default_ssl_context()
        self._ssl_context = ssl_context
        self._head_reader = HeadReader()
        self._closed = False
        self._reset()
        register_for_fork(self)
        _pools.add(self)

    @classmethod
    def from_settings(cls, settings: ClientSettings) -> Self:
        return cls(settings.base_url, headers=settings.headers, limits=settings.limits)

    @even_half_made
    def __repr__(self) -> str:
        return f"{type(self).__name__}('{self.origin.scheme}://{self.origin}')"

    @abc.abstractmethod
    def _reset(self) -> None:
        """Begin with an empty pool."""

    @abc.abstractmethod
    def reset_after_fork(self) -> None:
        """Drop the parent's connections without a word to the server."""

    @abc.abstractmethod
    def close_idle(self) -> None:
        """Close the idle connections, unless another thread's loop watches them."""


class ConnectionPool(BasePool):
    """Exchanges over blocking connections to one server, for any number of threads."""

    def _reset(self) -> None:
        self._idle: IdleConnections[Connection] = IdleConnections(self._drop)
        self._open: set[Connection] = set()
        # Not the condition's own `with`: a signal there would leave it locked for ever.
        self._lock = threading.RLock()
        self._changed = threading.Condition(self._lock)
        self._dialing = 0
        self._waiting = 0

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange; failures of network and server are outcomes too."""
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

    def stream(self, send: Send) -> Generator[Outcome | None]:
        """Do one exchange read by read: yield None after each, at last the outcome.

        Closing the generator early closes the connection.
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
        self.close_idle()
        with self._lock:
            busy = list(self._open)
            self._changed.notify_all()
        for connection in busy:
            connection.interrupt()

    def close_idle(self) -> None:
        while self._idle.close_oldest():
            pass

    def reset_after_fork(self) -> None:
        inherited = list(self._open)
        self._reset()
        for connection in inherited:
            connection.close()

    def __del__(self) -> None:
        for connection in list(getattr(self, "_open", ())):
            connection.close()

    def _begin(self, send: Send, started: float) -> Connection | Outcome:
        """Send a request over an idle connection, or over a new one."""
        request = self._writer.render(send.head, send.body, send.traceparent)
        began, deadline = started, started + send.timeout
        connection = self._idle.take(started, send.reuse_within)
        if connection is None or not connection.is_settled():
            connection = self._reuse(connection, send, deadline)
            if connection is None:
                opened = self._connect(send, started)
                if isinstance(opened, Outcome):
                    return opened
                connection = opened
            # That took some of the time.
            began = time.monotonic()
        try:
            connection.begin(request, send.sink, began, deadline)
        except BaseException:
            self._drop(connection)
            raise
        return connection

    def _finish(self, connection: Connection, send: Send, started: float) -> Outcome:
        """Put the connection back, if it is good for more, and return the outcome."""
        reader = connection.reader
        elapsed = connection.now - started
        if connection.ended is None and reader.failure is None:
            outcome = Outcome(
                status=reader.status, headers=reader.headers, elapsed=elapsed
            )
        else:
            outcome = explain_failure(
                self.origin,
                send,
                reader,
                connection.ended,
                elapsed,
                reused=connection.reused,
            )
        if reader.reusable and not self._closed:
            self._idle.put(connection)
            if self._waiting:
                with self._lock:
                    self._changed.notify()
        else:
            self._drop(connection)
        return outcome

    def _reuse(
        self, connection: Connection | None, send: Send, deadline: float
    ) -> Connection | None:
        """Take an idle connection that may carry a request, this one if it may."""
        while connection is not None:
            if connection.settle(deadline):
                return connection
            self._drop(connection)
            connection = self._idle.take(time.monotonic(), send.reuse_within)
        return None

    def _drop(self, connection: Connection) -> None:
        """Close a connection, and let the next that waits have its place."""
        with self._lock:
            self._open.discard(connection)
            connection.close()
            self._changed.notify()

    def _connect(self, send: Send, started: float) -> Connection | Outcome:
        """Open a connection, when there is a place for one."""
        if self._closed:
            return refuse(CLOSED, started)
        deadline = started + min(self._connect_timeout, send.timeout)
        with self._lock:
            # Counted before it looks for an idle connection. A thread that puts one
            # back reads the count afterwards: either this finds it, or that notifies.
            self._waiting += 1
            try:
                while self._is_full() and not self._idle.close_oldest():
                    self._changed.wait(max(deadline - time.monotonic(), 0.0))
                    now = time.monotonic()
                    idle = self._idle.take(now, send.reuse_within)
                    if (connection := self._reuse(idle, send, deadline)) is not None:
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
            with self._lock:
                self._dialing -= 1
                self._changed.notify()

    def _is_full(self) -> bool:
        return len(self._open) + self._dialing >= self._limits.connections

    def _dial(self, deadline: float) -> Connection:
        """Connect, unless the pool is closed meanwhile."""
        connected = connect(self.origin, self._ssl_context, deadline)
        try:
            connection = self._wrap(connected)
        except BaseException:
            connected.close()
            raise
        try:
            with self._lock:
                closed = self._closed
                if not closed:
                    self._open.add(connection)
        except BaseException:
            self._drop(connection)
            raise
        if closed:
            connection.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, CLOSED[1])
        return connection

    def _wrap(self, connected: socket.socket) -> Connection:
        reader = ReplyReader(self._limits, self._head_reader)
        if isinstance(connected, ssl.SSLSocket):
            return TLSConnection(connected, reader)
        # The connection keeps its timeout in the kernel.
        connected.settimeout(None)
        return Connection(connected, reader)


class _Idle(Protocol):
    """A connection between two exchanges."""

    last_byte: float
    """When the last byte of its last reply came, on the clock of `time.monotonic`."""
    reader: ReplyReader
    reused: bool
    """Whether the next exchange is not its first."""


C = TypeVar("C", bound=_Idle)


class IdleConnections(Generic[C]):
    """The idle connections to one server; the one used last is used next.

    So as few as possible stay warm, and the others age until ``close`` gets them.
    Threads share it without a lock: the ends of a deque are atomic.
    """

    def __init__(self, close: Callable[[C], None]) -> None:
        self._close = close
        self._idle: collections.deque[C] = collections.deque()

    def take(self, now: float, reuse_within: float) -> C | None:
        """Take the connection used last, if it is young enough for the request.

        The server may close an idle connection at any moment, and a call lost that way
        looks like a lost reply. So a request says how many seconds after its last byte
        a connection may carry it (docs/wire.md, point 6).
        """
        idle = self._idle
        while True:
            try:
                connection = idle.pop()
            except IndexError:
                return None
            age = now - connection.last_byte
            if age > connection.reader.idle_seconds:
                # By its Keep-Alive header the server may be closing it just now.
                self._close(connection)
            elif age <= reuse_within:
                return connection
            else:
                # The others are older still, so a new connection is opened. The oldest
                # is closed for it: a session that calls rarely would pile them up.
                idle.append(connection)
                self.close_oldest()
                return None

    def put(self, connection: C) -> None:
        connection.reused = True
        idle = self._idle
        idle.append(connection)
        try:
            while idle[0].last_byte < connection.last_byte - _KEPT_SECONDS:
                self.close_oldest()
        except IndexError:
            # Another thread has taken the last one.
            return

    def close_oldest(self) -> bool:
        """Close the connection that was idle longest, and tell if there was one."""
        try:
            connection = self._idle.popleft()
        except IndexError:
            return False
        self._close(connection)
        return True


_pools: Final[weakref.WeakSet[BasePool]] = weakref.WeakSet()


def close_idle_connections() -> None:
    """Close the idle connections of every pool, so that others find a descriptor."""
    for pool in list(_pools):
        pool.close_idle()
