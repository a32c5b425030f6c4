"""Exchanges over a client of httpx2 or httpx."""

import asyncio
import contextlib
from contextlib import aclosing, closing
from typing import Any

import pytest

import ors_gym
from ors_gym import ORSEnv
from ors_gym.client import AsyncHTTPTransport, HTTPTransport
from ors_gym.client._connections import AsyncHttpxConnections, HttpxConnections
from ors_gym.client._settings import make_settings
from ors_gym.env import TaskEnv
from ors_gym.protocol._exchange import Failure, Limits, Outcome, Send
from tests.client.http.exchanges import (
    CHUNKED,
    SECOND,
    CountingSink,
    RecordingSink,
    describe,
    post,
)
from tests.client.http.raw_server import Close, Drip, Repeat, Script, raw_server
from tests.support.processes import run_python
from tests.support.proxy.faults import Point, Stall
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer

_HALF = [CHUNKED, b"4\r\ntask\r\n"]


def exchange(
    kind: str, url: str, send: Send, *, transport: Any = None, **options: Any
) -> Outcome:
    settings = make_settings(url, **options)
    if kind == "blocking":
        with closing(HttpxConnections(settings, transport=transport)) as connections:
            return connections.exchange(send)

    async def exchange_on_loop() -> Outcome:
        connections = AsyncHttpxConnections(settings, transport=transport)
        async with aclosing(connections):
            return await connections.exchange(send)

    return asyncio.run(exchange_on_loop())


def own_transport(kind: str, library: Any) -> Any:
    """Return a transport as a user of the library makes it."""
    made = "HTTPTransport" if kind == "blocking" else "AsyncHTTPTransport"
    return getattr(library, made)()


def test_exchange(kind: str, library: Any):
    with raw_server([SECOND]) as server:
        sink = RecordingSink()
        outcome = exchange(
            *(kind, f"{server.url}/v1", post(sink)),
            transport=own_transport(kind, library),
            api_key="k",
        )
        assert describe(outcome, sink) == "200 second"
        assert (b"content-length", b"6") in outcome.headers
        head = server.requests[0].head.lower()
        assert head.startswith(b"post /v1/math/call http/1.1\r\n")
        assert b"\r\nx-api-key: k" in head
        assert head.count(b"\r\naccept-encoding: identity") == 1


def test_asks_to_close_after_a_call_only(kind: str):
    with raw_server([SECOND]) as server:
        for reuse_within in (3.0, 50.0):
            exchange(kind, server.url, post(RecordingSink(), reuse_within=reuse_within))
        heads = [request.head.lower() for request in server.requests]
        assert [b"connection: close" in head for head in heads] == [True, False]


class _Silence(RecordingSink):
    """Limits the silence from its first content on, as a call does."""

    silence = 0.2

    def feed(self, data: bytes) -> bool:
        self.idle_timeout = self.silence
        return super().feed(data)


class _LongSilence(_Silence):
    """Allows more silence than a busy machine makes between two bytes."""

    silence = 1.0


@pytest.mark.parametrize(
    ("script", "sink", "timeout", "expected"),
    [
        (_HALF, RecordingSink(until=b"task"), 20.0, "200 task"),
        (_HALF, _Silence(), 20.0, "STALL"),
        (_HALF, _Silence(), 0.1, "TIMEOUT"),
        ([CHUNKED, Drip(b"1\r\nx\r\n" * 100, 0.02)], _LongSilence(), 1.2, "TIMEOUT"),
        ([CHUNKED], RecordingSink(), 0.2, "TIMEOUT"),
        ([], RecordingSink(), 0.2, "TIMEOUT"),
        ([], RecordingSink(idle_timeout=0.1), 20.0, "STALL"),
        ([*_HALF, Close()], RecordingSink(), 20.0, "RESET"),
        ([Close()], RecordingSink(), 20.0, "RESET"),
        ([Close(reset=True)], RecordingSink(), 20.0, "RESET"),
        ([b"garbage\r\n\r\n"], RecordingSink(), 20.0, "PROTOCOL"),
        ([b"HTTP/1.1 999 x\r\n\r\n"], RecordingSink(), 20.0, "PROTOCOL"),
        ([CHUNKED, Repeat(b"10000\r\n" + b"x" * 2**16 + b"\r\n", 32)],
         RecordingSink(), 20.0, "LIMIT"),
        ([b"HTTP/1.1 307 x\r\nLocation: /y\r\nContent-Length: 0\r\n\r\n"],
         RecordingSink(), 20.0, "307"),
        ([b"HTTP/1.1 204 x\r\n\r\n"], RecordingSink(), 20.0, "204"),
        ([b"HTTP/1.1 200 x\r\nContent-Encoding: br\r\nContent-Length: 1\r\n\r\nx"],
         RecordingSink(), 20.0, "PROTOCOL"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "library",
    ["httpx2", pytest.param("httpx", marks=pytest.mark.slow)],
    indirect=True,
)
def test_outcomes(kind, library, script, sink, timeout, expected):
    sink.__init__(until=sink._until, idle_timeout=sink.idle_timeout)
    transport = own_transport(kind, library)
    with raw_server(script) as server:
        send = post(sink, timeout=timeout, reuse_within=3.0)
        limits = Limits(body_bytes=2**20)
        outcome = exchange(kind, server.url, send, transport=transport, limits=limits)
    assert describe(outcome, sink) == expected
    assert outcome.sent
    assert outcome.elapsed > 0


def test_that_finds_nobody_has_not_sent(kind: str, library: Any):
    send = post(RecordingSink())
    transport = own_transport(kind, library)
    outcome = exchange(kind, "http://127.0.0.1:1", send, transport=transport)
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)


def test_over_a_mock(kind: str, library: Any):
    def answer(request: Any) -> Any:
        return library.Response(200, content=request.content * 2)

    transport = library.MockTransport(answer)
    sink = RecordingSink()
    send = post(sink, body=b"ab")
    outcome = exchange(kind, "http://nowhere", send, transport=transport)
    assert describe(outcome, sink) == "200 abab"


def test_the_user_s_own_client_stays_open(library: Any):
    with raw_server([SECOND]) as server, library.Client() as client:
        transport = HttpxConnections(make_settings(server.url), client)
        transport.close()
        sink = RecordingSink()
        assert describe(transport.exchange(post(sink)), sink) == "200 second"
        assert client.get(server.url).text == "second"


@pytest.mark.parametrize(
    "flood",
    [
        [Repeat(b"HTTP/1.1 103 Early Hints\r\n\r\n", 2**40)],
        [CHUNKED, Repeat(b"1\r\nx\r\n", 2**40)],
        [CHUNKED, Drip(b"1\r\nx\r\n" * 2**16, 0.001)],
    ],
    ids=["interim replies", "tiny chunks", "drips"],
)
def test_the_deadline_is_kept_while_bytes_arrive(kind: str, flood: Script):
    limits = Limits(reply_bytes=2**40, body_bytes=2**40)
    with raw_server(flood) as server:
        send = post(CountingSink(), timeout=0.3)
        outcome = exchange(kind, server.url, send, limits=limits)
    assert outcome.failure is Failure.TIMEOUT


def test_reads_of_the_user_s_own_are_not_limited(library: Any):
    with raw_server([SECOND]) as server, library.Client() as client:
        connections = HttpxConnections(make_settings(server.url), client)
        for sink in (RecordingSink(), RecordingSink(idle_timeout=5.0)):
            assert client.get(server.url).text == "second"
            assert describe(connections.exchange(post(sink)), sink) == "200 second"
        assert server.connections == 1


def test_a_failure_says_whether_its_connection_was_used_before(kind: str):
    sends = [post(RecordingSink()) for _ in range(3)]

    async def ask(url: str) -> list[Outcome]:
        async with aclosing(AsyncHttpxConnections(make_settings(url))) as connections:
            return [await connections.exchange(send) for send in sends]

    with raw_server([SECOND], [Close(reset=True)]) as server:
        if kind == "async":
            _, *broken = asyncio.run(ask(server.url))
        else:
            with closing(HttpxConnections(make_settings(server.url))) as connections:
                _, *broken = [connections.exchange(send) for send in sends]
    assert [outcome.failure for outcome in broken] == [Failure.RESET, Failure.RESET]
    assert [outcome.reused for outcome in broken] == [True, False]


def test_through_a_proxy(monkeypatch: pytest.MonkeyPatch):
    with raw_server([SECOND]) as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        sink = RecordingSink()
        url = "http://server.invalid:80"
        outcome = exchange("blocking", url, post(sink), trust_env=True)
        assert describe(outcome, sink) == "200 second"
        line = proxy.requests[0].head.split(b"\r\n")[0]
        assert line == b"POST http://server.invalid/math/call HTTP/1.1"


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_proxy_sees_what_is_sent_to_this_machine(
    server: RunningServer, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> list[str]:
        async with ors_gym.AsyncORSClient(url, api_key="k3y", trust_env=True) as client:
            return await client.list_environments()

    with raw_server([SECOND]) as proxy:
        for other in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(other, raising=False)
        monkeypatch.setenv(name, proxy.url)
        for url in (server.base_url, f"http://my.localhost:{server.port}"):
            with ors_gym.ORSClient(url, api_key="k3y", trust_env=True) as client:
                assert client.list_environments() == asyncio.run(ask())
        assert not proxy.requests


class _Brought:
    """What a user may bring of a library, as arguments of our clients."""

    def __init__(self, library: Any) -> None:
        # A class of the user's own, and our transport under the library's client.
        class Client(library.Client):  # type: ignore[misc]
            pass

        class Transport(library.AsyncBaseTransport):  # type: ignore[misc]
            def __init__(self) -> None:
                self.handle_async_request = inner.handle_async_request
                self.aclose = inner.aclose

        inner = library.AsyncHTTPTransport()
        self.blocking: list[dict[str, Any]] = [
            {"client": Client()},
            {"client": library.Client(transport=HTTPTransport())},
            {"transport": library.HTTPTransport()},
        ]
        self.asynchronous: list[dict[str, Any]] = [
            {"client": library.AsyncClient()},
            {"client": library.AsyncClient(transport=AsyncHTTPTransport())},
            {"transport": Transport()},
        ]


def test_episodes_over_what_a_user_brings(server: RunningServer, library: Any) -> None:
    brought = _Brought(library)
    sum_of_2 = ("submit", {"answer": "4"})

    async def play(**own: Any) -> float | None:
        async with (
            ors_gym.AsyncORSClient(server.base_url, **own) as client,
            client.session("Contract", split="train", index=2) as session,
        ):
            await session.get_prompt()
            reward = (await session.call_tool(*sum_of_2))["reward"]
            assert isinstance(reward, float)
        if "client" in own:
            await own["client"].aclose()
        return reward

    for own in brought.blocking:
        with contextlib.ExitStack() as stack:
            stack.enter_context(own.get("client", contextlib.nullcontext()))
            env = ORSEnv("Contract", client_options=own, base_url=server.base_url)
            stack.enter_context(closing(env))
            env.reset(seed=2)
            assert env.step({"tool": "submit", "input": {"answer": "4"}})[1] == 1.0
    assert [asyncio.run(play(**own)) for own in brought.asynchronous] == [1.0] * 3
    server.wait_for("teardown", 6)
    assert server.rewards(tool="submit") == [1.0] * 6


def test_closing_waits_for_what_the_background_does_over_a_user_s_client(
    fault_proxy: FaultProxy, kind: str, library: Any
) -> None:
    """The user closes the client of the library next, with what it still does."""

    async def play() -> None:
        async with (
            library.AsyncClient() as own,
            ors_gym.AsyncORSClient(fault_proxy.url, client=own) as client,
            client.session("Contract", split="train", index=0) as session,
        ):
            await session.call_tool("count", {})

    fault_proxy.plan("/delete", [Stall(Point.BEFORE_REPLY, seconds=0.2)])
    if kind == "async":
        asyncio.run(play())
    else:
        # Not set up, as far as the client knows: the background deletes the session.
        with (
            library.Client() as own,
            ors_gym.ORSClient(fault_proxy.url, client=own) as client,
            client.session("Contract", split="train", index=0) as session,
        ):
            session.call_tool("count", {})
    assert deletes(fault_proxy) == [200]


def test_closing_waits_for_what_is_opened_ahead_over_a_user_s_client(
    fault_proxy: FaultProxy, library: Any
) -> None:
    fault_proxy.plan("/create", [Stall(Point.BEFORE_REPLY, seconds=0.2)])
    with (
        library.Client() as own,
        ors_gym.ORSClient(fault_proxy.url, client=own) as client,
        TaskEnv("Contract", client=client, split="train") as env,
    ):
        env.open_ahead(0).discard()
    assert deletes(fault_proxy) == [200]


def test_an_error_of_a_user_s_transport_sends_nothing_twice(library: Any) -> None:
    sent = []

    def fail(request: Any) -> Any:
        sent.append(request)
        raise RuntimeError("a bug of the user's")

    transport = library.MockTransport(fail)
    with (
        ors_gym.ORSClient("http://127.0.0.1:1", transport=transport) as client,
        pytest.raises(RuntimeError, match="a bug"),
    ):
        client.run_in_background(client.catalog.splits("math")).result(20)
    assert len(sent) == 1


def deletes(proxy: FaultProxy) -> list[int | None]:
    """Return how the deletes were answered; None stands for one that was not."""
    return [
        exchange.status
        for exchange in proxy.exchanges
        if exchange.request.path.endswith("/delete")
    ]


def test_errors_of_the_library_are_ours(library: Any) -> None:
    with (
        library.Client() as own,
        ors_gym.ORSClient("http://127.0.0.1:1", client=own, timeout=0.01) as client,
        pytest.raises(ors_gym.ConnectionFailedError, match="cannot connect") as caught,
    ):
        client.list_environments()
    assert caught.value.__cause__ is None


def test_neither_library_is_imported_before_it_is_needed() -> None:
    done = run_python(
        "-c",
        "import ors_gym.env, ors_gym.vector, ors_gym.evaluation, sys\n"
        "ors_gym.ORSClient('http://127.0.0.1:1').close()\n"
        "assert not {'httpx', 'httpx2', 'httpcore2'} & set(sys.modules)\n"
        "ors_gym.ORSClient('http://h:1', trust_env=True).close()\n"
        "assert {'httpx', 'httpx2'} & set(sys.modules) == {'httpx2'}",
        environment={"HTTP_PROXY": "http://127.0.0.1:1", "NO_PROXY": ""},
    )
    assert (done.returncode, done.stderr) == (0, "")
