"""The background's own connections, so that no call waits for a ping."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Coroutine, Hashable
from functools import partial
from typing import Any, Final, Generic, TypeVar

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._run_operation import AsyncExchange, run_async
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.protocol._exchange import Operation

T = TypeVar("T")
W = TypeVar("W")

_IDLE_SECONDS: Final = 10.0
_MOST_AT_ONCE: Final = 64


class BackgroundConnections:
    """Runs operations; it opens connections to a server when first asked for it.

    Clients with equal settings share them, so a process that makes one env after the
    other does not keep connections of each.
    """

    def __init__(self) -> None:
        self._servers: dict[Hashable, ServerConnections] = {}

    async def run(self, server: RemoteServer, operation: Operation[T]) -> T:
        # Only the transport that the user brought may know the way, so nothing is
        # shared with other clients then.
        brought = server.background_exchange is not None
        key = server if brought else server.settings
        connections = self._servers.get(key)
        if connections is None:
            connections = self._servers[key] = ServerConnections(server)
        connections.users += 1
        try:
            # What the background sends is no part of a trace.
            return await run_async(
                operation, connections.exchange, server.redact, observed=False
            )
        finally:
            connections.users -= 1
            connections.idle_since = time.monotonic()

    async def close_idle(self) -> None:
        """Close the connections to servers that were not asked for a while."""
        oldest = time.monotonic() - _IDLE_SECONDS
        for key, connections in list(self._servers.items()):
            if connections.users == 0 and connections.idle_since < oldest:
                del self._servers[key]
                await connections.aclose()

    def take(self) -> list[ServerConnections]:
        """Give away what is open, for the caller to close."""
        servers, self._servers = self._servers, {}
        return list(servers.values())


class ServerConnections:
    """The background's connections to one server."""

    def __init__(self, server: RemoteServer) -> None:
        self._pool: AsyncConnectionPool | None = None
        if server.background_exchange is not None:
            self.exchange: AsyncExchange = server.background_exchange
        else:
            self._pool = AsyncConnectionPool.from_settings(server.settings)
            self.exchange = self._pool.exchange
        self.users = 0
        self.idle_since = time.monotonic()

    async def aclose(self) -> None:
        """Close the connections, unless they are the user's own."""
        if self._pool is not None:
            await self._pool.aclose()


class WorkByServer(Generic[W]):
    """Runs pieces of work on the running loop, in a queue for each server.

    At most 64 pieces of a queue run at once, and a server that is gone holds up no
    other.
    """

    def __init__(self, do: Callable[[W], Coroutine[Any, Any, None]]) -> None:
        self._do = do
        self._waiting: dict[str, deque[W]] = {}
        self._running: dict[str, set[asyncio.Task[None]]] = {}

    def __bool__(self) -> bool:
        return bool(self._running)

    def put(self, server: RemoteServer, piece: W) -> None:
        """Do a piece of work as soon as there is room."""
        self._waiting.setdefault(server.base_url, deque()).append(piece)
        self._start(server.base_url)

    async def wait(self, seconds: float) -> None:
        """Wait until a piece is done, for so many seconds at most."""
        tasks = set().union(*self._running.values())
        if tasks:
            first = asyncio.FIRST_COMPLETED
            await asyncio.wait(tasks, timeout=seconds, return_when=first)
        else:
            await asyncio.sleep(seconds)

    async def wait_for(self, server: RemoteServer) -> None:
        """Wait until all work for a server is done."""
        while tasks := self._running.get(server.base_url):
            await asyncio.wait(tasks)

    async def cancel(self) -> None:
        """Drop all work that is not done."""
        self._waiting.clear()
        tasks = set().union(*self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _start(self, key: str) -> None:
        waiting = self._waiting.get(key)
        running = self._running.setdefault(key, set())
        while waiting and len(running) < _MOST_AT_ONCE:
            task = asyncio.get_running_loop().create_task(self._do(waiting.popleft()))
            running.add(task)
            task.add_done_callback(partial(self._end, key))
        if not waiting:
            self._waiting.pop(key, None)
        if not running:
            del self._running[key]

    def _end(self, key: str, task: asyncio.Task[None]) -> None:
        self._running[key].discard(task)
        self._start(key)
