"""What stands for a client wherever one is asked for: a client, an address, or None."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import TypeAlias

from ors_gym.client import AsyncORSClient, ORSClient
from ors_gym.env._settings import find_server

__all__ = ["AnyClient", "borrow_async", "borrow_blocking"]

AnyClient: TypeAlias = ORSClient | AsyncORSClient | str | None
"""A client, a server's address, or None for ``ORS_BASE_URL`` or the embedded server."""


@asynccontextmanager
async def borrow_async(
    client: AnyClient, *, elsewhere: bool = False
) -> AsyncIterator[AsyncORSClient]:
    """Give an async client of this event loop: the user's, or one for the block.

    ``elsewhere`` says that an async client of the user's belongs to another loop, so
    its connections cannot be used here.
    """
    if isinstance(client, AsyncORSClient) and not elsewhere:
        yield client
        return
    if isinstance(client, ORSClient | AsyncORSClient):
        own = AsyncORSClient.from_client(client)
    else:
        own = AsyncORSClient(find_server(client))
    async with own:
        yield own


@contextmanager
def borrow_blocking(client: AnyClient) -> Iterator[ORSClient]:
    """Give a blocking client: the user's, or one for the block."""
    if isinstance(client, ORSClient):
        yield client
        return
    if isinstance(client, AsyncORSClient):
        own = ORSClient.from_client(client)
    else:
        own = ORSClient(find_server(client))
    with own:
        yield own
