"""What was sent over HTTP, for a client whose connection broke before it came."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from mcp.server.streamable_http import EventCallback, EventMessage, EventStore
from mcp_types import JSONRPCMessage

_KEPT: Final = 256
"""The latest messages that are kept. They share their text with the episode."""


class Events(EventStore):
    """Keeps the latest messages of one episode's sessions in memory."""

    def __init__(self) -> None:
        self._count = 0
        self._kept: OrderedDict[str, tuple[str, JSONRPCMessage | None]] = OrderedDict()

    async def store_event(self, stream_id: str, message: JSONRPCMessage | None) -> str:
        """Keep a message, and return its id."""
        self._count += 1
        self._kept[str(self._count)] = (stream_id, message)
        if len(self._kept) > _KEPT:
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
            if (
                stream_id == stream
                and message is not None
                and int(event_id) > int(last_event_id)
            ):
                await send_callback(EventMessage(message, event_id))
        return stream
