"""Builders: what is sent to each endpoint."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from ors_gym.errors import InsecureTransportError, InvalidRequestError
from ors_gym.protocol._dialect import SecretsChannel
from ors_gym.protocol._exchange import Head
from ors_gym.protocol._wire import Wire

__all__ = [
    "JSON_HEADERS",
    "call_body",
    "call_head",
    "check_secrets",
    "create_request",
    "encode",
    "environment_head",
    "plain_head",
    "session_head",
]

JSON_HEADERS: Final = (("Content-Type", "application/json"),)
_encode: Final = json.JSONEncoder(allow_nan=False).encode
_RESERVED: Final = ("env_name", "task_spec", "split", "index", "secrets")


def encode(value: object, what: str) -> bytes:
    """Encode a body as JSON.

    Args:
        value: Plain JSON.
        what: What it is, for the message.

    Returns:
        ASCII bytes: text beyond ASCII, lone surrogates included, is escaped.

    Raises:
        InvalidRequestError: If it is not plain JSON.
    """
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{what} cannot be sent as JSON: {error}") from None


def plain_head(method: str, path: str) -> Head:
    """Build the head of a request that concerns no environment and no session.

    Args:
        method: GET or POST.
        path: The path below the base URL.

    Returns:
        The head.
    """
    return Head(method, path, JSON_HEADERS if method == "POST" else ())


def environment_head(method: str, environment: str, endpoint: str) -> Head:
    """Build the head of a metadata request.

    Args:
        method: GET or POST.
        environment: The environment's name.
        endpoint: The last part of the path, such as ``tools``.

    Returns:
        The head.
    """
    return plain_head(method, f"/{quote(environment, safe='')}/{endpoint}")


def session_head(method: str, path: str, session_id: str) -> Head:
    """Build the head of a request about a session.

    Args:
        method: GET or POST.
        path: The path below the base URL.
        session_id: The server's id of the session.

    Returns:
        The head.
    """
    extra = JSON_HEADERS if method == "POST" else ()
    return Head(method, path, (("X-Session-ID", session_id), *extra))


def call_head(environment: str, session_id: str, endpoint: str = "call") -> Head:
    """Build the head of the calls of one session.

    Args:
        environment: The environment's name.
        session_id: The server's id of the session.
        endpoint: ``call`` or ``score_group``.

    Returns:
        The head; it is the same for each call, so a session keeps it.
    """
    headers = (
        ("X-Session-ID", session_id),
        ("Accept", "text/event-stream"),
        *JSON_HEADERS,
    )
    return Head("POST", f"/{quote(environment, safe='')}/{endpoint}", headers)


def call_body(tool: str, tool_input: Mapping[str, Any], task_id: str = "") -> bytes:
    """Build the body of a call, or of its resumption.

    Args:
        tool: The tool's name.
        tool_input: Its arguments; ignored by the server on a resumption.
        task_id: The call to resume; a first call has none (docs/wire.md, point 4).

    Returns:
        The encoded body.

    Raises:
        InvalidRequestError: If the arguments are not plain JSON.
    """
    body: dict[str, Any] = {"name": tool, "input": tool_input}
    if task_id:
        body["task_id"] = task_id
    return encode(body, f"the input of tool {tool!r}")


def create_request(
    wire: Wire,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    secrets: Mapping[str, str],
    options: Mapping[str, Any],
) -> tuple[Head, bytes]:
    """Build the request that starts an episode.

    Args:
        wire: What the server speaks.
        session_id: The server's id of the session.
        environment: The environment's name.
        task: ``task_spec``, or ``split`` and ``index``.
        secrets: Values for the environment, by name.
        options: Further fields of the body, such as ``toolset_name``.

    Returns:
        Head and body.

    Raises:
        InvalidRequestError: If the server has no channel for secrets, or an option
            is one of the fields that are set here.
        InsecureTransportError: If secrets would travel over plain http.
    """
    taken = [name for name in _RESERVED if name in options]
    if taken:
        raise InvalidRequestError(
            f"create_options cannot set {', '.join(taken)}; use the arguments for it"
        )
    channel = wire.spoken.secrets
    check_secrets(wire, secrets)
    body = {**options, "env_name": environment, **task}
    headers: list[tuple[str, str]] = [("X-Session-ID", session_id), *JSON_HEADERS]
    if channel is SecretsChannel.REQUIRED_BODY or (
        channel is SecretsChannel.BODY and secrets
    ):
        body["secrets"] = dict(secrets)
    elif channel is SecretsChannel.HEADER and secrets:
        named = {name: {"value": value} for name, value in secrets.items()}
        value = base64.b64encode(encode(named, "the secrets")).decode()
        headers.append(("X-Secrets", value))
    return Head("POST", "/create", headers), encode(body, "the task")


def check_secrets(wire: Wire, secrets: Mapping[str, str]) -> None:
    """Raise unless secrets can be delivered, and safely (docs/wire.md, points 1, 19).

    Args:
        wire: What the server speaks.
        secrets: Values for the environment, by name.

    Raises:
        InvalidRequestError: If the server has no channel for them, or one is not text.
        InsecureTransportError: If they would travel over plain http.
    """
    if not secrets:
        return
    for name, value in secrets.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidRequestError(f"the secret {name!r} is not text")
    if wire.spoken.secrets is SecretsChannel.NONE:
        raise InvalidRequestError(
            f"{wire.where} runs a server without any channel for secrets; they were "
            "not sent. Update the server, or give it the secrets itself"
        )
    if not wire.secure:
        raise InsecureTransportError(
            f"the secrets would travel in the clear to {wire.where}; use https, or "
            "pass allow_insecure=True inside a network that you trust"
        )
