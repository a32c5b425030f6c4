"""The head of a reply: read by llhttp, then checked where llhttp is lenient."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from httptools import HttpParserError, HttpResponseParser

from ors_gym.protocol.exchange import Headers

__all__ = ["BadReplyError", "HeadReader", "ReplyHead"]

_STATUS_LINE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?= |\r\n)")
_START: Final = b"HTTP/1."
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_IDLE: Final = re.compile(rb"(?:^|[ \t,])timeout=([0-9]{1,9})(?![0-9])", re.IGNORECASE)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_BODILESS: Final = (204, 304)
_NAMES: Final = frozenset(
    {
        b"connection",
        b"content-encoding",
        b"content-length",
        b"keep-alive",
        b"transfer-encoding",
    }
)


class BadReplyError(Exception):
    """Raised when a head is not one of HTTP/1.1; says what the server sent."""


class ReplyHead:
    """What a reply's head says.

    Args:
        status: The status, 100 to 599.
        headers: The header lines.
        persistent: Whether the server will take another request (HTTP/1.1, and
            not ``Connection: close``).

    Raises:
        BadReplyError: If the headers contradict each other about where the body ends
            (RFC 9112, section 6.3).
    """

    __slots__ = (
        "chunked",
        "encoding",
        "headers",
        "idle_seconds",
        "length",
        "persistent",
        "status",
    )

    def __init__(self, status: int, headers: Headers, *, persistent: bool) -> None:
        self.status = status
        self.headers = headers
        values = _select(headers)
        self.chunked = _read_chunked(values, allowed=persistent)
        """Whether the body comes in chunks."""
        self.length = _read_length(values, chunked=self.chunked)
        """The body's length in bytes, or None if the head does not say it."""
        self.encoding = b",".join(values.get(b"content-encoding", ())).strip().lower()
        """The content encodings, joined by commas; empty without one."""
        if b"close" in _tokens(values.get(b"connection", ())):
            persistent = False
        if status in _BODILESS:
            # A body that must not be there would be read as the next reply.
            persistent = persistent and not self.chunked and not self.length
            self.chunked, self.length = False, 0
        elif self.length is None and not self.chunked:
            persistent = False
        self.persistent = persistent
        """Whether the connection may be used again after this reply."""
        self.idle_seconds = float("inf")
        """Seconds for which the server keeps an idle connection, less one."""
        if found := _IDLE.search(b",".join(values.get(b"keep-alive", ()))):
            self.idle_seconds = int(found[1]) - 1.0


class HeadReader:
    r"""Reads heads, and remembers the last one.

    A server's heads differ in their date only, so most heads of one second are equal
    byte for byte.

    Example:
        >>> head = HeadReader().read(b"HTTP/1.1 204 No Content\r\n\r\n")
        >>> head.status, head.length
        (204, 0)
    """

    __slots__ = ("_last",)

    def __init__(self) -> None:
        self._last: tuple[bytes, ReplyHead] | None = None

    def read(self, data: bytes) -> ReplyHead:
        """Return what a head says.

        Args:
            data: The head, from its first byte to the blank line that ends it.

        Returns:
            The head, maybe an interim one (status below 200).

        Raises:
            BadReplyError: If it is not a head of HTTP/1.0 or HTTP/1.1.
        """
        last = self._last
        if last is not None and last[0] == data:
            return last[1]
        line = _STATUS_LINE.match(data)
        if line is None:
            raise BadReplyError("sent a status line that is not one of HTTP/1.1")
        if _BARE_LF.search(data):
            raise BadReplyError("ended a header line with a bare line feed")
        if line[2] == b"101":
            raise BadReplyError("switched to a protocol that nobody asked for")
        lines = _Lines()
        try:
            HttpResponseParser(lines).feed_data(data)
        except HttpParserError as error:
            raise BadReplyError(f"sent a head that is not HTTP/1.1: {error}") from error
        head = ReplyHead(int(line[2]), tuple(lines.lines), persistent=line[1] == b"1")
        self._last = (data, head)
        return head

    def check_beginning(self, data: bytes | bytearray, start: int) -> None:
        """Refuse the beginning of what cannot become a head.

        Args:
            data: All that came of it so far.
            start: How much of it was checked before.

        Raises:
            BadReplyError: If no further bytes can make it one.
        """
        if data[: len(_START)] != _START[: len(data)]:
            raise BadReplyError("sent something that is not HTTP/1.1")
        if _BARE_LF.search(data, start):
            raise BadReplyError("ended a header line with a bare line feed")


class _Lines:
    """llhttp's callback for header lines."""

    __slots__ = ("lines",)

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))


def _select(headers: Headers) -> dict[bytes, list[bytes]]:
    """Return the values of the headers that say how to read the body."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        key = name.lower()
        if key in _NAMES:
            values.setdefault(key, []).append(value)
    return values


def _read_chunked(values: dict[bytes, list[bytes]], *, allowed: bool) -> bool:
    """Tell whether the body is chunked."""
    codings = values.get(b"transfer-encoding")
    if codings is None:
        return False
    if not allowed or len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise BadReplyError("sent a Transfer-Encoding other than chunked on HTTP/1.1")
    return True


def _read_length(values: dict[bytes, list[bytes]], *, chunked: bool) -> int | None:
    """Return the Content-Length, or None."""
    lengths = values.get(b"content-length")
    if lengths is None:
        return None
    if chunked or len(lengths) > 1 or not _DIGITS.fullmatch(lengths[0].strip()):
        raise BadReplyError("contradicted itself about the length of its reply")
    return int(lengths[0])


def _tokens(values: list[bytes] | tuple[()]) -> Iterator[bytes]:
    """Split the values of a list header (RFC 9110, section 5.6.1)."""
    for value in values:
        for token in value.split(b","):
            yield token.strip().lower()
