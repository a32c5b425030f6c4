"""Chooses what carries a client's exchanges: our connections, or the user's httpx.

The background has connections of its own to our transports' servers. Where the user
brought a transport, only that one may know the way, so it carries pings and deletes
too: a blocking one on a thread, an async one on the user's loop.
"""

from __future__ import annotations

import asyncio
import urllib.request

import httpx

from ors_gym.client._connection import AsyncTransportLike, Link, TransportLike
from ors_gym.client.http._address import Origin
from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.client.httpx_transport import AsyncStockTransport, StockTransport
from ors_gym.protocol._exchange import Failure, Outcome, Send

__all__ = ["choose_async_transport", "choose_transport"]


def choose_transport(
    link: Link,
    *,
    trust_env: bool,
    transport: httpx.BaseTransport | None,
    client: httpx.Client | None,
) -> TransportLike:
    """Choose what carries the exchanges of a blocking client.

    Args:
        link: How the server is reached.
        trust_env: Whether proxies of the environment are used.
        transport: The user's httpx transport.
        client: The user's httpx client.

    Returns:
        The transport.
    """
    if client is None and transport is None and not _needs_proxy(link, trust_env):
        return ConnectionPool(link.base_url, headers=link.headers, limits=link.limits)
    stock = StockTransport(
        link.base_url,
        client,
        transport=transport,
        trust_env=trust_env,
        headers=link.headers,
        limits=link.limits,
    )
    _use_thread_in_background(link, stock)
    return stock


def choose_async_transport(
    link: Link,
    *,
    trust_env: bool,
    transport: httpx.AsyncBaseTransport | None,
    client: httpx.AsyncClient | None,
) -> AsyncTransportLike:
    """Choose what carries the exchanges of an async client.

    Args:
        link: How the server is reached.
        trust_env: Whether proxies of the environment are used.
        transport: The user's httpx transport.
        client: The user's httpx client.

    Returns:
        The transport.
    """
    brought = client is not None or transport is not None
    if not brought and not _needs_proxy(link, trust_env):
        return AsyncConnectionPool(
            link.base_url, headers=link.headers, limits=link.limits
        )
    stock = AsyncStockTransport(
        link.base_url,
        client,
        transport=transport,
        trust_env=trust_env,
        headers=link.headers,
        limits=link.limits,
    )
    if brought:
        return _OnUsersLoop(link, stock)
    blocking = StockTransport(
        link.base_url, trust_env=True, headers=link.headers, limits=link.limits
    )
    _use_thread_in_background(link, blocking)
    return stock


def _needs_proxy(link: Link, trust_env: bool) -> bool:
    if not trust_env:
        return False
    origin = Origin(link.base_url)
    if urllib.request.proxy_bypass(origin.host):
        return False
    return origin.scheme in (proxies := urllib.request.getproxies()) or "all" in proxies


def _use_thread_in_background(link: Link, stock: StockTransport) -> None:
    async def exchange(send: Send) -> Outcome:
        try:
            return await asyncio.to_thread(stock.exchange, send)
        except RuntimeError:
            # The interpreter is shutting down and starts no thread any more.
            return stock.exchange(send)

    link.background_exchange = exchange


class _OnUsersLoop:
    """An async httpx client of the user's, which also carries the background's work.

    Args:
        link: How the server is reached; its background exchange is set.
        stock: Does the exchanges.
    """

    def __init__(self, link: Link, stock: AsyncStockTransport) -> None:
        self._stock = stock
        self._loop: asyncio.AbstractEventLoop | None = None
        link.background_exchange = self._exchange_from_background

    async def exchange(self, send: Send) -> Outcome:
        """Do one exchange, on the loop that the user's client belongs to."""
        self._loop = asyncio.get_running_loop()
        return await self._stock.exchange(send)

    async def aclose(self) -> None:
        """Close the client, unless it is the user's own."""
        await self._stock.aclose()

    async def _exchange_from_background(self, send: Send) -> Outcome:
        loop = self._loop
        if loop is None or not loop.is_running():
            return Outcome(
                sent=False,
                failure=Failure.CONNECT,
                detail="the event loop of the httpx client is not running",
            )
        work = asyncio.run_coroutine_threadsafe(self._stock.exchange(send), loop)
        return await asyncio.wrap_future(work)
