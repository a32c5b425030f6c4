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
from ors_gym.protocol._server import Server
from ors_gym.protocol._session_state import SessionState
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
    server: Server, state: SessionState, *, timeout: float
) -> Operation[list[Block]]:
    """Get the prompt; waits for the set-up to end (docs/wire.md, point 13)."""
    return read_blocks((yield from _ask_session(server, state, "prompt", timeout)))


def get_messages(
    server: Server, state: SessionState, *, timeout: float
) -> Operation[list[JSONObject]]:
    """Get the prompt as turns with ``role`` and ``blocks``.

    A server without conversations gives its prompt as one user turn.
    """
    if server.dialect.messages:
        value = yield from _ask_session(server, state, "messages", timeout)
        return read_messages(value)
    blocks = yield from get_prompt(server, state, timeout=timeout)
    return [{"role": "user", "blocks": blocks}]


def list_task_tools(
    server: Server, state: SessionState, *, timeout: float
) -> Operation[tuple[list[ToolSpec], JSONObject]]:
    """List the tools of a session, and what else the server says of them.

    To be asked after the prompt: before, a server may list only the tools that its
    set-up has made so far (docs/wire.md, point 13).
    """
    return (yield from within(server.patience(timeout), _tools(server, state, timeout)))


def _tools(
    server: Server, state: SessionState, timeout: float
) -> Operation[tuple[list[ToolSpec], JSONObject]]:
    if server.dialect.task_tools is not False:
        try:
            value = yield from _ask_session(server, state, "task_tools", timeout)
            return read_tools(value, server.settings.limits.tools)
        except InvalidRequestError as error:
            if server.dialect.task_tools or error.status not in (404, 405):
                raise
    # The server knows no tools of a session: it gives those of the environment.
    head = environment_head("GET", state.environment, "tools")
    outcome, body = yield from fetch(server, head, budget=timeout)
    if outcome.status != 200:
        raise status_error(outcome, body, f"GET {head.target}", state.redact)
    value = parse_json(body, f"the reply of {head.target}", state.redact)
    return read_tools(value, server.settings.limits.tools)


def _ask_session(
    server: Server, state: SessionState, endpoint: str, timeout: float
) -> Operation[Any]:
    path = environment_head("GET", state.environment, endpoint).target
    head = session_head("GET", path, state.session_id)
    outcome, body = yield from fetch(server, head, budget=timeout)
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
    """Mark the session as lost and raise if a reply says that the server lacks it."""
    text = server_text(body, state.redact)
    # A 404 also answers for a path that the server lacks; its text tells them apart
    # (docs/wire.md, point 5).
    if outcome.status == 410 or (
        outcome.status == 404 and "Active environment not found" in text
    ):
        state.lost = f"the server answered {outcome.status}: {text}"
        raise SessionLostError(
            f"session {state.session_id} of {state.environment!r} is lost: the server "
            f"answered {outcome.status} ({text}). It was deleted, or the server was "
            "restarted; open a new session"
        )


def ping(server: Server, session_id: str, *, timeout: float) -> Operation[bool | None]:
    """Tell the server that a session is still wanted (docs/wire.md, point 12).

    True if the server has the session, False if it has not, None if it did not say.
    """
    head = session_head("POST", "/ping", session_id)
    try:
        # Not repeated: the next ping is soon enough.
        outcome, _ = yield from fetch(server, head, budget=timeout, attempts=1)
    except ORSError:
        return None
    if outcome.status == 200:
        return True
    return False if outcome.status in (404, 410) else None


def delete_session(
    server: Server, session_id: str, *, timeout: float, attempts: int | None = None
) -> Operation[bool]:
    """Delete a session; return whether the server confirmed that it is gone."""
    patience = server.patience(timeout)
    deletion = _delete(server, session_id, timeout, attempts)
    try:
        return (yield from within(patience, deletion))
    except (ConnectionFailedError, ProtocolError):
        return False


def _delete(
    server: Server, session_id: str, timeout: float, attempts: int | None
) -> Operation[bool]:
    head = session_head("POST", "/delete", session_id)
    outcome, _ = yield from fetch(server, head, budget=timeout, attempts=attempts)
    if server.dialect.delete_session:
        # This server wants the id handed back. Nothing depends on its answer.
        head = session_head("POST", "/delete_session", session_id)
        yield from fetch(server, head, budget=timeout, attempts=1)
    return outcome.status in (200, 404, 410)
