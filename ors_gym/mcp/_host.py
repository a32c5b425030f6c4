"""Live episodes over HTTP, each at an address of its own that nobody can guess."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Final, Self

from ors_gym.mcp._episode_server import EpisodeServer, Played
from ors_gym.mcp._http import run_episode_server, run_http_server
from ors_gym.rollout import Episode
from ors_gym.server._web import describe_address, listen, refuse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

_HOST: Final = "127.0.0.1"


class ServedEpisode:
    """An episode that an agent can play at an address.

    Args:
        url: The address, for an MCP client that speaks Streamable HTTP. Whoever knows
            it can play.
        episode: What happened so far. Its reward is not for the agent.
        ended: Set once the episode has ended.

    Example:
        >>> import asyncio
        >>> from ors_gym.rollout import LiveEpisode, connect
        >>> async def address():
        ...     async with (
        ...         connect() as client,
        ...         LiveEpisode(client, "math", 0) as live,
        ...         EpisodeHost() as host,
        ...     ):
        ...         await live.start()
        ...         async with host.serve(live) as served:
        ...             return served.url, served.ended.is_set()
        >>> asyncio.run(address())
        ('http://127.0.0.1:...', False)
    """

    def __init__(self, url: str, episode_server: EpisodeServer) -> None:
        self.url = url
        self.episode: Episode = episode_server.live.episode
        self.ended: asyncio.Event = episode_server.ended


class EpisodeHost:
    """Serves live episodes to MCP clients of this machine, many at once.

    Used as an async context manager, on the event loop of the episodes.

    Example:
        >>> import asyncio
        >>> from mcp import Client
        >>> from ors_gym.rollout import LiveEpisode, connect
        >>> async def play():
        ...     async with (
        ...         connect() as client,
        ...         LiveEpisode(client, "math", 0) as live,
        ...         EpisodeHost() as host,
        ...     ):
        ...         await live.start()
        ...         async with host.serve(live) as served, Client(served.url) as agent:
        ...             await agent.call_tool("submit", {"answer": "?"})
        ...             await served.ended.wait()
        ...         return live.episode
        >>> asyncio.run(play()).stop_reason
        'finished'
    """

    def __init__(self) -> None:
        self._served: dict[bytes, ASGIApp] = {}
        self._base_url = ""
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = listen(_HOST, 0)
        self._base_url = describe_address(_HOST, listener)
        await self._stack.enter_async_context(run_http_server(self, listener))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def serve(
        self, live: Played, *, instructions: bool = True
    ) -> AsyncIterator[ServedEpisode]:
        """Serve an episode that has started, for as long as the block runs.

        Args:
            live: A `LiveEpisode`; it is not closed here. Or any object with its
                ``episode``, ``ended`` and ``step``.
            instructions: Whether the prompt is the server's instructions too. An agent
                that is told it by other means would read it twice.

        Yields:
            The episode and its address.
        """
        token = secrets.token_urlsafe(32)
        episode_server = EpisodeServer(live)
        if not instructions:
            episode_server.server.instructions = None
        async with run_episode_server(episode_server) as application:
            self._served[_digest(token)] = application
            try:
                yield ServedEpisode(f"{self._base_url}/{token}/mcp", episode_server)
            finally:
                del self._served[_digest(token)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        token, _, rest = scope["path"].removeprefix("/").partition("/")
        # By its digest, so that the time of the comparison says nothing of the token.
        application = self._served.get(_digest(token)) if rest == "mcp" else None
        if application is None:
            await refuse(send, 404, "no episode is served here")
        else:
            await application(scope, receive, send)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
