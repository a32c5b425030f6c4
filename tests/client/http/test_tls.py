"""TLS: verified, one shared context, and a body that only its sender can end."""

from __future__ import annotations

import socket
import ssl
import threading

import pytest
import trustme

from ors_gym.client.http._address import default_ssl_context
from ors_gym.client.http._pool import ConnectionPool
from ors_gym.protocol._exchange import Failure
from tests.client.http.connecting import KINDS, connect
from tests.client.http.recording import SECOND, RecordingSink, describe, post
from tests.client.http.scripted import Close, Script, scripted

_CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

both_kinds = pytest.mark.parametrize("kind", KINDS)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(scope="module")
def trusting(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def _serving(authority: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names).configure_cert(context)
    return context


@both_kinds
@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_calls_in_a_row_share_a_verified_connection(
    kind: str, version: ssl.TLSVersion, authority: trustme.CA, trusting: ssl.SSLContext
):
    context = _serving(authority, "127.0.0.1")
    context.maximum_version = version
    script = [_CHUNKED, b"3\r\nend\r\n", b"0\r\n\r\n"]
    with scripted(script, context=context) as server:
        with connect(kind, server.url, ssl_context=trusting) as ask:
            for _ in range(5):
                sink = RecordingSink(until=b"end")
                assert describe(ask(post(sink)), sink) == "200 end"
        assert server.connections == 1


@both_kinds
def test_large_bodies_both_ways(
    kind: str, authority: trustme.CA, trusting: ssl.SSLContext
):
    size = 3 * 2**20
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % size + bytes(size)
    with scripted([reply], context=_serving(authority, "127.0.0.1")) as server:
        with connect(kind, server.url, ssl_context=trusting) as ask:
            for _ in range(2):
                sink = RecordingSink()
                outcome = ask(post(sink, body=b"x" * size))
                assert describe(outcome, sink) == f"200 {size} bytes"
        assert [len(request.body) for request in server.requests] == [size] * 2
        assert server.connections == 1


@both_kinds
@pytest.mark.parametrize(
    ("names", "trusted", "word"),
    [(["localhost"], True, "mismatch"), (["127.0.0.1"], False, "certificate")],
    ids=["another host name", "an unknown authority"],
)
def test_a_certificate_that_is_not_the_server_s(
    kind: str,
    names: list[str],
    trusted: bool,
    word: str,
    authority: trustme.CA,
    trusting: ssl.SSLContext,
):
    with scripted([SECOND], context=_serving(authority, *names)) as server:
        context = trusting if trusted else None
        with connect(kind, server.url, ssl_context=context) as ask:
            outcome = ask(post(RecordingSink()))
        assert (outcome.failure, outcome.sent) == (Failure.TLS, False)
        assert word in outcome.detail
        assert not server.requests


@both_kinds
def test_a_server_that_speaks_no_tls(kind: str):
    with scripted([SECOND]) as server:
        server_url = server.url.replace("http://", "https://")
        with connect(kind, server_url, connect_timeout=0.3) as ask:
            outcome = ask(post(RecordingSink()))
    # It waits for a request that never comes.
    assert (outcome.failure, outcome.sent) == (Failure.CONNECT, False)


@both_kinds
def test_a_server_that_answers_the_handshake_in_clear(kind: str):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"https://127.0.0.1:{listener.getsockname()[1]}"
        with connect(kind, url, connect_timeout=5.0) as ask:
            server = threading.Thread(target=_answer_in_clear, args=(listener,))
            server.start()
            outcome = ask(post(RecordingSink()))
            server.join(20)
    assert (outcome.failure, outcome.sent) == (Failure.TLS, False)
    assert outcome.detail.endswith("; does the server speak plain http?")


def _answer_in_clear(listener: socket.socket) -> None:
    connected, _ = listener.accept()
    with connected:
        connected.settimeout(10)
        connected.recv(65536)
        connected.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@both_kinds
def test_a_body_cut_without_a_goodbye_is_not_whole(
    kind: str, authority: trustme.CA, trusting: ssl.SSLContext
):
    # Anybody on the way can cut a connection; only the server can sign its end.
    script: Script = [b"HTTP/1.1 200 OK\r\n\r\nhel", Close()]
    with (
        scripted(script, context=_serving(authority, "127.0.0.1")) as server,
        connect(kind, server.url, ssl_context=trusting) as ask,
    ):
        sink = RecordingSink()
        assert describe(ask(post(sink)), sink) == "RESET"


@both_kinds
def test_timeouts_hold_over_tls(
    kind: str, authority: trustme.CA, trusting: ssl.SSLContext
):
    with (
        scripted([_CHUNKED], context=_serving(authority, "127.0.0.1")) as server,
        connect(kind, server.url, ssl_context=trusting) as ask,
    ):
        sink = RecordingSink()
        assert describe(ask(post(sink, timeout=0.3)), sink) == "TIMEOUT"
        sink = RecordingSink(idle_timeout=0.1)
        assert describe(ask(post(sink)), sink) == "STALL"


@both_kinds
def test_a_close_in_between_is_seen(
    kind: str, authority: trustme.CA, trusting: ssl.SSLContext
):
    with scripted(
        [SECOND, Close()], context=_serving(authority, "127.0.0.1")
    ) as server:
        with connect(kind, server.url, ssl_context=trusting) as ask:
            for number in (1, 2):
                sink = RecordingSink()
                assert describe(ask(post(sink)), sink) == "200 second"
                server.await_ended(number)
        assert server.connections == 2


def test_one_context_for_all():
    first, second = (
        ConnectionPool("https://127.0.0.1:1"),
        ConnectionPool("https://[::1]:1"),
    )
    assert first._ssl_context is second._ssl_context is default_ssl_context()
    assert default_ssl_context().verify_mode is ssl.CERT_REQUIRED
    assert default_ssl_context().check_hostname
