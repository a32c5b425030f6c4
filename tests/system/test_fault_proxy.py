"""The fault proxy and the scripted server do what they are told."""

import socket
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from tests.support.proxy.faults import (
    STARTING,
    Answer,
    BreakAfter,
    Chaos,
    Close,
    Corrupt,
    HalfOpen,
    HangUp,
    Point,
    Reset,
    Stall,
    Trickle,
    Truncate,
    redirect,
)
from tests.support.proxy.proxy import FaultProxy
from tests.support.proxy.scripted import (
    OtherOrigin,
    RawReply,
    ScriptedServer,
    Then,
    event_stream,
    html_reply,
    json_reply,
    status_reply,
    stream_reply,
)
from tests.support.servers.process import start_server
from tests.support.servers.raw import open_session

WHOLE = event_stream(
    ("task_id", "7f"), ("chunk", '{"ok":true,"output":{'), ("end", '"blocks":[]}}')
)
EVENTS = WHOLE.split(b"\r\n\r\n")
FIRST = EVENTS[0] + b"\r\n\r\n"
UP_TO_END = b"\r\n\r\n".join(EVENTS[:2]) + b"\r\n\r\n"


@pytest.fixture
def upstream() -> Iterator[ScriptedServer]:
    with ScriptedServer({"*/call": lambda _: stream_reply(WHOLE)}) as server:
        yield server


@pytest.fixture
def proxy(upstream: ScriptedServer) -> Iterator[FaultProxy]:
    with FaultProxy(upstream.url) as made:
        yield made


def connect(server: FaultProxy | ScriptedServer) -> socket.socket:
    address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
    return socket.create_connection(address, timeout=10)


def send(connection: socket.socket, body: bytes = b'{"name": "x"}') -> None:
    connection.sendall(
        b"POST /e/call HTTP/1.1\r\nHost: h\r\nX-Session-ID: s\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )


def read_all(connection: socket.socket) -> tuple[bytes, str]:
    data = b""
    try:
        while piece := connection.recv(65536):
            data += piece
    except ConnectionResetError:
        return data, "reset"
    return data, "close"


def call_once(proxy: FaultProxy) -> tuple[bytes, str]:
    with connect(proxy) as connection:
        send(connection)
        return read_all(connection)


def body_of(data: bytes) -> bytes:
    """Undo the framing, as far as it goes."""
    _, _, rest = data.partition(b"\r\n\r\n")
    body = b""
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        body += rest[: int(size, 16)]
        rest = rest[int(size, 16) + 2 :]
    return body


@pytest.mark.parametrize("kind", [Reset, Close])
@pytest.mark.parametrize("point", Point)
def test_a_break_comes_where_it_is_planned(proxy, upstream, kind, point):
    proxy.plan(faults=[kind(point)])
    data, end = call_once(proxy)
    assert end == kind.__name__.lower()
    body = body_of(data)
    if point in {Point.BEFORE_REQUEST, Point.BEFORE_REPLY}:
        assert data == b""
    elif point is Point.AFTER_HEAD:
        assert data.endswith(b"\r\n\r\n")
        assert body == b""
    elif point is Point.AFTER_TASK_ID:
        assert body == FIRST
    elif point is Point.IN_CHUNK:
        assert body.startswith(FIRST + b"event: chunk\r\n")
        assert len(body) < len(UP_TO_END)
    else:
        assert body == UP_TO_END
    assert len(upstream.requests) == (point is not Point.BEFORE_REQUEST)
    proxy.wait_until_done()
    (exchange,) = proxy.exchanges
    assert exchange.struck
    assert exchange.forwarded is (point is not Point.BEFORE_REQUEST)
    assert exchange.status == (200 if data else None)


def test_what_was_sent_before_a_reset_arrives_even_late(proxy: FaultProxy) -> None:
    proxy.plan(faults=[Reset(Point.AFTER_TASK_ID)])
    with connect(proxy) as connection:
        send(connection)
        proxy.wait_for(1)
        proxy.wait_until_done()
        data, end = read_all(connection)
    assert (body_of(data), end) == (FIRST, "reset")


def test_the_connection_serves_on_after_a_harmless_exchange(proxy: FaultProxy) -> None:
    with httpx.Client() as client:
        replies = [client.post(f"{proxy.url}/e/call", json={}) for _ in range(3)]
    assert [reply.content for reply in replies] == [WHOLE] * 3
    assert (proxy.connections, proxy.struck()) == (1, [])
    assert {request.connection for request in proxy.requests()} == {1}


@pytest.mark.parametrize(
    ("faults", "then", "expected"),
    [
        ([Answer(500), None, Answer(404)], "pass", [500, 200, 404, 200, 200]),
        ([Answer(500), Answer(404)], "forever", [500, 404, 404, 404, 404]),
    ],
)
def test_faults_come_in_order(proxy, faults, then, expected):
    proxy.plan("/call", faults, then)
    with httpx.Client(base_url=proxy.url) as client:
        statuses = [client.post("/e/call").status_code for _ in range(5)]
    assert statuses == expected
    assert proxy.struck() == [Answer(status) for status in statuses if status != 200]


def test_a_plan_may_look_at_the_request(proxy: FaultProxy) -> None:
    proxy.plan("/call", [Answer(418)], when=lambda r: r.task_id is not None)
    with httpx.Client(base_url=proxy.url) as client:
        first = client.post("/e/call", json={"name": "x"})
        second = client.post("/e/call", json={"name": "x", "task_id": "7f"})
        other = client.post("/e/prompt", json={"task_id": "7f"})
    assert (first.status_code, second.status_code, other.status_code) == (200, 418, 404)


def test_an_answer_may_come_before_or_after_the_tool_ran(proxy, upstream):
    proxy.plan("/call", [STARTING, Answer(502, ran=True)])
    with httpx.Client(base_url=proxy.url) as client:
        early = client.post("/e/call")
        assert upstream.requests == []
        late = client.post("/e/call")
    assert early.headers["X-Backend-State"] == "starting"
    assert (early.status_code, late.status_code) == (503, 502)
    assert len(upstream.requests) == 1


def test_a_redirect_names_another_origin_and_sends_nothing(proxy: FaultProxy) -> None:
    with OtherOrigin() as other, httpx.Client(base_url=proxy.url) as client:
        proxy.plan("/call", [redirect(f"{other.url}/e/call")], then="forever")
        reply = client.post("/e/call", headers={"X-API-Key": "k"})
        assert reply.status_code == 307
        assert reply.headers["Location"] == f"{other.url}/e/call"
        other.assert_untouched()
        client.post("/e/call", headers={"X-API-Key": "k"}, follow_redirects=True)
        with pytest.raises(AssertionError, match="reached"):
            other.assert_untouched()


def test_a_trickle_is_whole_in_the_end(proxy: FaultProxy) -> None:
    proxy.plan(faults=[Trickle()])
    reply = httpx.post(f"{proxy.url}/e/call")
    assert reply.content == WHOLE


def test_corruption_overwrites_and_keeps_the_length(proxy: FaultProxy) -> None:
    proxy.plan(faults=[Corrupt()])
    content = httpx.post(f"{proxy.url}/e/call").content
    assert len(content) == len(WHOLE)
    assert b"\xff\xfe" in content
    assert content.startswith(FIRST)


def test_truncation_is_complete_http(proxy: FaultProxy) -> None:
    proxy.plan(faults=[Truncate(Point.BEFORE_END)])
    with httpx.Client(base_url=proxy.url) as client:
        assert client.post("/e/call").content == UP_TO_END
        assert client.post("/e/call").content == WHOLE
    assert proxy.connections == 1


@pytest.mark.parametrize(("reset", "end"), [(True, "reset"), (False, "close")])
def test_a_reply_breaks_after_any_byte(proxy, reset, end):
    proxy.plan(faults=[BreakAfter(count, reset=reset) for count in range(0, 200, 40)])
    for count in range(0, 200, 40):
        data, how = call_once(proxy)
        assert (len(data), how) == (count, end)


def test_a_reply_that_is_shorter_than_the_break_passes(proxy: FaultProxy) -> None:
    proxy.plan(faults=[BreakAfter(10_000)])
    assert httpx.post(f"{proxy.url}/e/call").content == WHOLE
    proxy.wait_until_done()
    assert proxy.struck() == []


@pytest.mark.parametrize("point", [Point.BEFORE_REPLY, Point.AFTER_TASK_ID])
def test_a_stall_lasts_until_it_is_released(proxy: FaultProxy, point: Point) -> None:
    proxy.plan(faults=[Stall(point)])
    with connect(proxy) as connection:
        send(connection)
        proxy.wait_for(1)
        assert not proxy.exchanges[0].done
        threading.Timer(0.05, proxy.release).start()
        data = b""
        while not data.endswith(b"0\r\n\r\n"):
            data += connection.recv(65536)
    assert body_of(data) == WHOLE


def test_a_stall_ends_with_the_client(proxy: FaultProxy) -> None:
    proxy.plan(faults=[Stall(Point.AFTER_HEAD), Stall(Point.BEFORE_REQUEST)])
    for count in (1, 2):
        with connect(proxy) as connection:
            send(connection)
            proxy.wait_for(count)
        proxy.wait_until_done()


def test_a_delay_is_a_stall_with_an_end(proxy: FaultProxy) -> None:
    proxy.plan(faults=[Stall(Point.BEFORE_REQUEST, seconds=0.05)])
    start = time.monotonic()
    assert httpx.post(f"{proxy.url}/e/call").content == WHOLE
    assert time.monotonic() - start >= 0.05


def test_a_half_open_connection_is_silent(proxy: FaultProxy) -> None:
    proxy.plan(faults=[HalfOpen(Point.AFTER_TASK_ID)])
    with connect(proxy) as connection:
        send(connection)
        data = b""
        while not data.endswith(FIRST + b"\r\n"):
            data += connection.recv(65536)
        connection.settimeout(0.05)
        with pytest.raises(TimeoutError):
            connection.recv(1)
        assert proxy.open_connections == 1
    proxy.wait_until_done()


@pytest.mark.parametrize(("reset", "end"), [(True, "reset"), (False, "close")])
def test_an_idle_connection_is_hung_up(proxy, reset, end):
    proxy.plan(faults=[HangUp(0.01, reset=reset)])
    data, how = call_once(proxy)
    assert (body_of(data), how) == (WHOLE, end)


def test_idle_connections_may_be_dropped_at_will(proxy: FaultProxy) -> None:
    with connect(proxy) as idle, connect(proxy) as busy:
        proxy.plan(faults=[Stall(Point.AFTER_TASK_ID)])
        send(busy)
        proxy.wait_for(1)
        while proxy.drop_idle() == 0:
            pass
        assert read_all(idle) == (b"", "close")
        assert proxy.open_connections == 1
        assert proxy.drop_all() == 1
        assert read_all(busy)[1] == "reset"


def test_connections_may_be_refused_for_a_while(proxy: FaultProxy) -> None:
    with proxy.refusing(), pytest.raises(ConnectionRefusedError):
        connect(proxy)
    assert httpx.post(f"{proxy.url}/e/call").content == WHOLE


def test_idle_connections_close_at_their_age(upstream: ScriptedServer) -> None:
    with FaultProxy(upstream.url, idle_close=0.3) as proxy:
        data, end = call_once(proxy)
    assert (body_of(data), end) == (WHOLE, "close")


def test_a_server_that_is_down_resets_the_client() -> None:
    with ScriptedServer({}) as gone:
        pass
    with FaultProxy(gone.url) as proxy:
        assert call_once(proxy) == (b"", "reset")
        assert not proxy.exchanges[0].forwarded


def test_replies_that_are_no_streams_break_as_well(upstream: ScriptedServer) -> None:
    points = [Point.AFTER_HEAD, Point.IN_CHUNK, Point.BEFORE_END]
    whole = b'{"detail": "Not Found"}'
    with FaultProxy(upstream.url) as proxy:
        proxy.plan("", [Close(point) for point in points])
        for expected in (b"", whole[: len(whole) // 2], whole[:-1]):
            with connect(proxy) as connection:
                connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
                data, _ = read_all(connection)
            assert data.partition(b"\r\n\r\n")[2] == expected


def test_chance_is_the_same_for_the_same_seed(proxy: FaultProxy) -> None:
    outcomes = []
    for _ in range(2):
        proxy.clear()
        proxy.chaos(Chaos(11, 0.3, [Answer(500), Answer(502)]))
        with httpx.Client(base_url=proxy.url) as client:
            outcomes.append([client.post("/e/call").status_code for _ in range(30)])
    assert outcomes[0] == outcomes[1]
    assert set(outcomes[0]) == {200, 500, 502}


def test_requests_are_recorded_as_they_came(proxy: FaultProxy) -> None:
    body = {"name": "x", "input": {}, "task_id": "7f"}
    httpx.post(f"{proxy.url}/e/call?q=1", json=body, headers={"X-Session-ID": "abc"})
    (request,) = proxy.requests("/call")
    assert (request.method, request.target) == ("POST", "/e/call?q=1")
    assert (request.session_id, request.task_id) == ("abc", "7f")
    assert request.json == body
    assert request.header("content-type") == "application/json"


def test_a_real_server_runs_the_tool_once_when_its_reply_is_lost(server, fault_proxy):
    fault_proxy.plan(faults=[Reset(Point.BEFORE_REPLY), Reset(Point.AFTER_TASK_ID)])
    with open_session(server) as session:
        session.client.base_url = httpx.URL(fault_proxy.url)
        for _ in range(2):
            with pytest.raises(httpx.TransportError):
                session.call("count")
        assert session.result("count")["output"]["blocks"][0]["text"] == "3"
        assert server.runs("count", session=session.session_id) == 3


def test_the_proxy_outlives_a_restart_of_the_server() -> None:
    with (
        start_server("ors-sdk-0.1.0", environments=["Contract"]) as server,
        FaultProxy(server.base_url) as proxy,
        httpx.Client(base_url=proxy.url) as client,
    ):
        assert client.get("/health").json() == {"status": "ok"}
        server.kill()
        with pytest.raises(httpx.TransportError):
            client.get("/health")
        server.start()
        assert client.get("/health").json() == {"status": "ok"}


def test_handlers_are_found_by_method_path_and_ending() -> None:
    handlers = {
        "POST /x": lambda _: json_reply("post"),
        "/x": lambda _: json_reply("any"),
        "*/tools": lambda _: json_reply("tools"),
    }
    with ScriptedServer(handlers) as server, httpx.Client(base_url=server.url) as c:
        assert c.post("/x").json() == "post"
        assert c.get("/x").json() == "any"
        assert c.get("/deep/down/tools").json() == "tools"
        assert c.get("/nowhere").status_code == 404
        assert server.connections == 1
    assert [request.method for request in server.requests] == [
        *("POST", "GET", "GET", "GET")
    ]


def test_replies_of_every_kind() -> None:
    events = event_stream(("task_id", "a"), ("error", "one\n two"))
    replies = [
        html_reply("<p>"),
        status_reply(307, ("Location", "/elsewhere")),
        stream_reply(events[:7], events[7:]),
    ]
    with ScriptedServer({"/": lambda _: replies.pop(0)}) as server:
        html, redirect, stream = (httpx.get(server.url) for _ in range(3))
    assert (html.text, html.headers["Content-Type"]) == ("<p>", "text/html")
    assert (redirect.status_code, redirect.headers["Location"]) == (307, "/elsewhere")
    assert stream.content == events


@pytest.mark.parametrize("then", ["close", "reset", "hold"])
def test_a_connection_ends_as_told(then: Then) -> None:
    reply = RawReply([b"not HTTP at all"], then)
    handlers = {"/": lambda _: reply}
    with ScriptedServer(handlers) as server, connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        assert connection.recv(100) == b"not HTTP at all"
        connection.settimeout(10 if then != "hold" else 0.05)
        if then == "close":
            assert connection.recv(1) == b""
        else:
            expected = ConnectionResetError if then == "reset" else TimeoutError
            with pytest.raises(expected):
                connection.recv(1)


def test_an_endless_reply_stops_with_its_reader() -> None:
    def endless() -> RawReply:
        return RawReply(iter(lambda: b"x" * 65536, b""), "close")

    handlers = {"/": lambda _: endless()}
    with ScriptedServer(handlers) as server, connect(server) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        server.wait_for(1)
        assert connection.recv(10, socket.MSG_WAITALL) == b"x" * 10
