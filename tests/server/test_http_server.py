"""The HTTP server of the package, in this process."""

import asyncio
import contextlib
import socket
from typing import Any

from ors_gym.server._http_server import StartReportingServer, build_server
from ors_gym.server._web import open_socket


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Be an application that nobody asks anything."""


async def start(server: StartReportingServer, listener: socket.socket) -> None:
    server.config.load()
    server.lifespan = server.config.lifespan_class(server.config)
    await server.startup(sockets=[listener])


def test_connections_that_were_just_accepted_are_closed_at_the_end() -> None:
    async def main(listener: socket.socket, clients: list[socket.socket]) -> None:
        server = build_server(answer, host="127.0.0.1", on_start=lambda: None)
        await start(server, listener)
        for client in clients:
            client.connect(listener.getsockname())
        # In the first turn asyncio accepts them, in a later one they are served.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await server.shutdown(sockets=[listener])

    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(open_socket("127.0.0.1", 0))
        clients = [stack.enter_context(socket.socket()) for _ in range(3)]
        asyncio.run(main(listener, clients))
        for client in clients:
            client.settimeout(10)
            assert client.recv(1) == b""
