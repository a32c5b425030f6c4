"""Running a tool exactly once (docs/wire.md, points 4 to 9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from ors_gym.errors import (
    AmbiguousCallError,
    CallTimeoutError,
    InvalidRequestError,
    LimitExceededError,
    ORSError,
    ProtocolError,
    ToolFailedError,
    ToolRejectedError,
)
from ors_gym.protocol._exchange import (
    Failure,
    Operation,
    Outcome,
    Send,
)
from ors_gym.protocol._operations.fetching import wait
from ors_gym.protocol._operations.sessions import note_loss
from ors_gym.protocol._replies import (
    HEARTBEATS_MISSED,
    StreamReader,
    failure_error,
    redact_excerpt,
    shorten_refusal,
    status_error,
)
from ors_gym.protocol._reply_json import parse_json, read_scores, read_tool_output
from ors_gym.protocol._requests import call_body, call_head, encode
from ors_gym.protocol._retries import Patience, certainly_not_run
from ors_gym.protocol._server_state import Server, SessionState
from ors_gym.types import JSONObject, ToolOutput

_UNKNOWN_TASK: Final = "unknown task_id"
_REFUSALS: Final = frozenset({400, 401, 403, 422})
"""Statuses that prove that a call was not run (docs/wire.md, point 5)."""


def call_tool(
    server: Server,
    state: SessionState,
    tool: str,
    tool_input: Mapping[str, Any],
    *,
    timeout: float,
) -> Operation[ToolOutput]:
    """Run a tool at most once, whatever breaks, and exactly once if this returns.

    The timeout is in seconds and covers resumptions. Errors say whether the tool ran:
    `AmbiguousCallError` and `CallTimeoutError` are raised where nobody knows.
    """
    body = call_body(tool, tool_input)
    state.claim()
    # Before the first byte leaves: from then on the call may have run. Whatever ends
    # this operation, an interruption as well, the session takes no further call until
    # the outcome is known (docs/wire.md, point 9).
    state.pending = ""
    try:
        patience = server.patience(timeout)
        reader = yield from _start(server, state, body, patience)
        if reader.result is None and reader.failed is None and reader.error is None:
            # The server has the call: only its result is asked for (point 4).
            task_id = state.pending = reader.task_id or ""
            resume = call_body(tool, {}, task_id)
            reader = yield from _resume(server, state, resume, task_id, patience)
        state.pending = None
    finally:
        state.free.append(None)
    return _tool_output(state, tool, reader, reader.task_id or "")


def resume_call(
    server: Server, state: SessionState, task_id: str, *, timeout: float
) -> Operation[ToolOutput]:
    """Wait longer for a call whose result did not come (docs/wire.md, point 9)."""
    if not task_id:
        raise InvalidRequestError("a call without a task_id cannot be resumed")
    state.claim(task_id)
    try:
        patience = server.patience(timeout)
        body = call_body("", {}, task_id)
        reader = yield from _resume(server, state, body, task_id, patience)
        if state.pending == task_id:
            state.pending = None
    finally:
        state.free.append(None)
    return _tool_output(state, "the resumed call", reader, task_id)


def score_group(
    server: Server,
    state: SessionState,
    candidates: Sequence[Mapping[str, Any]],
    *,
    timeout: float,
) -> Operation[list[JSONObject]]:
    """Have a group of rollouts of the session's task scored together, in order."""
    if not server.dialect.score_group:
        raise InvalidRequestError(
            f"the server at {server.base_url} cannot score groups; openreward can from "
            "0.1.157 on"
        )
    body = encode({"candidates": list(candidates)}, "the candidates")
    scoring = SessionState(
        state.session_id,
        state.environment,
        server.address(call_head(state.environment, state.session_id, "score_group")),
        state.redact,
    )
    patience = server.patience(timeout)
    # A 404 or 405 comes from an environment that has no scores; `note_loss` knows
    # a lost session by the reply's text.
    refusals = _REFUSALS | {404, 405}
    state.claim(task_id="")
    try:
        reader = yield from _start(server, scoring, body, patience, refusals)
        if reader.result is None and reader.failed is None and reader.error is None:
            task_id = reader.task_id or ""
            resume = encode({"candidates": [], "task_id": task_id}, "the resumption")
            reader = yield from _resume(server, scoring, resume, task_id, patience)
    finally:
        state.lost = state.lost or scoring.lost
        state.free.append(None)
    result = _result(state, "score_group", reader)
    scores = read_scores(parse_json(result, "the scores", state.redact))
    if len(scores) != len(candidates):
        raise ProtocolError(f"{len(scores)} scores for {len(candidates)} candidates")
    return scores


def _start(
    server: Server,
    state: SessionState,
    body: bytes,
    patience: Patience,
    refusals: frozenset[int] = _REFUSALS,
) -> Operation[StreamReader]:
    """Send a call until the server received it once, and never again after that.

    The reader that is returned has a `result`, a `task_id` or a `failed` text.
    """
    while True:
        reader = StreamReader(server.settings.limits)
        timeout = patience.remaining if patience.remaining > 0 else 0.001
        reuse = patience.call_reuse_within
        outcome = yield Send(state.call_head, body, reader, timeout, reuse)
        if reader.result is not None:
            return reader
        patience.spend(outcome)
        _finish(reader, outcome, state)
        if reader.task_id is not None or reader.failed is not None:
            return reader
        after_429 = server.settings.repeat_calls_after_429
        if not certainly_not_run(outcome, after_429=after_429):
            raise _unanswered(server, state, outcome, reader, refusals)
        if outcome.failure is Failure.TLS:
            # It may be sent again, but a certificate does not become right meanwhile.
            raise _never_ran(server, state, outcome, reader)
        if not (yield from wait(server, patience, outcome, state.call_head)):
            raise _never_ran(server, state, outcome, reader)
        # Meanwhile the session may have been closed, or a ping may have found it lost.
        state.check_open()


def _finish(reader: StreamReader, outcome: Outcome, state: SessionState) -> None:
    """Take the end of a reply that has no result so far."""
    reader.finish()
    if outcome.failure is Failure.LIMIT and reader.task_id is not None:
        # Not resumed: the result would be as large again.
        request = f"POST {state.call_head.target}"
        reader.error = LimitExceededError(str(failure_error(outcome, request)))


def _unanswered(
    server: Server,
    state: SessionState,
    outcome: Outcome,
    reader: StreamReader,
    refusals: frozenset[int],
) -> ORSError:
    """Choose the error for a call that was sent and got no task_id (point 5)."""
    request = f"POST {state.call_head.target}"
    complete = outcome.failure is None
    if complete and outcome.status in (404, 410):
        try:
            note_loss(state, outcome, reader.body)
        except ORSError as error:
            return error
    if complete and outcome.status in refusals:
        state.pending = None
        return status_error(
            outcome, reader.body, request, state.redact, server.settings
        )
    if outcome.failure is Failure.TIMEOUT:
        return CallTimeoutError(
            f"{request} was not answered in time; the tool may have run, or may still "
            "run. The session takes no further call: open a new one"
        )
    if not complete:
        what = failure_error(outcome, request)
    else:
        what = reader.error or status_error(
            outcome, reader.body, request, state.redact, server.settings
        )
    return AmbiguousCallError(
        f"the tool may have run, and its result is lost: {what}. It is not run again; "
        "open a new session"
    )


def _never_ran(
    server: Server, state: SessionState, outcome: Outcome, reader: StreamReader
) -> ORSError:
    """Choose the error for a call that certainly was not run."""
    state.pending = None
    request = f"POST {state.call_head.target}"
    if outcome.failure is not None:
        return failure_error(outcome, request)
    return status_error(outcome, reader.body, request, state.redact, server.settings)


def _resume(
    server: Server, state: SessionState, body: bytes, task_id: str, patience: Patience
) -> Operation[StreamReader]:
    """Ask for a call's result by its task_id until it comes or the time is over."""
    head = state.call_head
    # The latest error that kept the result back; None if it is only late.
    said: ORSError | None = None
    while patience.remaining > 0:
        reader = StreamReader(server.settings.limits)
        # The 30 s count from the start of the reply, not only after the task_id: a
        # server that knows the call names it at once (point 7).
        reader.idle_timeout = HEARTBEATS_MISSED
        reuse = patience.call_reuse_within
        outcome = yield Send(head, body, reader, patience.remaining, reuse)
        patience.spend(outcome)
        _finish(reader, outcome, state)
        if reader.error is not None:
            return reader
        # In a reply that has named the call, these words are the tool's own (point 8).
        if reader.failed == _UNKNOWN_TASK and reader.task_id is None:
            raise AmbiguousCallError(
                f"the server no longer has the result of call {task_id}; the tool ran, "
                "or the server was restarted. Open a new session",
                task_id=task_id,
            )
        if reader.result is not None or reader.failed is not None:
            return reader
        # A connection that our own deadline cut short says nothing about the server.
        if outcome.failure is not Failure.CONNECT or patience.remaining > 0:
            said = _obstacle(server, state, outcome, reader, task_id)
        if not (yield from wait(server, patience, outcome, head)):
            break
    if said is not None:
        raise AmbiguousCallError(
            f"the result of call {task_id} did not come: {said}", task_id=task_id
        )
    raise CallTimeoutError(
        f"the result of call {task_id} did not come in time; the tool may still be "
        "running. Session.resume_call(task_id) waits longer",
        task_id=task_id,
    )


def _obstacle(
    server: Server,
    state: SessionState,
    outcome: Outcome,
    reader: StreamReader,
    task_id: str,
) -> ORSError | None:
    """Return the error that keeps a call's result from coming (point 7).

    None if only time is missing. Raises if asking again is useless.
    """
    request = f"POST {state.call_head.target}"
    if outcome.failure is Failure.CONNECT:
        return failure_error(outcome, request)
    if outcome.failure is not None or outcome.status == 200:
        return None
    note_loss(state, outcome, reader.body)
    said = status_error(outcome, reader.body, request, state.redact, server.settings)
    if outcome.status in (401, 429) or outcome.status >= 500:
        return said
    raise AmbiguousCallError(
        f"the result of call {task_id} is lost: {said}", task_id=task_id
    )


def _result(state: SessionState, tool: str, reader: StreamReader) -> bytes:
    if reader.error is not None:
        raise reader.error
    if reader.failed is not None:
        text = redact_excerpt(reader.failed, state.redact)
        raise ToolFailedError(f"{tool} raised on the server: {text or '(no text)'}")
    return reader.result or b""


def _tool_output(
    state: SessionState, tool: str, reader: StreamReader, task_id: str
) -> ToolOutput:
    """Read a call's result: an output, or the server's refusal, which is raised."""
    try:
        return _read_output(state, tool, reader)
    except ProtocolError:
        # The result that cannot be read may have ended the episode, and some servers
        # run and pay for another call after the end (point 9).
        state.pending = task_id
        raise


def _read_output(state: SessionState, tool: str, reader: StreamReader) -> ToolOutput:
    result = _result(state, tool, reader)
    value = parse_json(result, f"the result of {tool!r}", state.redact)
    verdict = value.get("ok") if isinstance(value, dict) else None
    if verdict is True:
        output = read_tool_output(value.get("output"))
        state.finished = state.finished or output["finished"]
        return output
    if verdict is not False:
        raise ProtocolError(f"the result of {tool!r} does not say whether it is ok")
    reason = value.get("reason")
    reason = reason if isinstance(reason, str) else ""
    state.finished = state.finished or reason == "episode_finished"
    error = value.get("error")
    text = error if isinstance(error, str) else "the server gave no reason"
    text = redact_excerpt(text, state.redact)
    short = shorten_refusal(text)
    raise ToolRejectedError(
        short,
        reason=redact_excerpt(reason, state.redact),
        original=text if short != text else "",
    )
