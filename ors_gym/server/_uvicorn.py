"""uvicorn, as the HTTP servers of this package run it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

_SHUTDOWN_SECONDS: Final = 2
_TURNS_OF_A_HANDOVER: Final = 5
"""After so many turns of an event loop, a connection that it accepted is served."""


class StartReportingServer(uvicorn.Server):
    """Runs an application quietly, and calls a function once it takes requests.

    ``options`` are those of `uvicorn.Config`.
    """

    def __init__(
        self, application: ASGIApp, on_start: Callable[[], object], **options: Any
    ) -> None:
        config = uvicorn.Config(
            application,
            log_config=None,
            log_level="error",
            access_log=False,
            ws="none",
            timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
            **options,
        )
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then report it."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End as uvicorn does, but close the connections that were just accepted, too.

        asyncio leaks those that it hands to a closed listener (python/cpython#109564).
        """
        loop = asyncio.get_running_loop()
        if isinstance(loop, asyncio.SelectorEventLoop):
            for server in self.servers:
                for listening in server.sockets:
                    loop.remove_reader(listening)
            for _ in range(_TURNS_OF_A_HANDOVER):
                await asyncio.sleep(0)
        await super().shutdown(sockets=sockets)
