"""The client of a rollout: the user's own, or one that is made for it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any, TypeAlias

from ors_gym.client import AsyncORSClient, ORSClient
from ors_gym.env._settings import (
    CLIENT_ARGUMENTS,
    find_server,
    merge_client_arguments,
    refuse_client_arguments,
)
from ors_gym.errors import InvalidRequestError
from ors_gym.formats._actions import name_type

AnyClient: TypeAlias = ORSClient | AsyncORSClient | str | None
"""A client, a server's address, or None for ``ORS_BASE_URL`` or the embedded server."""


def connect(
    base_url: str | None = None,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    client_options: Mapping[str, Any] | None = None,
) -> AsyncORSClient:
    """Make a client by the arguments that `ORSEnv` takes for its own.

    Args:
        base_url: The server's address; else ``ORS_BASE_URL``, else the embedded one.
        api_key: Sent as ``X-API-Key``.
        headers: Sent with every request.
        client_options: What `AsyncORSClient` takes besides.

    Raises:
        InvalidRequestError: If the address or a header cannot be right.

    Example:
        >>> connect("http://127.0.0.1:8080")
        AsyncORSClient('http://127.0.0.1:8080')
    """
    given = {"api_key": api_key, "headers": headers, "client_options": client_options}
    return AsyncORSClient(_find_address(base_url), **merge_client_arguments(given))


def split_client_arguments(
    arguments: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Split arguments into those of `connect`, but the address, and the others."""
    connection = {k: v for k, v in arguments.items() if k in CLIENT_ARGUMENTS}
    return connection, {k: v for k, v in arguments.items() if k not in CLIENT_ARGUMENTS}


@asynccontextmanager
async def borrow_async(
    client: AnyClient,
    connection: Mapping[str, Any] | None = None,
    *,
    elsewhere: bool = False,
) -> AsyncIterator[AsyncORSClient]:
    """Give an async client of this event loop: the user's, or one for the block.

    ``elsewhere`` says that an async client of the user's belongs to another loop, so
    its connections cannot be used here.

    Raises:
        InvalidRequestError: If there are arguments of a connection beside a client,
            which has its own.
    """
    if isinstance(client, ORSClient | AsyncORSClient):
        refuse_client_arguments(connection or {})
        if isinstance(client, AsyncORSClient) and not elsewhere:
            yield client
            return
        own = AsyncORSClient.from_client(client)
    else:
        own = connect(client, **(connection or {}))
    async with own:
        yield own


@contextmanager
def borrow_blocking(
    client: AnyClient, connection: Mapping[str, Any] | None = None
) -> Iterator[ORSClient]:
    """Give a blocking client: the user's, or one for the block."""
    if isinstance(client, ORSClient | AsyncORSClient):
        refuse_client_arguments(connection or {})
        if isinstance(client, ORSClient):
            yield client
            return
        own = ORSClient.from_client(client)
    else:
        own = ORSClient.from_client(connect(client, **(connection or {})))
    with own:
        yield own


def _find_address(client: str | None) -> str:
    if client is None or isinstance(client, str):
        return find_server(client)
    # An env, for example: what plays a policy opens envs of its own.
    raise InvalidRequestError(
        f"client is {name_type(client)}; it takes an ORSClient, an AsyncORSClient, a "
        "server's address, or None for the one at ORS_BASE_URL or the bundled one"
    )
