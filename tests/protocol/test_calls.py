"""A tool runs exactly once: docs/wire.md, points 4 to 9, row by row."""

import contextlib
import json
import re
import threading
from typing import Any

import pytest

from ors_gym.errors import (
    AmbiguousCallError,
    AuthenticationError,
    CallTimeoutError,
    ConnectionFailedError,
    InvalidRequestError,
    LimitExceededError,
    ORSError,
    ProtocolError,
    ServerError,
    SessionClosedError,
    SessionLostError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.protocol import _operations as operations
from ors_gym.protocol._dialect import Dialect, SecretsChannel
from ors_gym.protocol._exchange import Failure, Limits, Outcome
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._server_state import SessionState
from tests.protocol.scripted_exchanges import (
    STREAM,
    RecordingServer,
    Reply,
    Script,
    failing,
    ok,
    open_state,
    refused,
    result_of,
    stream,
)

pytestmark = pytest.mark.unit

TASK = ("task_id", "t1")
STARTING = ((b"X-Backend-State", b"starting"), (b"Retry-After", b"2"))
LOST = "Active environment not found"
DONE = stream(TASK, ("end", result_of()))
CUT = stream(TASK, failure=Failure.RESET)
UNKNOWN = stream(("error", "unknown task_id"))
WAITED_OUT = (401, 429, 500, 503)


def call(state: SessionState, timeout: float = 60.0, **fields: Any) -> Any:
    server = RecordingServer(**fields)
    return operations.call_tool(server, state, "add", {"a": 1}, timeout=timeout)


def resume(state: SessionState, task_id: str = "t1", timeout: float = 60.0) -> Any:
    return operations.resume_call(RecordingServer(), state, task_id, timeout=timeout)


def test_a_call_takes_a_new_connection_after_two_broke() -> None:
    server = RecordingServer()
    for place, within in enumerate((3.0, 3.0, -1.0)):
        server.now = 10.0 * place
        script = Script(stream(TASK, failure=Failure.RESET, reused=True), DONE)
        operation = operations.call_tool(server, open_state(), "add", {}, timeout=60.0)
        script.run(operation)
        # Its result is asked for over a new one in any case.
        assert [send.reuse_within for send in script.sends] == [within, -1.0]


def test_a_call() -> None:
    state, script = open_state(), Script(DONE)
    output = script.run(call(state))
    assert output == {
        "blocks": [{"type": "text", "text": "hi"}],
        "metadata": None,
        "reward": 1.0,
        "finished": False,
    }
    assert script.targets == ["POST /Math/call"]
    assert script.body(0) == {"name": "add", "input": {"a": 1}}
    assert script.header(0, "X-Session-ID") == "s1"
    # Silence is no reason to stop before the task is named; see point 7.
    assert script.idle == [None]
    assert script.sends[0].reuse_within == 3.0
    assert (state.busy, state.pending, state.finished) == (False, None, False)


def test_of_calls_of_many_threads_one_is_sent() -> None:
    state = open_state()
    start = threading.Barrier(4)
    sent = []

    def work() -> None:
        # Long enough to encode that other threads run meanwhile.
        tool_input = {"words": ["x" * 9] * 100_000}
        operation = operations.call_tool(
            RecordingServer(), state, "add", tool_input, timeout=60.0
        )
        start.wait(20)
        with contextlib.suppress(InvalidRequestError):
            sent.append(next(operation))
            operations_under_way.append(operation)

    operations_under_way: list[Any] = []
    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(sent) == 1
    assert state.busy
    operations_under_way.pop().close()
    assert not state.busy


@pytest.mark.parametrize("event", ["end", "error"])
def test_a_huge_refusal_is_cut_before_secrets_are_looked_for(event: str) -> None:
    state = open_state()
    searched = []

    class Counting(Redactor):
        def redact_part(self, text: str, first: int, stop: int) -> str:
            searched.append(len(text))
            return super().redact_part(text, first, stop)

    state.redact = Counting(["hunter22"])
    said = "'loc': (a), 'msg': '" + "x" * 2_000_000 + "hunter22'"
    data = json.dumps({"ok": False, "error": said}) if event == "end" else said
    with pytest.raises((ToolRejectedError, ToolFailedError)) as caught:
        Script(stream(TASK, (event, data))).run(call(state))
    assert max(searched) < 100_000
    assert len(str(caught.value)) < 100_000


# Point 5, row by row.


@pytest.mark.parametrize(
    "reply",
    [
        failing(Failure.CONNECT),
        failing(Failure.CONNECT, elapsed=10.0),
        refused(429, headers=((b"Retry-After", b"2"),)),
        refused(429, failure=Failure.RESET),
        refused(503, headers=STARTING),
    ],
)
def test_what_did_not_run_is_repeated(reply: Reply) -> None:
    state, script = open_state(), Script(reply, reply, DONE)
    assert script.run(call(state))["reward"] == 1.0
    assert script.body(0) == script.body(2) == {"name": "add", "input": {"a": 1}}
    asked = {key.lower(): value for key, value in reply.headers}.get(b"retry-after")
    assert min(script.pauses) >= (2.0 if asked else 0.05)


@pytest.mark.parametrize("failure", [None, Failure.RESET])
def test_429_is_not_believed_by_who_says_so(failure: Failure | None) -> None:
    state, script = open_state(), Script(refused(429, failure=failure))
    with pytest.raises(AmbiguousCallError, match="may have run"):
        script.run(call(state, repeat_calls_after_429=False))
    with pytest.raises(InvalidRequestError, match="no further call"):
        Script().run(call(state))


@pytest.mark.parametrize(
    ("reply", "seconds", "kind", "text"),
    [
        (failing(Failure.CONNECT, elapsed=4.0), 5.0, ConnectionFailedError, "connect"),
        (refused(429, elapsed=4.0), 5.0, ServerError, "429"),
        (refused(503, headers=STARTING, elapsed=4.0), 5.0, ServerError, "503"),
        (failing(Failure.TIMEOUT, sent=False, elapsed=9.0), 8.9, None, "timeout"),
        (failing(Failure.TLS, sent=False), 0.0, None, "it was tls"),
        (refused(400, "hunter22"), 0.0, InvalidRequestError, "400: [redacted]"),
        (refused(401, "hunter22"), 0.0, AuthenticationError, "401: [redacted]"),
        (refused(403, "hunter22"), 0.0, AuthenticationError, "403: [redacted]"),
        (refused(422, "hunter22"), 0.0, InvalidRequestError, "422: [redacted]"),
    ],
)
def test_what_never_ran_leaves_the_session_open(reply, seconds, kind, text):
    state, script = open_state("hunter22"), Script(then=reply)
    with pytest.raises(kind or ConnectionFailedError, match=re.escape(text)):
        script.run(call(state, 9.0))
    assert seconds <= script.elapsed <= 9.001
    # What is not worth repeating is sent once.
    assert seconds == 5.0 or len(script.sends) == 1
    assert Script(DONE).run(call(state))["reward"] == 1.0


@pytest.mark.parametrize("reply", [refused(404, LOST), refused(410, "hunter22")])
def test_a_session_that_is_lost(reply: Reply) -> None:
    state = open_state("hunter22")
    with pytest.raises(SessionLostError) as first:
        Script(reply).run(call(state))
    with pytest.raises(SessionLostError) as second:
        Script().run(call(state))
    assert "hunter22" not in f"{first.value} {second.value} {state.lost}"


@pytest.mark.parametrize(
    "reply",
    [
        failing(Failure.RESET),
        failing(Failure.STALL),
        failing(Failure.PROTOCOL),
        failing(Failure.LIMIT),
        refused(400, failure=Failure.RESET),
        refused(404, LOST, failure=Failure.RESET),
        refused(404, "Not Found"),
        refused(503, failure=Failure.RESET),
        *map(refused, (405, 408, 409, 418, 500, 501, 502, 503, 504, 599)),
        Reply(307, headers=((b"Location", b"http://h:1/base/Math/call"),)),
        ok({"ok": True}),
        Reply(200, b"<html>", ()),
        Reply(201, result_of().encode(), STREAM),
        Reply(204, b"", STREAM),
        stream(),
        stream(("chunk", "{"), failure=Failure.RESET),
        Reply(200, b"event: task_id\ndata: t1", STREAM, Failure.RESET),
        Reply(200, b"event: task_id\ndata: \n\n", STREAM, Failure.RESET),
        Reply(200, b"event: task_id\ndata: \xff\n\n", STREAM),
        Reply(200, b"event: error\ndata: oops", STREAM, Failure.RESET),
    ],
)
def test_what_may_have_run_is_never_sent_again(reply: Reply) -> None:
    state, script = open_state(), Script(reply)
    with pytest.raises(AmbiguousCallError, match="may have run") as caught:
        script.run(call(state))
    assert type(caught.value) is AmbiguousCallError
    assert caught.value.task_id == ""
    assert script.pauses == []
    with pytest.raises(InvalidRequestError, match="outcome of an earlier one"):
        Script().run(call(state))


@pytest.mark.parametrize(
    ("reply", "task_id"),
    [
        (failing(Failure.TIMEOUT, elapsed=60.0), ""),
        (stream(TASK, failure=Failure.TIMEOUT, elapsed=60.0), "t1"),
    ],
)
def test_a_time_limit_is_ambiguous_too(reply: Reply, task_id: str) -> None:
    state = open_state()
    with pytest.raises(CallTimeoutError, match="may still ") as caught:
        Script(reply).run(call(state))
    assert caught.value.task_id == state.pending == task_id


# Points 7 and 8: once the task has a name.


@pytest.mark.parametrize(
    "cut",
    [
        stream(TASK, failure=Failure.RESET),
        stream(TASK, failure=Failure.STALL, elapsed=30.0),
        stream(TASK, failure=Failure.PROTOCOL),
        stream(TASK),
        stream(TASK, ("chunk", '{"ok"'), failure=Failure.RESET),
        Reply(200, DONE.body[:-30], STREAM, Failure.RESET),
        Reply(200, stream(TASK, ("error", "oops")).body[:-3], STREAM, Failure.RESET),
    ],
)
def test_a_stream_that_breaks_is_resumed(cut: Reply) -> None:
    state, script = open_state(), Script(cut, DONE)
    assert script.run(call(state))["reward"] == 1.0
    assert script.body(1) == {"name": "add", "input": {}, "task_id": "t1"}
    assert script.pauses == []
    # The server names a call that it knows at once: silence means a dead connection.
    assert script.idle == [None, 30.0]
    assert state.pending is None


@pytest.mark.parametrize(
    "again",
    [
        CUT,
        *map(failing, (Failure.CONNECT, Failure.RESET, Failure.STALL)),
        failing(Failure.PROTOCOL),
        *map(refused, (401, 429, 500, 502, 503, 504)),
        ok({}),
        stream(),
    ],
)
def test_a_resumption_is_repeated(again: Reply) -> None:
    state, script = open_state(), Script(CUT, again, again, DONE)
    assert script.run(call(state))["reward"] == 1.0
    assert script.pauses == [0.05, 0.1]
    assert {script.body(i)["task_id"] for i in (1, 2, 3)} == {"t1"}


def test_resuming_has_a_budget_that_no_answer_refills() -> None:
    state = open_state()
    broken = stream(TASK, failure=Failure.RESET, elapsed=7.0)
    script = Script(then=broken)
    with pytest.raises(CallTimeoutError, match=r"resume_call") as caught:
        script.run(call(state, 40.0))
    assert caught.value.task_id == "t1"
    assert 35.0 < script.elapsed <= 40.001
    assert max(script.pauses) <= 5.0
    assert state.pending == "t1"


@pytest.mark.parametrize(
    ("away", "text"),
    [
        *((refused(s, "hunter22", elapsed=3.0), f"answered {s}") for s in WAITED_OUT),
        (failing(Failure.CONNECT, elapsed=25.0), "it was connect"),
        *((refused(s, "hunter22"), "is lost") for s in (400, 403, 404, 422)),
        # The server has forgotten the result: no error of the tool.
        (UNKNOWN, "no longer has"),
    ],
)
def test_a_result_that_does_not_come_is_ambiguous(away: Reply, text: str) -> None:
    state = open_state("hunter22")
    with pytest.raises(AmbiguousCallError, match=text) as caught:
        Script(CUT, then=away).run(call(state, 99.0))
    assert type(caught.value) is AmbiguousCallError
    assert caught.value.task_id == state.pending == "t1"
    assert "hunter22" not in str(caught.value)


def test_a_connection_that_the_deadline_cuts_short_is_a_timeout() -> None:
    state = open_state()
    stalled = stream(TASK, failure=Failure.STALL, elapsed=9.9)
    cut = failing(Failure.CONNECT, elapsed=0.1)
    with pytest.raises(CallTimeoutError) as caught:
        Script(stalled, then=cut).run(call(state, 10.0))
    assert caught.value.task_id == state.pending == "t1"


@pytest.mark.parametrize("reply", [refused(404, LOST), refused(410)])
def test_a_session_that_is_lost_during_its_call(reply: Reply) -> None:
    state = open_state()
    with pytest.raises(SessionLostError):
        Script(CUT, reply).run(call(state))
    assert state.lost


def test_a_tool_may_raise_the_very_words() -> None:
    state = open_state()
    words = stream(TASK, ("error", "unknown task_id"))
    for replies in ([words], [CUT, words]):
        with pytest.raises(ToolFailedError, match="unknown task_id"):
            Script(*replies).run(call(state))
        assert state.pending is None


@pytest.mark.parametrize("replies", [[], [CUT]])
def test_a_result_beyond_the_limits_is_not_fetched_again(replies: list[Reply]) -> None:
    state = open_state()
    huge = stream(TASK, ("chunk", "x"), failure=Failure.LIMIT)
    with pytest.raises(LimitExceededError, match="it was limit"):
        Script(*replies, huge).run(call(state))
    assert state.pending == "t1"


def test_a_line_without_an_end_is_not_fetched_again() -> None:
    for whole in (True, False):
        operation = call(open_state(), limits=Limits(line_bytes=50))
        sink = next(operation).sink
        sink.start(200, STREAM)
        line = b"event: task_id\ndata: t1\n\ndata: " + b"x" * 99
        for piece in [line] if whole else [line[i : i + 1] for i in range(len(line))]:
            satisfied = sink.feed(piece)
        assert satisfied is not whole
        assert sink.feed(b"x")
        with pytest.raises(LimitExceededError, match="line_bytes"):
            operation.send(Outcome(status=200, headers=STREAM))


def test_an_event_that_cannot_be_read_while_resuming() -> None:
    bad = Reply(200, b"event: task_id\ndata: t\n\nevent: error\ndata: \xff\n\n", STREAM)
    with pytest.raises(ProtocolError, match="not UTF-8"):
        Script(CUT, bad).run(call(open_state()))


# What tools give back.


def test_an_end_without_its_blank_line_counts() -> None:
    whole = Reply(200, DONE.body[:-4], STREAM, Failure.RESET)
    assert Script(whole).run(call(open_state()))["reward"] == 1.0


def test_a_result_in_pieces() -> None:
    text = result_of("  a\u2028b  ")
    pieces = [text[i : i + 7] for i in range(0, len(text), 7)]
    events = [TASK, *(("chunk", piece) for piece in pieces[:-1]), ("end", pieces[-1])]
    output = Script(stream(*events)).run(call(open_state()))
    assert output["blocks"][0]["text"] == "  a\u2028b  "


def test_a_tool_that_raised_leaves_the_session_open() -> None:
    state = open_state("hunter22")
    with pytest.raises(ToolFailedError, match=r"add raised .*: \[redacted\]"):
        Script(stream(TASK, ("error", "hunter22"))).run(call(state))
    with pytest.raises(ToolFailedError, match=r"\(no text\)"):
        Script(stream(TASK, ("error", ""))).run(call(state))
    assert Script(DONE).run(call(state))["reward"] == 1.0


def verdict(value: str) -> Reply:
    return stream(TASK, ("end", value))


@pytest.mark.parametrize(
    ("value", "text", "reason"),
    [
        ('{"ok": false, "error": "bad a: hunter22"}', "bad a: [redacted]", ""),
        ('{"ok": false, "error": "no", "reason": "not_found"}', "no", "not_found"),
        ('{"ok": false, "error": 1, "reason": 2}', "the server gave no reason", ""),
        ('{"ok": false}', "the server gave no reason", ""),
    ],
)
def test_a_call_that_the_server_refuses(value: str, text: str, reason: str) -> None:
    state = open_state("hunter22")
    with pytest.raises(ToolRejectedError) as caught:
        Script(verdict(value)).run(call(state))
    assert (str(caught.value), caught.value.reason) == (text, reason)
    assert (state.finished, state.pending) == (False, None)


@pytest.mark.parametrize(
    "value",
    [
        *("", "[]", "{}", "null", '{"ok": 1}', '{"ok": "true"}', '{"ok": true}'),
        '{"ok": true, "output": {"finished": true, "blocks": "hunter22"}}',
        "hunter22",
    ],
)
def test_a_result_that_cannot_be_read_leaves_the_session_undecided(value: str) -> None:
    # It may have ended the episode, and a server that does not look pays again.
    state = open_state("hunter22")
    with pytest.raises(ProtocolError) as caught:
        Script(verdict(value)).run(call(state))
    assert "hunter22" not in str(caught.value)
    assert state.pending == "t1"
    with pytest.raises(InvalidRequestError):
        Script().run(call(state))


OVER = '{"ok": false, "error": "no", "reason": "episode_finished"}'


def test_the_end_is_latched() -> None:
    state = open_state()
    assert Script(verdict(result_of(finished=True))).run(call(state))["finished"]
    with pytest.raises(ToolRejectedError) as caught:
        Script().run(call(state))
    assert caught.value.reason == "episode_finished"
    # The result of a call that ran already may still be asked for.
    assert Script(DONE).run(resume(state))["finished"] is False
    assert state.finished
    # The server may say it as well.
    state = open_state()
    with pytest.raises(ToolRejectedError):
        Script(verdict(OVER)).run(call(state))
    assert state.finished


# One call at a time, and what is left when a call is interrupted.


def test_one_call_at_a_time() -> None:
    state = open_state()
    first = call(state)
    next(first)
    with pytest.raises(InvalidRequestError, match="one at a time"):
        Script().run(call(state))
    with pytest.raises(InvalidRequestError, match="one at a time"):
        Script().run(resume(state))
    assert state.busy is True
    first.close()
    # Nobody knows whether it ran.
    assert (state.busy, state.pending) == (False, "")
    with pytest.raises(InvalidRequestError, match="outcome of an earlier one"):
        Script().run(call(state))


def test_an_interrupted_resumption_keeps_its_task() -> None:
    state = open_state()
    with pytest.raises(AssertionError, match="unexpected"):
        Script(CUT).run(call(state))
    assert (state.busy, state.pending) == (False, "t1")


def test_a_call_that_cannot_be_sent_leaves_the_session_as_it_was() -> None:
    state, server = open_state(), RecordingServer()
    operation = operations.call_tool(server, state, "f", {"a": {1}}, timeout=1.0)
    with pytest.raises(InvalidRequestError):
        Script().run(operation)
    assert (state.busy, state.pending) == (False, None)


@pytest.mark.parametrize(
    ("end", "kind"),
    [
        (lambda state: setattr(state, "closed", True), SessionClosedError),
        (lambda state: setattr(state, "lost", "gone"), SessionLostError),
    ],
)
def test_a_call_is_not_repeated_on_a_session_that_is_over(end, kind):
    state = open_state()
    operation = call(state, on_retry=lambda _: end(state))
    with pytest.raises(kind):
        Script(refused(429)).run(operation)


# Waiting longer.


def undecided(task_id: str) -> SessionState:
    state = open_state()
    state.pending = task_id
    return state


def test_a_lost_result_is_asked_for_again() -> None:
    state = undecided("t1")
    script = Script(CUT, DONE)
    assert script.run(resume(state))["reward"] == 1.0
    assert script.body(0) == {"name": "", "input": {}, "task_id": "t1"}
    assert script.idle == [30.0, 30.0]
    assert state.pending is None
    assert Script(DONE).run(call(state))["reward"] == 1.0


def test_another_call_s_result_does_not_decide_this_one() -> None:
    state = undecided("")
    assert Script(DONE).run(resume(state, "t0"))["reward"] == 1.0
    assert state.pending == ""


@pytest.mark.parametrize(
    ("replies", "timeout", "kind", "pending"),
    [
        ([UNKNOWN], 60.0, AmbiguousCallError, "t1"),
        ([], 0.0, CallTimeoutError, "t1"),
        ([stream(TASK, ("error", "x"))], 60.0, ToolFailedError, None),
    ],
)
def test_asking_again_may_fail(replies, timeout, kind, pending):
    state = undecided("t1")
    with pytest.raises(kind) as caught:
        Script(*replies).run(resume(state, timeout=timeout))
    assert type(caught.value) is kind
    assert state.pending == pending


def test_a_call_without_a_name_cannot_be_resumed() -> None:
    state = open_state()
    with pytest.raises(InvalidRequestError, match="without a task_id"):
        Script().run(resume(state, ""))
    assert not state.busy


# Groups.


def score(state: SessionState, count: int = 2, **fields: Any) -> Any:
    server = RecordingServer(**fields)
    candidates: list[dict[str, Any]] = [{"messages": []}] * count
    return operations.score_group(server, state, candidates, timeout=60.0)


SCORES = stream(TASK, ("end", '{"scores": [{"reward": 1}, {"reward": 0.5}]}'))


@pytest.mark.parametrize("replies", [[SCORES], [CUT, SCORES]])
def test_a_group_is_scored(replies: list[Reply]) -> None:
    script = Script(*replies)
    assert script.run(score(open_state())) == [{"reward": 1}, {"reward": 0.5}]
    assert script.targets[0] == "POST /Math/score_group"
    assert script.body(0) == {"candidates": [{"messages": []}] * 2}
    if len(replies) > 1:
        assert script.body(1) == {"candidates": [], "task_id": "t1"}


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (refused(404, "Environment 'math' does not implement it"), InvalidRequestError),
        (refused(404, LOST), SessionLostError),
        (refused(500), AmbiguousCallError),
        (stream(TASK, ("error", "judge failed")), ToolFailedError),
        (stream(TASK, ("end", '{"scores": [{"reward": 1}]}')), ProtocolError),
        (stream(TASK, ("end", "{}")), ProtocolError),
    ],
)
def test_a_group_that_is_not_scored(reply: Reply, kind: type[ORSError]) -> None:
    state = open_state()
    with pytest.raises(kind):
        Script(reply).run(score(state))
    assert bool(state.lost) is (kind is SessionLostError)
    assert state.pending is None


def test_a_server_that_cannot_score() -> None:
    with pytest.raises(InvalidRequestError, match=r"0\.1\.157"):
        Script().run(score(open_state(), dialect=Dialect(SecretsChannel.BODY)))
