"""Live episodes over HTTP, each at an address of its own that nobody can guess."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import secrets
import socket
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final, Self

import uvicorn
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import (
    TransportSecurityMiddleware,
    TransportSecuritySettings,
)
from starlette.requests import Request
from starlette.responses import Response

from ors_gym.mcp._events import Events
from ors_gym.mcp._face import Face, Played
from ors_gym.rollout import Episode

if TYPE_CHECKING:
    from starlette.types import Receive, Scope, Send

_LOOPBACK: Final = ("127.0.0.1", "localhost", "[::1]")
_WEB_PAGES: Final = TransportSecuritySettings(
    allowed_hosts=[f"{name}:*" for name in _LOOPBACK],
    allowed_origins=[f"http://{name}:*" for name in _LOOPBACK],
)
"""Refuses web pages, also one whose own name resolves to 127.0.0.1 (DNS rebinding)."""
_SHUTDOWN_SECONDS: Final = 2


class ServedEpisode:
    """An episode that an agent can play at an address.

    Args:
        url: The address, for an MCP client that speaks Streamable HTTP. Whoever knows
            it can play.
        episode: What happened so far. Its reward is not for the agent.
        ended: Set once the episode has ended.
    """

    def __init__(self, url: str, face: Face) -> None:
        self.url = url
        self.episode: Episode = face.live.episode
        self.ended: asyncio.Event = face.ended


class EpisodeHost:
    """Serves live episodes to MCP clients of this machine, many at once.

    Used as an async context manager, on the event loop of the episodes.

    Example:
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
        self._served: dict[bytes, StreamableHTTPSessionManager] = {}
        self._security = TransportSecurityMiddleware(_WEB_PAGES)
        self._base_url = ""
        self._stack = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        listener = socket.create_server(("127.0.0.1", 0))
        self._base_url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        await self._stack.enter_async_context(run_http_server(self, listener))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    @contextlib.asynccontextmanager
    async def serve(self, live: Played) -> AsyncIterator[ServedEpisode]:
        """Serve an episode that has started, for as long as the block runs.

        Args:
            live: A `LiveEpisode`; it is not closed here. Or any object with its
                ``episode``, ``ended`` and ``step``.

        Yields:
            The episode and its address.
        """
        token = secrets.token_urlsafe(32)
        face = Face(live)
        async with run_face(face) as manager:
            self._served[_digest(token)] = manager
            try:
                yield ServedEpisode(f"{self._base_url}/{token}/mcp", face)
            finally:
                del self._served[_digest(token)]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer an HTTP request."""
        request = Request(scope, receive)
        refusal = await self._security.validate_request(
            request, is_post=request.method == "POST"
        )
        token, _, rest = scope["path"].removeprefix("/").partition("/")
        # By its digest, so that the time of the comparison says nothing of the token.
        manager = self._served.get(_digest(token)) if rest == "mcp" else None
        if refusal is not None:
            await refusal(scope, receive, send)
        elif manager is None:
            nothing = Response("no episode is served here", status_code=404)
            await nothing(scope, receive, send)
        else:
            await manager.handle_request(scope, receive, send)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


@contextlib.asynccontextmanager
async def run_face(face: Face) -> AsyncIterator[StreamableHTTPSessionManager]:
    """Serve an episode over HTTP, to as many sessions as an agent opens for it."""
    manager = StreamableHTTPSessionManager(
        face.server, event_store=Events(), session_idle_timeout=None
    )
    ready, closing = asyncio.Event(), asyncio.Event()

    async def run() -> None:
        # In a task of its own: it must be left by the task that entered it.
        async with manager.run():
            ready.set()
            await closing.wait()

    running = asyncio.create_task(run())
    try:
        await ready.wait()
        yield manager
    finally:
        await face.close()
        closing.set()
        await running


@contextlib.asynccontextmanager
async def run_http_server(
    application: EpisodeHost, listener: socket.socket
) -> AsyncIterator[None]:
    """Run an HTTP server on this event loop."""
    config = uvicorn.Config(
        application,
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        ws="none",
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    server = _EmbeddedServer(config)
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await server.accepting.wait()
        yield
    finally:
        server.should_exit = True
        await running


class _EmbeddedServer(uvicorn.Server):
    """Says when it takes requests, and leaves signals to the program around it."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.accepting = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, and say so."""
        await super().startup(sockets=sockets)
        self.accepting.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
