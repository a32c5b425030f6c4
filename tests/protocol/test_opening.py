"""Opening a session: an id that is used once, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest

from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InsecureTransportError,
    InvalidRequestError,
    LimitExceededError,
    ORSError,
    ProtocolError,
    ServerError,
    SetupFailedError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure
from ors_gym.protocol._session_state import SessionState
from tests.protocol.scripted_exchanges import (
    NEW,
    STREAM,
    RecordingServer,
    Reply,
    Script,
    failing,
    ok,
    refused,
    stream,
)

STARTING = ((b"X-Backend-State", b"starting"), (b"Retry-After", b"1"))
OWN = Dialect(SecretsChannel.BODY, create_session=False, create_by_index=True)


def named(session_id: str = "s1") -> Reply:
    return stream(("task_id", session_id), ("end", ""))


def opening(server: Any, timeout: float = 60.0, **options: Any) -> Any:
    task = options.pop("task", {"task_spec": {"id": 1}})
    return operations.open_session(server, "math", task, timeout=timeout, **options)


def test_an_id_and_its_episode() -> None:
    server = RecordingServer()
    script = Script(named(), ok({"sid": "s1"}))
    state = script.run(opening(server, session_options={"a": 1}))
    assert isinstance(state, SessionState)
    assert (state.session_id, state.environment) == ("s1", "Math")
    assert state.call_head.target == "/Math/call"
    assert script.targets == ["POST /create_session", "POST /create"]
    assert script.body(0) == {"a": 1}
    assert script.header(1, "X-Session-ID") == "s1"
    assert server.discarded == []


@pytest.mark.parametrize(
    ("reply", "session_id"),
    [
        (named("from-stream"), "from-stream"),
        (ok({"sid": "from-json"}), "from-json"),
        (refused(404), "own-0"),
        (refused(405), "own-0"),
        (stream(("task_id", "cut"), failure=Failure.RESET), "cut"),
    ],
)
def test_where_an_id_comes_from(reply: Reply, session_id: str) -> None:
    server = RecordingServer()
    assert Script(reply).run(operations.create_session(server)) == session_id


def test_a_server_without_ids_is_not_asked() -> None:
    server = RecordingServer(OWN)
    assert Script().run(operations.create_session(server)) == "own-0"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ok({}), ProtocolError),
        (Reply(200, b"<html>"), ProtocolError),
        (named("a b"), ProtocolError),
        (named("a\r\ndata: b"), ProtocolError),
        (named("é"), ProtocolError),
        (named("x" * 600), ProtocolError),
        (named(""), ProtocolError),
        (stream(("end", "")), ProtocolError),
        (Reply(200, b"event: task_id\ndata: \xff\n\n", STREAM), ProtocolError),
        (refused(401), AuthenticationError),
        (refused(500), ServerError),
        (failing(Failure.TIMEOUT), ConnectionFailedError),
        (failing(Failure.LIMIT), LimitExceededError),
    ],
)
def test_what_is_no_id(reply: Reply, kind: type[ORSError]) -> None:
    server = RecordingServer()
    with pytest.raises(kind):
        Script(reply).run(operations.create_session(server))


def test_asking_for_an_id_is_repeated() -> None:
    server = RecordingServer()
    script = Script(failing(Failure.RESET), refused(503), named())
    assert script.run(operations.create_session(server)) == "s1"
    server = RecordingServer(timeout=1.0)
    replies = [refused(503, elapsed=0.3) for _ in range(3)]
    with pytest.raises(ServerError, match="503"):
        Script(*replies).run(operations.create_session(server))


@pytest.mark.parametrize(
    "reply",
    [
        failing(Failure.RESET),
        failing(Failure.STALL),
        refused(502),
        refused(503),
        refused(504),
        refused(400, "Session already exists"),
    ],
)
def test_an_unanswered_create_is_begun_anew_on_a_fresh_id(reply: Reply) -> None:
    server = RecordingServer()
    script = Script(named("s1"), reply, named("s2"), ok({"sid": "s2"}))
    state = script.run(opening(server))
    assert state.session_id == "s2"
    assert server.discarded == ["s1"]
    assert [script.header(i, "X-Session-ID") for i in (1, 3)] == ["s1", "s2"]


@pytest.mark.parametrize(
    "reply",
    [failing(Failure.CONNECT), refused(429), refused(503, headers=STARTING)],
)
def test_a_create_that_did_not_run_is_repeated_on_its_id(reply: Reply) -> None:
    server = RecordingServer()
    script = Script(named("s1"), reply, ok({"sid": "s1"}))
    assert script.run(opening(server)).session_id == "s1"
    assert server.discarded == []


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refused(400, "Invalid index"), UnknownTaskError),
        (refused(401), AuthenticationError),
        (refused(404), UnknownEnvironmentError),
        (refused(422), InvalidRequestError),
        (refused(500, "KeyError: 'x'"), SetupFailedError),
        (refused(410), ServerError),
        (failing(Failure.TIMEOUT), ConnectionFailedError),
        (failing(Failure.TLS), ConnectionFailedError),
        (failing(Failure.PROTOCOL), ProtocolError),
        (failing(Failure.LIMIT), LimitExceededError),
    ],
)
def test_a_refusal_abandons_the_id(reply: Reply, kind: type[ORSError]) -> None:
    server = RecordingServer()
    with pytest.raises(kind) as caught:
        Script(named("s1"), reply).run(opening(server))
    assert type(caught.value) is kind
    assert server.discarded == ["s1"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (failing(Failure.CONNECT, elapsed=2.0), ConnectionFailedError),
        (refused(503, headers=STARTING, elapsed=2.0), ServerError),
        (refused(429, elapsed=2.0), ServerError),
    ],
)
def test_a_create_that_never_runs(reply: Reply, kind: type[ORSError]) -> None:
    server = RecordingServer()
    script = Script(named("s1"), then=reply)
    with pytest.raises(kind):
        script.run(opening(server, timeout=9.0))
    assert 5.0 < script.elapsed <= 9.001
    assert server.discarded == ["s1"]


def test_an_error_hides_the_session_s_secrets() -> None:
    server = RecordingServer()
    reply = refused(500, "KeyError: 'hunter22'")
    with pytest.raises(SetupFailedError) as caught:
        Script(named(), reply).run(opening(server, secrets={"KEY": "hunter22"}))
    assert "[redacted]" in str(caught.value)
    assert "hunter22" not in str(caught.value)


def test_secrets_that_cannot_be_delivered_cost_no_session() -> None:
    server = RecordingServer(Dialect(SecretsChannel.NONE))
    with pytest.raises(InvalidRequestError, match="takes no secrets"):
        Script().run(opening(server, secrets={"KEY": "hunter22"}))
    server = RecordingServer(secure=False)
    with pytest.raises(InsecureTransportError):
        Script().run(opening(server, secrets={"KEY": "hunter22"}))


def test_a_request_that_cannot_be_sent_leaves_no_session() -> None:
    for options in ({"create_options": {"index": 1}}, {"task": {"task_spec": {1, 2}}}):
        server = RecordingServer()
        with pytest.raises(InvalidRequestError):
            Script(named("s1")).run(opening(server, **options))
        assert server.discarded == ["s1"]


def test_an_interrupted_create_is_abandoned() -> None:
    server = RecordingServer()
    operation = opening(server)
    script = Script(named("s1"))
    with pytest.raises(AssertionError, match="unexpected: POST /create"):
        script.run(operation)
    assert server.discarded == ["s1"]


def test_all_of_it_keeps_the_time() -> None:
    # Each id is slow to come, and each create is lost: the time is one for all.
    server = RecordingServer()
    slow = named("s1")
    slow.elapsed = 8.0
    lost = failing(Failure.RESET, elapsed=1.0)
    script = Script(slow, lost, slow, lost, failing(Failure.TIMEOUT))
    with pytest.raises(ConnectionFailedError):
        script.run(opening(server, timeout=20.0))
    assert script.sends[-1].timeout == pytest.approx(20.0 - script.elapsed)
    assert server.discarded == ["s1", "s1"]


def test_a_task_by_index_for_a_server_that_wants_the_task() -> None:
    server = RecordingServer(
        Dialect(SecretsChannel.BODY, create_session=False, num_tasks=True)
    )
    script = Script(ok({"task": {"id": 7}}), ok({}))
    script.run(opening(server, task={"split": "train", "index": 7}))
    assert script.body(1) == {"env_name": "Math", "task_spec": {"id": 7}}
    server = RecordingServer(NEW)
    script = Script(named(), ok({}))
    script.run(opening(server, task={"split": "train", "index": 7}))
    assert script.body(1) == {"env_name": "Math", "split": "train", "index": 7}


def start(server: Any) -> Any:
    return operations.start_episode(
        server, "mine", "math", {"task_spec": {}}, timeout=9.0
    )


def test_an_episode_on_an_id_of_the_caller() -> None:
    server = RecordingServer()
    assert Script(ok({})).run(start(server)).session_id == "mine"
    assert server.discarded == []


def test_an_id_of_the_caller_is_not_tried_twice() -> None:
    server = RecordingServer()
    with pytest.raises(ConnectionFailedError, match="new session id"):
        Script(failing(Failure.RESET)).run(start(server))
    assert server.discarded == ["mine"]


def test_a_session_of_the_caller_is_left_alone() -> None:
    server = RecordingServer()
    with pytest.raises(InvalidRequestError, match="Session already exists") as caught:
        Script(refused(400, "Session already exists")).run(start(server))
    assert type(caught.value) is InvalidRequestError
    assert server.discarded == []
