"""What the HTTP servers of this package share: their socket, and who may reach them."""

from __future__ import annotations

import hmac
import json
import socket
from typing import TYPE_CHECKING, Final

from ors_gym._system import MUST_ASK_FOR_USED_PORTS
from ors_gym.errors import InvalidRequestError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})
_REFUSED: Final = (
    "This server listens on the loopback interface and answers only requests to "
    "127.0.0.1, ::1 or localhost that no web page of another origin sent."
)
_NO_TOKEN: Final = "This server answers only requests with its token."  # noqa: S105


def listen(host: str, port: int) -> socket.socket:
    """Listen on an address; port 0 is any free one.

    Raises:
        InvalidRequestError: If that is not possible.
    """
    try:
        return open_socket(host, port)
    except (OSError, OverflowError) as error:
        raise InvalidRequestError(
            f"Cannot serve on {host} port {port}: {error}"
        ) from error


def open_socket(host: str, port: int) -> socket.socket:
    """Listen as `listen` does, but let OSError and OverflowError through."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is given by number because asyncio turns Nagle's algorithm off only
    # for a socket that names TCP. With it, a reply of two writes would wait 40 ms for
    # an acknowledgement.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if MUST_ASK_FOR_USED_PORTS:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError:
        listener.close()
        raise
    return listener


def describe_address(host: str, listener: socket.socket) -> str:
    """Return the base URL of a server that listens."""
    shown_host = f"[{host}]" if ":" in host else host
    return f"http://{shown_host}:{listener.getsockname()[1]}"


def is_foreign(host: str, origin: str, scheme: str = "http") -> bool:
    """Say whether a request's headers ``Host`` and ``Origin`` are not the server's own.

    A page can send requests to 127.0.0.1 from the browser of this machine. One whose
    own name resolves to 127.0.0.1 (DNS rebinding) could also read the replies. Such
    requests name a foreign host, or an origin.

    Example:
        >>> is_foreign("localhost:80", ""), is_foreign("evil.example:80", "")
        (False, True)
        >>> is_foreign("127.0.0.1:80", "http://127.0.0.1:81")
        True
    """
    host, origin = host.lower(), origin.lower()
    foreign = _without_port(host) not in LOOPBACK
    return foreign or origin not in ("", f"{scheme}://{host}")


class WebPageGuard:
    """Refuses what web pages send to a server that only this machine should reach.

    They could read the tasks with their answers.
    """

    def __init__(self, application: ASGIApp) -> None:
        self._application = application

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 403."""
        if scope["type"] == "http":
            headers = dict(scope["headers"])
            host = headers.get(b"host", b"").decode("latin-1")
            origin = headers.get(b"origin", b"").decode("latin-1")
            if is_foreign(host, origin, scope["scheme"]):
                await refuse(send, 403, _REFUSED)
                return
        await self._application(scope, receive, send)


class TokenGuard:
    """Refuses what does not carry the token, as ``Authorization: Bearer TOKEN``."""

    def __init__(self, application: ASGIApp, token: str) -> None:
        self._application = application
        self._expected = f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it with 401."""
        given = dict(scope["headers"]).get(b"authorization", b"")
        if hmac.compare_digest(given, self._expected):
            await self._application(scope, receive, send)
        else:
            await refuse(send, 401, _NO_TOKEN, (b"www-authenticate", b"Bearer"))


async def refuse(
    send: Send, status: int, why: str, *headers: tuple[bytes, bytes]
) -> None:
    """Answer a request with an error."""
    await reply_json(send, status, {"detail": why}, *headers)


async def reply_json(
    send: Send, status: int, value: object, *headers: tuple[bytes, bytes]
) -> None:
    """Answer a request with a JSON value."""
    body = json.dumps(value).encode()
    fields = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(body)).encode()),
        *headers,
    ]
    await send({"type": "http.response.start", "status": status, "headers": fields})
    await send({"type": "http.response.body", "body": body})


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    name = name if colon and port.isdecimal() else host
    return name.removeprefix("[").removesuffix("]")
