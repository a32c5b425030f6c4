"""HTTP/1.1 without a socket: requests as bytes, replies however they are cut."""

import zlib
from collections.abc import Callable

import pytest
from httptools import HttpResponseParser
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.client.http._address import Origin
from ors_gym.client.http._http1 import (
    BadReplyError,
    HeadReader,
    Inflater,
    ReplyReader,
    RequestWriter,
)
from ors_gym.errors import InvalidRequestError
from ors_gym.protocol._exchange import Failure, Head, Limits, Outcome
from tests.client.http.conformance_rows import LIMITS, ROWS, Row, gzipped, raw_deflate
from tests.client.http.exchanges import CHUNKED, RecordingSink, describe
from tests.client.http.raw_server import Close, Drip
from tests.support.interrupts import (
    Interrupt,
    Interrupted,
    choose_places,
    count_places,
)


def _writer(url: str = "http://host:8080/v1", **headers: str) -> RequestWriter:
    return RequestWriter(Origin(url), list(headers.items()))


def test_head_and_body_are_one_piece():
    head = Head("POST", "/e/call?x=1", [("X-Session-ID", "7")])
    assert _writer(**{"X-API-Key": "k"}).render(head, b"{}") == (
        b"POST /v1/e/call?x=1 HTTP/1.1\r\nhost: host:8080\r\n"
        b"accept-encoding: identity\r\nX-API-Key: k\r\nX-Session-ID: 7\r\n"
        b"content-length: 2\r\n\r\n{}"
    )


@pytest.mark.parametrize("method", ["GET", "DELETE", "OPTIONS", "POST", "PUT", "PATCH"])
def test_length_zero_only_where_a_body_is_expected(method: str):
    # RFC 9110, section 8.6: otherwise a server may wait for one.
    expected = method.startswith("P")
    request = _writer().render(Head(method, "/", ()), None)
    assert request.endswith(b"content-length: 0\r\n\r\n") == expected
    assert request.endswith(b"\r\n\r\n")
    assert (b"content-length" in request) == expected


def test_a_request_s_header_comes_instead_of_the_client_s():
    writer = _writer(**{"User-Agent": "a", "Accept-Encoding": "gzip", "HOST": "proxy"})
    request = writer.render(Head("GET", "/", [("user-agent", "b")]), None)
    assert request.split(b"\r\n")[1:-2] == [
        b"Accept-Encoding: gzip",
        b"HOST: proxy",
        b"user-agent: b",
    ]


@pytest.mark.parametrize("own", [{}, {"TraceParent": "mine"}], ids=["none", "own"])
@pytest.mark.parametrize("body", [b"{}", None], ids=["body", "no body"])
def test_a_trace_is_told_once_and_not_kept(own: dict[str, str], body: bytes | None):
    writer, head = _writer(**own), Head("POST", "/", ())
    plain = writer.render(head, body)
    lines = writer.render(head, body, "00-1-2-01").lower().split(b"\r\n")
    told = [line for line in lines if line.startswith(b"traceparent")]
    assert told == [b"traceparent: 00-1-2-01"]
    assert writer.render(head, body) == plain
    assert (b"mine" in plain) == bool(own)


def test_equal_headers_of_one_request_are_all_sent():
    head = Head("GET", "/", [("X-A", "1"), ("x-a", "2")])
    assert _writer().render(head, None).count(b": 1\r\nx-a: 2\r\n") == 1


def test_rendering_is_kept_but_not_for_another_server():
    head = Head("GET", "/", ())
    first, second = _writer("http://a"), _writer("http://b")
    assert b"host: a" in first.render(head, None)
    assert first.render(head, b"x") == first.render(Head("GET", "/", ()), b"x")
    assert b"host: b" in second.render(head, None)
    assert b"host: a" in first.render(head, None)


@pytest.mark.parametrize(
    "name", ["Content-Length", "transfer-encoding", "Connection", "Expect", "upgrade"]
)
def test_framing_is_the_connection_s_own(name: str):
    with pytest.raises(InvalidRequestError, match=name):
        _writer(**{name: "1"})
    with pytest.raises(InvalidRequestError, match=name):
        _writer().render(Head("GET", "/", [(name, "1")]), None)


@pytest.mark.parametrize("value", ["a\r\nb: c", "a\nb", "a\x00b", "\u0100"])
def test_a_header_cannot_break_out_of_its_line(value: str):
    with pytest.raises(InvalidRequestError) as caught:
        _writer(**{"X-API-Key": value})
    assert value not in str(caught.value)


def test_bytes_beyond_ascii_are_latin_1():
    assert b"x: \xf6\r\n" in _writer(x="\xf6").render(Head("GET", "/", ()), None)


_EVENTS = (CHUNKED, b"3\r\nend\r\n", b"0\r\n\r\n")
_PLAIN = [
    row
    for row in ROWS
    if row.expected in ("PROTOCOL", "RESET", "200 hello")
    and all(isinstance(step, bytes | Drip | Close) for step in row.script)
    and sum(len(step) for step in row.script if isinstance(step, bytes)) < 2000
    and Close(reset=True) not in row.script
]


def _reader(limits: Limits = LIMITS) -> ReplyReader:
    return ReplyReader(limits, HeadReader())


def _read(reader: ReplyReader, *data: bytes, sink: RecordingSink | None = None) -> str:
    """Feed a reply and its end, and say what came of it."""
    sink = sink or RecordingSink()
    reader.begin(sink)
    for piece in data:
        if reader.feed(piece):
            break
    else:
        reader.end()
    outcome = Outcome(
        status=reader.status, failure=reader.failure, detail=reader.detail
    )
    return describe(outcome, sink)


def _bytes_of(row: Row) -> bytes:
    return b"".join(
        step.data if isinstance(step, Drip) else step
        for step in row.script
        if isinstance(step, bytes | Drip)
    )


@settings(deadline=None)
@given(st.data())
def test_how_the_bytes_are_cut_does_not_matter(data: st.DataObject):
    row = data.draw(st.sampled_from(_PLAIN))
    reply = _bytes_of(row)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(reply) or 1), max_size=8)))
    pieces = [reply[a:b] for a, b in zip([0, *cuts], [*cuts, None], strict=True)]
    assert _read(_reader(), *[piece for piece in pieces if piece]) == row.expected


@settings(deadline=None)
@given(st.data())
def test_garbage_is_an_outcome(data: st.DataObject):
    # Whole or byte by byte: a reply or a failure, never another exception.
    base = bytearray(_bytes_of(data.draw(st.sampled_from(_PLAIN))))
    for _ in range(data.draw(st.integers(1, 4))):
        index = data.draw(st.integers(0, len(base)))
        end = index + data.draw(st.integers(0, 3))
        base[index:end] = data.draw(st.binary(max_size=4))
    whole = _read(_reader(), bytes(base)) if base else "RESET"
    single = _read(_reader(), *[bytes([byte]) for byte in base])
    assert whole == single


def test_the_sink_is_satisfied_before_the_reply_ends():
    sink = RecordingSink(until=b"end")
    reader = _reader()
    assert _read(reader, *_EVENTS[:2], sink=sink) == "200 end"
    assert reader.reusable
    assert not reader.drained
    reader.feed(_EVENTS[2])
    assert reader.reusable
    assert reader.drained


def test_a_satisfied_sink_gets_nothing_more():
    sink = RecordingSink(until=b"end")
    reader = _reader()
    assert _read(reader, b"".join(_EVENTS[:2]), sink=sink) == "200 end"
    reader.feed(b"4\r\nmore\r\n0\r\n\r\n")
    assert sink.body == b"end"
    assert reader.drained


@pytest.mark.parametrize(
    "rest",
    [b"garbage", b"0\r\n\r\n\r\n", b"0\r\n\r\nHTTP", b"10000\r\n" + bytes(65537)],
)
def test_what_follows_a_satisfied_sink_can_spoil_the_connection(rest: bytes):
    reader = _reader()
    assert _read(reader, *_EVENTS[:2], sink=RecordingSink(until=b"end")) == "200 end"
    reader.feed(rest)
    assert not reader.reusable
    assert reader.failure is None


def test_content_before_an_error_in_the_same_packet_counts():
    sink = RecordingSink(until=b"end")
    reader = _reader()
    assert _read(reader, b"".join(_EVENTS[:2]) + b"garbage", sink=sink) == "200 end"
    assert not reader.reusable


def test_one_reply_after_the_other():
    reader = _reader()
    for _ in range(3):
        assert _read(reader, b"".join(_EVENTS)) == "200 end"
        sized = b"HTTP/1.1 404 N\r\nContent-Length: 2\r\n\r\nno"
        assert _read(reader, sized) == "404 no"
        assert reader.reusable


def test_many_small_chunks_of_a_packet_are_one_piece():
    sink = RecordingSink()
    _read(_reader(), CHUNKED + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n", sink=sink)
    assert sink.body == b"x" * 1000
    assert sink.pieces == 1


@pytest.mark.parametrize(
    ("until", "text", "fewest", "most"),
    [(None, "200 1048576 bytes", 4, 99), (b"\0", "200 262144 bytes", 1, 1)],
    ids=["whole", "until the sink is satisfied"],
)
def test_inflated_content_comes_in_bounded_pieces(until, text, fewest, most):
    sink = RecordingSink(until=until)
    body = gzipped(bytes(2**20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    assert _read(_reader(), head % len(body) + body, sink=sink) == text
    assert fewest <= sink.pieces <= most


def test_the_bound_of_the_head_is_exact():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \r\n\r\n"
    fitting = head.replace(b"X: ", b"X: " + b"x" * (2**16 - len(head)))
    assert _read(_reader(), fitting) == "200"
    assert _read(_reader(), fitting.replace(b"X:", b"XX:")) == "LIMIT"


@pytest.mark.parametrize(("status", "reusable"), [(503, True), (502, False)])
def test_nothing_follows_a_gateway_that_gave_up(status: int, reusable: bool):
    reader = _reader()
    reply = b"HTTP/1.1 %d x\r\nContent-Length: 2\r\n\r\nno" % status
    assert _read(reader, reply) == f"{status} no"
    assert reader.reusable is reusable


def test_the_status_of_a_reply_that_breaks_is_known():
    reader = _reader()
    assert _read(reader, b"HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nhe") == "RESET"
    assert reader.status == 502
    assert reader.failure is Failure.RESET


_HEADERS = [("A", " b"), ("a", ""), ("X-Y", "\t c:d "), ("Date", "\xff")]


class _OnHeader:
    """Collects the header lines that llhttp finds by its callback."""

    def __init__(self) -> None:
        self.lines: list[tuple[bytes, bytes]] = []

    def on_header(self, name: bytes, value: bytes) -> None:
        self.lines.append((name, value))


@given(st.lists(st.text("a:0 \t\r\n\x00\xff-", max_size=8), max_size=3))
def test_headers_are_what_llhttp_finds(lines: list[str]):
    head = "HTTP/1.1 200 OK\r\nDate: x\r\n" + "".join(f"{s}\r\n" for s in lines)
    data = f"{head}\r\n".encode("latin-1")
    # Only a head comes to the reader: it ends with the first blank line.
    data = data[: data.find(b"\r\n\r\n") + 4]
    found = _OnHeader()
    try:
        read = HeadReader().read(data)
    except BadReplyError:
        return
    HttpResponseParser(found).feed_data(data)
    assert list(read.headers) == found.lines


def _read_twice() -> None:
    reader = _reader()
    for _ in range(2):
        reader.begin(RecordingSink())
        reader.feed(CHUNKED[:-2] + b"a: b\r\n\r\n2\r\nhi\r\n0\r\n\r\n")


def test_an_interrupt_comes_out_as_what_it_is():
    for place in choose_places(count_places(_read_twice), None):
        # Inside of a handler, where the parser loses what its callbacks raised.
        try:
            int("none")
        except ValueError:
            with pytest.raises(Interrupted), Interrupt(place):
                _read_twice()


def test_keep_alive_is_lowered_by_a_second():
    reader = _reader()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: max=5, TIMEOUT=60\r\n"
    _read(reader, head + b"\r\n")
    assert reader.idle_seconds == 59
    _read(reader, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert reader.idle_seconds == float("inf")


def _two_members(data: bytes) -> bytes:
    return gzipped(data[: len(data) // 2]) + gzipped(data[len(data) // 2 :])


ENCODERS: dict[str, tuple[bytes, Callable[[bytes], bytes]]] = {
    "gzip": (b"gzip", gzipped),
    "gzip in two members": (b"x-gzip", _two_members),
    "zlib": (b"deflate", zlib.compress),
    "raw": (b"deflate", raw_deflate),
}


@pytest.mark.parametrize("encoder", ENCODERS)
@given(data=st.data())
def test_however_it_is_cut(encoder: str, data: st.DataObject):
    coding, encode = ENCODERS[encoder]
    content = data.draw(st.binary(max_size=300)) * data.draw(st.integers(1, 2000))
    encoded = encode(content)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(encoded)), max_size=6)))
    inflater = Inflater(coding)
    pieces: list[bytes] = []
    for start, end in zip([0, *cuts], [*cuts, len(encoded)], strict=True):
        assert not pieces or max(map(len, pieces)) <= 2**18
        pieces += inflater.inflate(encoded[start:end])
    assert b"".join(pieces) == content
    assert inflater.finished


@pytest.mark.parametrize("encoder", ENCODERS)
def test_cut_short_is_not_finished(encoder: str):
    coding, encode = ENCODERS[encoder]
    encoded = encode(b"hello" * 100)
    for end in range(1, len(encoded)):
        inflater = Inflater(coding)
        list(inflater.inflate(encoded[:end]))
        first_member = len(gzipped(b"hello" * 50)) if "members" in encoder else None
        assert inflater.finished == (end == first_member)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_nothing_at_all_is_finished(encoder: str):
    inflater = Inflater(ENCODERS[encoder][0])
    assert list(inflater.inflate(b"")) == []
    assert inflater.finished


@pytest.mark.parametrize("coding", [b"gzip", b"deflate"])
def test_garbage_is_an_error(coding: bytes):
    with pytest.raises(zlib.error):
        list(Inflater(coding).inflate(b"\xff" * 100))


def test_nothing_may_follow_the_end_of_deflate():
    with pytest.raises(zlib.error):
        list(Inflater(b"deflate").inflate(zlib.compress(b"x") + b"y"))
