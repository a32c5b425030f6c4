"""The reader of replies, without a socket: cuts, garbage, bounds, reuse."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.client.http._http1 import HeadReader, ReplyReader
from ors_gym.protocol._exchange import Failure, Limits, Outcome
from tests.client.http.conformance_rows import LIMITS, ROWS, Row
from tests.client.http.recording import RecordingSink, describe
from tests.client.http.scripted import Close, Drip

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_EVENTS = (_HEAD, b"3\r\nend\r\n", b"0\r\n\r\n")
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
        base[index : index + data.draw(st.integers(0, 3))] = data.draw(
            st.binary(max_size=4)
        )
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
    _read(_reader(), _HEAD + b"1\r\nx\r\n" * 1000 + b"0\r\n\r\n", sink=sink)
    assert sink.body == b"x" * 1000
    assert sink.pieces == 1


def test_inflated_content_comes_in_bounded_pieces():
    sink = RecordingSink()
    body = gzip.compress(bytes(2**20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    assert _read(_reader(), head % len(body) + body, sink=sink) == "200 1048576 bytes"
    assert sink.pieces >= 4


def test_a_satisfied_sink_stops_the_inflating():
    sink = RecordingSink(until=b"\0")
    body = gzip.compress(bytes(2**20))
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    _read(_reader(), head % len(body) + body, sink=sink)
    assert sink.pieces == 1


def test_the_bound_of_the_head_is_exact():
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nX: \r\n\r\n"
    fitting = head.replace(b"X: ", b"X: " + b"x" * (2**16 - len(head)))
    assert _read(_reader(), fitting) == "200"
    assert _read(_reader(), fitting.replace(b"X:", b"XX:")) == "LIMIT"


def test_the_status_of_a_reply_that_breaks_is_known():
    reader = _reader()
    assert _read(reader, b"HTTP/1.1 502 Bad\r\nContent-Length: 5\r\n\r\nhe") == "RESET"
    assert reader.status == 502
    assert reader.failure is Failure.RESET


def test_keep_alive_is_lowered_by_a_second():
    reader = _reader()
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nKeep-Alive: max=5, TIMEOUT=60\r\n"
    _read(reader, head + b"\r\n")
    assert reader.idle_seconds == 59
    _read(reader, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert reader.idle_seconds == float("inf")
