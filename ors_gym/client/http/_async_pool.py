"""The async pool: exchanges with one server, on the running event loop."""

from __future__ import annotations

import asyncio
import collections
import errno
import time

from ors_gym.client.http._address import connect_async
from ors_gym.client.http._async_connection import AsyncConnection, Deadlines
from ors_gym.client.http._failures import (
    CLOSED,
    describe_full,
    explain_connect_error,
    explain_failure,
    refuse,
)
from ors_gym.client.http._http1 import ReplyReader
from ors_gym.client.http._pool import BasePool, IdleConnections
from ors_gym.protocol._exchange import Outcome, Send


class AsyncConnectionPool(BasePool):
    """Exchanges over pooled connections to one server, on the running event loop.

    The first exchange binds it to its loop. When another loop asks, it drops the
    connections of the loop before.
    """

    _loop: asyncio.AbstractEventLoop | None = None

    def _reset(self) -> None:
        self._idle: IdleConnections[AsyncConnection] = IdleConnections(
            AsyncConnection.close
        )
        self._open: set[AsyncConnection] = set()
        self._waiters: collections.deque[asyncio.Future[None]] = collections.deque()
        self._dialing = 0

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange; failures of network and server are outcomes too.

        Cancelling it closes its connection.
        """
        started = time.monotonic()
        request = self._writer.render(send.head, send.body, send.traceparent)
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            self._bind(loop)
        connection = self._idle.take(started, send.reuse_within)
        try:
            if connection is None or connection.is_settled() is not True:
                connection = await self._reuse(connection, send, started + send.timeout)
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

    def close_idle(self) -> None:
        if self._loop is None or not self._loop.is_running():
            while self._idle.close_oldest():
                pass

    def reset_after_fork(self) -> None:
        inherited = list(self._open)
        self._loop = None
        self._reset()
        for connection in inherited:
            # The child shares its parent's epoll: to unregister here would make the
            # parent deaf to the connection.
            connection.close_descriptor()

    def __del__(self) -> None:
        if getattr(self, "_open", None):
            self._unbind()

    def _bind(self, loop: asyncio.AbstractEventLoop) -> None:
        """Work on this event loop from now on."""
        self._unbind()
        self._reset()
        self._deadlines = Deadlines(loop)
        # Last: an interrupt before it leaves all of this to the next exchange.
        self._loop = loop

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

    def _finish(
        self, connection: AsyncConnection, send: Send, started: float
    ) -> Outcome:
        """Put the connection back, if it is good for more, and return the outcome."""
        connection.finish()
        reader = connection.reader
        elapsed = time.monotonic() - started
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
        if reader.reusable and not connection.closed:
            self._idle.put(connection)
        else:
            connection.close()
        if self._waiters:
            self._admit()
        return outcome

    async def _reuse(
        self, connection: AsyncConnection | None, send: Send, deadline: float
    ) -> AsyncConnection | None:
        """Take an idle connection that may carry a request, this one if it may."""
        while connection is not None:
            try:
                clean = connection.is_settled()
                if clean is None:
                    clean = await connection.settle(deadline)
            except BaseException:
                connection.close()
                raise
            if clean:
                return connection
            connection.close()
            connection = self._idle.take(time.monotonic(), send.reuse_within)
        return None

    async def _connect(self, send: Send, started: float) -> AsyncConnection | Outcome:
        """Open a connection, when there is a place for one."""
        if self._closed:
            return refuse(CLOSED, started)
        deadline = started + min(self._connect_timeout, send.timeout)
        while self._is_full() and not self._idle.close_oldest():
            if not await self._wait(deadline):
                return refuse(describe_full(self.origin, self._limits), started)
            idle = self._idle.take(time.monotonic(), send.reuse_within)
            if (connection := await self._reuse(idle, send, deadline)) is not None:
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
        """Wait for a place in the pool; tell whether one became free in time."""
        waiter = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                await waiter
        except BaseException as error:
            # A place that came in this moment is for the next one.
            if waiter.done() and not waiter.cancelled():
                self._admit()
            if isinstance(error, TimeoutError):
                return False
            raise
        return True

    def _admit(self) -> None:
        """Let the next that waits for a place look again."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _dial(self, deadline: float) -> AsyncConnection:
        """Connect, unless the pool is closed meanwhile."""
        loop = asyncio.get_running_loop()
        connected = await connect_async(self.origin, self._ssl_context, deadline)
        if self._closed:
            connected.close()
            raise ConnectionAbortedError(errno.ECONNABORTED, CLOSED[1])
        try:
            reader = ReplyReader(self._limits, self._head_reader)
            return AsyncConnection(loop, connected, reader, self._deadlines, self._open)
        except BaseException:
            connected.close()
            raise


def _running_loop() -> asyncio.AbstractEventLoop | None:
    """Return the event loop of this thread, if it has one."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
