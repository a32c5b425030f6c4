"""Opening a session: an id, then its episode (docs/wire.md, points 2, 10 and 11)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.errors import (
    ConnectionFailedError,
    ORSError,
    ProtocolError,
    SetupFailedError,
    UnknownEnvironmentError,
    UnknownTaskError,
)
from ors_gym.protocol._exchange import Operation, Outcome, Send
from ors_gym.protocol._operations.fetching import REUSE_WITHIN, wait, within
from ors_gym.protocol._operations.metadata import get_task, resolve_environment
from ors_gym.protocol._reading import parse_json, read_session_id
from ors_gym.protocol._replies import (
    BodyReader,
    StreamReader,
    failure_error,
    server_text,
    status_error,
)
from ors_gym.protocol._requests import (
    call_head,
    check_secrets,
    create_request,
    encode,
    plain_head,
)
from ors_gym.protocol._retries import Patience, is_starting, may_repeat
from ors_gym.protocol._wire import SessionState, Wire

__all__ = ["create_episode", "create_session", "open_session", "start_episode"]

_EXISTS: Final = b"Session already exists"
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
    fresh one is used (docs/wire.md, point 10).

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
    whole = wire.patience(timeout)
    environment = yield from within(whole, resolve_environment(wire, environment))
    check_secrets(wire, secrets)
    task = yield from within(whole, _known_task(wire, environment, task))
    patience = wire.patience(whole.remaining)
    while True:
        opening = create_session(wire, session_options, budget=patience.remaining)
        session_id = yield from within(patience, opening)
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
    """Get a session id: from the server, or our own (docs/wire.md, point 2).

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
        raise ProtocolError(f"not a session id: {wire.redact(session_id)[:40]!r}")
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
    what = "the reply of /create_session"
    return read_session_id(parse_json(reader.body, what, wire.redact))


def create_episode(
    wire: Wire,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    patience: Patience,
    secrets: Mapping[str, str] | None = None,
    options: Mapping[str, Any] | None = None,
    fresh: bool = True,
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
        fresh: Whether the id is new, so that a session of this id, if there is one,
            can only be ours.

    Returns:
        The session, or None if the id was abandoned because nobody knows whether
        /create ran, and a fresh id may be tried.

    Raises:
        ORSError: What the server's refusal stands for; the id is abandoned.
        InvalidRequestError: If the id is not fresh and its session exists; it is left
            alone.
    """
    secrets = secrets or {}
    redact = wire.redact.adding(secrets.values())
    abandoned = True
    try:
        head, body = create_request(
            wire, session_id, environment, task, secrets=secrets, options=options or {}
        )
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
            exists = _exists_already(outcome, reader)
            if exists and not fresh:
                abandoned = False
                break
            if not may_repeat(outcome) and not exists:
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
    return outcome.status == 400 and _EXISTS in reader.body


def _create_error(
    outcome: Outcome, body: bytes, environment: str, redact: Any
) -> ORSError:
    error = status_error(outcome, body, "POST /create", redact)
    said = server_text(body, redact)
    if outcome.status == 400 and _EXISTS not in body:
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
        InvalidRequestError: If the id has a session already.
        ConnectionFailedError: If nobody knows whether it was started.
    """
    whole = wire.patience(timeout)
    environment = yield from within(whole, resolve_environment(wire, environment))
    task = yield from within(whole, _known_task(wire, environment, task))
    state = yield from create_episode(
        wire,
        session_id,
        environment,
        task,
        patience=wire.patience(whole.remaining),
        secrets=secrets,
        fresh=False,
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
