"""The blocking connections: exchanges over a pool of HTTP/1.1 connections."""

from __future__ import annotations

import errno
import socket
import threading
import time
from collections.abc import Generator

from ors_gym.client.blocking_socket import BlockingSocket, TLSBlockingSocket
from ors_gym.client.dialing import (
    Address,
    attempts,
    literal_address,
    open_socket,
    read_addresses,
    refuse_self_connection,
    secure,
)
from ors_gym.client.failures import (
    CLOSED,
    describe_full,
    explain_connect_error,
    explain_failure,
    refuse,
)
from ors_gym.client.http1 import ReplyReader
from ors_gym.client.pool import FreeList
from ors_gym.client.pooled import PooledConnections
from ors_gym.protocol.exchange import Outcome, Send

__all__ = ["Transport"]


class Transport(PooledConnections):
    """Exchanges over pooled connections to one server, for any number of threads.

    It takes what `PooledConnections` takes.

    Raises:
        InvalidRequestError: If the URL or a header cannot be used.

    Example:
        >>> from ors_gym.protocol.exchange import Head
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

    def forget(self) -> None:
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
