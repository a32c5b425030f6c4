"""The life of a session: an id that is used once, a prompt, pings and the delete."""

import dataclasses
from collections import deque
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
    SessionClosedError,
    SessionLostError,
    SetupFailedError,
    ToolRejectedError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure, Limits
from ors_gym.protocol._server_state import Server, SessionState
from tests.protocol.scripted_exchanges import (
    NEW,
    STREAM,
    RecordingServer,
    Reply,
    Script,
    failing,
    ok,
    open_state,
    refused,
    stream,
)

pytestmark = pytest.mark.unit

STARTING = ((b"X-Backend-State", b"starting"), (b"Retry-After", b"5"))
EXISTS = "Session already exists"
LOST = "Active environment not found"
TEXT = {"type": "text", "text": "2 + 2 = ?"}
OWN_IDS = Dialect(SecretsChannel.BODY, create_session=False, create_by_index=True)
UNKNOWN = Dialect(SecretsChannel.HEADER)
SECRETLESS = Dialect(SecretsChannel.NONE)
NO_TASK_TOOLS = dataclasses.replace(NEW, task_tools=False)
ONLY_DELETE = dataclasses.replace(NEW, delete_session=False)


def named(session_id: str = "s1", **fields: Any) -> Reply:
    return stream(("task_id", session_id), ("end", ""), **fields)


def open_on(server: Server, timeout: float = 60.0, **options: Any) -> Any:
    task = options.pop("task", {"task_spec": {"id": 1}})
    return operations.open_session(server, "math", task, timeout=timeout, **options)


# Opening: docs/wire.md, points 2, 10 and 11.


def test_an_id_and_its_episode() -> None:
    server = RecordingServer()
    script = Script(named(), ok({"sid": "s1"}))
    state = script.run(open_on(server, session_options={"a": 1}))
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
    assert Script(reply).run(operations.create_session(RecordingServer())) == session_id


def test_a_server_without_ids_is_not_asked() -> None:
    server = RecordingServer(OWN_IDS)
    assert Script().run(operations.create_session(server)) == "own-0"


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (ok({}), ProtocolError),
        (Reply(200, b"<html>"), ProtocolError),
        *((named(bad), ProtocolError) for bad in ("a b", "a\r\ndata: b", "é", "")),
        (named("x" * 600), ProtocolError),
        (stream(("end", "")), ProtocolError),
        (Reply(200, b"event: task_id\ndata: \xff\n\n", STREAM), ProtocolError),
        (refused(401), AuthenticationError),
        (refused(500), ServerError),
        (failing(Failure.TIMEOUT), ConnectionFailedError),
        (failing(Failure.LIMIT), LimitExceededError),
    ],
)
def test_what_is_no_id(reply: Reply, kind: type[ORSError]) -> None:
    with pytest.raises(kind):
        Script(reply).run(operations.create_session(RecordingServer()))


def test_why_no_id_is_given_is_told_without_a_secret() -> None:
    server = RecordingServer(dataclasses.replace(NEW, routes_by_session=True))
    said = "no capacity for hunter22-secret and blue-password"
    secret: Any = {"MINE": ("hunter22-secret", ["a.org"])}
    for reply in (refused(400, said), stream(("error", said))):
        # The first id routes the question which environments there are.
        opening = open_on(server, secrets=secret, env_overrides={"DB": "blue-password"})
        with pytest.raises(ORSError, match="no capacity for") as caught:
            Script(reply).run(opening)
        assert "hunter22" not in str(caught.value)
        assert "blue" not in str(caught.value)


@pytest.mark.parametrize("task", [{"task_spec": {"x": float("nan")}}, {}])
def test_an_id_that_was_never_sent_again_keeps_its_episode(task) -> None:
    server = RecordingServer()
    starting = operations.start_episode(server, "s1", "math", task, timeout=60.0)
    if task:
        with pytest.raises(InvalidRequestError, match="cannot be sent"):
            Script().run(starting)
        assert server.discarded == []
    else:
        with pytest.raises(AssertionError, match="unexpected"):
            Script().run(starting)
        assert server.discarded == ["s1"]


def test_asking_for_an_id_is_repeated() -> None:
    script = Script(failing(Failure.RESET), refused(503), named())
    assert script.run(operations.create_session(RecordingServer())) == "s1"
    replies = [refused(503, elapsed=0.3)] * 3
    with pytest.raises(ServerError, match="503"):
        Script(*replies).run(operations.create_session(RecordingServer(timeout=1.0)))


@pytest.mark.parametrize(
    "reply",
    [
        failing(Failure.RESET),
        failing(Failure.STALL),
        *map(refused, (502, 503, 504)),
        refused(400, EXISTS),
    ],
)
def test_an_unanswered_create_is_begun_anew_on_a_fresh_id(reply: Reply) -> None:
    server = RecordingServer()
    script = Script(named("s1"), reply, named("s2"), ok({"sid": "s2"}))
    assert script.run(open_on(server)).session_id == "s2"
    assert server.discarded == ["s1"]
    assert [script.header(i, "X-Session-ID") for i in (1, 3)] == ["s1", "s2"]


def test_an_opening_goes_on_over_new_connections_after_one_broke() -> None:
    server = RecordingServer()
    broken = failing(Failure.RESET, reused=True, elapsed=0.1)
    script = Script(named("s1"), broken, named("s2"), ok({"sid": "s2"}))
    assert script.run(open_on(server)).session_id == "s2"
    assert [send.reuse_within for send in script.sends] == [50.0, 3.0, -1.0, -1.0]
    # The second one teaches the client, and more than this session.
    server.now += 9.0
    script = Script(named("s3"), broken, named("s4"), ok({"sid": "s4"}))
    script.run(open_on(server))
    script = Script(named("s5"), ok({"sid": "s5"}))
    script.run(open_on(server))
    assert [send.reuse_within for send in script.sends] == [50.0, -1.0]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (failing(Failure.CONNECT, elapsed=2.0), ConnectionFailedError),
        (refused(503, headers=STARTING, elapsed=2.0), ServerError),
        (refused(429, elapsed=2.0), ServerError),
    ],
)
def test_a_create_that_did_not_run_is_repeated_on_its_id(reply, kind):
    server = RecordingServer()
    script = Script(named("s1"), reply, ok({"sid": "s1"}))
    assert script.run(open_on(server)).session_id == "s1"
    assert server.discarded == []
    script = Script(named("s1"), then=reply)
    with pytest.raises(kind):
        script.run(open_on(server, timeout=9.0))
    assert 2.0 <= script.elapsed <= 9.001
    assert server.discarded == ["s1"]


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refused(400, "Invalid index"), UnknownTaskError),
        (refused(401), AuthenticationError),
        (refused(404), UnknownEnvironmentError),
        (refused(422), InvalidRequestError),
        (refused(500, "KeyError: 'hunter22'"), SetupFailedError),
        (refused(410), ServerError),
        (failing(Failure.TIMEOUT), ConnectionFailedError),
        (failing(Failure.TLS), ConnectionFailedError),
        (failing(Failure.PROTOCOL), ProtocolError),
        (failing(Failure.LIMIT), LimitExceededError),
    ],
)
def test_a_refusal_discards_the_id(reply: Reply, kind: type[ORSError]) -> None:
    server = RecordingServer()
    with pytest.raises(kind) as caught:
        Script(named(), reply).run(open_on(server, secrets={"KEY": "hunter22"}))
    assert type(caught.value) is kind
    assert server.discarded == ["s1"]
    assert "hunter22" not in str(caught.value)


@pytest.mark.parametrize(
    ("server", "kind", "text"),
    [
        (RecordingServer(SECRETLESS), InvalidRequestError, "takes no secrets"),
        (
            RecordingServer(may_send_secrets=False),
            InsecureTransportError,
            "allow_insecure",
        ),
    ],
)
def test_secrets_that_cannot_be_delivered_cost_no_session(server, kind, text):
    with pytest.raises(kind, match=text):
        Script().run(open_on(server, secrets={"KEY": "hunter22"}))


@pytest.mark.parametrize(
    "options", [{"create_options": {"index": 1}}, {"task": {"task_spec": {1, 2}}}]
)
def test_a_request_that_cannot_be_sent_leaves_no_session(options: Any) -> None:
    server = RecordingServer()
    with pytest.raises(InvalidRequestError):
        Script(named("s1")).run(open_on(server, **options))
    assert server.discarded == ["s1"]


def test_an_interrupted_create_is_discarded() -> None:
    server = RecordingServer()
    with pytest.raises(AssertionError, match="unexpected: POST /create"):
        Script(named("s1")).run(open_on(server))
    assert server.discarded == ["s1"]


def test_all_of_it_keeps_the_time() -> None:
    # Each id is slow to come, and each create is lost: the time is one for all.
    server = RecordingServer()
    slow, lost = named("s1", elapsed=8.0), failing(Failure.RESET, elapsed=1.0)
    script = Script(slow, lost, slow, lost, failing(Failure.TIMEOUT))
    with pytest.raises(ConnectionFailedError):
        script.run(open_on(server, timeout=20.0))
    assert script.sends[-1].timeout == pytest.approx(20.0 - script.elapsed)
    assert server.discarded == ["s1", "s1"]


def test_a_task_by_index_for_a_server_that_wants_the_task() -> None:
    asked = {"split": "train", "index": 7}
    dialect = Dialect(SecretsChannel.BODY, create_session=False, num_tasks=True)
    server = RecordingServer(dialect)
    script = Script(ok({"task": {"id": 7}}), ok({}))
    script.run(open_on(server, task=asked))
    assert script.body(1) == {"env_name": "Math", "task_spec": {"id": 7}}
    script = Script(named(), ok({}))
    script.run(open_on(RecordingServer(), task=asked))
    assert script.body(1) == {"env_name": "Math", **asked}


@pytest.mark.parametrize(
    ("reply", "kind", "text", "discarded"),
    [
        (ok({}), None, "", []),
        (failing(Failure.RESET), ConnectionFailedError, "new session id", ["mine"]),
        (refused(400, EXISTS), InvalidRequestError, EXISTS, []),
    ],
)
def test_an_id_of_the_caller_is_tried_once(reply, kind, text, discarded):
    server = RecordingServer()
    task: Any = {"task_spec": {}}
    operation = operations.start_episode(server, "mine", "math", task, timeout=9.0)
    if kind is None:
        assert Script(reply).run(operation).session_id == "mine"
    else:
        with pytest.raises(kind, match=text) as caught:
            Script(reply).run(operation)
        assert type(caught.value) is kind
    assert server.discarded == discarded


# The prompt and the tools: point 13.


def prompt(state: SessionState, timeout: float = 60.0) -> Any:
    server = RecordingServer(UNKNOWN)
    (message,) = yield from operations.get_messages(server, state, timeout=timeout)
    return message["blocks"]


def test_the_prompt_waits_for_set_up() -> None:
    starting = refused(503, headers=STARTING, elapsed=25.0)
    script = Script(starting, starting, ok([TEXT], elapsed=9.0))
    assert script.run(prompt(open_state(), 120.0)) == [TEXT]
    assert script.pauses == [5.0, 5.0]
    assert script.header(0, "X-Session-ID") == "s1"
    assert script.idle == [None] * 3
    with pytest.raises(SetupFailedError, match="still starting after 60 s"):
        Script(starting, starting).run(prompt(open_state()))


@pytest.mark.parametrize(
    ("last", "kind"), [(0.1, SetupFailedError), (20.0, ConnectionFailedError)]
)
def test_an_attempt_without_time_says_nothing(last: float, kind: type[Exception]):
    starting = refused(503, headers=STARTING, elapsed=55.0 - last)
    script = Script(starting, failing(Failure.TIMEOUT, elapsed=last))
    with pytest.raises(kind):
        script.run(prompt(open_state()))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refused(500, "RuntimeError: hunter22"), SetupFailedError),
        (refused(404, LOST), SessionLostError),
        (refused(410, "Session deleted hunter22"), SessionLostError),
        (refused(404, "Not Found"), InvalidRequestError),
        (refused(401, "hunter22"), AuthenticationError),
        (refused(418), ServerError),
        (Reply(200, b"hunter22"), ProtocolError),
        (ok({"hunter22": 1}), ProtocolError),
        (failing(Failure.TIMEOUT), ConnectionFailedError),
    ],
)
def test_a_prompt_that_does_not_come(reply: Reply, kind: type[ORSError]) -> None:
    state = open_state("hunter22")
    with pytest.raises(kind) as caught:
        Script(reply).run(prompt(state))
    assert type(caught.value) is kind
    assert "hunter22" not in f"{caught.value} {state.lost}"
    assert bool(state.lost) is (kind is SessionLostError)
    if state.lost:
        with pytest.raises(SessionLostError, match="answered 4"):
            state.claim()


def test_the_prompt_as_a_conversation() -> None:
    turns = [{"role": "system", "blocks": [TEXT]}]
    for dialect, answer, expected in (
        (NEW, turns, turns),
        (UNKNOWN, [TEXT], [{"role": "user", "blocks": [TEXT]}]),
    ):
        server = RecordingServer(dialect)
        messages = operations.get_messages(server, open_state(), timeout=9.0)
        assert Script(ok(answer)).run(messages) == expected


def tools(dialect: Dialect = NEW, **fields: Any) -> Any:
    server = RecordingServer(dialect, **fields)
    return operations.list_task_tools(server, open_state(), timeout=20.0)


def test_the_tools_of_a_session() -> None:
    script = Script(ok({"tools": [{"name": "f"}], "terminal_tool": {"name": "f"}}))
    found, rest = script.run(tools())
    assert [tool["name"] for tool in found] == ["f"]
    assert rest == {"terminal_tool": {"name": "f"}}
    assert script.targets == ["GET /Math/task_tools"]


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_tools_of_a_session_gives_the_environment_s(status: int):
    script = Script(refused(status, "Not Found"), ok({"tools": []}))
    assert script.run(tools(UNKNOWN)) == ([], {})
    assert script.targets == ["GET /Math/task_tools", "GET /Math/tools"]
    assert Script(ok({"tools": []})).run(tools(NO_TASK_TOOLS)) == ([], {})


@pytest.mark.parametrize(
    ("dialect", "reply", "kind"),
    [
        (NEW, refused(404, "Not Found"), InvalidRequestError),
        (UNKNOWN, refused(404, LOST), SessionLostError),
        (UNKNOWN, refused(422), InvalidRequestError),
        (NEW, refused(500), SetupFailedError),
        (NEW, ok({"tools": [{"name": "f"}] * 3}), LimitExceededError),
        (NO_TASK_TOOLS, refused(404), InvalidRequestError),
    ],
)
def test_tools_that_do_not_come(dialect: Dialect, reply: Reply, kind: type[ORSError]):
    with pytest.raises(kind):
        Script(reply).run(tools(dialect, limits=Limits(tools=2)))


def test_the_tools_keep_their_time() -> None:
    script = Script(refused(404, elapsed=15.0), failing(Failure.TIMEOUT))
    with pytest.raises(ConnectionFailedError):
        script.run(tools(UNKNOWN))
    assert [send.timeout for send in script.sends] == [20.0, 5.0]


# Pings and deletes: points 12 and 14.


@pytest.mark.parametrize(
    ("reply", "alive"),
    [
        (ok({"status": "ok"}), True),
        *((refused(status), False) for status in (404, 410)),
        *((refused(status), None) for status in (401, 429, 500, 503)),
        *((failing(failure), None) for failure in Failure),
        (Reply(307, headers=((b"Location", b"http://other/"),)), None),
    ],
)
def test_a_ping_is_sent_once(reply: Reply, alive: bool | None) -> None:
    script = Script(reply)
    assert script.run(operations.ping(RecordingServer(), "s1", timeout=5.0)) is alive
    assert script.targets == ["POST /ping"]
    assert script.header(0, "X-Session-ID") == "s1"


def delete(dialect: Dialect = ONLY_DELETE, **options: Any) -> Any:
    server = RecordingServer(dialect)
    return operations.delete_session(server, "s1", timeout=5.0, **options)


@pytest.mark.parametrize(
    ("reply", "gone"),
    [
        (ok({}), True),
        *((refused(status), True) for status in (404, 410)),
        *((refused(status), False) for status in (401, 500)),
        *((failing(failure), False) for failure in (Failure.TIMEOUT, Failure.LIMIT)),
        (failing(Failure.PROTOCOL), False),
    ],
)
def test_a_delete_says_whether_the_session_is_gone(reply: Reply, gone: bool) -> None:
    assert Script(reply).run(delete()) is gone


def test_a_delete_is_repeated_within_its_time() -> None:
    lost = failing(Failure.RESET, elapsed=1.0)
    assert Script(lost, lost, ok({})).run(delete()) is True
    script = Script(then=lost)
    assert script.run(delete()) is False
    assert 3.0 < script.elapsed <= 5.001
    assert Script(lost, lost).run(delete(attempts=2)) is False


def test_an_id_is_handed_back_in_the_same_time() -> None:
    script = Script(ok({}, elapsed=3.0), ok({}))
    assert script.run(delete(NEW)) is True
    assert script.targets == ["POST /delete", "POST /delete_session"]
    assert [send.timeout for send in script.sends] == [5.0, 2.0]
    assert Script(ok({}), failing(Failure.RESET)).run(delete(NEW)) is False


@pytest.mark.parametrize(
    ("fields", "task_id", "kind", "text"),
    [
        ({"free": deque()}, None, InvalidRequestError, "one at a time"),
        ({"pending": "t1"}, None, InvalidRequestError, "outcome of an earlier one"),
        ({"finished": True}, None, ToolRejectedError, "is finished"),
        ({"lost": "gone"}, "t1", SessionLostError, "gone"),
        ({"lost": "gone", "closed": True}, "t1", SessionClosedError, "s1"),
        ({}, None, None, ""),
        ({"pending": "t1"}, "t1", None, ""),
        ({"finished": True}, "t1", None, ""),
    ],
)
def test_why_a_session_takes_no_call(fields, task_id, kind, text):
    state = open_state()
    for name, value in fields.items():
        setattr(state, name, value)
    if kind is None:
        state.claim(task_id)
    else:
        with pytest.raises(kind, match=text):
            state.claim(task_id)


def test_a_server_that_was_not_asked_has_no_channel() -> None:
    assert RecordingServer(None).dialect == Dialect(secrets=SecretsChannel.NONE)


@pytest.mark.parametrize(
    ("said", "advised"),
    [
        ("ValueError: openai_api_key required in secrets", True),
        ("ValueError: OpenReward API key is required", True),
        ("KeyError: 'OPENAI_API_KEY'", True),
        ("RuntimeError: HF_TOKEN is not set", True),
        ("RuntimeError: the database is locked", False),
        ("KeyError: 'answer'", False),
        ("ValueError: the secret door is open", False),
    ],
)
def test_a_set_up_without_its_secret_says_how_to_pass_one(said, advised) -> None:
    server = RecordingServer()
    started = operations.start_episode(
        server, "s1", "math", {"task_spec": {}}, timeout=9
    )
    with pytest.raises(SetupFailedError) as caught:
        Script(refused(500, said)).run(started)
    assert ("secrets={" in str(caught.value)) is advised
    with pytest.raises(SetupFailedError) as caught:
        Script(refused(500, said)).run(prompt(open_state(), timeout=9))
    assert ("--secret NAME" in str(caught.value)) is advised
