"""Serve the environments.

Prints one line of JSON, ``{"port": ...}``, once it serves; ends when its standard input
does.
"""

import argparse
import importlib
import importlib.machinery
import json
import os
import socket
import sys
import threading
from typing import Any

import uvicorn

from .base import SESSION, open_log, sdk
from .environments import ENVIRONMENTS
from .foreign import FOREIGN


class WithSession:
    """Makes the session's id known to the log, and leaves every byte as it is."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers = dict(scope.get("headers", ()))
        SESSION.set(headers.get(b"x-session-id", b"").decode("latin-1"))
        await self.app(scope, receive, send)


class Announcing(uvicorn.Server):
    """Says where it serves once it does."""

    announce_to: int

    async def startup(self, sockets: Any = None) -> None:
        await super().startup(sockets=sockets)
        port = sockets[0].getsockname()[1]
        os.write(self.announce_to, json.dumps({"port": port}).encode() + b"\n")


def shorten_waits(setup_wait: float | None, linger: float | None) -> None:
    """Shorten what the SDK waits for, in tests that would wait for a minute."""
    server = importlib.import_module(sdk.Server.__module__)
    if setup_wait is not None:
        if not hasattr(server, "_SETUP_WAIT_TIMEOUT_S"):
            sys.exit("this SDK answers no request before set-up is over")
        server._SETUP_WAIT_TIMEOUT_S = setup_wait  # type: ignore[attr-defined]
        server._SETUP_WAIT_RETRY_AFTER_S = 0  # type: ignore[attr-defined]
    if linger is not None:
        source = importlib.import_module(server.sse_task_stream.__module__)
        source.LINGER_SECONDS = linger  # type: ignore[attr-defined]


def end_with_parent() -> None:
    """End this process when whoever holds the other end of standard input is gone."""
    sys.stdin.buffer.read()
    os._exit(0)


def quiet() -> int:
    """Keep standard output to ourselves: the SDKs log there. Returns a copy of it."""
    announce_to = os.dup(1)
    os.dup2(2, 1)
    if importlib.machinery.PathFinder.find_spec("structlog"):
        structlog = importlib.import_module("structlog")
        warnings = structlog.make_filtering_bound_logger(30)
        structlog.configure(wrapper_class=warnings)
    return announce_to


def main() -> None:
    """Serve until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--log", required=True)
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--keep-alive", type=int, default=60)
    parser.add_argument("--environments", default="", help="names, comma-separated")
    parser.add_argument("--setup-wait", type=float, help="before 503 `starting`")
    parser.add_argument("--linger", type=float, help="how long results are kept")
    given = parser.parse_args()
    announce_to = quiet()
    open_log(given.log)
    shorten_waits(given.setup_wait, given.linger)
    names = {name for name in given.environments.split(",") if name}
    chosen = [e for e in [*ENVIRONMENTS, *FOREIGN] if not names or e.__name__ in names]
    # asyncio sets TCP_NODELAY only where the protocol is named; without it each reply
    # waits 40 ms for the client's delayed acknowledgement.
    listener = socket.socket(proto=socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # The test keeps the port while the server is down (tests/support/ports.py).
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    listener.bind(("127.0.0.1", given.port))
    config = uvicorn.Config(
        WithSession(sdk.Server(chosen).app),
        timeout_keep_alive=given.keep_alive,
        log_level="warning",
        access_log=False,
        backlog=2048,
    )
    server = Announcing(config)
    server.announce_to = announce_to
    threading.Thread(target=end_with_parent, daemon=True).start()
    server.run(sockets=[listener])


if __name__ == "__main__":
    main()
