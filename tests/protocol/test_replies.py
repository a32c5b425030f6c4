"""Replies: sinks, and the errors that replies stand for."""

import dataclasses
import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies

from ors_gym import errors
from ors_gym.protocol._exchange import Failure, Limits, Outcome
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._replies import (
    BodyReader,
    StreamReader,
    failure_error,
    redact_excerpt,
    server_text,
    shorten_refusal,
    status_error,
)
from tests.protocol.scripted_exchanges import JSON, SETTINGS, STREAM, result_of

pytestmark = pytest.mark.unit
PLAIN = Redactor()


def reader_of(data: bytes = b"", limits: Limits | None = None) -> StreamReader:
    reader = StreamReader(limits or Limits())
    reader.start(200, STREAM)
    if data:
        reader.feed(data)
    return reader


NO_TYPE = ((b"Content-Type", b""),)


def expected_error(status: int) -> type[errors.ORSError]:
    if status in (401, 403):
        return errors.AuthenticationError
    if status in (400, 404, 405, 422):
        return errors.InvalidRequestError
    return errors.ProtocolError if status < 400 else errors.ServerError


@pytest.mark.parametrize("status", range(200, 600))
def test_every_status_has_its_error(status: int) -> None:
    body = b'{"detail": "because"}'
    error = status_error(Outcome(status=status), body, "GET /x", PLAIN, SETTINGS)
    assert type(error) is expected_error(status)
    assert "GET /x" in str(error)
    assert getattr(error, "status", status) == status


def test_a_redirect_names_where_to() -> None:
    location = (b"Location", b"http://other/" + b"x" * 500)
    error = status_error(
        Outcome(status=307, headers=[location]), b"", "GET /x", PLAIN, SETTINGS
    )
    assert "http://other/" in str(error)
    assert len(str(error)) < 400
    assert "nowhere" in str(
        status_error(Outcome(status=301), b"", "GET /x", PLAIN, SETTINGS)
    )


@pytest.mark.parametrize("failure", list(Failure))
def test_every_failure_has_its_error(failure: Failure) -> None:
    special = {
        Failure.PROTOCOL: errors.ProtocolError,
        Failure.LIMIT: errors.LimitExceededError,
    }
    error = failure_error(Outcome(failure=failure, detail="it broke"), "GET /x")
    assert type(error) is special.get(failure, errors.ConnectionFailedError)
    assert "GET /x failed: it broke" in str(error)


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", ""),
        (b"  plain \n text ", "plain text"),
        (b'{"detail": "no such split"}', "no such split"),
        (b'{"detail": {"a": 1}}', '{"detail": {"a": 1}}'),
        (b'{"error": "x"}', '{"error": "x"}'),
        (b"3", "3"),
        (b'"text"', "text"),
        (b'{"detail": [7]}', "an error without a description"),
        (b'{"detail": [{"msg": "bad"}]}', "?: bad"),
        (b'{"detail": [{"loc": ["body", 0, [], "x"], "msg": []}]}', "body.0.x: ?"),
        (b"\xff\xfe", "\ufffd\ufffd"),
        (b"[" * 100_000, "[" * 499 + "…"),
        (b'"' + b"x" * 2000 + b'"', "x" * 499 + "…"),
    ],
)
def test_the_text_of_an_error(body: bytes, text: str) -> None:
    assert server_text(body, PLAIN) == text


def test_of_a_long_refusal_of_a_request_only_place_and_reason_are_told() -> None:
    item = {"loc": ["body", "task_spec"], "msg": "bad", "input": "x" * 200_000}
    assert server_text(json.dumps({"detail": [item]}).encode(), PLAIN) == (
        "body.task_spec: bad"
    )


@pytest.mark.parametrize("place", range(2**16 - 20, 2**16 + 4))
def test_an_excerpt_holds_no_part_of_a_secret(place: int) -> None:
    text = "x" * place + "hunter22-hunter22" + "y" * 2**15
    told = redact_excerpt(text, Redactor(["hunter22-hunter22"]))
    assert "hunter" not in told
    assert len(told) <= 2**16 + 20


@pytest.mark.parametrize(
    "before", [b"x" + b" " * (2**16 - 4), b"<html>" + b"\n" * 2**16]
)
def test_no_part_of_a_secret_is_told_where_a_body_is_cut(before: bytes) -> None:
    told = server_text(before + b"hunter22", Redactor(["hunter22"]))
    assert "hun" not in told


def test_of_a_page_only_the_beginning_of_its_text_is_told() -> None:
    page = (
        "\n<!DOCTYPE html><html><head><style>b > i { color: red }</style>"
        "<title>nginx</title><!-- <b> --></head><SCRIPT>if (a<b) c()</SCRIPT>"
        "<body class='x'><h1>404 Not&nbsp;Found</h1>%s"
    )
    told = server_text((page % "<p>a &amp; b").encode(), PLAIN)
    assert told == "nginx 404 Not Found a & b"
    told = server_text((page % ("<p>word</p>" * 3000)).encode(), PLAIN)
    assert told.startswith("nginx 404 Not Found word word")
    assert len(told) == 100


@pytest.mark.parametrize(
    "part", ["<", "<!--", "<script", "<script>", "</script", "<a "]
)
def test_a_page_that_closes_nothing_is_read_at_once(part: str) -> None:
    assert len(server_text(b"<html>" + part.encode() * 2**14, PLAIN)) <= 103


def test_a_secret_in_a_page_is_hidden() -> None:
    page = b"<html><body>the key is sword&#102;ish, swordfish"
    told = server_text(page, Redactor(["swordfish"]))
    assert told == "the key is [redacted], [redacted]"


def test_the_text_of_an_error_of_any_depth() -> None:
    for depth in range(100, 1200, 7):
        for shape in ('{"detail": %s}', '{"detail": [%s]}', '{"detail":[{"msg":%s}]}'):
            body = shape % ("[" * depth + "]" * depth)
            assert len(server_text(body.encode(), PLAIN)) < 600


def test_only_the_first_errors_of_a_422_are_told() -> None:
    detail = [{"loc": ["body", str(i)], "msg": "bad"} for i in range(9)]
    text = server_text(json.dumps({"detail": detail}).encode(), PLAIN)
    assert text.count("bad") == 5


def test_a_body_is_collected() -> None:
    reader = BodyReader()
    reader.start(404, JSON)
    assert (reader.feed(b"a"), reader.feed(b"b")) == (False, False)
    assert (reader.status, reader.headers, reader.body) == (404, JSON, b"ab")
    assert reader.idle_timeout is None


@pytest.mark.parametrize(
    ("status", "headers"),
    [*((s, STREAM) for s in (201, 503)), *((200, h) for h in (JSON, (), NO_TYPE))],
)
def test_what_is_no_stream_is_collected_as_a_body(status: int, headers: Any) -> None:
    reader = StreamReader(Limits())
    reader.start(status, headers)
    assert not reader.is_stream
    assert reader.feed(b"event: end\ndata: {}\n\n") is False
    reader.finish()
    assert reader.body == b"event: end\ndata: {}\n\n"
    assert reader.result is None


def test_a_stream_is_known_by_its_type() -> None:
    for kind in (b"text/event-stream", b" Text/Event-Stream;charset=utf-8"):
        reader = StreamReader(Limits())
        reader.start(200, [(b"CONTENT-TYPE", kind)])
        assert reader.is_stream


def test_chunks_make_a_result() -> None:
    reader = reader_of()
    assert (reader.task_id, reader.idle_timeout) == (None, None)
    assert not reader.feed(b"event: task_id\r\ndata: t1\r\n\r\n")
    # Silence is bounded once the task is named.
    assert (reader.task_id, reader.idle_timeout) == ("t1", 30.0)
    assert not reader.feed(b'event: chunk\r\ndata:  {"a"\r\n\r\n')
    assert not reader.feed(b": ping\r\n\r\nevent: news\r\ndata: ?\r\n\r\n")
    end = b"event: end\r\ndata: : 1}\r\n\r\n"
    assert reader.feed(end + b"event: chunk\r\ndata: x\r\n\r\n")
    assert reader.result == b' {"a": 1}'
    reader.finish()
    assert reader.result == b' {"a": 1}'


def test_an_error_event_ends_the_stream() -> None:
    reader = reader_of()
    assert reader.feed("event: error\ndata: é\ndata:  two\n\n".encode())
    assert reader.failed == "é\n two"


@pytest.mark.parametrize("data", ["", "x" * 1025])
def test_a_task_id_that_cannot_be_asked_for(data: str) -> None:
    # An empty one would be resumed by a body without one: by a new call.
    reader = reader_of()
    assert reader.feed(f"event: task_id\ndata: {data}\n\n".encode())
    assert reader.task_id is None
    assert "task_id" in str(reader.error)


@pytest.mark.parametrize("name", [b"task_id", b"error"])
def test_an_event_that_is_not_utf8(name: bytes) -> None:
    reader = reader_of()
    assert reader.feed(b"event: " + name + b"\ndata: a\xffb\n\n")
    assert "not UTF-8: byte 1 is 0xff" in str(reader.error)
    reader.finish()
    assert reader.result is None


def test_a_line_without_an_end_is_bounded() -> None:
    reader = reader_of(limits=Limits(line_bytes=100))
    assert not reader.feed(b"data: " + b"x" * 90)
    assert not reader.feed(b"x" * 10)
    assert reader.feed(b"x")
    assert isinstance(reader.error, errors.LimitExceededError)


@pytest.mark.parametrize("cut", range(1, 5))
def test_an_end_without_its_blank_line_counts_if_it_is_whole(cut: int) -> None:
    data = f"event: task_id\r\ndata: t\r\n\r\nevent: end\r\ndata: {result_of()}\r\n\r\n"
    reader = reader_of(data.encode()[:-cut])
    reader.finish()
    assert reader.result == result_of().encode()


@pytest.mark.parametrize(
    "data",
    [
        *(b'event: end\ndata: {"ok": tru', b"event: end\ndata: \xff", b"event: end\n"),
        *(b"event: error\ndata: broke", b'event: chunk\ndata: {"a": 1}', b""),
    ],
)
def test_an_event_cut_short_does_not_count(data: bytes) -> None:
    reader = reader_of(data)
    reader.finish()
    assert (reader.result, reader.failed, reader.error) == (None, None, None)


def test_a_cut_end_is_joined_to_its_chunks() -> None:
    reader = reader_of(b'event: chunk\ndata: {"a":\n\nevent: end\ndata:  1}')
    reader.finish()
    assert reader.result == b'{"a": 1}'


@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ((), "No API key was sent to http://h:1: pass api_key="),
        ((("X-Other", "1"),), "No API key was sent"),
        ((("X-API-Key", "hunter22"),), "http://h:1 refused the key that was sent (X-A"),
        (
            (("authorization", "Bearer hunter22"),),
            "refused the key that was sent (auth",
        ),
    ],
)
def test_an_authentication_error_says_whether_a_key_was_sent(sent, said, status):
    settings = dataclasses.replace(SETTINGS, headers=sent)
    error = status_error(Outcome(status=status), b"", "GET /x", PLAIN, settings)
    assert said in str(error)
    assert "hunter22" not in str(error)


LISTED = (
    "Tool input validation error: [{'type': 'int_parsing', 'loc': ('a',), 'msg': "
    "'Input should be a valid integer', 'input': 'x', 'url': 'https://errors.pydantic"
    ".dev/2.14/v/int_parsing'}, {'type': 'value_error', 'loc': ('b', 0), 'msg': "
    "\"Value error, don't\", 'input': 1, 'ctx': {'error': ValueError(\"don't\")}}]"
)
PRINTED = """2 validation errors for AddInput
a
  Input should be a valid integer [type=int_parsing, input_value='x', input_type=str]
    For further information visit https://errors.pydantic.dev/2.14/v/int_parsing
b.0
  Value error, don't [type=value_error, input_value=1, input_type=int]"""
SHORT = "a: Input should be a valid integer; b.0: don't"


@pytest.mark.parametrize(
    ("refusal", "short"),
    [
        (LISTED, f"Tool input validation error: {SHORT}"),
        (PRINTED, f"2 validation errors for AddInput: {SHORT}"),
        ("wrong: [{'loc': (), 'msg': 'no'}]", "wrong: no"),
        (
            (
                "wrong: [{'loc': ('x', 'after[check(), str]'), 'msg': 'a'}, "
                "{'loc': ('x', 'int'), 'msg': 'b'}]"
            ),
            "wrong: x.after[check().str]: a; x.int: b",
        ),
        (
            (
                "1 validation error for A\nx.after[check(), str]\n  a [type=b, "
                "input_value=1]"
            ),
            "1 validation error for A: x.after[check(), str]: a",
        ),
        ("'nope' is not a valid tool", "'nope' is not a valid tool"),
        ("", ""),
    ],
)
def test_what_pydantic_says_at_length_becomes_a_sentence(refusal, short) -> None:
    assert shorten_refusal(refusal) == short
    # Once is enough.
    assert shorten_refusal(short) == short


@pytest.mark.parametrize(
    "refusal",
    [
        LISTED.replace("'msg': 'Input", "'message': 'Input"),
        PRINTED.replace("[type=value_error", "(value_error"),
    ],
)
def test_of_a_refusal_no_complaint_is_left_out(refusal: str) -> None:
    assert shorten_refusal(refusal) == refusal


@hypothesis.given(strategies.text())
def test_any_refusal_can_be_shortened(text: str) -> None:
    assert isinstance(shorten_refusal(text), str)
    assert shorten_refusal(f"{LISTED}{text}").startswith("Tool input")
