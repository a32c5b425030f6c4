"""Requests as bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ors_gym.client.origin import Origin
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol.exchange import Head

__all__ = ["RequestWriter"]

_FRAMING: Final = frozenset(
    {"connection", "content-length", "expect", "transfer-encoding", "upgrade"}
)
_BODILESS: Final = frozenset({"GET", "DELETE", "OPTIONS", "TRACE"})


class RequestWriter:
    """Renders requests to one origin.

    Args:
        origin: Where they go; its prefix comes before each target.
        headers: Header lines of every request. A request's own come instead of those
            of the same name.

    Raises:
        InvalidRequestError: If a header could break out of its line, or is one that
            says where a request ends.

    Example:
        >>> writer = RequestWriter(Origin("http://host/v1"), [("X-API-Key", "k")])
        >>> writer.render(Head("GET", "/health"), None).splitlines()[:2]
        [b'GET /v1/health HTTP/1.1', b'host: host']
    """

    __slots__ = ("_headers", "_origin")

    def __init__(self, origin: Origin, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._origin = origin
        self._headers = Head("GET", "/", headers).headers
        _refuse_framing(self._headers)

    def render(self, head: Head, body: bytes | None) -> bytes:
        """Return a request as it goes over the wire.

        Args:
            head: The request's head. Its rendering is kept on it, since between two
                calls of a tool only the body differs.
            body: The request's body, or None.

        Returns:
            Head and body, to be sent at once: two writes would cost two packets.

        Raises:
            InvalidRequestError: If a header says where the request ends.
        """
        wire = head.wire
        if wire is None or wire[0] is not self:
            wire = head.wire = (self, self._render_head(head))
        if body is not None:
            return b"%bcontent-length: %d\r\n\r\n%b" % (wire[1], len(body), body)
        if head.method in _BODILESS:
            return wire[1] + b"\r\n"
        return wire[1] + b"content-length: 0\r\n\r\n"

    def _render_head(self, head: Head) -> bytes:
        """Render what stays the same between two requests with this head."""
        _refuse_framing(head.headers)
        lines = [("host", self._origin.authority), ("accept-encoding", "identity")]
        for headers in (self._headers, head.headers):
            replaced = {name.lower() for name, _ in headers}
            lines = [line for line in lines if line[0].lower() not in replaced]
            lines.extend(headers)
        request_line = f"{head.method} {self._origin.prefix}{head.target} HTTP/1.1\r\n"
        rest = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return (request_line + rest).encode("latin-1")


def _refuse_framing(headers: Sequence[tuple[str, str]]) -> None:
    """Refuse the headers that are the connection's own to write."""
    for name, _ in headers:
        if name.lower() in _FRAMING:
            raise InvalidRequestError(
                f"the header {name!r} belongs to the connection; leave it out"
            )
