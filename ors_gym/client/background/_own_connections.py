"""The background's own connections, so that no call waits for a ping."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Hashable
from typing import Any, Final, TypeVar

from ors_gym.client._remote_server import RemoteServer
from ors_gym.client._run_operation import AsyncExchange, run_async
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.protocol._exchange import Operation

T = TypeVar("T")

_IDLE_SECONDS: Final = 10.0
_MOST_TASKS: Final = 64


class BackgroundConnections:
    """Runs operations; it opens connections to a server when first asked for it.

    Clients with equal settings share them, so a process that makes one env after the
    other does not keep connections of each.
    """

    def __init__(self) -> None:
        self._servers: dict[Hashable, _ServerConnections] = {}

    async def run(self, server: RemoteServer, operation: Operation[T]) -> T:
        # Only the transport that the user brought may know the way.
        brought = server.background_exchange is not None
        key = server if brought else server.settings
        connections = self._servers.get(key)
        if connections is None:
            connections = self._servers[key] = _ServerConnections(server)
        connections.users += 1
        try:
            return await run_async(operation, connections.exchange)
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

    async def aclose(self) -> None:
        for connections in self._servers.values():
            await connections.aclose()
        self._servers.clear()


class _ServerConnections:
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


class BoundedTasks:
    """Tasks on the running loop, of which at most 64 run at once.

    ``then`` is called whenever one has ended, to start the next.
    """

    def __init__(self, then: Callable[[], None]) -> None:
        self.running: set[asyncio.Task[None]] = set()
        self._then = then

    def __bool__(self) -> bool:
        return bool(self.running)

    def has_room(self) -> bool:
        return len(self.running) < _MOST_TASKS

    def start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.running.add(task)
        task.add_done_callback(self._end)

    def _end(self, task: asyncio.Task[None]) -> None:
        self.running.discard(task)
        self._then()
