"""The servers that other tests rely on: start, log, restart, end."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.support.servers.process import RunningServer, ServerStartError, start_server
from tests.support.servers.raw import events_of, open_session

FIRST = "ors-sdk-0.1.0"


def test_every_version_plays_an_episode(any_server: RunningServer) -> None:
    with open_session(any_server, question="why?", answer="because") as session:
        prompt = session.get("prompt").json()
        result = session.result("submit", answer="because")
    assert prompt[0]["text"] == "why?"
    assert result["output"]["reward"] == 1.0
    assert any_server.runs("submit", session=session.session_id, task="raw") == 1
    assert any_server.rewards() == [1.0]
    assert [entry["event"] for entry in any_server.log()] == [
        *("construct", "setup", "ready", "prompt", "run", "done", "teardown")
    ]
    assert any_server.open_sessions() == set()


def test_the_mark_hides_what_was_before(server: RunningServer) -> None:
    with open_session(server) as session:
        session.call("count")
        assert server.runs() == 1
        server.mark()
        assert server.log() == []
    assert len(server.log("teardown")) == 1


@pytest.mark.slow
def test_restart_keeps_the_port_and_the_log_and_forgets_the_sessions() -> None:
    with start_server(FIRST, environments=["Contract"]) as server:
        with open_session(server) as session:
            session.call("count")
            url, child = server.base_url, server.pid
            server.restart()
            assert session.request("POST", "/ping").status_code == 404
        assert (server.base_url, server.runs()) == (url, 1)
        assert server.pid != child
        assert len(server.open_sessions()) == 1


def test_after_kill_the_port_refuses() -> None:
    with start_server(FIRST, environments=["Contract"]) as server:
        server.kill()
        with pytest.raises(httpx.ConnectError):
            httpx.get(f"{server.base_url}/health")


def test_a_server_that_cannot_start_says_why() -> None:
    with (
        pytest.raises(ServerStartError, match="at least one"),
        start_server("openreward-0.1.167", environments=["Nonesuch"]),
    ):
        pass


@pytest.mark.slow
def test_keep_alive_is_configurable() -> None:
    with start_server(FIRST, environments=["Contract"], keep_alive=1) as server:
        address = ("127.0.0.1", server.port)
        with socket.create_connection(address, timeout=10) as connection:
            connection.sendall(b"GET /health HTTP/1.1\r\nHost: h\r\n\r\n")
            while piece := connection.recv(4096):
                assert piece  # the reply, then the end of the stream


def test_the_server_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time\n"
        "from tests.support.servers.process import start_server\n"
        f"with start_server({FIRST!r}, environments=['Contract']) as server:\n"
        "    print(server.port, flush=True)\n"
        "    sys.stdin.read()\n"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parents[3],
        env={**os.environ, "TMPDIR": str(tmp_path)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert parent.stdout is not None
    port = int(parent.stdout.readline())
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    parent.send_signal(signal.SIGKILL)
    parent.communicate()
    # The kernel ends its connections when the server is gone: with a reset those that
    # it had not come to accept.
    with connection, contextlib.suppress(ConnectionResetError):
        assert connection.recv(1) == b""


def test_starting_is_told_after_the_wait_asked_for() -> None:
    with (
        start_server("openreward-0.1.167", setup_wait=0.05) as server,
        open_session(server, setup_seconds=30) as session,
    ):
        reply = session.get("prompt")
        assert reply.status_code == 503
        assert reply.headers["X-Backend-State"] == "starting"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ors-sdk-0.1.0", "openreward-0.1.167"])
def test_a_result_is_kept_no_longer_than_asked(name: str) -> None:
    with (
        start_server(name, environments=["Contract"], linger=0) as server,
        open_session(server) as session,
    ):
        (_, task_id), _ = events_of(session.call("count").text)
        again = session.call("count", task_id).text
        assert again == "event: error\r\ndata: unknown task_id\r\n\r\n"
        assert server.runs() == 1


def test_secrets_are_logged_as_digests_only() -> None:
    with start_server(FIRST, environments=["Contract"]) as server:
        body = {"task_spec": {}, "secrets": {"KEY": "hunter2"}}
        session = {"X-Session-ID": "s"}
        httpx.post(f"{server.base_url}/create", json=body, headers=session)
        server.wait_for("ready")
        assert "hunter2" not in json.dumps(server.log())
        assert list(server.log("construct")[0]["secrets"]) == ["KEY"]
