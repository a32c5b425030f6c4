"""TLS: verified, one shared context, and a body that only its sender can end."""

import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trustme

from ors_gym.client.http._address import default_ssl_context, refuse_cuts
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure
from tests.client.http.exchanges import (
    CHUNKED,
    SECOND,
    RecordingSink,
    ask,
    connect,
    connected,
    describe,
    post,
)
from tests.client.http.raw_server import Close, Script, raw_server


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = refuse_cuts(ssl.create_default_context())
    authority.configure_trust(context)
    return context


@pytest.fixture
def connected_securely(
    kind: str, authority: trustme.CA, trusting: ssl.SSLContext
) -> Callable[..., Any]:
    """Like `connected`, over TLS to a server with a certificate for a name."""

    def connect(
        *scripts: Script,
        name: str = "127.0.0.1",
        trusted: bool = True,
        version: ssl.TLSVersion = ssl.TLSVersion.MAXIMUM_SUPPORTED,
    ) -> Any:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.maximum_version = version
        authority.issue_cert(name).configure_cert(context)
        ssl_context = trusting if trusted else None
        return connected(kind, *scripts, context=context, ssl_context=ssl_context)

    return connect


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_calls_in_a_row_share_a_verified_connection(version, connected_securely):
    script = [CHUNKED, b"3\r\nend\r\n", b"0\r\n\r\n"]
    with connected_securely(script, version=version) as (server, exchange):
        for _ in range(5):
            assert ask(exchange, until=b"end") == "200 end"
        assert server.connections == 1


def test_large_bodies_both_ways(connected_securely):
    size = 3 * 2**20
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    with connected_securely([reply]) as (server, exchange):
        for _ in range(2):
            assert ask(exchange, body=b"x" * size) == f"200 {size} bytes"
        assert [len(request.body) for request in server.requests] == [size] * 2
        assert server.connections == 1


@pytest.mark.parametrize(
    ("name", "trusted", "word"),
    [("localhost", True, "mismatch"), ("127.0.0.1", False, "certificate")],
    ids=["another host name", "an unknown authority"],
)
def test_a_certificate_that_is_not_the_server_s(
    name: str, trusted: bool, word: str, connected_securely
):
    secured = connected_securely([SECOND], name=name, trusted=trusted)
    with secured as (server, exchange):
        outcome = exchange(post(RecordingSink()))
        assert (outcome.failure, outcome.sent) == (Failure.TLS, False)
        assert word in outcome.detail
        assert not server.requests


def test_a_server_that_speaks_no_tls(kind: str):
    with raw_server([SECOND]) as server:
        url = server.url.replace("http://", "https://")
        with connect(kind, url, connect_timeout=0.3) as exchange:
            outcome = exchange(post(RecordingSink()))
    # It waits for a request that never comes.
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)


def test_a_server_that_answers_the_handshake_in_clear(kind: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with connect(kind, url, connect_timeout=5.0) as exchange:
            server = threading.Thread(target=_answer_in_clear, args=(listener,))
            server.start()
            outcome = exchange(post(RecordingSink()))
            server.join(20)
    assert (outcome.failure, outcome.sent) == (Failure.TLS, False)
    assert outcome.detail.endswith("; does the server speak plain http?")


def _answer_in_clear(listener: socket.socket) -> None:
    connected, _ = listener.accept()
    with connected:
        connected.settimeout(10)
        connected.recv(65536)
        connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


def test_a_body_cut_without_a_goodbye_is_not_whole(connected_securely):
    # Anybody on the way can cut a connection; only the server can sign its end.
    script = [b"HTTP/1.1 200 OK\r\n\r\nhel", Close()]
    with connected_securely(script) as (_, exchange):
        assert ask(exchange) == "RESET"


def test_timeouts_hold_over_tls(connected_securely):
    with connected_securely([CHUNKED]) as (_, exchange):
        assert ask(exchange, timeout=0.3) == "TIMEOUT"
        sink = RecordingSink(idle_timeout=0.1)
        assert describe(exchange(post(sink)), sink) == "STALL"


def test_a_close_in_between_is_seen(connected_securely):
    script = [SECOND, Close()]
    with connected_securely(script) as (server, exchange):
        for number in (1, 2):
            assert ask(exchange) == "200 second"
            server.await_ended(number)
        assert server.connections == 2


def test_one_context_for_all():
    first = ConnectionPool("https://127.0.0.1:1")
    second = ConnectionPool("https://[::1]:1")
    assert first._ssl_context is second._ssl_context is default_ssl_context()
    assert default_ssl_context().verify_mode is ssl.CERT_REQUIRED
    assert default_ssl_context().check_hostname
