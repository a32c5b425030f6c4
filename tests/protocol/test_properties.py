"""Properties for any input: streams cut anywhere, any JSON, any reply at all."""

import itertools
import json
import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import httpx
import pytest
from httpx_sse import EventSource
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ors_gym import errors
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, read_openapi, read_probe
from ors_gym.protocol._exchange import Failure, Limits
from ors_gym.protocol._replies import StreamReader
from ors_gym.protocol._server_state import Server
from ors_gym.protocol._sse import Event, EventDecoder
from tests.protocol.scripted_exchanges import (
    NEW,
    STREAM,
    RecordingServer,
    Reply,
    Script,
    failing,
    open_state,
    stream,
)

pytestmark = pytest.mark.unit

LINES = st.sampled_from(
    [
        *(b"data: one", b"data:  two", b"data:three", b"data", b"data:", b"data: a: b"),
        b"data: \xe2\x80\xa8 \xe2\x80\xa9 \xc2\x85 \x0b\x0c\x1c\x1d\x1e\x00",
        b"data: \xff\xed\xa0\x80",
        *(b"event: task_id", b"event: chunk", b"event:end", b"event", b"event: "),
        *(b"event: \xff", b"id: 1", b"retry: 5", b": ping", b":", b"", b""),
        *(b"other: x", b" data: x", b"\xef\xbb\xbfdata: x", b"da", b"ta: x"),
    ]
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])
STREAMS = st.lists(st.tuples(LINES, ENDS), max_size=25).map(
    lambda lines: b"".join(line + end for line, end in lines)
)
ANY_STREAM = st.one_of(
    STREAMS,
    st.builds(lambda bom, rest: bom + rest, st.just(b"\xef\xbb\xbf"), STREAMS),
    st.binary(max_size=80),
    st.lists(st.sampled_from(b"\r\n: data\xef\xbb\xbfevnt"), max_size=60).map(bytes),
)
CUTS = st.lists(st.integers(0, 400), max_size=30)


def cut(data: bytes, places: Iterable[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[a:b] for a, b in itertools.pairwise(edges))


def decode(pieces: Iterable[bytes]) -> list[Event]:
    decoder = EventDecoder()
    return [event for piece in pieces for event in decoder.feed(piece)]


def httpx_sse_events(data: bytes) -> list[Event]:
    # httpx-sse reads text, so bytes are read as Latin-1. It leaves the mark at the
    # stream's beginning alone, and gives an event for a lone id, retry or event field:
    # what has no data cannot be told from empty data, and is left out on both sides.
    headers = {"content-type": "text/event-stream; charset=latin-1"}
    data = data.removeprefix(b"\xef\xbb\xbf")
    reply = httpx.Response(200, headers=headers, content=data)
    return [
        Event(event.event.encode("latin-1"), event.data.encode("latin-1"))
        for event in EventSource(reply).iter_sse()
        if event.data
    ]


@settings(max_examples=600)
@given(ANY_STREAM, CUTS)
@example(b"event: end\r\ndata: {}\r\n\r\n", [1, 12, 23])
@example(b"\xef\xbb\xbfdata: x\r\r\n\n", [1, 2])
@example(b"event: a\r\ndata: b\r\n\r\nevent: c\r\ndata: d\r\n\r\n", [21])
def test_the_decoder_equals_httpx_sse_wherever_the_stream_is_cut(data, places):
    events = decode([data])
    assert [event for event in events if event.data] == httpx_sse_events(data)
    assert decode(cut(data, places)) == events
    assert decode(data[i : i + 1] for i in range(len(data))) == events


def read(pieces: Iterable[bytes], limits: Limits) -> tuple[object, ...]:
    reader = StreamReader(limits)
    reader.start(200, STREAM)
    for piece in pieces:
        if reader.feed(piece):
            break
    else:
        reader.finish()
    error = type(reader.error), str(reader.error)
    return reader.task_id, reader.result, reader.failed, error


@settings(max_examples=300)
@given(ANY_STREAM, CUTS)
def test_any_bytes_give_events_or_one_protocol_error(data: bytes, places: list[int]):
    read_whole = read([data], Limits())
    assert read(cut(data, places), Limits()) == read_whole
    assert read_whole[-1][0] in (type(None), errors.ProtocolError)  # type: ignore[index]


@given(ANY_STREAM, CUTS)
def test_any_bytes_within_small_limits(data: bytes, places: list[int]) -> None:
    kinds = (type(None), errors.ProtocolError, errors.LimitExceededError)
    told = read(cut(data, places), Limits(line_bytes=5))
    assert told[-1][0] in kinds  # type: ignore[index]


JSON = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=8),
        st.sampled_from([10**400, -0.0, "text", "image", "NaN", "train"]),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(
            st.sampled_from(
                [
                    *("ok", "output", "error", "reason", "blocks", "reward", "type"),
                    *("finished", "metadata", "text", "data", "mimeType", "detail"),
                    *("tools", "name", "tasks", "task", "num_tasks", "sid", "scores"),
                    *("paths", "components", "schemas", "/create", "/{e}/call", "loc"),
                    *("CreateSession", "properties", "secrets", "required", "msg"),
                ]
            ),
            inner,
            max_size=5,
        ),
    ),
    max_leaves=12,
)
BLOCK = st.fixed_dictionaries({"type": JSON, "text": JSON}) | JSON
NEARLY = st.fixed_dictionaries(
    {"ok": st.just(True) | JSON},
    optional={
        "output": st.fixed_dictionaries(
            {"blocks": st.lists(BLOCK, max_size=3) | JSON, "finished": JSON},
            optional={"reward": JSON, "metadata": JSON, "more": JSON},
        )
        | JSON,
        "error": JSON,
        "reason": JSON,
    },
)


def is_output(value: Any) -> bool:
    return (
        set(value) == {"blocks", "metadata", "reward", "finished"}
        and isinstance(value["blocks"], list)
        and all(isinstance(block["type"], str) for block in value["blocks"])
        and (value["metadata"] is None or isinstance(value["metadata"], dict))
        and (
            value["reward"] is None
            or (type(value["reward"]) is float and math.isfinite(value["reward"]))
        )
        and type(value["finished"]) is bool
    )


@settings(max_examples=400)
@given(JSON | NEARLY)
def test_any_json_as_a_result_gives_an_output_or_one_error(value: Any) -> None:
    server = RecordingServer()
    reply = stream(("task_id", "t1"), ("end", json.dumps(value)))
    operation = operations.call_tool(server, open_state(), "f", {}, timeout=9.0)
    try:
        output = Script(reply).run(operation)
    except errors.ORSError as error:
        assert type(error) in (errors.ProtocolError, errors.ToolRejectedError)
    else:
        assert is_output(output)


@given(JSON)
def test_any_json_as_a_description(value: Any) -> None:
    for document in (value, {"paths": {"/create": value, "/{e}/call": {}}}):
        for whole in (
            document,
            {**document, "components": value} if isinstance(document, dict) else value,
        ):
            assert isinstance(read_openapi(whole), Dialect | None)
    for document in (value, {"detail": value}):
        assert isinstance(read_probe(422, document), Dialect | None)


HEADERS = st.lists(
    st.tuples(
        st.sampled_from(
            [b"content-type", b"Retry-After", b"Date", b"Location", b"X-Backend-State"]
        ),
        st.sampled_from(
            [
                *(b"text/event-stream", b"application/json", b"starting", b"3", b"-1"),
                *(b"99999999999", b"Wed, 21 Oct 2015 07:28:00 GMT", b"/base/x", b"//"),
                *(b"http://[", b"http://h:1/base/y z", b"\xff", b""),
            ]
        )
        | st.binary(max_size=12),
    ),
    max_size=3,
)


def as_reply(
    status: int,
    headers: Any,
    body: bytes,
    failure: Failure | None,
    sent: bool,
    elapsed: float,
) -> Reply:
    """Make what a driver can answer: nothing was sent without a connection."""
    if failure is Failure.CONNECT or (failure is None and not status):
        return failing(Failure.CONNECT, elapsed=elapsed)
    return Reply(status, body, headers, failure, sent or bool(status), elapsed)


REPLIES = st.builds(
    as_reply,
    st.sampled_from([0, 200, 201, 204, 301, 302, 307, 308, 400, 401, 403, 404])
    | st.sampled_from([405, 410, 418, 422, 429, 500, 502, 503, 504, 599]),
    HEADERS,
    st.one_of(
        st.binary(max_size=40),
        STREAMS,
        JSON.map(lambda value: json.dumps(value).encode()),
        st.sampled_from([b'{"detail": "Active environment not found"}', b"[" * 3000]),
    ),
    st.sampled_from([None, *Failure]),
    st.booleans(),
    st.sampled_from([0.0, 0.5, 30.0]),
)
MOST_EXCHANGES = 200


@settings(max_examples=250, suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(st.lists(REPLIES, min_size=1, max_size=4), st.booleans())
def test_any_replies_give_a_value_or_one_of_our_errors(replies, connected):
    for make in OPERATIONS:
        # The replies come round again. Work without end runs out of them, and fails.
        script = Script(*replies * (MOST_EXCHANGES // len(replies)))
        try:
            script.run_partly(make(RecordingServer(NEW if connected else None)))
        except errors.ORSError as error:
            assert len(str(error)) < 5000


ANY_TASK: Any = {"split": "train", "index": 0}
OPERATIONS: list[Callable[[Server], Any]] = [
    operations.connect,
    operations.create_session,
    lambda server: operations.open_session(server, "math", ANY_TASK, timeout=20.0),
    lambda server: operations.start_episode(
        server, "s", "math", ANY_TASK, timeout=20.0
    ),
    lambda server: operations.get_messages(server, open_state(), timeout=20.0),
    lambda server: operations.list_task_tools(server, open_state(), timeout=20.0),
    lambda server: operations.call_tool(server, open_state(), "f", {}, timeout=20.0),
    lambda server: operations.resume_call(server, open_state(), "t1", timeout=20.0),
    lambda server: operations.score_group(server, open_state(), [{}], timeout=20.0),
    lambda server: operations.ping(server, "s1", timeout=5.0),
    lambda server: operations.delete_session(server, "s1", timeout=5.0),
    lambda server: operations.list_tools(server, "math"),
    lambda server: operations.list_splits(server, "math"),
    lambda server: operations.list_tasks(server, "math", "train"),
    lambda server: operations.num_tasks(server, "math", "train"),
    lambda server: operations.get_task(server, "math", "train", 0),
    lambda server: operations.get_task_range(server, "math", "train", 0, 2),
]


def seconds_for(data: bytes, piece: int) -> float:
    """The least CPU time of three readings of a stream, cut into pieces."""
    taken = []
    for _ in range(3):
        began = time.process_time()
        read((data[i : i + piece] for i in range(0, len(data), piece)), Limits())
        taken.append(time.process_time() - began)
    return min(taken)


def test_work_grows_with_the_input_and_no_faster() -> None:
    shapes: dict[str, Callable[[int], bytes]] = {
        "a long line": lambda n: b"data: " + b"x" * n,
        "many lines": lambda n: b"data: x\n" * (n // 8),
        "many events": lambda n: b"event: chunk\ndata: x\n\n" * (n // 22),
        "many blank lines": lambda n: b"\r\n" * (n // 2),
        "carriage returns": lambda n: b"\r" * n,
    }
    for name, shape in shapes.items():
        small, large = (seconds_for(shape(n), 64) for n in (200_000, 800_000))
        # Four times the input: quadratic work would be sixteen times as much.
        assert large < 10 * max(small, 0.002), name
