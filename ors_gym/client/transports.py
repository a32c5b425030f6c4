"""Chooses what carries a client's exchanges: our connections, or the user's httpx."""

from __future__ import annotations

import httpx

from ors_gym.client.async_transport import AsyncTransport
from ors_gym.client.link import AsyncTransportLike, Link, TransportLike
from ors_gym.client.transport import Transport

__all__ = ["choose_async_transport", "choose_transport"]


def choose_transport(
    link: Link,
    *,
    trust_env: bool,
    transport: httpx.BaseTransport | None,
    client: httpx.Client | None,
) -> TransportLike:
    return Transport(link.base_url, headers=link.headers, limits=link.limits)


def choose_async_transport(
    link: Link,
    *,
    trust_env: bool,
    transport: httpx.AsyncBaseTransport | None,
    client: httpx.AsyncClient | None,
) -> AsyncTransportLike:
    return AsyncTransport(link.base_url, headers=link.headers, limits=link.limits)
