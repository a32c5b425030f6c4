"""An episode over HTTP, and the HTTP server that carries many of them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterator
from typing import TYPE_CHECKING, Final

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp_types import JSONRPCMessage

from ors_gym.mcp._episode_server import EpisodeServer
from ors_gym.server._uvicorn import StartReportingServer
from ors_gym.server._web import TokenGuard, WebPageGuard

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

_LONGEST_HELD_BACK: Final = 4 * 1024 * 1024
"""Bytes of a request that are read before it is handed on."""
_EVENTS_KEPT: Final = 256
"""The latest messages that are kept. They share their text with the episode."""


@contextlib.asynccontextmanager
async def run_episode_server(episode_server: EpisodeServer) -> AsyncIterator[ASGIApp]:
    """Serve an episode over HTTP, to as many sessions as an agent opens for it."""
    manager = StreamableHTTPSessionManager(
        episode_server.server, event_store=_Events(), session_idle_timeout=None
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
        yield _WholeRequests(manager.handle_request)
    finally:
        await episode_server.close()
        closing.set()
        await running


class _WholeRequests:
    """Drops requests whose connection broke before their end.

    The session manager would print a traceback for each.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body, is_more = bytearray(), True
        while is_more and len(body) <= _LONGEST_HELD_BACK:
            message = await receive()
            if message["type"] == "http.disconnect":
                return
            body += message.get("body", b"")
            is_more = message.get("more_body", False)
        read = [{"type": "http.request", "body": bytes(body), "more_body": is_more}]

        async def receive_again() -> Message:
            return read.pop() if read else await receive()

        await self._application(scope, receive_again, send)


class _Events(EventStore):
    """Keeps what was sent, for a client whose connection broke before it came."""

    def __init__(self) -> None:
        self._count = 0
        self._kept: OrderedDict[str, tuple[str, JSONRPCMessage | None]] = OrderedDict()

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep a message, and return its id."""
        self._count += 1
        self._kept[str(self._count)] = (stream_id, message)
        if len(self._kept) > _EVENTS_KEPT:
            self._kept.popitem(last=False)
        return str(self._count)

    async def replay_events_after(
        self, last_event_id: str, send_callback: EventCallback
    ) -> str | None:
        """Send the later messages of the stream that an id belongs to."""
        if last_event_id not in self._kept:
            return None
        stream, _ = self._kept[last_event_id]
        for event_id, (stream_id, message) in list(self._kept.items()):
            is_later = int(event_id) > int(last_event_id)
            if stream_id == stream and is_later and message is not None:
                await send_callback(EventMessage(message, event_id))
        return stream


@contextlib.asynccontextmanager
async def run_http_server(
    application: ASGIApp, listener: socket.socket, *, token: str | None = None
) -> AsyncIterator[None]:
    """Run an HTTP server on this loop, for this machine or for who has the token."""
    if token is None:
        application = WebPageGuard(application)
    else:
        application = TokenGuard(application, token)
    accepting = asyncio.Event()
    server = _EmbeddedServer(application, accepting.set, lifespan="off")
    running = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        await accepting.wait()
        yield
    finally:
        server.should_exit = True
        await running


class _EmbeddedServer(StartReportingServer):
    """Leaves signals to the program around it."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield
