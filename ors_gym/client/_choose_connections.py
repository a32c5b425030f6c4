"""Chooses what does a client's exchanges: our connections, or httpx.

The background has connections of its own. Where the user brought an httpx transport or
client, only that one may know the way to the server, so it carries pings and deletes
too: a blocking one on a thread, an async one on the user's event loop.
"""

from __future__ import annotations

import asyncio
import urllib.request
from typing import Protocol

import httpx

from ors_gym.client._httpx_connections import AsyncHttpxConnections, HttpxConnections
from ors_gym.client._server import RemoteServer
from ors_gym.client.http._address import Origin
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure, Outcome, Send
from ors_gym.protocol._server import ClientSettings

__all__ = ["choose_async_connections", "choose_connections"]


class Connections(Protocol):
    """What the blocking client needs of its connections."""

    def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""

    def close(self) -> None:
        """Close every connection."""


class AsyncConnections(Protocol):
    """What the async client needs of its connections."""

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange."""

    async def aclose(self) -> None:
        """Close every connection."""


def choose_connections(
    server: RemoteServer,
    transport: httpx.BaseTransport | None,
    client: httpx.Client | None,
) -> Connections:
    """Choose the connections of a blocking client, and those of the background."""
    settings = server.settings
    if client is None and transport is None and not _needs_proxy(settings):
        return ConnectionPool(
            settings.base_url, headers=settings.headers, limits=settings.limits
        )
    connections = HttpxConnections(settings, client, transport)
    _use_thread_in_background(server, connections)
    return connections


def choose_async_connections(
    server: RemoteServer,
    transport: httpx.AsyncBaseTransport | None,
    client: httpx.AsyncClient | None,
) -> AsyncConnections:
    """Choose the connections of an async client, and those of the background."""
    settings = server.settings
    brought = client is not None or transport is not None
    if not brought and not _needs_proxy(settings):
        return AsyncConnectionPool(
            settings.base_url, headers=settings.headers, limits=settings.limits
        )
    connections = AsyncHttpxConnections(settings, client, transport)
    if brought:
        return _UsersLoopConnections(server, connections)
    _use_thread_in_background(server, HttpxConnections(settings))
    return connections


def _needs_proxy(settings: ClientSettings) -> bool:
    if not settings.trust_env:
        return False
    origin = Origin(settings.base_url)
    if urllib.request.proxy_bypass(origin.host):
        return False
    proxies = urllib.request.getproxies()
    return origin.scheme in proxies or "all" in proxies


def _use_thread_in_background(
    server: RemoteServer, connections: HttpxConnections
) -> None:
    async def exchange(send: Send) -> Outcome:
        try:
            return await asyncio.to_thread(connections.exchange, send)
        except RuntimeError:
            # The interpreter is shutting down and starts no thread any more.
            return connections.exchange(send)

    server.background_exchange = exchange


class _UsersLoopConnections:
    """An async httpx client of the user's, which also does the background's work."""

    def __init__(
        self, server: RemoteServer, connections: AsyncHttpxConnections
    ) -> None:
        self._connections = connections
        self._loop: asyncio.AbstractEventLoop | None = None
        server.background_exchange = self._exchange_from_background

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange, on the loop that the user's client belongs to."""
        self._loop = asyncio.get_running_loop()
        return await self._connections.exchange(send)

    async def aclose(self) -> None:
        """Close the client, unless it is the user's own."""
        await self._connections.aclose()

    async def _exchange_from_background(self, send: Send) -> Outcome:
        loop = self._loop
        if loop is None or not loop.is_running():
            return Outcome(
                sent=False,
                failure=Failure.CONNECT,
                detail="the event loop of the httpx client is not running",
            )
        work = asyncio.run_coroutine_threadsafe(self._connections.exchange(send), loop)
        return await asyncio.wrap_future(work)
