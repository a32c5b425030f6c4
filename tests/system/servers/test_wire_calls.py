"""The dialects of docs/wire.md, asked of the servers: tool calls and lost sessions."""

from __future__ import annotations

import hashlib
import json
import socket
import threading
from typing import Any

import httpx
import pytest

from tests.support.servers.dialects import DIALECTS
from tests.support.servers.process import RunningServer
from tests.support.servers.raw import RawSession, events_of, open_session, raw_client

UNKNOWN = {"detail": "Active environment not found"}


def test_the_exact_bytes_of_a_call(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        reply = session.call("add", a=1, b=2)
    assert reply.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    task_id = events_of(reply.text)[0][1]
    assert reply.content == (
        b"event: task_id\r\ndata: " + task_id.encode() + b"\r\n\r\n"
        b'event: end\r\ndata: {"ok":true,"output":{"blocks":[{"text":"3",'
        b'"detail":null,"type":"text"}],"metadata":null,"reward":0.5,'
        b'"finished":false}}\r\n\r\n'
    )


@pytest.mark.parametrize("kind", ["separators", "blanks", "wide", "lines", "quotes"])
def test_a_result_is_cut_every_4096_characters(
    any_server: RunningServer, kind: str
) -> None:
    with open_session(any_server) as session:
        reply = session.call("speak", kind=kind, size=20_000)
    events = events_of(reply.content.decode())[1:]
    assert {kind for kind, _ in events} == {"chunk", "end"}
    assert all(len(data) == 4096 for kind, data in events if kind == "chunk")
    result = json.loads("".join(data for _, data in events))
    text = result["output"]["blocks"][0]["text"]
    (done,) = any_server.log("done")
    assert len(text) == done["text_length"]
    assert hashlib.sha256(text.encode()).hexdigest() == done["text_sha256"]
    if kind == "blanks":
        assert all(data.startswith("  \u00a0") for _, data in events[1:])
    if kind == "separators":
        assert "\u2028".encode() in reply.content
        assert "\u0085".encode() in reply.content


@pytest.mark.parametrize(
    ("message", "lines"),
    [
        ("one\ntwo\n\n three", [b"one", b"two", b"", b" three"]),
        ("cr\rcrlf\r\nend", [b"cr", b"crlf", b"end"]),
        ("a\u2028b\u0085c", ["a\u2028b\u0085c".encode()]),
        ("", [b""]),
        ("unknown task_id", [b"unknown task_id"]),
    ],
)
def test_a_tool_that_raises(
    any_server: RunningServer, message: str, lines: list[bytes]
) -> None:
    with open_session(any_server) as session:
        content = session.call("fail", message=message).content
        first, second, rest = content.split(b"\r\n\r\n")
        assert first.startswith(b"event: task_id\r\n")
        assert second.split(b"\r\n") == [
            b"event: error",
            *(b"data: " + line for line in lines),
        ]
        assert rest == b""
        assert session.result("count")["ok"]


def test_refused_calls(any_server: RunningServer) -> None:
    reason = DIALECTS[any_server.sdk.name].reason
    with open_session(any_server) as session:
        unknown = session.result("nonesuch")
        wrong = session.result("add", a="x")
        assert session.result("add", a="5", b=True)["ok"]  # the server decides
        assert any_server.runs() == 1
    assert (unknown["ok"], wrong["ok"]) == (False, False)
    assert unknown["error"] == "'nonesuch' is not a valid tool"
    assert wrong["error"].startswith("Tool input validation error: ")
    assert unknown.get("reason") == ("not_found" if reason else None)
    assert wrong.get("reason") == ("input_validation" if reason else None)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        *(("nan", None), ("inf", None), ("-inf", None), ("null", None), ("int", 3.0)),
        *(("negative", -2.5), ("huge", 1e308), ("tiny", 5e-324), ("zero", 0.0)),
    ],
)
def test_rewards(any_server: RunningServer, kind: str, expected: float | None) -> None:
    with open_session(any_server) as session:
        assert session.result("reward", kind=kind)["output"]["reward"] == expected


def test_metadata_arrives_exactly(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        metadata = session.result("metadata")["output"]["metadata"]
    assert metadata["big"] == 2**53 + 1
    assert metadata["nested"]["list"] == [1, 2.5, None, True, "é"]


def test_a_call_after_the_end(any_server: RunningServer) -> None:
    with open_session(any_server, answer="yes") as session:
        assert session.result("submit", answer="yes")["output"]["finished"] is True
        again = session.result("submit", answer="yes")
    if DIALECTS[any_server.sdk.name].refuses_after_end:
        assert again["reason"] == "episode_finished"
        assert any_server.rewards() == [1.0]
    else:
        assert any_server.rewards() == [1.0, 1.0]  # runs and pays again


def test_a_call_is_resumed_on_another_connection(any_server: RunningServer) -> None:
    with open_session(any_server) as session, raw_client(any_server) as client:
        first = session.call("count").content
        task_id = events_of(first.decode())[0][1]
        other = RawSession(client, session.session_id, "contract")
        # Name and input do not matter any more, nor does the environment's name.
        assert other.call("nonesuch", task_id).content == first
        other.environment = "listonly"
        assert other.call("nonesuch", task_id).content == first
        assert any_server.runs() == 1
        session.request("POST", "/delete")
        assert other.call("count", task_id).json() == UNKNOWN


@pytest.mark.parametrize("task_id", ["", "nonesuch", "0" * 32])
def test_a_task_id_of_ones_own_is_refused(
    any_server: RunningServer, task_id: str
) -> None:
    with open_session(any_server) as session:
        reply = session.call("count", task_id)
    assert reply.status_code == 200
    assert reply.text == "event: error\r\ndata: unknown task_id\r\n\r\n"
    assert any_server.runs() == 0


def test_a_task_id_of_null_is_a_new_run(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        body: dict[str, Any] = {"name": "count", "input": {}, "task_id": None}
        reply = session.request("POST", "/contract/call", json=body)
        assert reply.status_code == 200
    assert any_server.runs() == 1


def test_json_has_to_say_that_it_is_json(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        body = b'{"name": "count", "input": {}}'
        reply = session.request("POST", "/contract/call", content=body)
        assert reply.status_code == 422
    assert any_server.runs() == 0


def test_a_tool_runs_to_its_end_without_its_client(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        body = json.dumps({"name": "slow", "input": {"seconds": 0.1}})
        address = ("127.0.0.1", any_server.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(
                f"POST /contract/call HTTP/1.1\r\nHost: h\r\nX-Session-ID: "
                f"{session.session_id}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
            )
            any_server.wait_for("run", tool="slow")
        any_server.wait_for("done", tool="slow")
    assert any_server.rewards() == [0.25]


def test_whether_a_tool_blocks_everybody(any_server: RunningServer) -> None:
    with open_session(any_server) as session, raw_client(any_server) as client:
        mine = RawSession(client, session.session_id, "contract")
        caller = threading.Thread(
            target=mine.call, args=("slow_sync",), kwargs={"seconds": 0.5}
        )
        caller.start()
        any_server.wait_for("run", tool="slow_sync")
        assert session.request("POST", "/ping").status_code == 200
        ended_before_the_ping = bool(any_server.log("done"))
        caller.join(10)
    assert ended_before_the_ping is DIALECTS[any_server.sdk.name].blocks


def test_an_unknown_session(any_server: RunningServer) -> None:
    dialect = DIALECTS[any_server.sdk.name]
    with raw_client(any_server) as client:
        session = RawSession(client, "nonesuch", "contract")
        replies = [
            *(session.get("prompt"), session.call("count")),
            session.request("POST", "/ping"),
        ]
        if dialect.task_range:
            replies.append(session.get("task_tools"))
        for reply in replies:
            assert (reply.status_code, reply.json()) == (404, UNKNOWN)
        delete = session.request("POST", "/delete")
        assert delete.status_code == dialect.delete_unknown
        freed = session.request("POST", "/delete_session")
        assert freed.status_code == (404 if dialect.create_session == "none" else 200)


@pytest.mark.parametrize("name", ["ping", "delete", "contract/prompt", "contract/call"])
def test_no_session_id(any_server: RunningServer, name: str) -> None:
    with raw_client(any_server) as client:
        if name.endswith("prompt"):
            reply = client.get(f"/{name}")
        else:
            reply = client.post(f"/{name}", json={"name": "count", "input": {}})
    assert reply.status_code == 400
    assert reply.json() == {"detail": "X-Session-ID header is required"}


def test_a_session_outlives_its_connection(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        session.result("count")
        with httpx.Client(base_url=any_server.base_url) as client:
            session.client, kept = client, session.client
            assert session.result("count")["output"]["blocks"][0]["text"] == "2"
            session.client = kept


@pytest.mark.slow
def test_a_heartbeat_comes_every_ten_seconds(server: RunningServer) -> None:
    with open_session(server) as session:
        lines = session.call("slow", seconds=10.5).text.split("\r\n")
    assert [line[:9] for line in lines if line.startswith(":")] == [": ping - "]
