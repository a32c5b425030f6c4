"""The scripted server sends what it is told to, byte for byte."""

from __future__ import annotations

import socket

import httpx
import pytest

from tests.support.proxy.scripted import (
    RawReply,
    ScriptedServer,
    event_stream,
    html_reply,
    json_reply,
    status_reply,
    stream_reply,
)


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
def test_a_connection_ends_as_told(then: str) -> None:
    reply = RawReply([b"not HTTP at all"], then)
    with ScriptedServer({"/": lambda _: reply}) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=10) as connection:
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

    with ScriptedServer({"/": lambda _: endless()}) as server:
        address = ("127.0.0.1", int(server.url.rpartition(":")[2]))
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            server.wait_for(1)
            assert connection.recv(10, socket.MSG_WAITALL) == b"x" * 10
