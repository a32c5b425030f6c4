"""The HTTP server: what it refuses in a process of its own, and how it ends."""

import asyncio
import contextlib
import socket
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from ors_gym.server._http_server import build_server
from ors_gym.server._uvicorn import StartReportingServer
from ors_gym.server._web import open_socket


def ask(base_url: str, **headers: str) -> int:
    with httpx.Client(trust_env=False) as client:
        reply = client.post(
            f"{base_url}/guess/num_tasks", json={"split": "test"}, headers=headers
        )
    return reply.status_code


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", "LOCALHOST"])
def test_a_request_to_this_machine_is_answered(bundled_url: str, host: str) -> None:
    port = urlsplit(bundled_url).port
    assert ask(bundled_url, host=host) == 200
    assert (
        ask(bundled_url, host=f"{host}:{port}", origin=f"http://{host}:{port}") == 200
    )


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "rebound.example"},
        {"host": "rebound.example:80"},
        {"host": "127.0.0.1.rebound.example"},
        {"host": ""},
        {"origin": "http://rebound.example"},
        {"origin": "https://127.0.0.1"},
        {"origin": "null"},
    ],
)
def test_a_request_of_a_web_page_is_refused(
    bundled_url: str, headers: dict[str, str]
) -> None:
    assert ask(bundled_url, **headers) == 403


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
