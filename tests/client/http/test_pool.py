"""What a pool does with its connections: reuse, bounds, threads, loops, forks."""

import asyncio
import contextlib
import gc
import os
import pathlib
import threading
import time
from collections.abc import Callable

import pytest

from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure, Limits, Outcome
from tests.client.http.exchanges import (
    CHUNKED,
    SECOND,
    RecordingSink,
    ask,
    ask_async,
    connected,
    describe,
    post,
)
from tests.client.http.raw_server import Close, Drip, Script, raw_server
from tests.support.interrupts import (
    Interrupt,
    Interrupted,
    choose_places,
    count_places,
)

_TASK = b"4\r\ntask\r\n"
_END = b"3\r\nend\r\n"
_LAST = b"0\r\n\r\n"
_EVENTS = [CHUNKED, _TASK, _END, _LAST]


def test_calls_in_a_row_share_a_connection(kind: str):
    # The last chunk comes in a packet of its own, after the sink has all it needs.
    with connected(kind, _EVENTS) as (server, exchange):
        for _ in range(5):
            assert ask(exchange, until=b"end", reuse_within=3.0) == "200 taskend"
        assert server.connections == 1


def test_a_satisfied_sink_does_not_wait_for_the_rest(kind: str):
    with connected(kind, _EVENTS[:3], [SECOND]) as (server, exchange):
        assert ask(exchange, until=b"end") == "200 taskend"
        # The rest never comes: the connection is given up, not waited for.
        sink = RecordingSink()
        outcome = exchange(post(sink))
        assert describe(outcome, sink) == "200 second"
        assert outcome.elapsed < 10
        assert server.connections == 2


@pytest.mark.parametrize(
    "rest",
    [[b"garbage"], [_LAST + SECOND], [_LAST, b"\r\n"], [_LAST, Close()], [Close()],
     [b"5\r\nhe"], [b"1" * 2**17], [Close(reset=True)]],
    ids=repr,
)  # fmt: skip
def test_what_follows_a_satisfied_sink_is_never_taken_for_a_reply(kind, rest):
    created = b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n"
    with connected(kind, [CHUNKED, _END, *rest], [created]) as (server, exchange):
        assert ask(exchange, until=b"end").startswith("200 end")
        server.await_that(lambda: server.played == 1)
        assert ask(exchange) == "201"
        assert server.connections == 2


def test_a_drained_reply_that_trickles_in_is_waited_for(kind: str):
    script: Script = [CHUNKED, _END, Drip(_LAST, 0.01)]
    with connected(kind, script, [SECOND]) as (server, exchange):
        assert ask(exchange, until=b"end") == "200 end"
        assert ask(exchange) == "200 second"
        # A cut within the last five bytes leaves a doubt, which is worth a connection.
        assert server.connections <= 2


def test_a_close_that_only_the_kernel_knows_of_is_seen(kind: str):
    with connected(kind, [SECOND, Close()], [SECOND]) as (server, exchange):
        for _ in range(2):
            assert ask(exchange) == "200 second"
            server.await_ended(1)
        assert server.connections == 2


def test_bytes_that_nobody_asked_for_cost_the_connection(kind: str):
    with connected(kind, [SECOND]) as (server, exchange):
        for _ in range(2):
            assert ask(exchange) == "200 second"
            server.speak(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nwrong")
        assert server.connections == 2


def test_a_connection_too_old_for_a_call_is_not_used_for_it(kind: str):
    with connected(kind, [SECOND]) as (server, exchange):
        for reuse_within, connections in ((60.0, 1), (60.0, 1), (0.0, 2), (60.0, 2)):
            assert ask(exchange, reuse_within=reuse_within) == "200 second"
            assert server.connections == connections


@pytest.mark.parametrize(
    ("script", "text", "threads", "limit"),
    [(_EVENTS, "200 taskend", 8, 64), ([SECOND], "200 second", 6, 2)],
    ids=["with room for all", "with threads that wait"],
)
def test_threads_share_a_pool(script: Script, text: str, threads: int, limit: int):
    texts: list[str] = []

    def work() -> None:
        texts.extend(ask(pool.exchange, until=b"end") for _ in range(30))

    with raw_server(script) as server:
        pool = ConnectionPool(server.url, limits=Limits(connections=limit))
        workers = [threading.Thread(target=work) for _ in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(60)
        pool.close()
        assert texts == [text] * threads * 30
        assert len(server.requests) == threads * 30
        assert server.connections <= min(threads, limit)


def test_many_sessions_on_one_loop():
    async def session(pool: AsyncConnectionPool) -> set[str]:
        return {await ask_async(pool, until=b"end") for _ in range(5)}

    async def all_sessions(url: str) -> None:
        pool = AsyncConnectionPool(url)
        texts = await asyncio.gather(*(session(pool) for _ in range(50)))
        assert texts == [{"200 taskend"}] * 50
        await pool.aclose()

    with raw_server(_EVENTS) as server:
        asyncio.run(all_sessions(server.url))
        assert len(server.requests) == 250
        assert server.connections <= 50


def test_another_loop_starts_with_other_connections():
    with raw_server([SECOND]) as server:
        pool = AsyncConnectionPool(server.url)
        for number in range(3):
            assert asyncio.run(ask_async(pool)) == "200 second"
            assert server.connections == number + 1
        server.await_ended(2)
        asyncio.run(pool.aclose())
        server.await_ended(3)


def test_a_full_pool_is_waited_for_and_then_refused():
    with raw_server([CHUNKED], [SECOND]) as server:
        limits = Limits(connections=1)
        pool = ConnectionPool(server.url, limits=limits, connect_timeout=0.2)
        texts: list[str] = []
        thread = threading.Thread(target=lambda: texts.append(ask(pool.exchange)))
        thread.start()
        server.await_that(lambda: server.played == 1)
        refused = pool.exchange(post(RecordingSink()))
        assert (refused.failure, refused.sent) == (Failure.CONNECT, False)
        assert "all 1 connections" in refused.detail
        pool.close()
        thread.join(20)
        # Closing ended the exchange that was under way, too.
        assert texts == ["RESET"]


def test_a_place_that_comes_too_late_for_one_is_the_next_one_s() -> None:
    async def wait() -> list[bool]:
        loop = asyncio.get_running_loop()
        pool = AsyncConnectionPool("http://127.0.0.1:1")
        first = loop.create_task(pool._wait(time.monotonic() + 0.05))
        second = loop.create_task(pool._wait(time.monotonic() + 20.0))
        await asyncio.sleep(0)
        # Its time passes in the turn of the loop in which it is given the place.
        loop.call_soon(pool._admit)
        while time.monotonic() < until:
            pass
        return [await first, await second]

    until = time.monotonic() + 0.2
    assert asyncio.run(wait()) == [False, True]


@pytest.mark.parametrize("pool", [ConnectionPool, AsyncConnectionPool])
def test_nothing_secret_in_repr(pool: type):
    text = repr(pool("http://127.0.0.1:1", headers=[("X-API-Key", "hunter2")]))
    assert "hunter2" not in text
    assert "127.0.0.1:1" in text


def test_a_closed_pool_connects_no_more():
    async def ask_closed(url: str) -> Outcome:
        pool = AsyncConnectionPool(url)
        await pool.aclose()
        return await pool.exchange(post(RecordingSink()))

    with raw_server([SECOND]) as server:
        pool = ConnectionPool(server.url)
        pool.close()
        refused = pool.exchange(post(RecordingSink()))
        for outcome in (refused, asyncio.run(ask_closed(server.url))):
            assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
            assert "closed" in outcome.detail
        assert server.connections == 0


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_connections_of_its_parent_alone():
    with raw_server([SECOND]) as server:
        pool = ConnectionPool(server.url)
        assert ask(pool.exchange) == "200 second"
        assert _in_child(lambda: ask(pool.exchange)) == "200 second"
        assert ask(pool.exchange) == "200 second"
        pool.close()
        assert [request.connection for request in server.requests] == [0, 1, 0]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_leaves_the_event_loop_of_its_parent_alone():
    # Both have the same epoll: a child that unregisters a descriptor does it for both.
    with raw_server([SECOND]) as server, asyncio.Runner() as runner:
        pool = AsyncConnectionPool(server.url)
        assert runner.run(ask_async(pool)) == "200 second"
        assert _in_child(lambda: asyncio.run(ask_async(pool))) == "200 second"
        assert runner.run(ask_async(pool)) == "200 second"
        runner.run(pool.aclose())
        assert [request.connection for request in server.requests] == [0, 1, 0]


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
    count = 0
    for descriptor in pathlib.Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            count += str(descriptor.readlink()).startswith("socket:")
    return count


def _strike_blocking(url: str, place: int) -> None:
    with contextlib.closing(ConnectionPool(url)) as pool:
        with contextlib.suppress(Interrupted), Interrupt(place):
            ask(pool.exchange)
        assert ask(pool.exchange) == "200 second"


def _strike_async(url: str, place: int) -> None:
    loop = asyncio.SelectorEventLoop()
    loop.set_exception_handler(lambda *_: None)
    pool = AsyncConnectionPool(url)
    work = ask_async(pool)
    task = loop.create_task(work)
    with contextlib.suppress(Interrupted), Interrupt(place):
        loop.run_until_complete(task)
    if loop.is_running():
        # From Python 3.13 on one that strikes while asyncio sets its loop up, or tidies
        # up behind it, leaves it marked as running, which is not the pool's.
        loop._thread_id = None  # type: ignore[attr-defined]
        asyncio._set_running_loop(None)
    task.cancel()
    for _ in range(9):
        loop.call_soon(loop.stop)
        loop.run_forever()
    if not task.done():
        work.close()  # the interrupt took what would have woken it
    assert loop.run_until_complete(ask_async(pool)) == "200 second"
    loop.run_until_complete(pool.aclose())
    loop.close()


# Behind the call of a Python function only the injector strikes, not CPython.
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::RuntimeWarning")
@pytest.mark.parametrize("strike", [_strike_blocking, _strike_async])
def test_a_pool_works_on_after_an_interrupt_at_any_place(strike):
    with raw_server([SECOND]) as server:
        strike(server.url, 0)
        places = count_places(lambda: strike(server.url, 0))
        for place in choose_places(places, 400):
            strike(server.url, place)
    gc.collect()  # here, where its warnings are ignored
