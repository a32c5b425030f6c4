"""Open sessions: the prompt, the tools, pings and the delete."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from ors_gym.errors import (
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
    LimitExceededError,
    ORSError,
    ProtocolError,
    ServerError,
    SessionClosedError,
    SessionLostError,
    SetupFailedError,
    ToolRejectedError,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure, Limits
from ors_gym.protocol._session_state import SessionState
from tests.protocol.scripted_exchanges import (
    NEW,
    RecordingServer,
    Reply,
    Script,
    failing,
    ok,
    open_state,
    refused,
)

TEXT = {"type": "text", "text": "2 + 2 = ?"}
LOST = "Active environment not found"
STARTING = ((b"X-Backend-State", b"starting"), (b"Retry-After", b"5"))


def prompt(state: SessionState, timeout: float = 60.0) -> Any:
    return operations.get_prompt(RecordingServer(), state, timeout=timeout)


def test_the_prompt_waits_for_set_up() -> None:
    starting = refused(503, headers=STARTING, elapsed=25.0)
    script = Script(starting, starting, ok([TEXT], elapsed=9.0))
    assert script.run(prompt(open_state(), 120.0)) == [TEXT]
    assert script.pauses == [5.0, 5.0]
    assert script.header(0, "X-Session-ID") == "s1"
    assert script.idle == [None] * 3


def test_set_up_that_does_not_end() -> None:
    starting = refused(503, headers=STARTING, elapsed=25.0)
    with pytest.raises(SetupFailedError, match="still starting after 60 s"):
        Script(starting, starting).run(prompt(open_state()))


@pytest.mark.parametrize(
    ("last", "kind"), [(0.1, SetupFailedError), (20.0, ConnectionFailedError)]
)
def test_an_attempt_without_time_says_nothing(
    last: float, kind: type[Exception]
) -> None:
    starting = refused(503, headers=STARTING, elapsed=55.0 - last)
    with pytest.raises(kind):
        Script(starting, failing(Failure.TIMEOUT, elapsed=last)).run(
            prompt(open_state())
        )


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
    assert "hunter22" not in str(caught.value)
    assert bool(state.lost) is (kind is SessionLostError)
    assert "hunter22" not in state.lost


def test_a_session_that_is_lost_is_not_called() -> None:
    state = open_state()
    with pytest.raises(SessionLostError):
        Script(refused(410)).run(prompt(state))
    with pytest.raises(SessionLostError, match="answered 410"):
        state.check_callable()


def test_the_prompt_as_a_conversation() -> None:
    server = RecordingServer()
    turns = [{"role": "system", "blocks": [TEXT]}]
    state = open_state()
    messages = operations.get_messages(server, state, timeout=9.0)
    assert Script(ok(turns)).run(messages) == turns
    server = RecordingServer(dataclasses.replace(NEW, messages=False))
    messages = operations.get_messages(server, state, timeout=9.0)
    assert Script(ok([TEXT])).run(messages) == [{"role": "user", "blocks": [TEXT]}]


def tools(state: SessionState, dialect: Dialect = NEW, **fields: Any) -> Any:
    server = RecordingServer(dialect, **fields)
    return operations.list_task_tools(server, state, timeout=20.0)


def test_the_tools_of_a_session() -> None:
    script = Script(ok({"tools": [{"name": "f"}], "terminal_tool": {"name": "f"}}))
    found, rest = script.run(tools(open_state()))
    assert [tool["name"] for tool in found] == ["f"]
    assert rest == {"terminal_tool": {"name": "f"}}
    assert script.targets == ["GET /Math/task_tools"]


UNKNOWN = Dialect(SecretsChannel.HEADER)


@pytest.mark.parametrize("status", [404, 405])
def test_a_server_without_tools_of_a_session_gives_the_environment_s(
    status: int,
) -> None:
    script = Script(refused(status, "Not Found"), ok({"tools": []}))
    assert script.run(tools(open_state(), UNKNOWN)) == ([], {})
    assert script.targets == ["GET /Math/task_tools", "GET /Math/tools"]
    old = dataclasses.replace(UNKNOWN, task_tools=False)
    assert Script(ok({"tools": []})).run(tools(open_state(), old)) == ([], {})


@pytest.mark.parametrize(
    ("dialect", "reply", "kind"),
    [
        (NEW, refused(404, "Not Found"), InvalidRequestError),
        (UNKNOWN, refused(404, LOST), SessionLostError),
        (UNKNOWN, refused(422), InvalidRequestError),
        (NEW, refused(500), SetupFailedError),
        (NEW, ok({"tools": [{"name": "f"}] * 3}), LimitExceededError),
        (dataclasses.replace(NEW, task_tools=False), refused(404), InvalidRequestError),
    ],
)
def test_tools_that_do_not_come(
    dialect: Dialect, reply: Reply, kind: type[ORSError]
) -> None:
    operation = tools(open_state(), dialect, limits=Limits(tools=2))
    with pytest.raises(kind):
        Script(reply).run(operation)


def test_the_tools_keep_their_time() -> None:
    script = Script(refused(404, elapsed=15.0), failing(Failure.TIMEOUT))
    with pytest.raises(ConnectionFailedError):
        script.run(tools(open_state(), UNKNOWN))
    assert [send.timeout for send in script.sends] == [20.0, 5.0]


@pytest.mark.parametrize(
    ("reply", "alive"),
    [
        (ok({"status": "ok"}), True),
        (refused(404), False),
        (refused(410), False),
        (refused(401), None),
        (refused(429), None),
        (refused(500), None),
        (refused(503), None),
        (failing(Failure.CONNECT), None),
        (failing(Failure.RESET), None),
        (failing(Failure.TIMEOUT), None),
        (failing(Failure.PROTOCOL), None),
        (failing(Failure.LIMIT), None),
        (Reply(307, headers=((b"Location", b"http://other/"),)), None),
    ],
)
def test_a_ping_is_sent_once(reply: Reply, alive: bool | None) -> None:
    script = Script(reply)
    assert script.run(operations.ping(RecordingServer(), "s1", timeout=5.0)) is alive
    assert script.targets == ["POST /ping"]
    assert script.header(0, "X-Session-ID") == "s1"


def delete(dialect: Dialect = NEW, **options: Any) -> Any:
    return operations.delete_session(
        RecordingServer(dialect), "s1", timeout=5.0, **options
    )


ONLY_DELETE = dataclasses.replace(NEW, delete_session=False)


@pytest.mark.parametrize(
    ("reply", "gone"),
    [
        (ok({}), True),
        (refused(404), True),
        (refused(410), True),
        (refused(401), False),
        (refused(500), False),
        (failing(Failure.TIMEOUT), False),
        (failing(Failure.PROTOCOL), False),
        (failing(Failure.LIMIT), False),
    ],
)
def test_a_delete_says_whether_the_session_is_gone(reply: Reply, gone: bool) -> None:
    assert Script(reply).run(delete(ONLY_DELETE)) is gone


def test_a_delete_is_repeated_within_its_time() -> None:
    lost = failing(Failure.RESET, elapsed=1.0)
    script = Script(lost, lost, ok({}))
    assert script.run(delete(ONLY_DELETE)) is True
    script = Script(then=lost)
    assert script.run(delete(ONLY_DELETE)) is False
    assert 3.0 < script.elapsed <= 5.001
    assert Script(lost, lost).run(delete(ONLY_DELETE, attempts=2)) is False


def test_an_id_is_handed_back_in_the_same_time() -> None:
    script = Script(ok({}, elapsed=3.0), ok({}))
    assert script.run(delete()) is True
    assert script.targets == ["POST /delete", "POST /delete_session"]
    assert [send.timeout for send in script.sends] == [5.0, 2.0]
    assert Script(ok({}), failing(Failure.RESET)).run(delete()) is False


def test_why_a_session_takes_no_call() -> None:
    state = open_state()
    state.check_callable()
    state.busy = True
    with pytest.raises(InvalidRequestError, match="one at a time"):
        state.check_callable()
    state.busy, state.pending = False, "t1"
    with pytest.raises(InvalidRequestError, match="outcome of an earlier one"):
        state.check_callable()
    state.check_callable("t1")
    state.pending, state.finished = None, True
    with pytest.raises(ToolRejectedError) as caught:
        state.check_callable()
    assert caught.value.reason == "episode_finished"
    state.check_callable("t1")
    state.lost = "gone"
    with pytest.raises(SessionLostError, match="gone"):
        state.check_callable("t1")
    state.closed = True
    with pytest.raises(SessionClosedError, match="s1"):
        state.check_callable("t1")


def test_a_wire_that_asked_nobody_has_no_channel() -> None:
    server = RecordingServer(None)
    assert server.dialect == Dialect(secrets=SecretsChannel.NONE)
