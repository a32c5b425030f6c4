"""A server that sends too much, or nonsense, costs bounded time and memory."""

import asyncio
import gzip
import itertools
import json
import zlib
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import pytest

import ors_gym
from tests.support.processes import run_python
from tests.support.proxy.http1 import ReceivedRequest, reply_bytes
from tests.support.proxy.scripted import (
    Handler,
    RawReply,
    event_stream,
    html_reply,
    stream_reply,
)
from tests.system.faults.scripted_ors import (
    OUTPUT,
    TASK_ID,
    scripted_ors,
    scripted_session,
)

STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
NAMED = event_stream(("task_id", TASK_ID))


def abuse(
    action: str,
    /,
    *errors: str,
    megabytes: int,
    seconds: int = 20,
    limit: int = 0,
    **replaced: Handler,
) -> Any:
    """Let a process use such a server, and check its error and what that cost it."""
    with scripted_ors(**replaced) as server:
        module = "tests.system.faults.measured_client"
        done = run_python("-m", module, server.url, action, str(limit), seconds=100)
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["error"] in errors, said
    assert said["megabytes"] < megabytes
    assert said["seconds"] < seconds
    return said


def raw(*pieces: bytes) -> Handler:
    return lambda _: RawReply(list(pieces), "close")


def endless(head: bytes, piece: bytes) -> Handler:
    def reply(_: ReceivedRequest) -> RawReply:
        return RawReply(itertools.chain([head], itertools.repeat(piece)), "close")

    return reply


def bomb(megabytes: int) -> bytes:
    """Return so much of nothing, compressed a thousandfold."""
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    nothing = b" " * 2**20
    packed = [packer.compress(nothing) for _ in range(megabytes)]
    return b"".join([*packed, packer.flush()])


def many(first: bytes, item: Callable[[int], bytes], last: bytes) -> Handler:
    """A list of a million, in a body that ends with the connection."""

    def pieces() -> Iterator[bytes]:
        yield b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
        yield b"Connection: close\r\n\r\n" + first
        for start in range(0, 10**6, 10**4):
            items = b",".join(item(i) for i in range(start, start + 10**4))
            yield items if start == 0 else b"," + items
        yield last

    return lambda _: RawReply(pieces(), "close")


@pytest.mark.slow
def test_a_bomb_in_a_body() -> None:
    packed = bomb(300)
    assert len(packed) < 2**20
    zipped = (("Content-Encoding", "gzip"),)
    reply = raw(reply_bytes(200, packed, zipped))
    abuse("prompt", "LimitExceededError", megabytes=400, prompt=reply)


@pytest.mark.slow
def test_a_bomb_in_a_stream() -> None:
    head = STREAM + b"Content-Encoding: gzip\r\nConnection: close\r\n\r\n"
    packed = gzip.compress(NAMED + b"event: end\r\ndata: ") + bomb(300)
    abuse("call", "LimitExceededError", megabytes=400, call=raw(head, packed))


@pytest.mark.slow
def test_a_million_tools() -> None:
    reply = many(
        b'{"tools":[',
        lambda i: b'{"name":"t%d","description":"","input_schema":null}' % i,
        b"]}",
    )
    said = abuse("tools", "LimitExceededError", megabytes=800, tools=reply)
    assert "tools" in said["message"]


@pytest.mark.slow
def test_a_million_tasks_where_they_can_only_be_listed() -> None:
    reply = many(b'{"tasks":[', lambda i: b'{"id":"%d","question":"?"}' % i, b"]}")
    assert abuse("tasks", "", megabytes=800, tasks=reply)["length"] == 10**6


def test_a_million_tasks_are_not_listed_where_they_need_not_be() -> None:
    def refuse(_: ReceivedRequest) -> RawReply:
        raise AssertionError("all tasks were asked for")

    with scripted_ors(
        tasks=refuse, num_tasks=raw(reply_bytes(200, b'{"num_tasks": 1000000}'))
    ) as server:
        env = ors_gym.ORSEnv("box", server.url, task_order="shuffle")
        for _ in range(3):
            env.reset()
        assert env.num_tasks == 10**6
        env.close()
        assert not [r for r in server.requests if r.path.endswith("/tasks")]


@pytest.mark.parametrize("named", [True, False])
def test_a_line_of_50_megabytes_without_an_end(named: bool) -> None:
    def line(_: ReceivedRequest) -> RawReply:
        pieces = [STREAM + b"\r\n" + (NAMED if named else b"") + b"data: "]
        return RawReply(pieces + [b"x" * 2**20] * 50, "hold")

    abuse("call", expected_of_call(named), megabytes=200, call=line)


ENDLESS = {
    "comments": b": ping\r\n\r\n",
    "unknown events": b"event: unknown\r\ndata: x\r\n\r\n",
    "lines of data": b"data: x\r\n",
    "empty lines": b"\r\n",
    "chunks": b"event: chunk\r\ndata: x\r\n\r\n",
}


def expected_of_call(named: bool) -> str:
    # Without a task_id nobody can ask what became of the call.
    return "LimitExceededError" if named else "AmbiguousCallError"


def check_endless(line: bytes, named: bool = True, **bounds: int) -> None:
    head = STREAM + b"\r\n" + (NAMED if named else b"")
    reply = endless(head, line * (2**20 // len(line)))
    abuse("call", expected_of_call(named), call=reply, **bounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("named", [True, False])
def test_endless_comments(named: bool) -> None:
    check_endless(ENDLESS["comments"], named, limit=4, megabytes=100, seconds=10)


def test_endless_lines_of_one_event() -> None:
    check_endless(ENDLESS["lines of data"], limit=16, megabytes=100, seconds=10)


@pytest.mark.slow
@pytest.mark.parametrize("line", ENDLESS.values(), ids=ENDLESS)
def test_endless_events_up_to_the_usual_limit(line: bytes) -> None:
    check_endless(line, megabytes=600, seconds=60)


def test_comments_that_keep_a_call_alive_do_not_extend_its_deadline() -> None:
    async def pieces() -> AsyncIterator[bytes]:
        yield STREAM + b"\r\n" + NAMED
        while True:
            await asyncio.sleep(0.02)
            yield b": ping\r\n\r\n"

    reply = RawReply(pieces(), "close")
    said = abuse("hurried call", "CallTimeoutError", megabytes=50, call=lambda _: reply)
    assert "resume_call" in said["message"]


@pytest.mark.parametrize(
    ("action", "endpoint", "expected"),
    [
        ("call", "call", "AmbiguousCallError"),
        ("prompt", "prompt", "LimitExceededError"),
        ("connect", "list_environments", "LimitExceededError"),
    ],
)
def test_endless_headers(action: str, endpoint: str, expected: str) -> None:
    line = b"X-Filler: " + b"x" * 1000 + b"\r\n"
    reply = endless(b"HTTP/1.1 200 OK\r\n", line * 100)
    replaced: dict[str, Any] = {endpoint: reply}
    abuse(action, expected, megabytes=50, **replaced)


def test_endless_interim_replies() -> None:
    reply = endless(b"", b"HTTP/1.1 103 Early Hints\r\n\r\n" * 100)
    errors = ("LimitExceededError", "ProtocolError")
    abuse("prompt", *errors, megabytes=50, prompt=reply)


def test_an_endless_page() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\n\r\n"
    replaced: dict[str, Any] = {"openapi.json": endless(head, b"<p>" * 2**18)}
    abuse("connect", "LimitExceededError", megabytes=400, **replaced)


def nonsense() -> Iterable[tuple[str, bytes]]:
    yield "deep lists", b"[" * 200_000 + b"]" * 200_000
    yield "deep objects", b'{"a":' * 100_000 + b"1" + b"}" * 100_000
    yield "unclosed depth", b"[" * 10**6
    yield "a number of a million digits", b"1" * 10**6
    yield "NaN", b"NaN"
    yield "Infinity", b"[Infinity]"
    yield "half a value", b'{"a": [1, 2'
    yield "not UTF-8", b'"\xff\xfe"'
    yield "UTF-16", '{"a": 1}'.encode("utf-16")
    yield "nothing", b""
    yield "null", b"null"
    yield "a page", b"<!doctype html><title>Sign in</title>"


@pytest.mark.parametrize(("name", "body"), [*nonsense()], ids=lambda v: str(v)[:30])
def test_nonsense_instead_of_json(name: str, body: bytes) -> None:
    answer = raw(reply_bytes(200, body, (("Connection", "close"),)))
    end = event_stream(("task_id", TASK_ID))
    end += b"event: end\r\ndata: " + body + b"\r\n\r\n"
    streamed = raw(STREAM + b"Connection: close\r\n\r\n" + end)
    for endpoint in ("list_environments", "tools", "splits", "num_tasks", "prompt"):
        with scripted_ors(**{endpoint: answer}) as server:
            env = None
            with pytest.raises(ors_gym.ProtocolError):
                env = ors_gym.ORSEnv("box", server.url)
                env.reset(seed=0)
            if env is not None:
                env.close()
    with (
        scripted_session(call=streamed) as (_, session),
        pytest.raises(ors_gym.ProtocolError),
    ):
        session.call_tool("go", {})


@pytest.mark.parametrize(
    "reward",
    ["1e999", "-1e999", "1" * 400, "true", '"1.0"', "[1]", "{}", "NaN", "Infinity"],
)
def test_rewards_that_are_no_finite_numbers(reward: str) -> None:
    output = OUTPUT.replace("1.0", reward)
    events = event_stream(("task_id", TASK_ID), ("end", output))
    with scripted_session(call=lambda _: stream_reply(events)) as (_, session):
        with pytest.raises(ors_gym.ProtocolError):
            session.call_tool("go", {})
        # Nobody knows whether that was the episode's end.
        with pytest.raises(ors_gym.InvalidRequestError):
            session.call_tool("go", {})


def test_half_characters_reach_the_user_as_text_that_can_be_written() -> None:
    half = r"a \ud83d b \ude00 c"
    output = OUTPUT.replace("done", half).replace("null", f'{{"k": "{half}"}}')
    prompt = f'[{{"type":"text","text":"{half}"}}]'.encode()
    events = event_stream(("task_id", TASK_ID), ("end", output))
    with scripted_ors(
        call=lambda _: stream_reply(events), prompt=raw(reply_bytes(200, prompt))
    ) as server:
        env = ors_gym.ORSEnv("box", server.url, observation_mode="text")
        seen, _ = env.reset(seed=0)
        assert seen in env.observation_space
        seen, reward, terminated, _, _ = env.step({"tool": "go", "input": {}})
        assert seen in env.observation_space
        assert seen.startswith("a ")
        assert seen.endswith(" c")
        seen.encode()
        assert (reward, terminated) == (1.0, False)
        env.close()


def test_a_page_instead_of_a_server_says_so() -> None:
    def page(_: ReceivedRequest) -> RawReply:
        return html_reply("<title>Sign in</title>")

    pages = {"openapi.json": page, "list_environments": page}
    with (
        scripted_ors(**pages) as server,
        ors_gym.ORSClient(server.url) as client,
        pytest.raises(ors_gym.ProtocolError, match="not look like an ORS server"),
    ):
        client.list_environments()
