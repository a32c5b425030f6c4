"""Which connection carries which request, and what happens to the others."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import socket
import threading
from collections.abc import Callable
from typing import Any

import pytest

from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._idle_connections import IdleConnections
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure, Limits, Outcome, Send
from tests.client.http.connecting import KINDS, connect
from tests.client.http.recording import SECOND, RecordingSink, describe, post
from tests.client.http.scripted import Close, Drip, Script, Step, scripted

_HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
_TASK = b"4\r\ntask\r\n"
_END = b"3\r\nend\r\n"
_LAST = b"0\r\n\r\n"

both_kinds = pytest.mark.parametrize("kind", KINDS)


class _Idle:
    """A connection as the idle list sees it."""

    def __init__(self, last_byte: float, idle_seconds: float = float("inf")) -> None:
        self.last_byte = last_byte
        self.reader = self
        self.idle_seconds = idle_seconds


def _list(*connections: _Idle) -> tuple[IdleConnections[Any], list[_Idle]]:
    closed: list[_Idle] = []
    idle: IdleConnections[Any] = IdleConnections(closed.append)
    for connection in connections:
        idle.put(connection)
    return idle, closed


def test_the_one_used_last_is_used_next():
    older, newer = _Idle(1.0), _Idle(2.0)
    idle, closed = _list(older, newer)
    assert idle.take(3.0, 3.0) is newer
    assert idle.take(3.0, 3.0) is older
    assert idle.take(3.0, 3.0) is None
    assert closed == []


def test_one_that_is_too_old_for_a_call_may_serve_something_else():
    first, second, third = _Idle(0.0), _Idle(1.0), _Idle(2.0)
    idle, closed = _list(first, second, third)
    assert idle.take(5.5, 3.0) is None
    # A new connection takes the place of the oldest: their number does not grow.
    assert closed == [first]
    assert idle.take(5.5, 50.0) is third
    assert idle.take(5.5, 50.0) is second


def test_keep_alive_of_the_server_lowers_the_age():
    expired, good = _Idle(1.0, idle_seconds=1.0), _Idle(0.0, idle_seconds=4.0)
    idle, closed = _list(good, expired)
    assert idle.take(2.5, 3.0) is good
    assert closed == [expired]


def test_what_is_too_old_for_anything_is_closed():
    old, older = _Idle(1.0), _Idle(0.0)
    idle, closed = _list(older, old)
    newest = _Idle(62.0)
    idle.put(newest)
    assert closed == [older, old]
    assert idle.take(62.0, 3.0) is newest


@both_kinds
def test_calls_in_a_row_share_a_connection(kind: str):
    # The last chunk comes in a packet of its own, after the sink has all it needs.
    with (
        scripted([_HEAD, _TASK, _END, _LAST]) as server,
        connect(kind, server.url) as ask,
    ):
        for _ in range(5):
            sink = RecordingSink(until=b"end")
            assert describe(ask(post(sink, reuse_within=3.0)), sink) == "200 taskend"
        assert server.connections == 1


@both_kinds
def test_a_satisfied_sink_does_not_wait_for_the_rest(kind: str):
    script = [_HEAD, _TASK, _END]
    with scripted(script, [SECOND]) as server, connect(kind, server.url) as ask:
        sink = RecordingSink(until=b"end")
        assert describe(ask(post(sink)), sink) == "200 taskend"
        # The rest never comes: the connection is given up, not waited for.
        sink = RecordingSink()
        outcome = ask(post(sink))
        assert describe(outcome, sink) == "200 second"
        assert outcome.elapsed < 10
        assert server.connections == 2


@both_kinds
@pytest.mark.parametrize(
    "rest",
    [[b"garbage"], [_LAST + SECOND], [_LAST, b"\r\n"], [_LAST, Close()], [Close()],
     [b"5\r\nhe"], [b"1" * 2**17], [Close(reset=True)]],
    ids=repr,
)  # fmt: skip
def test_what_follows_a_satisfied_sink_is_never_taken_for_a_reply(
    kind: str, rest: list[Step]
):
    script: Script = [_HEAD, _END, *rest]
    with scripted(
        script, [b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"]
    ) as server:
        with connect(kind, server.url) as ask:
            sink = RecordingSink(until=b"end")
            assert describe(ask(post(sink)), sink).startswith("200 end")
            server.await_that(lambda: server.played == 1)
            sink = RecordingSink()
            assert describe(ask(post(sink)), sink) == "201"
        assert server.connections == 2


@both_kinds
def test_a_drained_reply_that_trickles_in_is_waited_for(kind: str):
    script: Script = [_HEAD, _END, Drip(_LAST, 0.01)]
    with scripted(script, [SECOND]) as server, connect(kind, server.url) as ask:
        sink = RecordingSink(until=b"end")
        assert describe(ask(post(sink)), sink) == "200 end"
        sink = RecordingSink()
        assert describe(ask(post(sink)), sink) == "200 second"
        # A cut within the last five bytes leaves a doubt, which is worth a connection.
        assert server.connections <= 2


@both_kinds
def test_a_close_that_only_the_kernel_knows_of_is_seen(kind: str):
    with scripted([SECOND, Close()], [SECOND]) as server:
        with connect(kind, server.url) as ask:
            for _ in range(2):
                sink = RecordingSink()
                assert describe(ask(post(sink)), sink) == "200 second"
                server.await_that(lambda: server.ended >= 1)
        assert server.connections == 2


@both_kinds
def test_bytes_that_nobody_asked_for_cost_the_connection(kind: str):
    with scripted([SECOND]) as server, connect(kind, server.url) as ask:
        for _ in range(2):
            sink = RecordingSink()
            assert describe(ask(post(sink)), sink) == "200 second"
            server.speak(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
        assert server.connections == 2


@both_kinds
def test_a_connection_too_old_for_a_call_is_not_used_for_it(kind: str):
    with scripted([SECOND]) as server, connect(kind, server.url) as ask:
        for reuse_within, connections in ((60.0, 1), (60.0, 1), (0.0, 2), (60.0, 2)):
            sink = RecordingSink()
            outcome = ask(post(sink, reuse_within=reuse_within))
            assert describe(outcome, sink) == "200 second"
            assert server.connections == connections


def test_threads_share_a_transport():
    with scripted([_HEAD, _TASK, _END, _LAST]) as server:
        pool = ConnectionPool(server.url)
        failures: list[str] = []

        def work() -> None:
            for _ in range(50):
                sink = RecordingSink(until=b"end")
                text = describe(pool.exchange(post(sink)), sink)
                if text != "200 taskend":
                    failures.append(text)

        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        pool.close()
        assert failures == []
        assert len(server.requests) == 400
        assert server.connections <= 8


def test_a_full_pool_is_waited_for_and_then_refused():
    with scripted([_HEAD], [SECOND]) as server:
        pool = ConnectionPool(
            server.url, limits=Limits(connections=1), connect_timeout=0.2
        )
        outcomes = []
        busy = RecordingSink()
        thread = threading.Thread(
            target=lambda: outcomes.append(pool.exchange(post(busy)))
        )
        thread.start()
        server.await_that(lambda: server.played == 1)
        refused = pool.exchange(post(RecordingSink()))
        assert refused.failure is Failure.CONNECT
        assert not refused.sent
        assert "all 1 connections" in refused.detail
        pool.close()
        thread.join(20)
        # Closing ended the exchange that was under way, too.
        assert outcomes[0].failure is Failure.RESET


def test_a_place_that_becomes_idle_goes_to_who_waits():
    with scripted([SECOND]) as server:
        pool = ConnectionPool(server.url, limits=Limits(connections=2))
        texts: list[str] = []

        def work() -> None:
            for _ in range(20):
                sink = RecordingSink()
                texts.append(describe(pool.exchange(post(sink)), sink))

        threads = [threading.Thread(target=work) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        pool.close()
        assert texts == ["200 second"] * 120
        assert server.connections == 2


@pytest.mark.parametrize("kind", [ConnectionPool, AsyncConnectionPool])
def test_nothing_secret_in_repr(kind: type):
    pool = kind("http://127.0.0.1:1", headers=[("X-API-Key", "hunter2")])
    assert "hunter2" not in repr(pool)
    assert "127.0.0.1:1" in repr(pool)


def test_a_closed_client_connects_no_more():
    async def ask(url: str) -> Outcome:
        pool = AsyncConnectionPool(url)
        await pool.aclose()
        return await pool.exchange(post(RecordingSink()))

    with scripted([SECOND]) as server:
        pool = ConnectionPool(server.url)
        pool.close()
        refused = pool.exchange(post(RecordingSink()))
        for outcome in (refused, asyncio.run(ask(server.url))):
            assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
            assert "closed" in outcome.detail
        assert server.connections == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_connections_of_its_parent_alone():
    with scripted([SECOND]) as server:
        pool = ConnectionPool(server.url)
        sink = RecordingSink()
        pool.exchange(post(sink))
        assert _in_child(lambda: _ask(pool.exchange)) == "200 second"
        assert _ask(pool.exchange) == "200 second"
        pool.close()
        assert [request.connection for request in server.requests] == [0, 1, 0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_event_loop_of_its_parent_alone():
    # Both have the same epoll: a child that unregisters a descriptor does it for both.
    with scripted([SECOND]) as server, asyncio.Runner() as runner:
        pool = AsyncConnectionPool(server.url)

        def in_parent(send: Send) -> Outcome:
            return runner.run(pool.exchange(send))

        def in_child(send: Send) -> Outcome:
            return asyncio.run(pool.exchange(send))

        assert _ask(in_parent) == "200 second"
        assert _in_child(lambda: _ask(in_child)) == "200 second"
        assert _ask(in_parent) == "200 second"
        runner.run(pool.aclose())
        assert [request.connection for request in server.requests] == [0, 1, 0]


def _ask(exchange: Callable[[Send], Outcome]) -> str:
    sink = RecordingSink()
    return describe(exchange(post(sink)), sink)


def _in_child(work: Callable[[], str]) -> str:
    """Fork, and return what the child says; it must have dropped sockets at once."""
    before = _open_sockets()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            dropped = _open_sockets() < before
            os.write(writing, work().encode() if dropped else b"kept a socket")
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as answer:
        text = answer.read().decode()
    os.waitpid(child, 0)
    return text


def _open_sockets() -> int:
    """Count the sockets of this process."""
    count = 0
    for descriptor in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def test_a_refused_port_was_not_sent_to():
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        for kind in KINDS:
            with connect(kind, url) as ask:
                outcome = ask(post(RecordingSink()))
            assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
            assert url.removeprefix("http://") in outcome.detail
