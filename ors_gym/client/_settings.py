"""What a client is told: the arguments of `ORSClient`, checked, as settings."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from importlib import metadata
from typing import Final

from ors_gym.client.http._address import Origin
from ors_gym.client.http._http1 import FRAMING_HEADERS, refuse_headers
from ors_gym.errors import InsecureTransportError
from ors_gym.protocol._exchange import Head, Limits, check_seconds
from ors_gym.protocol._redaction import (
    Redactor,
    hide,
    is_secret_name,
    secrets_of_header,
)
from ors_gym.protocol._server_state import ClientSettings

_REFUSED_HEADERS: Final = FRAMING_HEADERS | {"host"}


def make_settings(
    base_url: str,
    *,
    api_key: str | None = None,
    headers: Mapping[str, str] | None = None,
    timeout: float = 60.0,
    trust_env: bool = False,
    allow_insecure: bool = False,
    limits: Limits | None = None,
    share_api_key: bool = False,
    repeat_calls_after_429: bool = True,
) -> ClientSettings:
    """Make settings of the arguments of a client; see `ORSClient`."""
    api_key, headers = hide(api_key), hide(headers)
    check_seconds("timeout", timeout)
    origin = Origin(base_url)
    base_url = base_url.rstrip("/")
    sent, secrets = _client_headers(api_key, headers or {})
    is_private = origin.scheme == "https" or origin.is_loopback
    may_send_secrets = allow_insecure or is_private
    if secrets and not may_send_secrets:
        # docs/wire.md, point 19.
        raise InsecureTransportError(
            f"an API key would travel in the clear to {base_url}; use https, or pass "
            "allow_insecure=True inside a network that you trust"
        )
    return ClientSettings(
        base_url=base_url,
        origin=f"{origin.scheme}://{origin.authority}",
        headers=sent,
        timeout=timeout,
        trust_env=trust_env,
        may_send_secrets=may_send_secrets,
        limits=limits or Limits(),
        redact=Redactor(secrets),
        share_api_key=share_api_key,
        repeat_calls_after_429=repeat_calls_after_429,
    )


def _client_headers(
    api_key: str | None, headers: Mapping[str, str]
) -> tuple[tuple[tuple[str, str], ...], list[str]]:
    """Return the headers of every request, and which of their values are secret."""
    own = {"User-Agent": f"ors-gym/{find_version()}"}
    if api_key is None:
        api_key = hide(os.environ.get("ORS_API_KEY"))
    if api_key:
        own["X-API-Key"] = api_key
    refuse_headers(headers.items(), _REFUSED_HEADERS)
    for name, value in headers.items():
        own = {key: own[key] for key in own if key.lower() != name.lower()}
        own[name] = value
    checked = Head("GET", "/", tuple(own.items())).headers
    secrets = [
        part
        for name, value in checked
        if is_secret_name(name)
        for part in secrets_of_header(value)
    ]
    return checked, hide(secrets)


@functools.cache
def find_version() -> str:
    """Return the version of ors-gym that is installed."""
    try:
        return metadata.version("ors-gym")
    except metadata.PackageNotFoundError:
        # Run from its sources, without being installed.
        return "unknown"
