"""The dialects of docs/wire.md, asked of the servers: /create, secrets, set-up."""

from __future__ import annotations

import base64
import hashlib
import json
import socket
import uuid
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from tests.support.servers.dialects import DIALECTS, ServerDialect
from tests.support.servers.process import RunningServer
from tests.support.servers.raw import RawSession, open_session, raw_client

DIGEST = hashlib.sha256(b"hunter2").hexdigest()


@pytest.fixture
def dialect(any_server: RunningServer) -> ServerDialect:
    return DIALECTS[any_server.sdk.name]


@pytest.fixture
def session(any_server: RunningServer) -> Iterator[RawSession]:
    """A session id that nothing was created for yet."""
    with raw_client(any_server) as client:
        yield RawSession(client, uuid.uuid4().hex, "contract")


def create(session: RawSession, dialect: ServerDialect, **body: Any) -> httpx.Response:
    headers = body.pop("headers", {})
    if dialect.secrets == "required":
        body.setdefault("secrets", {})
    return session.request("POST", "/create", json=body, headers=headers)


def errors_of(reply: httpx.Response) -> set[tuple[str, str]]:
    assert reply.status_code == 422
    return {
        (error["type"], ".".join(map(str, error["loc"])))
        for error in reply.json()["detail"]
    }


def arrived(server: RunningServer) -> list[dict[str, str]]:
    return [entry["secrets"] for entry in server.log("construct")]


def test_secrets_in_the_body(
    any_server: RunningServer, session: RawSession, dialect: ServerDialect
) -> None:
    body = {"env_name": "contract", "task_spec": {}, "secrets": {"KEY": "hunter2"}}
    reply = session.request("POST", "/create", json=body)
    if dialect.secrets in {"body", "required"}:
        assert reply.status_code == 200
        session.get("prompt")
        assert arrived(any_server) == [{"KEY": DIGEST}]
    else:
        assert errors_of(reply) == {("extra_forbidden", "body.secrets")}
        # The answer repeats them: whoever shows it must leave that out.
        assert "hunter2" in reply.text
        assert arrived(any_server) == []


def test_secrets_left_out(session: RawSession, dialect: ServerDialect) -> None:
    body = {"env_name": "contract", "task_spec": {}}
    reply = session.request("POST", "/create", json=body)
    if dialect.secrets == "required":
        assert errors_of(reply) == {("missing", "body.secrets")}
    else:
        assert reply.status_code == 200


def test_secrets_in_the_header(
    any_server: RunningServer, session: RawSession, dialect: ServerDialect
) -> None:
    secret = base64.b64encode(json.dumps({"KEY": {"value": "hunter2"}}).encode())
    reply = create(
        session,
        dialect,
        env_name="contract",
        task_spec={},
        headers={"X-Secrets": secret.decode()},
    )
    assert reply.status_code == 200
    session.get("prompt")
    # All but the header dialect ignore it without a word.
    expected = {"KEY": DIGEST} if dialect.secrets == "header" else {}
    assert arrived(any_server) == [expected]


def test_the_probe_for_the_dialect_creates_nothing(
    any_server: RunningServer, session: RawSession, dialect: ServerDialect
) -> None:
    reply = session.request("POST", "/create", json={"secrets": {}})
    forbidden = ("extra_forbidden", "body.secrets")
    missing = {("missing", "body.env_name"), ("missing", "body.task_spec")}
    # `extra_forbidden` alone does not mean the header: 0.1.0 has no channel at all.
    expected = {
        "header": {forbidden},
        "none": {forbidden, *missing},
        "required": missing,
        "body": {("value_error", "body")},
    }
    assert errors_of(reply) == expected[dialect.secrets]
    assert arrived(any_server) == []
    assert session.request("POST", "/ping").status_code == 404


def test_a_task_by_split_and_index(
    any_server: RunningServer, session: RawSession, dialect: ServerDialect
) -> None:
    task = {"env_name": "contract", "split": "train"}
    reply = create(session, dialect, **task, index=3)
    if not dialect.index:
        assert reply.status_code == 422
        return
    assert reply.status_code == 200
    assert session.get("prompt").json()[0]["text"] == "3 + 3 = ?"
    other = RawSession(session.client, "another", "contract")
    wrong = create(other, dialect, **task, index=99)
    assert (wrong.status_code, wrong.json()) == (400, {"detail": "Invalid index"})
    wrong = create(other, dialect, env_name="contract", split="nonesuch", index=0)
    assert (wrong.status_code, wrong.json()) == (400, {"detail": "Invalid split"})


def test_an_unknown_environment(session: RawSession, dialect: ServerDialect) -> None:
    reply = create(session, dialect, env_name="nonesuch", task_spec={})
    unknown = {"detail": "unknown environment 'nonesuch'"}
    if dialect.checks_environment:
        assert (reply.status_code, reply.json()) == (404, unknown)
        return
    # Found out in set-up only: this 404 does not mean that the session is lost.
    assert reply.status_code == 200
    prompt = session.get("prompt")
    assert (prompt.status_code, prompt.json()) == (404, unknown)
    assert session.request("POST", "/ping").status_code == 200


def test_creating_twice(any_server: RunningServer) -> None:
    with open_session(any_server) as session:
        session.get("prompt")
        body: dict[str, Any] = {"env_name": "contract", "task_spec": {}}
        dialect = DIALECTS[any_server.sdk.name]
        again = create(session, dialect, **body)
        assert again.status_code == 400
        assert again.json() == {"detail": "Session already exists"}
        assert len(any_server.log("construct")) == 1


def test_an_id_may_be_used_again_after_delete(
    any_server: RunningServer, dialect: ServerDialect
) -> None:
    with open_session(any_server) as session:
        assert session.request("POST", "/delete").status_code == 200
        again = session.request("POST", "/delete")
        assert again.status_code == dialect.delete_unknown
        reply = create(session, dialect, env_name="contract", task_spec={})
        assert reply.status_code == 200


def test_a_set_up_that_raises(any_server: RunningServer) -> None:
    dialect = DIALECTS[any_server.sdk.name]
    with open_session(any_server, setup_error="no\ndisk") as session:
        for reply in (session.get("prompt"), session.call("count")):
            assert reply.status_code == 500
            if dialect.setup_cause:
                assert reply.json() == {"detail": "RuntimeError: no\ndisk"}
            else:
                assert reply.text == "Internal Server Error"
                assert reply.headers["Connection"] == "close"
        tools = session.get("task_tools")
        assert tools.status_code == (500 if dialect.task_range else 404)
        assert session.request("POST", "/ping").status_code == 200
        assert session.request("POST", "/delete").status_code == 200
        assert session.request("POST", "/ping").status_code == 404


def test_a_constructor_that_raises(session: RawSession, dialect: ServerDialect) -> None:
    spec = {"construct_error": "no memory"}
    reply = create(session, dialect, env_name="contract", task_spec=spec)
    if dialect.constructs_at_once:
        assert reply.status_code == 500
        assert reply.json() == {"detail": "RuntimeError: no memory"}
        assert session.request("POST", "/ping").status_code == 404
    else:
        assert reply.status_code == 200
        assert session.get("prompt").status_code == 500
        assert session.request("POST", "/ping").status_code == 200


def test_the_prompt_waits_for_set_up(any_server: RunningServer) -> None:
    dialect = DIALECTS[any_server.sdk.name]
    with open_session(any_server, "tasktools", setup_seconds=0.3) as session:
        assert session.request("POST", "/ping").status_code == 200
        if dialect.task_range:
            early = session.get("task_tools").json()["tools"]
            assert bool(any_server.log("ready")) is dialect.waits_for_tools
            names = [tool["name"] for tool in early]
            assert ("after_setup" in names) is dialect.waits_for_tools
        assert session.get("prompt").status_code == 200
        assert any_server.log("ready")


def test_a_session_deleted_during_set_up(any_server: RunningServer) -> None:
    with open_session(any_server, setup_seconds=30) as session:
        address = ("127.0.0.1", any_server.port)
        with socket.create_connection(address, timeout=10) as waiting:
            waiting.sendall(
                b"GET /contract/prompt HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
                b"X-Session-ID: " + session.session_id.encode() + b"\r\n\r\n"
            )
            # Once these are answered the server's loop has come to the prompt's wait.
            for _ in range(5):
                assert session.request("POST", "/ping").status_code == 200
            assert session.request("POST", "/delete").status_code == 200
            reply = b"".join(iter(lambda: waiting.recv(4096), b""))
        assert reply.startswith(b"HTTP/1.1 410 ")
        assert reply.endswith(b'{"detail":"Session deleted"}')
        gone = session.get("prompt")
        assert gone.json() == {"detail": "Active environment not found"}
