"""What the server process prints: the tracebacks of environments, and nothing else.

The SDK logs each request, and an exception of a prompt or a set-up two or three times
over. Its loggers are module globals; should a later version keep them elsewhere, its
own log shows instead.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import ors
import ors.environment
import ors.server
import uvicorn

from ors_gym.errors import InvalidRequestError
from ors_gym.server._failures import PlayerMistakeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = [
    "ReportingServer",
    "build_server",
    "load_environment",
    "open_socket",
    "show_tracebacks",
]


class _TracebackLog:
    """Stands in for a logger of the SDK; only `exception` prints."""

    def __init__(self) -> None:
        self._shown: BaseException | None = None

    def info(self, event: str, **fields: object) -> None:
        """Ignore what is no fault."""

    warning = info
    error = info

    def exception(self, event: str, **fields: object) -> None:
        """Print the exception that is being handled, once."""
        error = sys.exception()
        if error is None or error is self._shown:
            return
        self._shown = error
        if isinstance(error, PlayerMistakeError):
            return
        where = fields.get("tool") or fields.get("env_name") or ""
        sys.stderr.write(f"ors_gym server: {event} {where}".rstrip() + "\n")
        traceback.print_exception(error)
        sys.stderr.flush()


def show_tracebacks() -> None:
    """Make the SDK print the tracebacks of environments to standard error."""
    log = _TracebackLog()
    for module in (ors.environment, ors.server):
        vars(module)["logger"] = log


# Both SDKs keep an idle connection for 60 s (docs/wire.md, "Dialects").
_KEEP_ALIVE = 60
_GRACE = 2


class ReportingServer(uvicorn.Server):
    """A uvicorn server that says when it takes requests.

    Args:
        config: uvicorn's settings.
        on_start: Called once, when the first request may come.
    """

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so.

        Args:
            sockets: The sockets to listen on.
        """
        await super().startup(sockets=sockets)
        if self.started:
            self._on_start()


def load_environment(reference: str) -> type[Any]:
    """Import the class that a string names.

    Args:
        reference: ``"module:Class"``.

    Returns:
        The class.

    Raises:
        InvalidRequestError: If its module has no such class.
        ImportError: If the module cannot be imported.
    """
    name, _, wanted = reference.partition(":")
    module = importlib.import_module(name)
    found = getattr(module, wanted, None)
    if not isinstance(found, type):
        own = [one for one in vars(module).values() if isinstance(one, type)]
        names = [one.__name__ for one in own if one.__module__ == name]
        has = f"it has {', '.join(names)}" if names else "it has none at all"
        raise InvalidRequestError(f"module {name!r} has no class {wanted!r}; {has}")
    return found


def open_socket(host: str, port: int) -> socket.socket:
    """Listen.

    Args:
        host: The address to listen on.
        port: The port, or 0 for any free one.

    Returns:
        A listening socket.

    Raises:
        OSError: If the port is in use or the address is not of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by its number: asyncio turns Nagle's algorithm off only where it is
    # TCP by name, and a reply of two writes would wait 40 ms for an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def build_server(
    environments: Sequence[type[Any]],
    *,
    on_start: Callable[[], None],
    headers: Sequence[tuple[str, str]] = (),
) -> ReportingServer:
    """Build a server that serves environments.

    Args:
        environments: Environment classes of ors-sdk; the first is the default.
        on_start: Called once, when the first request may come.
        headers: Added to every reply.

    Returns:
        A server to run on an open socket.

    Raises:
        TypeError: If a class is not an Environment.
        ValueError: If a class has no tool or no split, or two have the same name.
    """
    for environment in environments:
        if not (
            isinstance(environment, type) and issubclass(environment, ors.Environment)
        ):
            raise TypeError(f"{environment!r} is not a subclass of ors.Environment")
    # Whoever sets the SDK's own variable gets the SDK's own log.
    if "ORS_LOG_LEVEL" not in os.environ:
        show_tracebacks()
    application: ASGIApp = ors.Server(list(environments)).app
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="error",
        access_log=False,
        ws="none",
        headers=list(headers),
        timeout_keep_alive=_KEEP_ALIVE,
        timeout_graceful_shutdown=_GRACE,
    )
    return ReportingServer(config, on_start)
