"""The life of a session: open it, look at it, keep it alive, delete it.

docs/wire.md, points 2 and 10 to 14, has the rules.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from ors_gym.errors import (
    ConnectionFailedError,
    InvalidRequestError,
    ORSError,
    ProtocolError,
    SessionLostError,
    SetupFailedError,
    UnknownEnvironmentError,
    UnknownTaskError,
    UnknownToolsetError,
)
from ors_gym.protocol._exchange import Operation, Outcome, Send
from ors_gym.protocol._operations.fetching import fetch, wait, within
from ors_gym.protocol._operations.metadata import get_task, locate
from ors_gym.protocol._operations.session_ids import create_session, hand_back
from ors_gym.protocol._redaction import Redactor
from ors_gym.protocol._replies import (
    BodyReader,
    failure_error,
    server_text,
    status_error,
)
from ors_gym.protocol._reply_json import (
    parse_json,
    read_blocks,
    read_messages,
    read_tools,
)
from ors_gym.protocol._requests import (
    call_head,
    check_transport,
    create_request,
    environment_head,
    read_secrets,
    session_head,
)
from ors_gym.protocol._retries import (
    Patience,
    certainly_not_run,
    is_starting,
    may_repeat,
)
from ors_gym.protocol._server_state import Server, SessionState
from ors_gym.types import JSONObject, Secrets, ToolSpec

_EXISTS: Final = b"Session already exists"
_TASK: Final = re.compile(rb"Session already exists|Invalid (?:split|index)")
"""Answers of /create with status 400 that do not concern the toolset."""
_SECRET: Final = re.compile(
    r"secret|credential|(?:api|access|auth)[ _-]?(?:key|token)|_(?:key|token)\b",
    re.IGNORECASE,
)
_MISSING: Final = re.compile(
    r"require|missing|provide|not set|must be set|expected|need|no such|not found"
    r"|unauthori[sz]ed|KeyError|invalid|incorrect",
    re.IGNORECASE,
)
"""A text that matches both is what an environment says when a secret is missing."""


def open_session(
    server: Server,
    environment: str,
    task: Mapping[str, Any],
    *,
    timeout: float,
    secrets: Secrets | None = None,
    create_options: Mapping[str, Any] | None = None,
    session_options: Mapping[str, Any] | None = None,
    env_overrides: Mapping[str, str] | None = None,
) -> Operation[SessionState]:
    """Open a session and start its episode; its set-up may still run afterwards.

    ``task`` is ``{"task_spec": ...}`` or ``{"split": ..., "index": ...}``.
    """
    whole = server.patience(timeout)
    server, environment = yield from within(whole, locate(server, environment))
    named = read_secrets(server, secrets or {})
    if env_overrides:
        _check_overrides(server, env_overrides)
        session_options = {**(session_options or {}), "env": dict(env_overrides)}
    redact = server.redact.adding(
        [*(given["value"] for given in named.values()), *(env_overrides or {}).values()]
    )
    task = yield from within(whole, _known_task(server, environment, task))
    patience = server.patience(whole.remaining)
    # Each time on a fresh id. A second /create on the id of an unanswered one might
    # build two environments (docs/wire.md, point 10).
    while True:
        opening = create_session(
            server,
            session_options,
            secrets=named,
            budget=patience.remaining,
            redact=redact,
        )
        session_id = yield from within(patience, opening)
        state = yield from _create_episode(
            server,
            session_id,
            environment,
            task,
            secrets=named,
            options=create_options,
            patience=patience,
            redact=redact,
        )
        if state is not None:
            return state


def _check_overrides(server: Server, env_overrides: Mapping[str, str]) -> None:
    for name, value in env_overrides.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidRequestError(f"env_overrides: {name!r} is not text")
    if not server.dialect.routes_by_session:
        raise InvalidRequestError(
            f"env_overrides are for a gateway, which starts environments; the server "
            f"at {server.base_url} would ignore them. Set its variables where it runs"
        )
    # They hold keys more often than not.
    check_transport(server, "env_overrides")


def _create_episode(
    server: Server,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    patience: Patience,
    secrets: Mapping[str, JSONObject],
    redact: Redactor,
    options: Mapping[str, Any] | None = None,
    fresh: bool = True,
) -> Operation[SessionState | None]:
    """Start the episode of a session, or discard the id and raise.

    None if nobody knows whether /create ran: the id is discarded then, and a fresh one
    may be tried. ``fresh`` says that the id is new, so that a session which has it
    already can only be ours.
    """
    calls = server.address(call_head(environment, session_id))
    state = SessionState(session_id, environment, calls, redact)
    # A session that has the id already is left alone until /create may have run.
    must_discard = fresh
    try:
        head, body = create_request(
            server,
            session_id,
            environment,
            task,
            secrets=secrets,
            options=options or {},
        )
        # Before /create: wherever an interrupt strikes, somebody knows of the session.
        server.hooks.register(server, state)
        while True:
            reader = BodyReader()
            timeout = max(0.001, patience.remaining)
            reuse = patience.call_reuse_within
            must_discard = True
            outcome = yield Send(head, body, reader, timeout, reuse)
            patience.spend(outcome)
            if outcome.failure is None and outcome.status == 200:
                must_discard = False
                return state
            exists = _exists_already(outcome, reader)
            if exists and not fresh:
                # Somebody else's session: it is left alone.
                server.hooks.forget(session_id)
                must_discard = False
                break
            if not may_repeat(outcome) and not exists:
                break
            if not (yield from wait(server, patience, outcome, head)):
                break
            if not certainly_not_run(outcome, after_429=True):
                return None
    finally:
        if must_discard:
            # Also after a refusal or an interruption: whatever fails after
            # /create_session leaves nothing on the server (docs/wire.md, point 11).
            server.discard(session_id)
    if outcome.failure is not None:
        raise failure_error(outcome, f"POST {server.base_url}/create")
    toolset = (options or {}).get("toolset_name")
    raise _create_error(
        server, outcome, reader.body, environment, redact=redact, toolset=toolset
    )


def _exists_already(outcome: Outcome, reader: BodyReader) -> bool:
    return outcome.status == 400 and _EXISTS in reader.body


def _create_error(
    server: Server,
    outcome: Outcome,
    body: bytes,
    environment: str,
    *,
    redact: Redactor,
    toolset: object,
) -> ORSError:
    error = status_error(outcome, body, "POST /create", redact, server.settings)
    said = server_text(body, redact)
    if toolset is not None and outcome.status == 400 and not _TASK.search(body):
        return UnknownToolsetError(f"no toolset {toolset!r} here: {error}", status=400)
    if toolset is not None and outcome.status == 422 and b"toolset_name" in body:
        return UnknownToolsetError(
            f"the server has no toolsets, so not {toolset!r} either: {error}",
            status=422,
        )
    if outcome.status == 400 and _EXISTS not in body:
        return UnknownTaskError(str(error), status=400)
    if outcome.status == 404:
        return UnknownEnvironmentError(str(error), status=404)
    if outcome.status == 500:
        return _setup_error(f"environment {environment!r} failed to start: {said}")
    return error


def _setup_error(said: str) -> SetupFailedError:
    """Return the error of a set-up that raised, with advice if a secret is missing."""
    if _SECRET.search(said) and _MISSING.search(said):
        said += (
            '. If it misses a secret, pass secrets={"NAME": value}, or --secret NAME '
            "on the command line"
        )
    return SetupFailedError(said)


def start_episode(
    server: Server,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    timeout: float,
    secrets: Secrets | None = None,
) -> Operation[SessionState]:
    """Start the episode of a session id that the caller chose, or raise."""
    whole = server.patience(timeout)
    server, environment = yield from within(whole, locate(server, environment))
    named = read_secrets(server, secrets or {})
    task = yield from within(whole, _known_task(server, environment, task))
    state = yield from _create_episode(
        server,
        session_id,
        environment,
        task,
        patience=server.patience(whole.remaining),
        secrets=named,
        redact=server.redact.adding(given["value"] for given in named.values()),
        fresh=False,
    )
    if state is None:
        raise ConnectionFailedError(
            f"nobody knows whether session {session_id} was started, so it is deleted. "
            "Get a new session id and start again"
        )
    return state


def _known_task(
    server: Server, environment: str, task: Mapping[str, Any]
) -> Operation[Mapping[str, Any]]:
    """Replace split and index by the task where /create does not take them."""
    if "index" not in task or server.dialect.create_by_index:
        return task
    spec = yield from get_task(server, environment, task["split"], task["index"])
    return {"task_spec": spec}


def get_messages(
    server: Server, state: SessionState, *, timeout: float
) -> Operation[list[JSONObject]]:
    """Get the prompt as messages with ``role`` and ``blocks``.

    It waits for the set-up to end (docs/wire.md, point 13). A server without
    conversations gives its prompt, which becomes one message of the user's. One that
    has them calls the same function of the environment for either question.
    """
    if server.dialect.messages:
        value = yield from _ask_session(server, state, "messages", timeout)
        return read_messages(value)
    blocks = read_blocks((yield from _ask_session(server, state, "prompt", timeout)))
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
    if server.dialect.routes_by_session:
        head = session_head("GET", head.target, state.session_id)
    outcome, body = yield from fetch(server, head, budget=timeout)
    if outcome.status != 200:
        raise status_error(
            outcome, body, f"GET {head.target}", state.redact, server.settings
        )
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
    error = status_error(outcome, body, f"GET {path}", state.redact, server.settings)
    if outcome.status == 500:
        raise _setup_error(
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
        yield from hand_back(server, session_id, timeout)
    return outcome.status in (200, 404, 410)
