"""Builders: what is sent to each endpoint."""

from __future__ import annotations

import base64
import json
import numbers
from collections.abc import Iterator, Mapping
from typing import Any, Final
from urllib.parse import quote, urlsplit

from ors_gym.errors import InsecureTransportError, InvalidRequestError, UnknownTaskError
from ors_gym.protocol._dialect import SecretsChannel
from ors_gym.protocol._exchange import Head
from ors_gym.protocol._redaction import HiddenBytes, HiddenText, hide
from ors_gym.protocol._server_state import Server
from ors_gym.types import JSONObject, Secrets

SESSION_HEADER: Final = "X-Session-ID"
JSON_HEADERS: Final = (("Content-Type", "application/json"),)
_encode: Final = json.JSONEncoder(allow_nan=False).encode
_RESERVED: Final = ("env_name", "task_spec", "split", "index", "secrets")
_KEY_HEADER: Final = "x-api-key"
_SHARED_KEY: Final = ("api_key", "OPENREWARD_API_KEY")
"""The names under which environments look for the user's API key."""
_DOMAINS: Final[Mapping[str, tuple[str, ...]]] = {
    "ANTHROPIC_API_KEY": ("api.anthropic.com",),
    "COHERE_API_KEY": ("api.cohere.com",),
    "DAYTONA_API_KEY": ("app.daytona.io",),
    "DEEPSEEK_API_KEY": ("api.deepseek.com",),
    "E2B_API_KEY": ("api.e2b.app",),
    "FIREWORKS_API_KEY": ("api.fireworks.ai",),
    "GEMINI_API_KEY": ("generativelanguage.googleapis.com",),
    "GOOGLE_API_KEY": ("generativelanguage.googleapis.com",),
    "GROQ_API_KEY": ("api.groq.com",),
    "HF_TOKEN": ("huggingface.co", "api-inference.huggingface.co"),
    "HUGGINGFACE_API_KEY": ("api-inference.huggingface.co", "huggingface.co"),
    "HUGGING_FACE_HUB_TOKEN": ("huggingface.co", "api-inference.huggingface.co"),
    "KAGGLE_API_KEY": ("www.kaggle.com",),
    "KAGGLE_KEY": ("www.kaggle.com",),
    "KAGGLE_USERNAME": ("www.kaggle.com",),
    "MISTRAL_API_KEY": ("api.mistral.ai",),
    "MODAL_TOKEN_ID": ("api.modal.com",),
    "MODAL_TOKEN_SECRET": ("api.modal.com",),
    "OPENAI_API_KEY": ("api.openai.com",),
    "PERPLEXITY_API_KEY": ("api.perplexity.ai",),
    "REPLICATE_API_TOKEN": ("api.replicate.com",),
    "TAVILY_API_KEY": ("api.tavily.com",),
    "TOGETHER_API_KEY": ("api.together.xyz",),
}
"""The domains of well-known secrets, in upper or lower case, as openreward 0.1.167 has
them."""


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
    return Head(method, path, ((SESSION_HEADER, session_id), *extra))


def call_head(environment: str, session_id: str, endpoint: str = "call") -> Head:
    """Build the head of a session's calls; all calls of the session share it."""
    headers = (
        (SESSION_HEADER, session_id),
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
    secrets: Mapping[str, JSONObject],
    options: Mapping[str, Any],
) -> tuple[Head, bytes]:
    """Build the request that starts an episode.

    The secrets, which `read_secrets` returned, go where the server's dialect looks for
    them. ``options`` are further fields of the body, such as ``toolset_name``.
    """
    taken = [name for name in _RESERVED if name in options]
    if taken:
        raise InvalidRequestError(
            f"create_options cannot set {', '.join(taken)}; use the arguments for it"
        )
    channel = server.dialect.secrets
    body = {**options, "env_name": environment, **task}
    headers: list[tuple[str, str]] = [(SESSION_HEADER, session_id), *JSON_HEADERS]
    if channel is SecretsChannel.REQUIRED_BODY or (
        channel is SecretsChannel.BODY and secrets
    ):
        body["secrets"] = {name: given["value"] for name, given in secrets.items()}
    elif channel is SecretsChannel.HEADER:
        headers += secrets_header(secrets)
    head = server.address(Head("POST", "/create", headers))
    return head, HiddenBytes(encode(body, "the task"))


def secrets_header(secrets: Mapping[str, JSONObject]) -> list[tuple[str, str]]:
    """Return the header that holds the secrets, or no header for none."""
    if not secrets:
        return []
    value = base64.b64encode(encode(secrets, "the secrets")).decode()
    return [("X-Secrets", HiddenText(value))]


def read_secrets(server: Server, secrets: Secrets) -> dict[str, JSONObject]:
    """Return the secrets of a session, as the header holds them.

    Raises unless they can be sent, and safely (docs/wire.md, points 1 and 19).
    """
    found = {name: _read_secret(name, given) for name, given in hide(secrets).items()}
    if server.settings.share_api_key:
        key = {"value": _api_key(server), "allowed_domains": [*_platform_hosts(server)]}
        found |= dict.fromkeys(_SHARED_KEY, key)
    if not found:
        return found
    if server.dialect.secrets is SecretsChannel.NONE:
        raise InvalidRequestError(
            f"the server at {server.base_url} takes no secrets; they were not "
            "sent. Update the server, or give it the secrets itself"
        )
    check_transport(server, "secrets")
    if server.dialect.routes_by_session:
        for name, given in found.items():
            if "allowed_domains" not in given:
                given["allowed_domains"] = _known_domains(name)
    return found


def check_transport(server: Server, what: str) -> None:
    """Raise if something secret would travel in the clear (docs/wire.md, point 19)."""
    if not server.settings.may_send_secrets:
        raise InsecureTransportError(
            f"the {what} would travel in the clear to {server.base_url}; use "
            "https, or pass allow_insecure=True inside a network that you trust"
        )


def _read_secret(name: object, given: object) -> JSONObject:
    match given:
        case str() if isinstance(name, str):
            return {"value": given}
        case [str() as value, [*domains]] if isinstance(name, str):
            if all(isinstance(domain, str) for domain in domains):
                return {"value": value, "allowed_domains": domains}
    raise InvalidRequestError(
        f"the secret {name!r} is not text, nor a pair such as "
        '(value, ["api.example.com"])'
    )


def _known_domains(name: str) -> list[str]:
    if name.upper() not in _DOMAINS:
        raise InvalidRequestError(
            f"a gateway has to know where the secret {name!r} may be sent; pass "
            f'secrets={{{name!r}: (value, ["api.example.com"])}}'
        )
    return list(_DOMAINS[name.upper()])


def _api_key(server: Server) -> str:
    for name, value in server.settings.headers:
        if name.lower() == _KEY_HEADER:
            return value
    raise InvalidRequestError(
        "share_api_key=True shares the API key, and there is none; pass api_key= or "
        "set ORS_API_KEY"
    )


def _platform_hosts(server: Server) -> Iterator[str]:
    """Yield the hosts that an environment may send the API key to.

    They are those of the platform, whose services are subdomains of one domain, as
    openreward 0.1.167 lists them.
    """
    host = urlsplit(server.base_url).hostname or ""
    first, _, domain = host.partition(".")
    if first != "sessions":
        yield host
        return
    for service in ("sessions", "api", "search"):
        yield f"{service}.{domain}"
    for service in ("sessions", "api", "search"):
        yield f"{service}.{domain.partition('.')[0]}.internal"


def read_index(index: object) -> int:
    """Read the index of a task, which may be one of NumPy's numbers."""
    if isinstance(index, bool) or not isinstance(index, numbers.Integral):
        raise UnknownTaskError(f"a task's index is a whole number, not {index!r}")
    return int(index)
