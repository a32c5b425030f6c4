"""HTTP/1.1 without a socket: a request as bytes, and a reply from bytes."""

from __future__ import annotations

import functools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from httptools import HttpParserError, HttpResponseParser

from ors_gym.client.http._address import Origin
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Failure, Head, Headers, Limits, Sink
from ors_gym.protocol._redaction import HiddenBytes

FRAMING_HEADERS: Final = frozenset(
    {"connection", "content-length", "expect", "transfer-encoding", "upgrade"}
)
_BODILESS_METHODS: Final = frozenset({"GET", "DELETE", "OPTIONS", "TRACE"})


class RequestWriter:
    """Renders requests to one origin.

    A request's own headers replace those of every request by name. A header that could
    break out of its line, or that says where a request ends, raises
    `InvalidRequestError`.
    """

    def __init__(self, origin: Origin, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._origin = origin
        self._headers = Head("GET", "/", headers).headers
        refuse_headers(self._headers, FRAMING_HEADERS)
        self._names_trace = any(
            name.lower() == "traceparent" for name, _ in self._headers
        )

    def render(self, head: Head, body: bytes | None, traceparent: str = "") -> bytes:
        """Return head and body in one piece: two writes would cost two packets."""
        traced = b""
        if traceparent:
            if self._names_trace:
                own = [*head.headers, ("traceparent", traceparent)]
                return self.render(Head(head.method, head.target, own), body)
            traced = f"traceparent: {traceparent}\r\n".encode("ascii")
        # Kept on the head: between two calls of a tool only the body differs.
        rendered = head.rendered
        if rendered is None or rendered[0] is not self:
            rendered = head.rendered = (self, self._render_head(head))
        if body is not None:
            parts = (rendered[1], traced, len(body), body)
            return HiddenBytes(b"%b%bcontent-length: %d\r\n\r\n%b" % parts)
        if head.method in _BODILESS_METHODS:
            return HiddenBytes(b"%b%b\r\n" % (rendered[1], traced))
        # A server may wait for a body where none is announced (RFC 9110, section 8.6).
        return HiddenBytes(b"%b%bcontent-length: 0\r\n\r\n" % (rendered[1], traced))

    def _render_head(self, head: Head) -> bytes:
        """Render all but the body's length."""
        refuse_headers(head.headers, FRAMING_HEADERS)
        lines = [("host", self._origin.authority), ("accept-encoding", "identity")]
        for headers in (self._headers, head.headers):
            replaced = {name.lower() for name, _ in headers}
            lines = [line for line in lines if line[0].lower() not in replaced]
            lines.extend(headers)
        request_line = f"{head.method} {self._origin.prefix}{head.target} HTTP/1.1\r\n"
        rest = "".join(f"{name}: {value}\r\n" for name, value in lines)
        return HiddenBytes((request_line + rest).encode("latin-1"))


def refuse_headers(headers: Iterable[tuple[str, str]], refused: frozenset[str]) -> None:
    """Refuse the headers that only the connection may write."""
    for name, _ in headers:
        if name.lower() in refused:
            raise InvalidRequestError(
                f"the header {name!r} is set by the connection; leave it out"
            )


_CHUNKED_HEAD: Final = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
_BEGINS: Final = object()
"""llhttp's mark for the beginning of a message."""
_ENDS: Final = object()
"""Its mark for the end of one: the last chunk and the trailers were read."""
_DRAIN_BYTES: Final = 2**16
_END: Final = b"\r\n\r\n"

# What the next byte of the connection belongs to.
_HEAD: Final = 0
_SIZED: Final = 1
_CHUNKED: Final = 2
_UNTIL_CLOSE: Final = 3
_DONE: Final = 4
_BROKEN: Final = 5


class ReplyReader:
    """Reads the replies of one connection, one after the other, into sinks."""

    __slots__ = (
        "_body",
        "_chunk_parser",
        "_head_reader",
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
        "detail",
        "drained",
        "failure",
        "finished",
        "headers",
        "idle_seconds",
        "on_body",
        "on_message_begin",
        "on_message_complete",
        "status",
    )

    def __init__(self, limits: Limits, head_reader: HeadReader) -> None:
        self._limits = limits
        # Shared by the connections of a pool.
        self._head_reader = head_reader
        self._partial = bytearray()
        # What llhttp finds in a feed: bytes of the body, and its two marks.
        self._pieces: list[Any] = []
        # llhttp's callbacks. Python runs no code of ours in them, because the parser
        # swallows what a callback raises, and an interrupt is raised where code runs.
        self.on_body = self._pieces.append
        self.on_message_begin = functools.partial(self._pieces.append, _BEGINS)
        self.on_message_complete = functools.partial(self._pieces.append, _ENDS)
        self._sink: Sink
        # Made at the first chunked body and kept for those that follow.
        self._chunk_parser: Any = None
        self._inflater: Inflater | None = None
        self._phase = _DONE
        self._persistent = True
        self.idle_seconds = float("inf")
        """Seconds until the server may close the idle connection, by its Keep-Alive."""
        self.failure: Failure | None = None
        """What is wrong with the reply, or None."""
        self.detail = ""
        """The failure as a predicate, to be put behind the server's name."""
        self.drained = True
        """Whether the reply was read to its end."""
        self.finished = True
        """Whether the exchange may return: reply read, sink satisfied, or failure."""
        self.status = 0
        """The status of the final reply, or 0."""
        self.headers: Headers = ()
        """The header lines of the final reply."""

    @property
    def reusable(self) -> bool:
        """Whether the connection may carry another request, once it is drained."""
        return self.finished and self._persistent and self._phase != _BROKEN

    def begin(self, sink: Sink) -> None:
        """Expect the reply to a request."""
        self._sink = sink
        self._phase = _HEAD
        self._raw = self._body = self._inflated = self._interim = self._silent = 0
        self._inflater = None
        self.drained = self.finished = False
        self.status = 0
        self.headers = ()

    def feed(self, data: bytes) -> bool:
        """Take the next bytes of the connection, and return `finished`."""
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
            # Bytes after a complete reply would be taken for the next one.
            self._phase = _BROKEN
        if self._raw > self._limits.reply_bytes and not self.drained:
            self._fail(Failure.LIMIT, "sent a reply larger than the limit")
        return self.finished

    def start(self, head: ReplyHead, rest: bytes) -> None:
        """Take a whole head and the bytes behind it.

        `feed` does it, and httpx's transport, whose head httpx has read.
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
            if self._chunk_parser is None:
                self._chunk_parser = HttpResponseParser(self)
            self._chunk_parser.feed_data(_CHUNKED_HEAD)
            self._pieces.clear()
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
        self.mark_broken()

    def mark_broken(self) -> None:
        """Note that the connection must not carry another request."""
        self._phase = _BROKEN
        self._chunk_parser = None

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
                self._head_reader.check_beginning(partial, searched)
            if (end + 4 if end >= 0 else len(partial)) > self._limits.head_bytes:
                self._fail(Failure.LIMIT, "sent a head larger than the limit")
            elif end >= 0:
                self.start(self._head_reader.read(data[: end + 4]), data[end + 4 :])
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
        remaining = self._remaining
        if len(data) > remaining:
            self._persistent = False
            data = data[:remaining]
        self._remaining = remaining - len(data)
        self._deliver(data)
        if not self._remaining:
            self._complete()

    def _feed_chunked(self, data: bytes) -> None:
        broken = ""
        try:
            self._chunk_parser.feed_data(data)
        except HttpParserError as error:
            broken = f"sent chunks that are not HTTP/1.1: {error}"
        pieces = self._pieces
        ended = _ENDS in pieces
        if ended:
            if _BEGINS in pieces:
                # A second message before the next request: nobody asked for it.
                self._persistent = False
            del pieces[pieces.index(_ENDS) :]
        if pieces:
            # Delivered before an error is raised: how the bytes were cut into packets
            # must not decide whether the sink sees them.
            body = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            pieces.clear()
            self._silent = 0
            self._deliver(body)
        else:
            self._silent += len(data)
        if ended:
            if broken or not _ends_cleanly(data):
                self._persistent = False
            self._complete()
        elif broken:
            self._fail(Failure.PROTOCOL, broken)
        elif self._silent > self._limits.head_bytes:
            self._fail(Failure.LIMIT, "sent chunks without an end and without content")

    def _deliver(self, data: bytes) -> None:
        """Give content to the sink, or count it if the sink has what it needs."""
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
        inflater = self._inflater
        if inflater is not None and not self.finished and not inflater.finished:
            self._fail(Failure.PROTOCOL, "cut its compressed content short")
        elif self._phase != _BROKEN:
            self._phase = _DONE
            self.drained = self.finished = True

    def _fail(self, failure: Failure, detail: str) -> None:
        """End the reply as a failure; a satisfied sink keeps what it has."""
        self.mark_broken()
        if not self.finished:
            self.finished = True
            self.failure = failure
            self.detail = detail


def _ends_cleanly(data: bytes) -> bool:
    """Tell whether nothing follows the last chunk, which llhttp found in ``data``.

    llhttp skips line breaks after it silently. If the last five bytes are cut across
    packets, nobody can tell, and the answer is no.
    """
    return len(data) == 1 or (
        len(data) > len(_END) and data.endswith(_END) and data[-5] != 10
    )


class BadReplyError(Exception):
    """Raised when a reply's head breaks a rule; the text follows the server's name."""


# llhttp takes a reason with control characters in it, a NUL among them.
_STATUS_LINE: Final = re.compile(
    rb"HTTP/1\.([01]) ([1-5][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*)?\r\n"
)
_BEGINNING: Final = b"HTTP/1."
_BARE_LF: Final = re.compile(rb"(?<!\r)\n")
_KEEP_ALIVE_TIMEOUT: Final = re.compile(
    rb"(?:^|[ \t,])timeout=([0-9]{1,9})(?![0-9])", re.IGNORECASE
)
_DIGITS: Final = re.compile(rb"[0-9]{1,18}")
_BODILESS_STATUSES: Final = (204, 304)
_GAVE_UP: Final = (502, 504)
"""Statuses of a gateway that did not wait for the server."""
_HEADERS_ABOUT_THE_BODY: Final = frozenset(
    {
        b"connection",
        b"content-encoding",
        b"content-length",
        b"keep-alive",
        b"transfer-encoding",
    }
)


class ReplyHead:
    """What a reply's head says.

    ``persistent`` starts as whether the reply is one of HTTP/1.1, whose connections
    stay open. `BadReplyError` is raised if the headers contradict each other about
    where the body ends (RFC 9112, section 6.3).
    """

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
        if status in _GAVE_UP:
            # The server's own reply may follow late, and would be taken for that to the
            # next request, which may be another session's.
            persistent = False
        if status in _BODILESS_STATUSES:
            # They have no body (RFC 9112, section 6.3). One that is sent all the same
            # would be read as the next reply.
            persistent = persistent and not self.chunked and not self.length
            self.chunked, self.length = False, 0
        elif self.length is None and not self.chunked:
            # The body ends where the connection does.
            persistent = False
        self.persistent = persistent
        """Whether the connection may be used again after this reply."""
        self.idle_seconds = float("inf")
        if found := _KEEP_ALIVE_TIMEOUT.search(
            b",".join(values.get(b"keep-alive", ()))
        ):
            # A second less: a request takes time to arrive (docs/wire.md, point 6).
            self.idle_seconds = int(found[1]) - 1.0


class HeadReader:
    """Reads heads, and remembers the last one.

    A server's heads differ only in their date, so most heads of one second are equal.
    """

    def __init__(self) -> None:
        self._last: tuple[bytes, ReplyHead] | None = None

    def read(self, data: bytes) -> ReplyHead:
        """Read a head, up to and including its blank line; it may be interim (1xx)."""
        last = self._last
        if last is not None and last[0] == data:
            return last[1]
        # Readers disagree about where such a line ends, so one reply could be hidden
        # in another (RFC 9112, section 2.2).
        if _BARE_LF.search(data):
            raise BadReplyError("ended a header line with a bare line feed")
        line = _STATUS_LINE.match(data)
        if line is None:
            raise BadReplyError("sent a status line that is not one of HTTP/1.1")
        if line[2] == b"101":
            raise BadReplyError("switched to a protocol that nobody asked for")
        try:
            # Without callbacks: it would swallow an interrupt in one of them.
            HttpResponseParser(None).feed_data(data)
        except HttpParserError as error:
            raise BadReplyError(f"sent a head that is not HTTP/1.1: {error}") from error
        lines = tuple(map(_split_header, data.split(b"\r\n")[1:-2]))
        head = ReplyHead(int(line[2]), lines, persistent=line[1] == b"1")
        self._last = (data, head)
        return head

    def check_beginning(self, data: bytes | bytearray, start: int) -> None:
        """Raise `BadReplyError` for a beginning that no further bytes can save.

        ``start`` bytes of it were checked before.
        """
        if data[: len(_BEGINNING)] != _BEGINNING[: len(data)]:
            raise BadReplyError("sent something that is not HTTP/1.1")
        if _BARE_LF.search(data, start):
            raise BadReplyError("ended a header line with a bare line feed")


def _split_header(line: bytes) -> tuple[bytes, bytes]:
    """Split a header line that llhttp found to be one (it refuses folded lines)."""
    name, _, value = line.partition(b":")
    return name, value.lstrip(b" \t")


def _select(headers: Headers) -> dict[bytes, list[bytes]]:
    """Return the values of the headers that say how to read the body, by name."""
    values: dict[bytes, list[bytes]] = {}
    for name, value in headers:
        key = name.lower()
        if key in _HEADERS_ABOUT_THE_BODY:
            values.setdefault(key, []).append(value)
    return values


def _read_chunked(values: dict[bytes, list[bytes]], *, allowed: bool) -> bool:
    codings = values.get(b"transfer-encoding")
    if codings is None:
        return False
    if not allowed or len(codings) > 1 or codings[0].strip().lower() != b"chunked":
        raise BadReplyError("sent a Transfer-Encoding other than chunked on HTTP/1.1")
    return True


def _read_length(values: dict[bytes, list[bytes]], *, chunked: bool) -> int | None:
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


_PIECE_BYTES: Final = 2**18
_GZIP: Final = zlib.MAX_WBITS | 16
_ZLIB: Final = zlib.MAX_WBITS
_RAW: Final = -zlib.MAX_WBITS


class Inflater:
    """Inflates ``gzip`` and ``deflate``, in pieces (RFC 9110, section 8.4.1).

    A compressed body can hold a thousand times its size, so each piece is inflated
    only once the one before it was taken.
    """

    def __init__(self, coding: bytes) -> None:
        self._gzip = coding != b"deflate"
        self._inflate = zlib.decompressobj(_GZIP if self._gzip else _ZLIB)
        # Collected until its first two bytes tell the format; then None.
        self._beginning: bytes | None = b""

    @property
    def finished(self) -> bool:
        """Whether the compressed data is complete, or there was none."""
        return self._inflate.eof or self._beginning == b""

    def inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what the next bytes of the body hold, in pieces of at most 256 KiB."""
        if self._beginning is not None:
            data = self._beginning + data
            self._beginning = data
            if len(data) < 2:
                return
            self._begin(data)
        while data:
            if self._inflate.eof:
                if not self._gzip:
                    raise zlib.error("data behind the end")
                # A gzip file has one member or several (RFC 1952, section 2.2).
                self._inflate = zlib.decompressobj(_GZIP)
            piece = self._inflate.decompress(data, _PIECE_BYTES)
            while len(piece) == _PIECE_BYTES and not self._inflate.unconsumed_tail:
                # zlib has taken all bytes, but holds back some of what they contain.
                yield piece
                piece = self._inflate.decompress(b"", _PIECE_BYTES)
            if piece:
                yield piece
            data = self._inflate.unconsumed_tail or self._inflate.unused_data

    def _begin(self, data: bytes) -> None:
        """Choose the format by the first two bytes."""
        self._beginning = None
        has_header = (
            data[0] & 15 == zlib.DEFLATED and (data[0] << 8 | data[1]) % 31 == 0
        )
        if not self._gzip and not has_header:
            # "deflate" means the zlib format, but some servers send raw deflate (RFC
            # 9110, section 8.4.1.2).
            self._inflate = zlib.decompressobj(_RAW)
