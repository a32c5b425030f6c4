"""The HTTP server: ors-sdk under uvicorn. Its only log is environments' tracebacks."""

from __future__ import annotations

import os
import socket
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

import ors
import ors.environment
import ors.server
import uvicorn
from starlette.responses import JSONResponse

from ors_gym._shown_text import clean
from ors_gym.errors import InvalidRequestError
from ors_gym.server.environments import PlayerMistakeError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

# Both SDKs keep an idle connection for 60 s (docs/wire.md, "Dialects").
_KEEP_ALIVE_SECONDS: Final = 60
_SHUTDOWN_SECONDS: Final = 2
_LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_REFUSED: Final = (
    "This server listens on the loopback interface and answers only requests to "
    "127.0.0.1, ::1 or localhost that no web page of another origin sent."
)


def build_server(
    environments: Sequence[type[Any]],
    *,
    host: str,
    on_start: Callable[[], None],
    headers: Sequence[tuple[str, str]] = (),
) -> StartReportingServer:
    """Build a server to run on an open socket; every reply carries the headers.

    Where `host` is an address of the loopback interface, web pages are refused. The SDK
    raises a ValueError if a class has no tool or no split, or two have the same name.
    """
    for environment in environments:
        if not (
            isinstance(environment, type) and issubclass(environment, ors.Environment)
        ):
            raise InvalidRequestError(
                f"{environment!r} is not a subclass of ors.Environment"
            )
    # Users who set the SDK's own variable want the SDK's own log.
    if "ORS_LOG_LEVEL" not in os.environ:
        _show_only_tracebacks()
    application: ASGIApp = ors.Server(list(environments)).app
    if host in _LOOPBACK:
        application = WebPageGuard(application)
    config = uvicorn.Config(
        application,
        log_config=None,
        log_level="error",
        access_log=False,
        ws="none",
        headers=list(headers),
        timeout_keep_alive=_KEEP_ALIVE_SECONDS,
        timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
    )
    return StartReportingServer(config, on_start)


class WebPageGuard:
    """Refuses what web pages send to a server that only this machine should reach.

    A page can send requests to 127.0.0.1 from the browser of this machine. One whose
    own name resolves to 127.0.0.1 (DNS rebinding) could also read the replies, and so
    the tasks with their answers. Such requests name a foreign host, or an origin.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1").lower()
            origin = headers.get(b"origin", b"").decode("latin-1").lower()
            foreign = _without_port(host) not in _LOOPBACK
            if foreign or (origin and origin != f"{scope['scheme']}://{host}"):
                refusal = JSONResponse({"detail": _REFUSED}, status_code=403)
                await refusal(scope, receive, send)
                return
        await self._application(scope, receive, send)


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    name = name if colon and port.isdecimal() else host
    return name.removeprefix("[").removesuffix("]")


class StartReportingServer(uvicorn.Server):
    """A uvicorn server that calls a function once it takes requests."""

    def __init__(self, config: uvicorn.Config, on_start: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start = on_start

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then report it."""
        await super().startup(sockets=sockets)
        if self.started:
            self._on_start()


def open_socket(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 is any free one."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is given by number because asyncio turns Nagle's algorithm off only
    # for a socket that names TCP. With it, a reply of two writes would wait 40 ms for
    # an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def _show_only_tracebacks() -> None:
    """Replace the SDK's loggers, which log each request and some exceptions thrice.

    The loggers are module globals. Should a later version of the SDK keep them
    elsewhere, its own log shows instead.
    """
    log = _TracebackLog()
    for module in (ors.environment, ors.server):
        vars(module)["logger"] = log


class _TracebackLog:
    """Stands in for a logger of the SDK; only `exception` prints."""

    def __init__(self) -> None:
        self._shown: BaseException | None = None

    def info(self, event: str, **fields: object) -> None:
        """Print nothing."""

    warning = info
    error = info

    def exception(self, event: str, **fields: object) -> None:
        """Print the exception being handled, unless it was printed already."""
        error = sys.exception()
        if error is None or error is self._shown:
            return
        self._shown = error
        if isinstance(error, PlayerMistakeError):
            return
        where = fields.get("tool") or fields.get("env_name") or ""
        sys.stderr.write(clean(f"ors_gym server: {event} {where}").rstrip() + "\n")
        traceback.print_exception(error)
        sys.stderr.flush()
