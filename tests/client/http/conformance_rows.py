"""The conformance table: what a server sends, and what has to come of it."""

import dataclasses
import gzip
import zlib
from typing import Final

from ors_gym.protocol._exchange import Limits
from tests.client.http.raw_server import Close, Drip, Repeat, Script

LIMITS: Final = Limits(reply_bytes=8 * 2**20, body_bytes=2**20)
"""Smaller than the defaults, so that the rows about limits are quick."""


@dataclasses.dataclass(frozen=True)
class Row:
    """A reply, and what has to come of it.

    ``expected`` is the status and the body, or the name of a `Failure`. ``reused`` says
    whether the next request may use the same connection (None: either is right).
    """

    name: str
    script: Script
    expected: str
    reused: bool | None = False
    timeout: float = 20.0
    idle_timeout: float | None = None


def _head(*lines: str, first: str = "HTTP/1.1 200 OK") -> bytes:
    return "".join(f"{line}\r\n" for line in (first, *lines, "")).encode("latin-1")


_CHUNKED: Final = _head("Transfer-Encoding: chunked")
_SIZED: Final = _head("Content-Length: 5")
_HELLO: Final = b"5\r\nhello\r\n"
_LAST: Final = b"0\r\n\r\n"
_FULL: Final = _SIZED + b"hello"
_FULL_CHUNKED: Final = _CHUNKED + _HELLO + _LAST
_MANY: Final = 33 * 2**20


def _ok(name: str, *script: bytes | Drip | Close, reused: bool | None = True) -> Row:
    return Row(name, script, "200 hello", reused)


def _bad(name: str, *script: bytes | Repeat | Close) -> Row:
    return Row(name, script, "PROTOCOL")


def _ended(name: str, data: bytes) -> list[Row]:
    steps = [data] if data else []
    return [
        Row(f"closed {name}", [*steps, Close()], "RESET"),
        Row(f"reset {name}", [*steps, Close(reset=True)], "RESET"),
    ]


def gzipped(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def _encoded(coding: str, body: bytes, *lines: str) -> bytes:
    return _head(f"Content-Encoding: {coding}", f"Content-Length: {len(body)}") + body


def raw_deflate(data: bytes) -> bytes:
    deflater = zlib.compressobj(wbits=-zlib.MAX_WBITS)
    return deflater.compress(data) + deflater.flush()


def _bomb() -> bytes:
    deflater = zlib.compressobj(1)
    megabyte = bytes(2**20)
    pieces = [deflater.compress(megabyte) for _ in range(33)]
    return b"".join((*pieces, deflater.flush()))


_GOOD: Final = [
    _ok("Content-Length", _FULL),
    _ok("chunked", _FULL_CHUNKED),
    _ok("chunked, four writes", _CHUNKED, b"2\r\nhe\r\n", b"3\r\nllo\r\n", _LAST),
    _ok("chunk extension", _CHUNKED + b'5;a=b;c="d"\r\nhello\r\n0;e\r\n\r\n'),
    _ok("trailers", _CHUNKED + _HELLO + b"0\r\nA: b\r\nC: d\r\n\r\n", reused=None),
    _ok("chunk size with leading zeros", _CHUNKED + b"0005\r\nhello\r\n000\r\n\r\n"),
    _ok("capital hexadecimal", _CHUNKED + b"5\r\nhello\r\n0\r\n\r\n"),
    _ok("until close", _head() + b"hello", Close(), reused=False),
    _ok("HTTP/1.0", _head("Content-Length: 5", first="HTTP/1.0 200 OK") + b"hello",
        reused=False),
    _ok("HTTP/1.0 until close", _head(first="HTTP/1.0 200 OK") + b"hello", Close(),
        reused=False),
    _ok("Connection: close", _head("Connection: close", "Content-Length: 5") + b"hello",
        reused=False),
    _ok("Connection: a list with Close",
        _head("Connection: x, Close", "Content-Length: 5") + b"hello", reused=False),
    _ok("no reason phrase", _head("Content-Length: 5", first="HTTP/1.1 200 ")
        + b"hello"),
    _ok("no reason phrase, no blank", _head("Content-Length: 5", first="HTTP/1.1 200")
        + b"hello"),
    _ok("reason phrase beyond ASCII",
        _head("Content-Length: 5", first="HTTP/1.1 200 sch\xf6n") + b"hello"),
    _ok("header value beyond ASCII", _head("X: \xf6", "Content-Length: 5") + b"hello"),
    _ok("Keep-Alive: timeout=1, which is none",
        _head("Keep-Alive: timeout=1", "Content-Length: 5") + b"hello", reused=False),
    _ok("Keep-Alive: timeout=60",
        _head("Keep-Alive: timeout=60, max=9", "Content-Length: 5") + b"hello"),
    _ok("one byte a packet", Drip(_FULL), reused=None),
    _ok("one byte a packet, chunked", Drip(_FULL_CHUNKED), reused=None),
    _ok("10 interim replies", _head(first="HTTP/1.1 102 Processing") * 10 + _FULL),
    _ok("100 Continue in a packet of its own",
        _head(first="HTTP/1.1 100 Continue"), _FULL),
    _ok("103 Early Hints with headers",
        _head("Link: </a>", "Content-Length: 9", first="HTTP/1.1 103 Early Hints")
        + _FULL),
    _ok("10,000 header lines", _head(*["a:b"] * 10_000, "Content-Length: 5")
        + b"hello"),
    _ok("Content-Encoding: identity", _encoded("identity", b"hello")),
    _ok("gzip", _encoded("gzip", gzipped(b"hello"))),
    _ok("gzip in two members", _encoded("gzip", gzipped(b"hel") + gzipped(b"lo"))),
    _ok("gzip, one byte a packet", Drip(_encoded("x-gzip", gzipped(b"hello"))),
        reused=None),
    _ok("deflate", _encoded("deflate", zlib.compress(b"hello"))),
    _ok("deflate without its wrapping", _encoded("deflate", raw_deflate(b"hello"))),
    Row("204", [_head(first="HTTP/1.1 204 No Content")], "204", reused=True),
    Row("empty body", [_head("Content-Length: 0")], "200", reused=True),
    Row("empty chunked body", [_CHUNKED + _LAST], "200", reused=True),
    Row("empty gzip", [_encoded("gzip", b"")], "200", reused=True),
    Row("404 with a body",
        [_head("Content-Length: 4", first="HTTP/1.1 404 Not Found") + b"gone"],
        "404 gone", reused=True),
    Row("307 is not followed",
        [_head("Location: /x", "Content-Length: 0",
               first="HTTP/1.1 307 Temporary Redirect")], "307", reused=True),
]  # fmt: skip

_BEHIND: Final = [
    _ok("a second reply in the same packet", _FULL + _FULL, reused=False),
    _ok("a second chunked reply in the same packet", _FULL_CHUNKED * 2, reused=False),
    _ok("a sized reply behind a chunked one", _FULL_CHUNKED + _FULL, reused=False),
    _ok("garbage behind a reply", _FULL + b"\x00garbage", reused=False),
    _ok("garbage behind a chunked reply", _FULL_CHUNKED + b"\x00", reused=False),
    _ok("the beginning of a reply behind a chunked one", _FULL_CHUNKED + b"HT",
        reused=False),
    _ok("a line break behind a reply", _FULL + b"\r\n", reused=False),
    _ok("a line break behind a chunked reply", _FULL_CHUNKED + b"\r\n", reused=False),
    _ok("a second reply in a packet of its own", _FULL, _FULL, reused=False),
    _ok("closed behind a reply", _FULL, Close(), reused=False),
    _ok("closed behind a chunked reply", _FULL_CHUNKED, Close(), reused=False),
    Row("204 with a body",
        [_head("Content-Length: 5", first="HTTP/1.1 204 No Content"), b"hello"], "204"),
    Row("204 with a chunked body",
        [_head("Transfer-Encoding: chunked", first="HTTP/1.1 204 No Content"),
         _HELLO + _LAST], "204"),
    Row("304 with a length",
        [_head("Content-Length: 5", first="HTTP/1.1 304 Not Modified")], "304"),
    Row("304 with a body",
        [_head("Content-Length: 5", first="HTTP/1.1 304 Not Modified") + b"hello"],
        "304"),
]  # fmt: skip

_BAD_HEADS: Final = [
    *(
        _bad(f"{version} as version", _FULL.replace(b"HTTP/1.1", version.encode()))
        for version in ("HTTP/2.0", "HTTP/0.9", "HTTP/1.2", "HTTP/3", "HTTP/1.10",
                        "ICE/1.0", "RTSP/1.0", "http/1.1", "HTTP/1,1", "HTTP")
    ),
    *(
        _bad(f"status {status!r}", _FULL.replace(b"200", status.encode()))
        for status in ("000", "099", "600", "999", "20", "2000", "2x0", "-20", "+200")
    ),
    _bad("101", _head("Upgrade: x", "Connection: upgrade",
                      first="HTTP/1.1 101 Switching Protocols")),
    *(
        _bad(f"Transfer-Encoding: {coding}",
             _head(f"Transfer-Encoding: {coding}") + _HELLO + _LAST, Close())
        for coding in ("gzip, chunked", "identity", "chunked, chunked", "xchunked",
                       "chunked, gzip", "gzip", "chunked;q=1", '"chunked"', "")
    ),
    _bad("Transfer-Encoding twice",
         _head("Transfer-Encoding: chunked", "Transfer-Encoding: chunked")
         + _HELLO + _LAST),
    _bad("Transfer-Encoding on HTTP/1.0",
         _head("Transfer-Encoding: chunked", first="HTTP/1.0 200 OK")
         + _HELLO + _LAST, Close()),
    *(
        _bad(f"Content-Length: {length}", _head(f"Content-Length: {length}")
             + b"hello", Close())
        for length in ("-5", "+5", "5, 5", "5, 6", "5 5", "0x5", "five", "5;", "",
                       "9" * 30, "\u0665".encode().decode("latin-1"))
    ),
    _bad("Content-Length twice",
         _head("Content-Length: 5", "Content-Length: 5") + b"hello"),
    _bad("Content-Lengths that differ",
         _head("Content-Length: 5", "Content-Length: 6") + b"hello!"),
    _bad("Content-Length and Transfer-Encoding",
         _head("Content-Length: 5", "Transfer-Encoding: chunked") + _HELLO + _LAST),
    _bad("Transfer-Encoding and Content-Length",
         _head("Transfer-Encoding: chunked", "Content-Length: 5") + _HELLO + _LAST),
    _bad("folded header", _head("A: b", " c", "Content-Length: 5") + b"hello"),
    _bad("folded Content-Length", _head("Content-Length:", " 5") + b"hello"),
    _bad("bare line feeds", _FULL.replace(b"\r\n", b"\n")),
    _bad("one bare line feed", b"HTTP/1.1 200 OK\nContent-Length: 5\r\n\r\nhello"),
    _bad("bare line feed in a header",
         _head("A: b\nContent-Length: 6", "Content-Length: 5") + b"hello"),
    _bad("bare carriage return", _head("A: b\rC: d", "Content-Length: 5") + b"hello"),
    *(_bad(f"{byte!r} in the reason phrase",
           _head("Content-Length: 5", first=f"HTTP/1.1 200 O{byte}K") + b"hello")
      for byte in "\0\r\x0b\x1b\x7f"),
    _bad("NUL in a value", _head("A: b\x00c", "Content-Length: 5") + b"hello"),
    _bad("blank before the colon", _head("Content-Length : 5") + b"hello"),
    _bad("header without a name", _head(": b", "Content-Length: 5") + b"hello"),
    _bad("header without a colon", _head("A", "Content-Length: 5") + b"hello"),
    _bad("another protocol", b"SSH-2.0-OpenSSH_9.6\r\n"),
    _bad("a TLS alert", b"\x15\x03\x01\x00\x02\x02\x0a"),
    _bad("a page without a head", b"<!DOCTYPE html>\r\n\r\n"),
    _bad("a line break before the status line", b"\r\n" + _FULL),
    _bad("an encoding that nobody knows", _encoded("br", b"hello")),
    _bad("two encodings", _encoded("gzip, gzip", gzipped(gzipped(b"hello")))),
    _bad("gzip that is none", _encoded("gzip", b"hello")),
    _bad("gzip cut short", _encoded("gzip", gzipped(b"hello")[:-4])),
]  # fmt: skip

_BAD_CHUNKS: Final = [
    *(
        _bad(f"chunk size {size!r}", _CHUNKED + size + b"\r\nhello\r\n" + _LAST)
        for size in (b"+5", b"-5", b" 5", b"5 ", b"0x5", b"5_0", b"", b"g", b";5",
                     b"F" * 17, b"8000000000000000" * 2, b'5;a="\n"', b"5\r")
    ),
    _bad("bare line feed behind a chunk size", _CHUNKED + b"5\nhello\r\n" + _LAST),
    _bad("bare line feed behind a chunk", _CHUNKED + b"5\r\nhello\n" + _LAST),
    _bad("chunk longer than it says", _CHUNKED + b"5\r\nhelloo\r\n" + _LAST),
    _bad("chunk shorter than it says", _CHUNKED + b"6\r\nhello\r\n" + _LAST),
    _bad("bare line feed behind the last chunk", _CHUNKED + _HELLO + b"0\n\n"),
    _bad("a Content-Length among the trailers",
         _CHUNKED + _HELLO + b"0\r\nContent-Length: 5\r\n\r\n"),
]  # fmt: skip

_LIMITS: Final = [
    Row("11 interim replies", [_head(first="HTTP/1.1 102 P") * 11 + _FULL], "LIMIT"),
    Row("10,000 long header lines",
        [_head(*["name: value"] * 10_000, "Content-Length: 5") + b"hello"], "LIMIT"),
    Row("33 MB of header value",
        [b"HTTP/1.1 200 OK\r\nA: ", Repeat(b"x", _MANY)], "LIMIT"),
    Row("33 MB of header lines",
        [b"HTTP/1.1 200 OK\r\n", Repeat(b"a: b\r\n", _MANY // 6)], "LIMIT"),
    Row("33 MB of reason phrase",
        [b"HTTP/1.1 200 ", Repeat(b"x", _MANY)], "LIMIT"),
    Row("33 MB of leading line breaks", [Repeat(b"\r\n", _MANY // 2)], "PROTOCOL"),
    Row("33 MB of interim replies",
        [Repeat(_head(first="HTTP/1.1 102 P"), _MANY // 18)], "LIMIT"),
    Row("33 MB of chunk extension",
        [_CHUNKED + b"5;", Repeat(b"x", _MANY)], "LIMIT"),
    Row("33 MB of zeros before a chunk size",
        [_CHUNKED, Repeat(b"0", _MANY)], "LIMIT"),
    Row("33 MB of trailers",
        [_CHUNKED + _HELLO + b"0\r\n", Repeat(b"a: b\r\n", _MANY // 6)], "LIMIT"),
    Row("33 MB of one trailer",
        [_CHUNKED + _HELLO + b"0\r\na: ", Repeat(b"b", _MANY)], "LIMIT"),
    Row("33 MB in chunks of one byte",
        [_CHUNKED, Repeat(b"1\r\nx\r\n", _MANY // 6)], "LIMIT"),
    Row("33 MB in chunks of one byte with long extensions",
        [_CHUNKED, Repeat(b"1;" + b"x" * 60_000 + b"\r\nx\r\n", 550)], "LIMIT"),
    Row("33 MB until close", [_head(), Repeat(b"x", _MANY), Close()], "LIMIT"),
    Row("33 MB as its length says",
        [_head(f"Content-Length: {_MANY}"), Repeat(b"x", _MANY)], "LIMIT"),
    Row("1 MB is allowed", [_head(f"Content-Length: {2**20}"), Repeat(b"x", 2**20)],
        f"200 {2**20} bytes", reused=True),
    Row("1 MB in small chunks is allowed",
        [_CHUNKED, Repeat(b"10\r\n" + b"x" * 16 + b"\r\n", 2**16), _LAST],
        f"200 {2**20} bytes", reused=True),
    Row("33 MB inflated from 150 kB",
        [_encoded("deflate", _bomb())], "LIMIT"),
]  # fmt: skip

_ENDED: Final = [
    *_ended("before the reply", b""),
    *_ended("in the status line", b"HTTP/1.1 20"),
    *_ended("in the headers", b"HTTP/1.1 200 OK\r\nContent-Le"),
    *_ended("behind an interim reply", _head(first="HTTP/1.1 100 Continue")),
    *_ended("before the body", _SIZED),
    *_ended("in the body", _SIZED + b"hel"),
    *_ended("before the first chunk", _CHUNKED),
    *_ended("in a chunk size", _CHUNKED + b"5"),
    *_ended("in a chunk", _CHUNKED + b"5\r\nhel"),
    *_ended("behind a chunk", _CHUNKED + _HELLO),
    *_ended("in the last chunk", _CHUNKED + _HELLO + b"0\r\n"),
    *_ended("in the trailers", _CHUNKED + _HELLO + b"0\r\nA: b\r\n"),
    Row("reset until close", [_head() + b"hello", Close(reset=True)], "RESET"),
]

_SLOW: Final = [
    Row("silent", [], "TIMEOUT", timeout=0.2),
    Row("silent in the head", [b"HTTP/1.1 200 OK\r\n"], "TIMEOUT", timeout=0.2),
    Row("silent in the body", [_SIZED + b"hel"], "TIMEOUT", timeout=0.2),
    Row("silent before the reply, too long", [], "STALL", idle_timeout=0.1),
    Row("silent in a chunk, too long", [_CHUNKED + b"5\r\nhel"], "STALL",
        idle_timeout=0.1),
    Row("a head byte by byte, too slow", [Drip(b"HTTP/1.1 200 OK" + b"x" * 500, 0.02)],
        "TIMEOUT", timeout=0.2),
    Row("a body byte by byte, never silent",
        [_head("Content-Length: 500"), Drip(b"x" * 500, 0.02)],
        "TIMEOUT", timeout=1.0, idle_timeout=0.9),
    Row("a body byte by byte, slow enough", [_SIZED, Drip(b"hello", 0.01)],
        "200 hello", reused=None, idle_timeout=5.0),
]  # fmt: skip

ROWS: Final = (*_GOOD, *_BEHIND, *_BAD_HEADS, *_BAD_CHUNKS, *_LIMITS, *_ENDED, *_SLOW)
BOUNDED_BY_ANYBODY: Final = [row for row in ROWS if row not in _LIMITS + _SLOW[5:]]
"""The rows in which stock httpx does not work or wait for longer than a test may."""
