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
from ors_gym.protocol._server_state import Server

JSON_HEADERS: Final = (("Content-Type", "application/json"),)
_encode: Final = json.JSONEncoder(allow_nan=False).encode
_RESERVED: Final = ("env_name", "task_spec", "split", "index", "secrets")


def encode(value: object, what: str) -> bytes:
    """Encode a body as JSON in ASCII: lone surrogates are escaped like other text."""
    try:
        return _encode(value).encode()
    except (TypeError, ValueError, RecursionError) as error:
        raise InvalidRequestError(f"{what} cannot be sent as JSON: {error}") from None


def plain_head(method: str, path: str) -> Head:
    """Build the head of a request that concerns no environment and no session."""
    return Head(method, path, JSON_HEADERS if method == "POST" else ())


def environment_head(method: str, environment: str, endpoint: str) -> Head:
    """Build the head of a question about an environment, such as ``tools``."""
    return plain_head(method, f"/{quote(environment, safe='')}/{endpoint}")


def session_head(method: str, path: str, session_id: str) -> Head:
    extra = JSON_HEADERS if method == "POST" else ()
    return Head(method, path, (("X-Session-ID", session_id), *extra))


def call_head(environment: str, session_id: str, endpoint: str = "call") -> Head:
    """Build the head of a session's calls; all calls of the session share it."""
    headers = (
        ("X-Session-ID", session_id),
        ("Accept", "text/event-stream"),
        *JSON_HEADERS,
    )
    return Head("POST", f"/{quote(environment, safe='')}/{endpoint}", headers)


def call_body(tool: str, tool_input: Mapping[str, Any], task_id: str = "") -> bytes:
    """Build the body of a call, or of the resumption of the call ``task_id``."""
    body: dict[str, Any] = {"name": tool, "input": tool_input}
    if task_id:
        # Only here: servers take a call with a task_id for one that ran already, and
        # do not run it (docs/wire.md, point 4).
        body["task_id"] = task_id
    return encode(body, f"the input of tool {tool!r}")


def create_request(
    server: Server,
    session_id: str,
    environment: str,
    task: Mapping[str, Any],
    *,
    secrets: Mapping[str, str],
    options: Mapping[str, Any],
) -> tuple[Head, bytes]:
    """Build the request that starts an episode.

    The secrets go where the server's dialect looks for them. ``options`` are further
    fields of the body, such as ``toolset_name``.
    """
    taken = [name for name in _RESERVED if name in options]
    if taken:
        raise InvalidRequestError(
            f"create_options cannot set {', '.join(taken)}; use the arguments for it"
        )
    channel = server.dialect.secrets
    check_secrets(server, secrets)
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


def check_secrets(server: Server, secrets: Mapping[str, str]) -> None:
    """Raise unless secrets can be sent, and safely (docs/wire.md, points 1 and 19)."""
    if not secrets:
        return
    for name, value in secrets.items():
        if not isinstance(name, str) or not isinstance(value, str):
            raise InvalidRequestError(f"the secret {name!r} is not text")
    if server.dialect.secrets is SecretsChannel.NONE:
        raise InvalidRequestError(
            f"the server at {server.base_url} takes no secrets; they were not "
            "sent. Update the server, or give it the secrets itself"
        )
    if not server.settings.secure:
        raise InsecureTransportError(
            f"the secrets would travel in the clear to {server.base_url}; use "
            "https, or pass allow_insecure=True inside a network that you trust"
        )
