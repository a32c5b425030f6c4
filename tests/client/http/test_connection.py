"""One exchange over our connections: sizes, timeouts, cancellation, clear failures."""

import asyncio
import resource
import signal
import socket
import threading

import pytest

from ors_gym.client.http._async_pool import AsyncConnectionPool
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure, Head, Headers, Limits
from tests.client.http.exchanges import (
    CHUNKED,
    SECOND,
    CountingSink,
    RecordingSink,
    ask,
    ask_async,
    connect,
    connected,
    describe,
    post,
)
from tests.client.http.raw_server import Close, Drip, Repeat, Script, raw_server


def test_head_and_body_arrive_as_they_were_meant(kind: str):
    with raw_server([SECOND]) as server:
        url = f"{server.url}/v1/"
        with connect(kind, url, headers=[("X-API-Key", "k")]) as exchange:
            sink = RecordingSink()
            outcome = exchange(post(sink, body=b'{"a": 1}'))
        assert describe(outcome, sink) == "200 second"
        assert outcome.sent
        assert outcome.elapsed > 0
        assert list(outcome.headers) == [(b"content-length", b"6")]
        request = server.requests[0]
        assert request.head.startswith(b"POST /v1/math/call HTTP/1.1\r\n")
        assert b"\r\nX-API-Key: k" in request.head
        assert request.body == b'{"a": 1}'


def test_get_without_a_body(kind: str):
    with connected(kind, [SECOND]) as (server, exchange):
        head = Head("GET", "/health", ())
        assert ask(exchange, head=head, body=None) == "200 second"
        assert b"content-length" not in server.requests[0].head


def test_large_bodies_both_ways(kind: str):
    size = 8 * 2**20
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    with connected(kind, [reply]) as (server, exchange):
        for _ in range(2):
            assert ask(exchange, body=b"x" * size) == f"200 {size} bytes"
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


@pytest.mark.parametrize("hangs_up", [True, False])
def test_an_answer_to_half_a_request_counts(kind: str, hangs_up: bool):
    server = _Refusing(hangs_up=hangs_up)
    with connect(kind, server.url) as exchange:
        sink = RecordingSink()
        outcome = exchange(post(sink, body=bytes(32 * 2**20)))
        server.close()
    if hangs_up and outcome.failure is not None:
        # A reset can overtake the answer, and then it is gone.
        assert (outcome.failure, outcome.sent) == (Failure.RESET, True)
    else:
        assert describe(outcome, sink) == "413 no"


def test_a_request_that_nobody_reads_times_out(kind: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        with connect(kind, url) as exchange:
            send = post(RecordingSink(), body=bytes(32 * 2**20), timeout=1.0)
            outcome = exchange(send)
    assert (outcome.failure, outcome.sent) == (Failure.TIMEOUT, True)
    assert "1 s" in outcome.detail


class _Impatient(RecordingSink):
    """Limits the silence from its first content on, as a call does."""

    def feed(self, data: bytes) -> bool:
        self.idle_timeout = 0.1
        return super().feed(data)


def test_silence_can_be_limited_halfway(kind: str):
    with connected(kind, [CHUNKED + b"4\r\ntask\r\n"]) as (_, exchange):
        sink = _Impatient()
        outcome = exchange(post(sink))
        assert describe(outcome, sink) == "STALL"
        assert outcome.status == 200
        assert "0.1 s" in outcome.detail
        assert outcome.elapsed < 10


_ENDLESS = 2**40
_FLOODS: dict[str, Script] = {
    "content": [b"HTTP/1.1 200 OK\r\n\r\n", Repeat(b"x" * 2**16, _ENDLESS)],
    "tiny chunks": [CHUNKED, Repeat(b"1\r\nx\r\n", _ENDLESS)],
    "comments": [CHUNKED, Repeat(b"a\r\n: ping\r\n\r\n\r\n", _ENDLESS)],
    "drips": [CHUNKED, Drip(b"1\r\nx\r\n" * 2**16, 0.001)],
}


@pytest.mark.parametrize("name", list(_FLOODS))
def test_the_deadline_is_kept_while_bytes_arrive(kind: str, name: str):
    limits = Limits(reply_bytes=_ENDLESS, body_bytes=_ENDLESS)
    with connected(kind, _FLOODS[name], limits=limits) as (_, exchange):
        outcome = exchange(post(CountingSink(), timeout=0.3))
    assert (outcome.failure, outcome.status) == (Failure.TIMEOUT, 200)


def test_waiting_for_an_old_reply_to_end_takes_no_more_than_the_deadline(kind: str):
    first: Script = [CHUNKED, b"4\r\ntask\r\n", Drip(b"1\r\nx\r\n" * 10, 0.2)]
    with connected(kind, first, []) as (server, exchange):
        assert ask(exchange, until=b"task") == "200 task"
        outcome = exchange(post(RecordingSink(), timeout=1.0))
        assert outcome.failure is Failure.TIMEOUT
        assert 1.0 <= outcome.elapsed < 2.0
        assert server.connections == 2


def test_many_timeouts_in_a_row_use_a_fresh_connection_each(kind: str):
    with connected(kind, []) as (server, exchange):
        for timeout in (0.05, 0.1, 0.02):
            assert ask(exchange, timeout=timeout) == "TIMEOUT"
        assert server.connections == 3


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
        url = f"http://127.0.0.1:{address[1]}"
        with connect(kind, url, connect_timeout=0.2) as exchange:
            outcome = exchange(post(RecordingSink()))
        for filler in fillers:
            filler.close()
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
    assert "timed out" in outcome.detail


def test_a_name_that_does_not_exist(kind: str):
    with connect(kind, "http://nothing.invalid:80") as exchange:
        outcome = exchange(post(RecordingSink()))
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
    assert "nothing.invalid:80" in outcome.detail


def test_a_refused_port_was_not_sent_to(kind: str):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{unused.getsockname()[1]}"
        with connect(kind, f"http://{place}") as exchange:
            outcome = exchange(post(RecordingSink()))
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
    assert place in outcome.detail


@pytest.mark.parametrize("name", ["localhost", "key.stealer.localhost", "LocalHost"])
def test_localhost_is_this_machine_whatever_a_resolver_says(kind, name, monkeypatch):
    monkeypatch.setattr(socket, "getaddrinfo", None)
    # ::1 is tried first, where nobody listens.
    with (
        raw_server([SECOND]) as server,
        connect(kind, f"http://{name}:{server.port}") as exchange,
    ):
        assert ask(exchange) == "200 second"


def test_a_name_with_several_addresses(kind: str, monkeypatch):
    with raw_server([SECOND]) as server:
        found = [
            (family, socket.SOCK_STREAM, 6, "", (host, server.port))
            for family, host in (
                (socket.AF_INET6, "::1"),
                (socket.AF_INET, "127.0.0.1"),
            )
        ]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
        with connect(kind, f"http://host.test:{server.port}") as exchange:
            assert ask(exchange) == "200 second"


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not _has_ipv6(), reason="no IPv6 loopback")
def test_ipv6(kind: str):
    with connected(kind, [SECOND], host="::1") as (server, exchange):
        assert ask(exchange) == "200 second"
        assert f"host: [::1]:{server.port}".encode() in server.requests[0].head


def test_the_limit_of_open_files_is_named(kind: str):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    closing = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"
    with connected(kind, [closing], [SECOND]) as (_, exchange):
        ask(exchange)
        # Below the limit are only the three standard streams: no number that
        # another thread (the server's) gives back meanwhile is free again.
        limit = 3
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        try:
            outcome = exchange(post(RecordingSink()))
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)
        assert f"limit of {limit} open files" in outcome.detail
        assert "ulimit -n" in outcome.detail
        assert ask(exchange) == "200 second"


class _Interrupting(RecordingSink):
    """Is interrupted by Ctrl-C while the reply is read."""

    def start(self, status: int, headers: Headers) -> None:
        super().start(status, headers)
        signal.raise_signal(signal.SIGINT)


def test_ctrl_c_closes_the_connection_and_is_raised():
    with raw_server([CHUNKED], [SECOND]) as server:
        pool = ConnectionPool(server.url)
        with pytest.raises(KeyboardInterrupt):
            pool.exchange(post(_Interrupting()))
        server.await_ended(1)
        assert ask(pool.exchange) == "200 second"
        pool.close()


@pytest.mark.parametrize("script", [[], [b"HTTP/1.1 200"], [CHUNKED + b"1\r\nx"]])
def test_cancellation_closes_the_connection(script: list[bytes]):
    async def cancel(url: str) -> None:
        pool = AsyncConnectionPool(url)
        task = asyncio.create_task(ask_async(pool))
        await asyncio.to_thread(server.await_that, lambda: server.played == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(server.await_ended, 1)
        assert await ask_async(pool) == "200 second"
        await pool.aclose()

    with raw_server(script, [SECOND]) as server:
        asyncio.run(cancel(server.url))


def test_cancellation_while_connecting_leaves_nothing_behind():
    async def cancel() -> None:
        with socket.create_server(("127.0.0.1", 0)) as listener:
            pool = AsyncConnectionPool(f"https://127.0.0.1:{listener.getsockname()[1]}")
            task = asyncio.create_task(ask_async(pool))
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


def test_closing_ends_what_is_under_way():
    async def close(url: str) -> str:
        pool = AsyncConnectionPool(url)
        # A body that ends where the connection does must not seem whole.
        task = asyncio.create_task(ask_async(pool))
        await asyncio.to_thread(server.await_that, lambda: server.played == 1)
        await asyncio.sleep(0)
        await pool.aclose()
        return await task

    with raw_server([b"HTTP/1.1 200 OK\r\n\r\nhel"]) as server:
        assert asyncio.run(close(server.url)) == "RESET"


@pytest.mark.parametrize(
    "script",
    [[Close()], [Close(reset=True)], [b"garbage"], [b"HTTP/1.1 600 x\r\n\r\n"]],
    ids=repr,
)
def test_no_secret_in_any_detail(kind: str, script: Script):
    headers = [("X-API-Key", "hunter2")]
    with connected(kind, script, headers=headers) as (server, exchange):
        outcome = exchange(post(RecordingSink(), body=b"hunter2"))
        assert outcome.failure in (Failure.RESET, Failure.PROTOCOL)
        assert f"127.0.0.1:{server.port}" in outcome.detail
        assert "hunter2" not in outcome.detail
