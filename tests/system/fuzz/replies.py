"""Feed readers what no server should send.

Each input is a known reply, mutated, or bytes at random. A reader may answer with a
value or with one of our errors; anything else is a failure, printed with the input that
shows it again. How a stream is cut into pieces must make no difference.
"""

import itertools
import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final

from ors_gym.client.http._http1 import HeadReader, ReplyReader
from ors_gym.errors import ORSError
from ors_gym.protocol import _reply_json as reading
from ors_gym.protocol._dialect import read_openapi, read_probe
from ors_gym.protocol._exchange import Headers, Limits, Outcome
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._replies import StreamReader, server_text, status_error
from ors_gym.protocol._retries import retry_after
from ors_gym.protocol._sse import EventDecoder
from tests.protocol.scripted_exchanges import SETTINGS
from tests.system.fuzz.tally import FuzzError, Tally

_STREAM: Final = ((b"content-type", b"text/event-stream"),)
_LIMITS: Final = Limits(
    reply_bytes=4096, body_bytes=2048, head_bytes=1024, line_bytes=512, tools=5
)
_OUTPUT: Final = {
    "blocks": [
        {"type": "text", "text": "hi", "detail": None},
        {"type": "image", "data": "aGk=", "mimeType": "image/png"},
    ],
    "metadata": {"a": [1]},
    "reward": 1.5,
    "finished": False,
}
_SCHEMA: Final = {"properties": {"secrets": {}}, "required": ["secrets"]}
_VALUES: Final[list[Any]] = [
    {"ok": True, "output": _OUTPUT},
    _OUTPUT,
    {"ok": False, "error": "no", "reason": "not_found"},
    {"detail": [{"loc": ["body", "secrets"], "type": "extra_forbidden", "msg": "no"}]},
    {"detail": "hello", "a": {"scores": [{"reward": 1, "metadata": {}}]}},
    {"tools": [{"name": "f", "description": "F", "input_schema": {}}]},
    {"task": {"id": 1}, "tasks": [{}], "num_tasks": 3, "sid": "7f"},
    [{"role": "user", "blocks": [{"type": "text", "text": ""}]}],
    [{"name": "train", "type": "train"}, "test"],
    {
        "paths": {"/create": {"post": {}}, "/{e}/call": {}, "/{e}/task": {}},
        "components": {"schemas": {"CreateSession": _SCHEMA}},
    },
]
ODD: Final[list[Any]] = [
    *(None, True, 0, -1, 1.5, 10**400, "", "hello"),
    *([], {}, [[]], {"": None}),
]
_SEEDS: Final = [
    b"event: task_id\r\ndata: 7f\r\n\r\n: ping\r\n\r\nevent: end\r\ndata: {}\r\n\r\n",
    b'event: chunk\r\ndata: {"ok"\r\n\r\nevent: end\r\ndata: :true}\r\n\r\n',
    b"event: error\r\ndata: unknown task_id\r\n\r\n",
    b"\xef\xbb\xbfdata: a\rdata: b\n\ndata\r\n\r\n",
    b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nConnection: keep-alive\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.0 200 OK\r\ncontent-encoding: gzip\r\n\r\n\x1f\x8b\x08\x00",
    b"HTTP/1.1 503 x\r\nRetry-After: 3\r\nKeep-Alive: timeout=5\r\n\r\n",
    b"Wed, 21 Oct 2015 07:28:00 GMT",
    *(json.dumps(value).encode() for value in _VALUES),
]
_TOKENS: Final = [
    *(b"\r", b"\n", b"\r\n", b"\r\n\r\n", b"\n\n", b"\0", b"\xff", b"\xef\xbb\xbf"),
    *(b":", b" ", b"data: ", b"event: ", b"id: ", b"0", b"-1", b"9" * 30, b"1e999"),
    *(b"NaN", b"Infinity", b"null", b"true", b'"', b"{", b"}", b"[", b"]", b","),
    *(b"\\ud800", b"\xe2\x80\xa8", b"[" * 200, b'{"a":' * 200, b"x" * 600, b"0\r\n"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"HTTP/1.1 "),
    *(b'"finished":', b'"reward":', b'"blocks":', b'"type":', b'"loc":', b'"detail":'),
]


def mutate(random: Random) -> bytes:
    chance = random.random()
    if chance < 0.05:
        return random.randbytes(random.randrange(60))
    if chance < 0.4:
        return json.dumps(misshape(random.choice(_VALUES), random)).encode()
    data = bytearray(random.choice(_SEEDS))
    for _ in range(random.choice((0, 1, 1, 2, 3, 5, 8))):
        place = random.randrange(len(data) + 1)
        kind = random.randrange(6)
        if kind == 0:
            data[place:place] = random.choice(_TOKENS)
        elif kind == 1:
            del data[place : place + random.randrange(12)]
        elif kind == 2:
            data[place : place + 1] = random.randbytes(1)
        elif kind == 3:
            data[place:] = random.choice(_SEEDS)[random.randrange(20) :]
        elif kind == 4:
            end = place + random.randrange(30)
            data[place:place] = data[place:end] * random.choice((1, 2, 20))
        else:
            token = random.choice(_TOKENS)
            data[place : place + len(token)] = token
    return bytes(data[:6000])


def misshape(value: Any, random: Random, odd: Sequence[Any] = ODD) -> Any:
    """Put something odd somewhere into a value."""
    if random.random() < 0.15:
        return random.choice(odd)
    if isinstance(value, dict) and value:
        name = random.choice(list(value))
        if random.random() < 0.1:
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: misshape(value[name], random, odd)}
    if isinstance(value, list) and value:
        place = random.randrange(len(value))
        return [*value[:place], misshape(value[place], random, odd), *value[place:]]
    return value


def cut(data: bytes, random: Random) -> list[bytes]:
    count = random.choice((0, 1, 2, 5, len(data)))
    edges = sorted(random.randrange(len(data) + 1) for _ in range(count))
    pairs = itertools.pairwise([0, *edges, len(data)])
    return [data[start:end] for start, end in pairs if end > start]


def _decode(pieces: Sequence[bytes]) -> object:
    decoder = EventDecoder()
    events = [event for piece in pieces for event in decoder.feed(piece)]
    return "events" if events else "no event", events, decoder.finish()


def _read_stream(pieces: Sequence[bytes]) -> object:
    # The bound on a line holds to within one piece, so it is not compared.
    reader = StreamReader(Limits())
    reader.start(200, _STREAM)
    if not any(reader.feed(piece) for piece in pieces):
        reader.finish()
    told: list[tuple[object, str]] = [
        (reader.error, "unreadable"),
        (reader.result, "result"),
        (reader.failed, "tool error"),
        (reader.task_id, "only a task_id"),
    ]
    label = next((name for value, name in told if value is not None), "nothing")
    return label, reader.task_id, reader.result, reader.failed, str(reader.error)


class _Collector:
    idle_timeout: float | None = None

    def __init__(self) -> None:
        self.status = 0
        self.body = b""

    def start(self, status: int, headers: Headers) -> None:
        assert not self.status
        retry_after(Outcome(status=status, headers=headers))
        self.status = status

    def feed(self, data: bytes) -> bool:
        self.body += data
        return False


def _read_reply(pieces: Sequence[bytes]) -> object:
    sink = _Collector()
    reader = ReplyReader(Limits(), HeadReader())
    reader.begin(sink)
    if not any(reader.feed(piece) for piece in pieces):
        reader.end()
    assert reader.finished
    # How much of a body that cannot be inflated comes out is a matter of its pieces.
    failure = reader.failure
    return _label(reader), sink.status, failure, failure or sink.body


def _read_reply_within_limits(data: bytes) -> object:
    sink = _Collector()
    reader = ReplyReader(_LIMITS, HeadReader())
    reader.begin(sink)
    if not reader.feed(data):
        reader.end()
    assert len(sink.body) <= _LIMITS.body_bytes
    return (_label(reader),)


def _label(reader: ReplyReader) -> str:
    return reader.failure.value if reader.failure else "complete"


def _read_json(data: bytes) -> object:
    value = reading.parse_json(data, "it")
    results: list[object] = ["JSON", read_openapi(value), read_probe(422, value)]
    for read in _READERS:
        for part in _parts(value):
            try:
                results.append(read(part))
            except ORSError as error:
                results.append(str(error))
    return results


def _parts(value: Any) -> list[Any]:
    """A value and what is right in it, so that inner readers are reached too."""
    inner = value.values() if isinstance(value, dict) else ()
    return [value, *inner]


def _describe(data: bytes) -> object:
    redact = Redactor(["hello", "secrets"])
    text = server_text(data, redact)
    assert "hello" not in text
    headers = [(b"Retry-After", data), (b"Date", data), (b"Location", data)]
    errors = [
        status_error(
            Outcome(status=status, headers=headers), data, "GET /", redact, SETTINGS
        )
        for status in (302, 401, 422, 503)
    ]
    seconds = retry_after(Outcome(status=503, headers=headers))
    assert seconds is None or seconds >= 0
    return ["told", *map(str, errors)]


_READERS: Final[list[Callable[[Any], object]]] = [
    reading.read_blocks,
    reading.read_count,
    reading.read_environments,
    reading.read_messages,
    reading.read_scores,
    reading.read_session_id,
    reading.read_splits,
    reading.read_task,
    reading.read_tasks,
    reading.read_tool_output,
    lambda value: reading.read_tools(value, 5),
]

STREAMED: Final[dict[str, Callable[[Sequence[bytes]], object]]] = {
    "events": _decode,
    "stream": _read_stream,
    "reply": _read_reply,
}
"""Readers that take pieces, and must not care how these were cut."""

WHOLE: Final[dict[str, Callable[[bytes], object]]] = {
    "json": _read_json,
    "error text": _describe,
    "bounded reply": _read_reply_within_limits,
}
"""Readers that take all at once."""


def play(random: Random, tally: Tally) -> None:
    """Feed one input to every reader."""
    data = mutate(random)
    for name, read_pieces in STREAMED.items():
        whole = _guarded(name, read_pieces, [data] if data else [])
        pieces = cut(data, random)
        again = _guarded(name, read_pieces, pieces)
        if whole != again:
            raise FuzzError(f"{name}: {pieces!r}\ngives {again!r}\nnot {whole!r}")
        tally.outcomes[f"{name}: {whole[0]}"] += 1
    for name, read in WHOLE.items():
        told = _guarded(name, read, data)
        tally.outcomes[f"{name}: {told[0]}"] += 1


def _guarded(name: str, read: Callable[[Any], Any], data: Any) -> Any:
    try:
        return read(data)
    except ORSError as error:
        return [error.kind]
    except Exception as error:
        raise FuzzError(f"{name}: {type(error).__name__}: {error}\n{data!r}") from error
