"""One exchange over our connections: sizes, timeouts, cancellation, clear failures."""

from __future__ import annotations

import asyncio
import resource
import signal
import socket
import threading

import pytest

from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure, Head, Headers
from tests.client.http.connecting import KINDS, connect
from tests.client.http.recording import SECOND, RecordingSink, describe, post
from tests.client.http.scripted import Close, Script, scripted

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

both_kinds = pytest.mark.parametrize("kind", KINDS)


@both_kinds
def test_head_and_body_arrive_as_they_were_meant(kind: str):
    with scripted([SECOND]) as server:
        url = f"{server.url}/v1/"
        with connect(kind, url, headers=[("X-API-Key", "k")]) as ask:
            sink = RecordingSink()
            outcome = ask(post(sink, body=b'{"a": 1}'))
        assert describe(outcome, sink) == "200 second"
        assert outcome.sent
        assert outcome.elapsed > 0
        assert list(outcome.headers) == [(b"content-length", b"6")]
        request = server.requests[0]
        assert request.head.startswith(b"POST /v1/math/call HTTP/1.1\r\n")
        assert b"\r\nX-API-Key: k" in request.head
        assert request.body == b'{"a": 1}'


@both_kinds
def test_large_bodies_both_ways(kind: str):
    size = 8 * 2**20
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    with scripted([reply]) as server, connect(kind, server.url) as ask:
        for _ in range(2):
            sink = RecordingSink()
            outcome = ask(post(sink, body=b"x" * size))
            assert describe(outcome, sink) == f"200 {size} bytes"
        assert [len(request.body) for request in server.requests] == [size] * 2
        assert server.connections == 1


class _Refusing:
    """Answers when it has read a little of a request, and reads no more."""

    def __init__(self, *, hangs_up: bool) -> None:
        self._hangs_up = hangs_up
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._refuse, daemon=True)
        self._thread.start()

    def _refuse(self) -> None:
        connected, _ = self._listener.accept()
        with connected:
            connected.settimeout(20)
            connected.recv(1000)
            connected.sendall(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
            if not self._hangs_up:
                self._over.wait(20)

    def close(self) -> None:
        self._over.set()
        self._listener.close()
        self._thread.join(20)


@both_kinds
@pytest.mark.parametrize("hangs_up", [True, False])
def test_an_answer_to_half_a_request_counts(kind: str, hangs_up: bool):
    server = _Refusing(hangs_up=hangs_up)
    with connect(kind, server.url) as ask:
        sink = RecordingSink()
        outcome = ask(post(sink, body=bytes(32 * 2**20)))
        server.close()
    if hangs_up and outcome.failure is not None:
        # A reset can overtake the answer, and then it is gone.
        assert (outcome.failure, outcome.sent) == (Failure.RESET, True)
    else:
        assert describe(outcome, sink) == "413 no"


@both_kinds
def test_a_request_that_nobody_reads_times_out(kind: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with connect(kind, url) as ask:
            outcome = ask(post(RecordingSink(), body=bytes(32 * 2**20), timeout=0.3))
    assert (outcome.failure, outcome.sent) == (Failure.TIMEOUT, True)
    assert "0.3 s" in outcome.detail


class _Deadline(RecordingSink):
    """Limits the silence from its first content on, as a call does."""

    def feed(self, data: bytes) -> bool:
        self.idle_timeout = 0.1
        return super().feed(data)


@both_kinds
def test_silence_can_be_limited_halfway(kind: str):
    with scripted([_CHUNKED + b"4\r\ntask\r\n"]) as server:
        with connect(kind, server.url) as ask:
            sink = _Deadline()
            outcome = ask(post(sink))
        assert describe(outcome, sink) == "STALL"
        assert outcome.status == 200
        assert "0.1 s" in outcome.detail
        assert outcome.elapsed < 10


@both_kinds
def test_many_timeouts_in_a_row_use_a_fresh_connection_each(kind: str):
    with scripted([]) as server, connect(kind, server.url) as ask:
        for timeout in (0.05, 0.1, 0.02):
            sink = RecordingSink()
            assert describe(ask(post(sink, timeout=timeout)), sink) == "TIMEOUT"
        assert server.connections == 3


@both_kinds
def test_connecting_into_nowhere_times_out(kind: str):
    # A listener whose backlog is full drops what comes.
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener:
        address = listener.getsockname()
        fillers = []
        for _ in range(3):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            fillers.append(filler)
        with connect(
            kind, f"http://127.0.0.1:{address[1]}", connect_timeout=0.2
        ) as ask:
            outcome = ask(post(RecordingSink()))
        for filler in fillers:
            filler.close()
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
    assert "timed out" in outcome.detail


@both_kinds
def test_a_name_that_does_not_exist(kind: str):
    with connect(kind, "http://nothing.invalid:80") as ask:
        outcome = ask(post(RecordingSink()))
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
    assert "nothing.invalid:80" in outcome.detail


@both_kinds
def test_a_name_with_several_addresses(kind: str):
    # "localhost" may be ::1 first, where nobody listens.
    with (
        scripted([SECOND]) as server,
        connect(kind, f"http://localhost:{server.port}") as ask,
    ):
        sink = RecordingSink()
        assert describe(ask(post(sink)), sink) == "200 second"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@both_kinds
@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback")
def test_ipv6(kind: str):
    with scripted([SECOND], host="::1") as server, connect(kind, server.url) as ask:
        sink = RecordingSink()
        assert describe(ask(post(sink)), sink) == "200 second"
        assert f"host: [::1]:{server.port}".encode() in server.requests[0].head


@both_kinds
def test_the_limit_of_open_files_is_named(kind: str):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with scripted([closing], [SECOND]) as server, connect(kind, server.url) as ask:
        ask(post(RecordingSink()))
        # Below the limit are only the three standard streams: no number that
        # another thread (the server's) gives back meanwhile is free again.
        limit = 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            outcome = ask(post(RecordingSink()))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
        assert f"limit of {limit} open files" in outcome.detail
        assert "ulimit -n" in outcome.detail
        sink = RecordingSink()
        assert describe(ask(post(sink)), sink) == "200 second"


class _Interrupting(RecordingSink):
    """Is interrupted by Ctrl-C while the reply is read."""

    def start(self, status: int, headers: Headers) -> None:
        super().start(status, headers)
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_closes_the_connection_and_is_raised():
    with scripted([_CHUNKED], [SECOND]) as server:
        pool = ConnectionPool(server.url)
        with pytest.raises(KeyboardInterrupt):
            pool.exchange(post(_Interrupting()))
        server.await_that(lambda: server.ended == 1)
        sink = RecordingSink()
        assert describe(pool.exchange(post(sink)), sink) == "200 second"
        pool.close()


@pytest.mark.parametrize("script", [[], [b"HTTP/1.1 200"], [_CHUNKED + b"1\r\nx"]])
def test_cancellation_closes_the_connection(script: list[bytes]):
    async def cancel(url: str) -> None:
        pool = AsyncConnectionPool(url)
        task = asyncio.create_task(pool.exchange(post(RecordingSink())))
        await asyncio.to_thread(server.await_that, lambda: server.played == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.await_that, lambda: server.ended == 1)
        sink = RecordingSink()
        assert describe(await pool.exchange(post(sink)), sink) == "200 second"
        await pool.aclose()

    with scripted(script, [SECOND]) as server:
        asyncio.run(cancel(server.url))


def test_cancellation_while_connecting_leaves_nothing_behind():
    async def cancel() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pool = AsyncConnectionPool(f"https://127.0.0.1:{listener.getsockname()[1]}")
            task = asyncio.create_task(pool.exchange(post(RecordingSink())))
            connected, _ = await asyncio.to_thread(listener.accept)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            connected.settimeout(20)
            while await asyncio.to_thread(connected.recv, 65536):
                pass  # the handshake's first words, and then the end
            connected.close()
            await pool.aclose()

    asyncio.run(cancel())


def test_another_loop_starts_with_other_connections():
    with scripted([SECOND]) as server:
        pool = AsyncConnectionPool(server.url)
        for number in range(3):
            sink = RecordingSink()
            outcome = asyncio.run(pool.exchange(post(sink)))
            assert describe(outcome, sink) == "200 second"
            assert server.connections == number + 1
        server.await_that(lambda: server.ended == 2)
        asyncio.run(pool.aclose())
        server.await_that(lambda: server.ended == 3)


def test_many_sessions_on_one_loop():
    script = [_CHUNKED, b"4\r\ntask\r\n", b"3\r\nend\r\n", b"0\r\n\r\n"]

    async def session(pool: AsyncConnectionPool) -> set[str]:
        texts = set()
        for _ in range(5):
            sink = RecordingSink(until=b"end")
            texts.add(describe(await pool.exchange(post(sink)), sink))
        return texts

    async def all_sessions(url: str) -> None:
        pool = AsyncConnectionPool(url)
        texts = await asyncio.gather(*(session(pool) for _ in range(50)))
        assert texts == [{"200 taskend"}] * 50
        await pool.aclose()

    with scripted(script) as server:
        asyncio.run(all_sessions(server.url))
        assert len(server.requests) == 250
        assert server.connections <= 50


def test_closing_ends_what_is_under_way():
    async def close(url: str) -> Failure | None:
        pool = AsyncConnectionPool(url)
        # A body that ends where the connection does must not seem whole.
        task = asyncio.create_task(pool.exchange(post(RecordingSink())))
        await asyncio.to_thread(server.await_that, lambda: server.played == 1)
        await asyncio.sleep(0)
        await pool.aclose()
        return (await task).failure

    with scripted([b"HTTP/1.1 200 OK\r\n\r\nhel"]) as server:
        assert asyncio.run(close(server.url)) is Failure.RESET


@both_kinds
def test_get_without_a_body(kind: str):
    with scripted([SECOND]) as server, connect(kind, server.url) as ask:
        sink = RecordingSink()
        outcome = ask(post(sink, head=Head("GET", "/health", ()), body=None))
        assert describe(outcome, sink) == "200 second"
        assert b"content-length" not in server.requests[0].head


@both_kinds
def test_no_secret_in_any_detail(kind: str):
    scripts: list[Script] = [
        [Close()],
        [Close(reset=True)],
        [b"garbage"],
        [b"HTTP/1.1 600 x\r\n\r\n"],
    ]
    for script in scripts:
        with scripted(script) as server:
            headers = [("X-API-Key", "hunter2")]
            with connect(kind, server.url, headers=headers) as ask:
                outcome = ask(post(RecordingSink(), body=b"hunter2"))
            assert outcome.failure in (Failure.RESET, Failure.PROTOCOL)
            assert f"127.0.0.1:{server.port}" in outcome.detail
            assert "hunter2" not in outcome.detail
