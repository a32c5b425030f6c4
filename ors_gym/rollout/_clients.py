"""Clients derived from clients: same server, same settings, another way to wait."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from ors_gym.client import AsyncORSClient, ORSClient
from ors_gym.client._connection import Link
from ors_gym.env._settings import find_server
from ors_gym.errors import InvalidRequestError

__all__ = ["AnyClient", "borrow_async", "borrow_blocking", "client_settings"]

AnyClient: TypeAlias = ORSClient | AsyncORSClient | str | None
"""A client, a server's address, or None for ``ORS_BASE_URL`` or the embedded server."""


@asynccontextmanager
async def borrow_async(
    client: AnyClient, *, elsewhere: bool = False
) -> AsyncIterator[AsyncORSClient]:
    """Give an async client for this event loop.

    Args:
        client: What the user passed.
        elsewhere: Whether an async client of the user's belongs to another loop, so
            that its connections cannot be used here.

    Yields:
        The user's client itself if it is one, else a client for as long as the block
        runs.
    """
    if isinstance(client, AsyncORSClient) and not elsewhere:
        yield client
        return
    async with AsyncORSClient(**client_settings(client)) as own:
        _share(client, own.link)
        yield own


@contextmanager
def borrow_blocking(client: AnyClient) -> Iterator[ORSClient]:
    """Give a blocking client.

    Args:
        client: What the user passed.

    Yields:
        The user's client itself if it is one, else a client for as long as the block
        runs.
    """
    if isinstance(client, ORSClient):
        yield client
        return
    with ORSClient(**client_settings(client)) as own:
        _share(client, own.link)
        yield own


def client_settings(client: AnyClient) -> dict[str, Any]:
    """Return the arguments of a client that reaches the same server the same way.

    They hold the client's key, if it has one.

    Args:
        client: What the user passed.

    Raises:
        InvalidRequestError: If the client has connections of the user's own.
    """
    if client is None or isinstance(client, str):
        return {"base_url": find_server(client)}
    link = client.link
    if link.background_exchange is not None:
        raise InvalidRequestError(
            f"{client!r} was given an httpx transport or a proxy of its own, which "
            "cannot be used in another thread or process; await parallel_evaluate or "
            "run_episode_async with an AsyncORSClient that has it"
        )
    return {
        "base_url": link.base_url,
        # The key is among the headers already.
        "api_key": "",
        "headers": dict(link.headers),
        "timeout": link.wire.timeout,
        "allow_insecure": link.wire.secure,
        "limits": link.limits,
        "repeat_calls_after_429": link.wire.repeat_calls_after_429,
    }


def _share(client: AnyClient, link: Link) -> None:
    """Hand on what was learnt of the server, and who is told of retries."""
    if isinstance(client, ORSClient | AsyncORSClient):
        known = client.link.wire
        link.wire.dialect = known.dialect
        link.wire.environments = known.environments
        link.wire.reached = known.reached
        link.wire.on_retry = known.on_retry
