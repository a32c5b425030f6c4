"""The life of a session: open, look at, keep alive, delete."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    ORSError,
    ProtocolError,
    ServerError,
    SessionLostError,
    SetupFailedError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol.exchange import Operation, Outcome, Send
from ors_gym.protocol.operations.fetching import REUSE_WITHIN, fetch, wait
from ors_gym.protocol.operations.metadata import get_task, resolve_environment
from ors_gym.protocol.reading import (
    parse_json,
    read_blocks,
    read_messages,
    read_session_id,
    read_tools,
)
from ors_gym.protocol.replies import (
    BodyReader,
    StreamReader,
    failure_error,
    server_text,
    status_error,
)
from ors_gym.protocol.requests import (
    call_head,
    check_secrets,
    create_request,
    encode,
    environment_head,
    plain_head,
    session_head,
)
from ors_gym.protocol.retries import Patience, is_starting, may_repeat
from ors_gym.protocol.wire import SessionState, Wire
from ors_gym.types import Block, JSONObject, ToolSpec

__all__ = [
    "create_episode",
    "create_session",
    "delete_session",
    "get_messages",
    "get_prompt",
    "list_task_tools",
    "open_session",
    "ping",
    "start_episode",
]

_SESSION_ID: Final = re.compile(r"[\x21-\x7e]{1,512}")


def open_session(
    wire: Wire,
    environment: str,
    task: Mapping[str, Any],
    *,
    timeout: float,
    secrets: Mapping[str, str] | None = None,
    create_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
) -> Operation[SessionState]:
    """Open a session and start its episode.

    An unanswered /create is never repeated on its id: the id is abandoned and a
    fresh one is used (WIRE.md, point 10).

    Args:
        wire: The server.
        environment: The environment's name, in any case.
        task: ``{"task_spec": ...}``, or ``{"split": ..., "index": ...}``.
        timeout: Seconds for all of it.
        secrets: Values for the environment, by name.
        create_options: Further fields for the body of /create.
        session_options: The body of /create_session.

    Returns:
        The session; its set-up may still be running.

    Raises:
        UnknownTaskError: If the server has no such split, index or task.
        SetupFailedError: If the environment's constructor raised.
        ConnectionFailedError: If there was no answer in time.
    """
    secrets = secrets or {}
    environment = yield from resolve_environment(wire, environment)
    check_secrets(wire, secrets)
    task = yield from _known_task(wire, environment, task)
    patience = wire.patience(timeout)
    while True:
        session_id = yield from create_session(
            wire, session_options, budget=patience.remaining
        )
        state = yield from create_episode(
            wire,
            session_id,
            environment,
            task,
            secrets=secrets,
            options=create_options,
            patience=patience,
        )
        if state is not None:
            return state


def create_session(
    wire: Wire,
    options: Mapping[str, Any] | None = None,
    *,
    budget: float | None = None,
) -> Operation[str]:
    """Get a session id: from the server, or our own (WIRE.md, point 2).

    Args:
        wire: The server.
        options: The request's body, if it has one.
        budget: Seconds; the client's timeout if None.

    Returns:
        The id.

    Raises:
        ProtocolError: If the reply holds none.
    """
    if wire.spoken.create_session is False:
        return wire.new_id()
    patience = wire.patience(wire.timeout if budget is None else budget)
    head = plain_head("POST", "/create_session")
    body = encode(options, "session_options") if options else None
    while True:
        reader = StreamReader(wire.limits)
        timeout = max(0.001, min(patience.remaining, wire.timeout))
        outcome = yield Send(head, body, reader, timeout, REUSE_WITHIN)
        patience.spend(outcome)
        wire.reached = wire.reached or outcome.status > 0
        if reader.task_id is not None or not may_repeat(outcome):
            break
        if not (yield from wait(wire, patience, outcome, head)):
            break
    if outcome.status in (404, 405):
        return wire.new_id()
    session_id = _session_id(wire, outcome, reader)
    if not _SESSION_ID.fullmatch(session_id):
        raise ProtocolError(f"not a session id: {session_id[:40]!r}")
    return session_id


def _session_id(wire: Wire, outcome: Outcome, reader: StreamReader) -> str:
    if reader.task_id is not None:
        return reader.task_id
    if outcome.failure is not None:
        raise failure_error(outcome, f"POST {wire.where}/create_session")
    if outcome.status != 200:
        raise status_error(outcome, reader.body, "POST /create_session", wire.redact)
    if reader.is_stream:
        raise reader.error or ProtocolError("/create_session named no session id")
    return read_session_id(parse_json(reader.body, "the reply of /create_session"))


def create_episode(
    wire: Wire,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    patience: Patience,
    secrets: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Operation[SessionState | None]:
    """Start the episode of a session.

    Args:
        wire: The server.
        session_id: The session's id.
        environment: The environment's name as the server spells it.
        task: ``{"task_spec": ...}``, or ``{"split": ..., "index": ...}``.
        patience: The budget of the whole set-up.
        secrets: Values for the environment, by name.
        options: Further fields for the body.

    Returns:
        The session, or None if the id was abandoned because nobody knows whether
        /create ran, and a fresh id may be tried.

    Raises:
        ORSError: What the server's refusal stands for; the id is abandoned.
    """
    secrets = secrets or {}
    redact = wire.redact.adding(secrets.values())
    head, body = create_request(
        wire, session_id, environment, task, secrets=secrets, options=options or {}
    )
    abandoned = True
    try:
        while True:
            reader = BodyReader()
            timeout = max(0.001, patience.remaining)
            outcome = yield Send(head, body, reader, timeout, REUSE_WITHIN)
            patience.spend(outcome)
            if outcome.failure is None and outcome.status == 200:
                abandoned = False
                calls = call_head(environment, session_id)
                state = SessionState(session_id, environment, calls, redact)
                state.created = True
                return state
            if not may_repeat(outcome) and not _exists_already(outcome, reader):
                break
            if not (yield from wait(wire, patience, outcome, head)):
                break
            if not _refused_unrun(outcome):
                return None
    finally:
        if abandoned:
            wire.abandon(session_id)
    if outcome.failure is not None:
        raise failure_error(outcome, f"POST {wire.where}/create")
    raise _create_error(outcome, reader.body, environment, redact)


def _refused_unrun(outcome: Outcome) -> bool:
    """Say whether the request certainly created nothing."""
    return not outcome.sent or outcome.status == 429 or is_starting(outcome)


def _exists_already(outcome: Outcome, reader: BodyReader) -> bool:
    return outcome.status == 400 and b"Session already exists" in reader.body


def _create_error(
    outcome: Outcome, body: bytes, environment: str, redact: Any
) -> ORSError:
    error = status_error(outcome, body, "POST /create", redact)
    said = redact(server_text(body))
    if outcome.status == 400:
        return UnknownTaskError(str(error), status=400)
    if outcome.status == 404:
        return UnknownEnvironmentError(str(error), status=404)
    if outcome.status == 500:
        return SetupFailedError(f"environment {environment!r} failed to start: {said}")
    return error


def start_episode(
    wire: Wire,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    timeout: float,
    secrets: Mapping[str, str] | None = None,
) -> Operation[SessionState]:
    """Start the episode of a session id that the caller chose, or not at all.

    Args:
        wire: The server.
        session_id: The session's id.
        environment: The environment's name, in any case.
        task: ``{"task_spec": ...}``, or ``{"split": ..., "index": ...}``.
        timeout: Seconds.
        secrets: Values for the environment, by name.

    Returns:
        The session.

    Raises:
        ConnectionFailedError: If nobody knows whether it was started.
    """
    environment = yield from resolve_environment(wire, environment)
    task = yield from _known_task(wire, environment, task)
    patience = wire.patience(timeout)
    state = yield from create_episode(
        wire, session_id, environment, task, patience=patience, secrets=secrets
    )
    if state is None:
        raise ConnectionFailedError(
            f"nobody knows whether session {session_id} was started; it is abandoned. "
            "Get a new session id and start again"
        )
    return state


def _known_task(
    wire: Wire, environment: str, task: Mapping[str, Any]
) -> Operation[Mapping[str, Any]]:
    """Replace split and index by the task, for a server that does not take them."""
    if "index" not in task or wire.spoken.create_by_index:
        return task
    spec = yield from get_task(wire, environment, task["split"], task["index"])
    return {"task_spec": spec}


def get_prompt(
    wire: Wire, state: SessionState, *, timeout: float
) -> Operation[list[Block]]:
    """Get the prompt, waiting for the set-up to end (WIRE.md, point 13).

    Args:
        wire: The server.
        state: The session.
        timeout: Seconds, set-up included.

    Returns:
        The blocks of the prompt.

    Raises:
        SetupFailedError: If the set-up raised; with the server's text.
        SessionLostError: If the server no longer has the session.
    """
    value = yield from _ask_session(wire, state, "prompt", timeout)
    return read_blocks(value)


def get_messages(
    wire: Wire, state: SessionState, *, timeout: float
) -> Operation[list[JSONObject]]:
    """Get the prompt as a conversation: turns with ``role`` and ``blocks``.

    Args:
        wire: The server.
        state: The session.
        timeout: Seconds, set-up included.

    Returns:
        The turns; a server without conversations gives its prompt as one user turn.
    """
    if wire.spoken.messages:
        value = yield from _ask_session(wire, state, "messages", timeout)
        return read_messages(value)
    blocks = yield from get_prompt(wire, state, timeout=timeout)
    return [{"role": "user", "blocks": blocks}]


def list_task_tools(
    wire: Wire, state: SessionState, *, timeout: float
) -> Operation[tuple[list[ToolSpec], JSONObject]]:
    """List the tools of a session; ask after the prompt (WIRE.md, point 13).

    Args:
        wire: The server.
        state: The session.
        timeout: Seconds.

    Returns:
        The tools, and what else the server says with them. A server that knows no
        tools of a session gives those of the environment.
    """
    if wire.spoken.task_tools is not False:
        try:
            value = yield from _ask_session(wire, state, "task_tools", timeout)
            return read_tools(value, wire.limits.tools)
        except InvalidRequestError as error:
            if error.status not in (404, 405):
                raise
    head = environment_head("GET", state.environment, "tools")
    outcome, body = yield from fetch(wire, head, budget=timeout)
    if outcome.status != 200:
        raise status_error(outcome, body, f"GET {head.target}", state.redact)
    value = parse_json(body, f"the reply of {head.target}")
    return read_tools(value, wire.limits.tools)


def _ask_session(
    wire: Wire, state: SessionState, endpoint: str, timeout: float
) -> Operation[Any]:
    path = environment_head("GET", state.environment, endpoint).target
    head = session_head("GET", path, state.session_id)
    outcome, body = yield from fetch(wire, head, budget=timeout)
    if outcome.status == 200:
        return parse_json(body, f"the reply of {path}")
    note_loss(state, outcome, body)
    error = status_error(outcome, body, f"GET {path}", state.redact)
    if outcome.status == 500:
        raise SetupFailedError(
            f"environment {state.environment!r} failed to set up: "
            f"{state.redact(server_text(body))}"
        )
    if is_starting(outcome):
        raise SetupFailedError(
            f"environment {state.environment!r} was still starting after {timeout:g} s;"
            " raise setup_timeout if it needs longer"
        )
    raise error


def note_loss(state: SessionState, outcome: Outcome, body: bytes) -> None:
    """Raise if a reply says that the server no longer has the session.

    Args:
        state: The session; marked as lost.
        outcome: The reply's head.
        body: Its body.

    Raises:
        SessionLostError: For 410, and for the 404 that names the session and not
            the path (WIRE.md, "An episode").
    """
    text = server_text(body)
    if outcome.status == 410 or (
        outcome.status == 404 and "Active environment not found" in text
    ):
        state.lost = f"the server answered {outcome.status}: {text}"
        raise SessionLostError(
            f"session {state.session_id} of {state.environment!r} is lost: the server "
            f"answered {outcome.status} ({state.redact(text)}). It was deleted, or the "
            "server was restarted; open a new session"
        )


def ping(wire: Wire, session_id: str, *, timeout: float) -> Operation[bool | None]:
    """Tell the server that a session is still wanted (WIRE.md, point 12).

    Args:
        wire: The server.
        session_id: The session's id.
        timeout: Seconds; a ping is not repeated, the next one is soon enough.

    Returns:
        True if the server has the session, False if it has not, None if there was
        no telling.
    """
    head = session_head("POST", "/ping", session_id)
    try:
        outcome, _ = yield from fetch(wire, head, budget=timeout, attempts=1)
    except ORSError:
        return None
    if outcome.status == 200:
        return True
    return False if outcome.status in (404, 410) else None


def delete_session(
    wire: Wire, session_id: str, *, timeout: float, attempts: int | None = None
) -> Operation[bool]:
    """Delete a session, as often as it takes within the time.

    Args:
        wire: The server.
        session_id: The session's id.
        timeout: Seconds for all of it.
        attempts: How often it is tried at most; None for no limit but the time.

    Returns:
        Whether the server confirmed that the session is gone.
    """
    head = session_head("POST", "/delete", session_id)
    try:
        outcome, _ = yield from fetch(wire, head, budget=timeout, attempts=attempts)
        if wire.spoken.delete_session:
            head = session_head("POST", "/delete_session", session_id)
            yield from fetch(wire, head, budget=timeout, attempts=1)
    except (ConnectionFailedError, ProtocolError, ServerError):
        return False
    return outcome.status in (200, 404, 410)
