"""HTTP/1.1 without I/O: bytes to replies.

`httptools` (llhttp) reads the grammar. It is lenient where a connection that is used
again must not be, and silent where a hostile server can be endless: what it lets
through is caught here. Bounds count raw bytes, since a parser calls nobody back
during a chunk extension of 33 MB.
"""

from __future__ import annotations

import zlib
from typing import Any, Final

from httptools import HttpParserError, HttpResponseParser

from ors_gym.client.decoding import Inflater
from ors_gym.client.heads import BadReplyError, HeadReader, ReplyHead
from ors_gym.protocol.exchange import Failure, Headers, Sink
from ors_gym.protocol.limits import Limits

__all__ = ["ReplyReader"]

_CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_DRAIN_BYTES: Final = 2**16
_END: Final = b"\r\n\r\n"

# What the next byte belongs to.
_HEAD: Final = 0
_SIZED: Final = 1
_CHUNKED: Final = 2
_UNTIL_CLOSE: Final = 3
_DONE: Final = 4
_BROKEN: Final = 5


class ReplyReader:
    r"""Reads one reply after the other of one connection into sinks.

    Args:
        limits: Bounds on each reply.
        heads: Reads heads; connections of one pool share it.

    Example:
        >>> class Sink:
        ...     idle_timeout = None
        ...     def start(self, status, headers): print(status)
        ...     def feed(self, data): print(data)
        >>> reader = ReplyReader(Limits(), HeadReader())
        >>> reader.begin(Sink())
        >>> reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
        200
        b'hi'
        True
        >>> reader.reusable
        True
    """

    __slots__ = (
        "_body",
        "_chunks",
        "_heads",
        "_inflated",
        "_inflater",
        "_interim",
        "_limits",
        "_partial",
        "_persistent",
        "_phase",
        "_pieces",
        "_raw",
        "_remaining",
        "_silent",
        "_sink",
        "_whole",
        "detail",
        "drained",
        "failure",
        "finished",
        "headers",
        "idle_seconds",
        "on_body",
        "status",
    )

    def __init__(self, limits: Limits, heads: HeadReader) -> None:
        self._limits = limits
        self._heads = heads
        self._partial = bytearray()
        self._pieces: list[bytes] = []
        # llhttp's callback: appending is all that may happen inside the parser,
        # which would wrap an exception.
        self.on_body = self._pieces.append
        self._sink: Sink
        # Made at the first body in chunks, used for those that follow on a connection
        # whose replies all ended well; given up with it, as it holds this object.
        self._chunks: Any = None
        # How many pieces of a feed belong to the reply that ends in it.
        self._whole: int | None = None
        self._inflater: Inflater | None = None
        self._phase = _DONE
        self._persistent = True
        self.idle_seconds = float("inf")
        """Seconds that the server keeps the idle connection (its Keep-Alive header)."""
        self.failure: Failure | None = None
        """Why the reply is not a good one; None as long as it is."""
        self.detail = ""
        """The failure in words that follow the server's name."""
        self.drained = True
        """Whether the reply was read to its end."""
        self.finished = True
        """Whether the exchange may return: all read, sink satisfied, or failed."""
        self.status = 0
        """The status of the final reply, or 0."""
        self.headers: Headers = ()
        """The header lines of the final reply."""

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request, once it is drained."""
        return self.finished and self._persistent and self._phase != _BROKEN

    def begin(self, sink: Sink) -> None:
        """Expect the reply to a request.

        Args:
            sink: Takes the reply.
        """
        self._sink = sink
        self._phase = _HEAD
        self._raw = self._body = self._inflated = self._interim = self._silent = 0
        self._inflater = None
        self.drained = self.finished = False
        self.status = 0
        self.headers = ()

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of the connection.

        Args:
            data: At least one byte.

        Returns:
            Whether the exchange may return: see `finished`.
        """
        self._raw += len(data)
        phase = self._phase
        if phase == _HEAD:
            self._feed_head(data)
        elif phase == _CHUNKED:
            self._feed_chunked(data)
        elif phase == _SIZED:
            self._feed_sized(data)
        elif phase == _UNTIL_CLOSE:
            self._deliver(data)
        else:
            # Bytes after a complete reply: nobody asked for them.
            self._phase = _BROKEN
        if self._raw > self._limits.reply_bytes and not self.drained:
            self._fail(Failure.LIMIT, "sent a reply larger than the limit")
        return self.finished

    def start(self, head: ReplyHead, rest: bytes) -> None:
        """Take a whole head; `feed` does it, unless somebody else has read the head.

        Args:
            head: The head.
            rest: What came behind it.
        """
        if head.status < 200:
            self._skip_interim(rest)
            return
        self.status = head.status
        self.headers = head.headers
        self.idle_seconds = head.idle_seconds
        self._persistent = head.persistent
        self._sink.start(head.status, head.headers)
        if head.encoding and head.encoding != b"identity":
            if head.encoding not in (b"gzip", b"x-gzip", b"deflate"):
                self._fail(
                    Failure.PROTOCOL, "sent a content encoding that nobody asked for"
                )
                return
            self._inflater = Inflater(head.encoding)
        if head.chunked:
            self._phase = _CHUNKED
            self._whole = None
            if self._chunks is None:
                self._chunks = HttpResponseParser(self)
            self._chunks.feed_data(_CHUNKED_HEAD)
            if rest:
                self._feed_chunked(rest)
        elif head.length is None:
            self._phase = _UNTIL_CLOSE
            self._deliver(rest)
        else:
            self._phase = _SIZED
            self._remaining = head.length
            self._feed_sized(rest)

    def end(self) -> None:
        """Take the end of the connection (RFC 9112, section 8)."""
        if self._phase == _UNTIL_CLOSE:
            self._complete()
        elif self._phase == _HEAD:
            where = "in the middle of" if self._raw else "before"
            self._fail(Failure.RESET, f"closed the connection {where} its reply's head")
        elif self._phase != _DONE:
            self._fail(
                Failure.RESET, "closed the connection in the middle of its reply"
            )
        self.abandon()

    def abandon(self) -> None:
        """Take note that the connection is of no further use."""
        self._phase = _BROKEN
        self._chunks = None

    def on_message_begin(self) -> None:
        """Llhttp's callback: a message begins, the second if one is complete."""
        if self._whole is not None:
            self._persistent = False

    def on_message_complete(self) -> None:
        """Llhttp's callback: the last chunk and the trailers were read."""
        if self._whole is None:
            self._whole = len(self._pieces)

    def _feed_head(self, data: bytes) -> None:
        """Collect a head; read it when it is whole."""
        partial = self._partial
        if partial:
            searched = max(len(partial) - 3, 0)
            partial += data
            end = partial.find(_END, searched)
            if end >= 0:
                data = bytes(partial)
                partial.clear()
        else:
            searched = 0
            end = data.find(_END)
            if end < 0:
                partial += data
        try:
            if end < 0:
                self._heads.check_beginning(partial, searched)
            if (end + 4 if end >= 0 else len(partial)) > self._limits.head_bytes:
                self._fail(Failure.LIMIT, "sent a head larger than the limit")
            elif end >= 0:
                self.start(self._heads.read(data[: end + 4]), data[end + 4 :])
        except BadReplyError as error:
            self._fail(Failure.PROTOCOL, str(error))

    def _skip_interim(self, rest: bytes) -> None:
        """Skip a 1xx reply; the final one follows (RFC 9110, section 15.2)."""
        self._interim += 1
        if self._interim > self._limits.interim_replies:
            self._fail(Failure.LIMIT, "sent more interim replies than the limit")
        elif rest:
            self._feed_head(rest)

    def _feed_sized(self, data: bytes) -> None:
        """Take bytes of a body whose length is known."""
        remaining = self._remaining
        if len(data) > remaining:
            self._persistent = False
            data = data[:remaining]
        self._remaining = remaining - len(data)
        self._deliver(data)
        if not self._remaining:
            self._complete()

    def _feed_chunked(self, data: bytes) -> None:
        """Take bytes of a body in chunks."""
        broken = ""
        try:
            self._chunks.feed_data(data)
        except HttpParserError as error:
            broken = f"sent chunks that are not HTTP/1.1: {error}"
        pieces = self._pieces
        if self._whole is not None:
            del pieces[self._whole :]
        if pieces:
            # Before the error, if there is one: how the bytes were cut into packets
            # must not decide whether the sink sees them.
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._silent = 0
            self._deliver(body)
        else:
            self._silent += len(data)
        if self._whole is not None:
            if broken or not _ends_cleanly(data):
                self._persistent = False
            self._complete()
        elif broken:
            self._fail(Failure.PROTOCOL, broken)
        elif self._silent > self._limits.head_bytes:
            self._fail(Failure.LIMIT, "sent chunks without an end and without content")

    def _deliver(self, data: bytes) -> None:
        """Hand content to the sink, or count it if the sink has what it needs."""
        self._body += len(data)
        if self.finished:
            if self._body > _DRAIN_BYTES:
                self._phase = _BROKEN
        elif self._inflater is not None:
            self._inflate(self._inflater, data)
        elif self._body > self._limits.body_bytes:
            self._fail(Failure.LIMIT, "sent a body larger than the limit")
        elif data and self._sink.feed(data):
            self._satisfy()

    def _inflate(self, inflater: Inflater, data: bytes) -> None:
        """Hand content to the sink after undoing its encoding."""
        try:
            for piece in inflater.inflate(data):
                self._inflated += len(piece)
                if self._inflated > self._limits.body_bytes:
                    self._fail(Failure.LIMIT, "sent a body larger than the limit")
                    return
                if self._sink.feed(piece):
                    self._satisfy()
                    return
        except zlib.error:
            self._fail(Failure.PROTOCOL, "sent content that cannot be inflated")

    def _satisfy(self) -> None:
        """Let the exchange return; what is left of the reply is drained later."""
        self.finished = True
        self._body = 0

    def _complete(self) -> None:
        """Take the end of the reply."""
        inflater = self._inflater
        if inflater is not None and not self.finished and not inflater.finished:
            self._fail(Failure.PROTOCOL, "cut its compressed content short")
        elif self._phase != _BROKEN:
            self._phase = _DONE
            self.drained = self.finished = True

    def _fail(self, failure: Failure, detail: str) -> None:
        """Give the reply up; a satisfied sink keeps what it has."""
        self.abandon()
        if not self.finished:
            self.finished = True
            self.failure = failure
            self.detail = detail


def _ends_cleanly(data: bytes) -> bool:
    """Tell whether nothing follows the last chunk, which llhttp found in ``data``.

    llhttp skips line breaks after it without a word. In doubt (a cut inside of the
    last five bytes) the answer is no.
    """
    return len(data) == 1 or (
        len(data) > len(_END) and data.endswith(_END) and data[-5] != 10
    )
