"""The life of an open session: look at it, keep it alive, delete it."""

from __future__ import annotations

from typing import Any

from ors_gym.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    ORSError,
    ProtocolError,
    SessionLostError,
    SetupFailedError,
)
from ors_gym.protocol._exchange import Operation, Outcome
from ors_gym.protocol._operations.fetching import fetch, within
from ors_gym.protocol._reading import parse_json, read_blocks, read_messages, read_tools
from ors_gym.protocol._replies import server_text, status_error
from ors_gym.protocol._requests import environment_head, session_head
from ors_gym.protocol._retries import is_starting
from ors_gym.protocol._wire import SessionState, Wire
from ors_gym.types import Block, JSONObject, ToolSpec

__all__ = [
    "delete_session",
    "get_messages",
    "get_prompt",
    "list_task_tools",
    "note_loss",
    "ping",
]


def get_prompt(
    wire: Wire, state: SessionState, *, timeout: float
) -> Operation[list[Block]]:
    """Get the prompt, waiting for the set-up to end (docs/wire.md, point 13).

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
    """List the tools of a session; ask after the prompt (docs/wire.md, point 13).

    Args:
        wire: The server.
        state: The session.
        timeout: Seconds.

    Returns:
        The tools, and what else the server says with them. A server that knows no
        tools of a session gives those of the environment.
    """
    return (yield from within(wire.patience(timeout), _tools(wire, state, timeout)))


def _tools(
    wire: Wire, state: SessionState, timeout: float
) -> Operation[tuple[list[ToolSpec], JSONObject]]:
    if wire.spoken.task_tools is not False:
        try:
            value = yield from _ask_session(wire, state, "task_tools", timeout)
            return read_tools(value, wire.limits.tools)
        except InvalidRequestError as error:
            if wire.spoken.task_tools or error.status not in (404, 405):
                raise
    head = environment_head("GET", state.environment, "tools")
    outcome, body = yield from fetch(wire, head, budget=timeout)
    if outcome.status != 200:
        raise status_error(outcome, body, f"GET {head.target}", state.redact)
    value = parse_json(body, f"the reply of {head.target}", state.redact)
    return read_tools(value, wire.limits.tools)


def _ask_session(
    wire: Wire, state: SessionState, endpoint: str, timeout: float
) -> Operation[Any]:
    path = environment_head("GET", state.environment, endpoint).target
    head = session_head("GET", path, state.session_id)
    outcome, body = yield from fetch(wire, head, budget=timeout)
    if outcome.status == 200:
        return parse_json(body, f"the reply of {path}", state.redact)
    note_loss(state, outcome, body)
    error = status_error(outcome, body, f"GET {path}", state.redact)
    if outcome.status == 500:
        raise SetupFailedError(
            f"environment {state.environment!r} failed to set up: "
            f"{server_text(body, state.redact)}"
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
            the path (docs/wire.md, "An episode").
    """
    text = server_text(body, state.redact)
    if outcome.status == 410 or (
        outcome.status == 404 and "Active environment not found" in text
    ):
        state.lost = f"the server answered {outcome.status}: {text}"
        raise SessionLostError(
            f"session {state.session_id} of {state.environment!r} is lost: the server "
            f"answered {outcome.status} ({text}). It was deleted, or the server was "
            "restarted; open a new session"
        )


def ping(wire: Wire, session_id: str, *, timeout: float) -> Operation[bool | None]:
    """Tell the server that a session is still wanted (docs/wire.md, point 12).

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
    patience = wire.patience(timeout)
    deletion = _delete(wire, session_id, timeout, attempts)
    try:
        return (yield from within(patience, deletion))
    except (ConnectionFailedError, ProtocolError):
        return False


def _delete(
    wire: Wire, session_id: str, timeout: float, attempts: int | None
) -> Operation[bool]:
    head = session_head("POST", "/delete", session_id)
    outcome, _ = yield from fetch(wire, head, budget=timeout, attempts=attempts)
    if wire.spoken.delete_session:
        head = session_head("POST", "/delete_session", session_id)
        yield from fetch(wire, head, budget=timeout, attempts=1)
    return outcome.status in (200, 404, 410)
