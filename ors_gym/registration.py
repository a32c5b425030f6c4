"""Gymnasium ids for ORS environments."""

from __future__ import annotations

import math
import re
from typing import Any, Final
from urllib.parse import urlsplit

import gymnasium

from ors_gym.errors import InvalidRequestError

__all__ = ["BUNDLED_NAMES", "register_bundled", "register_envs"]

BUNDLED_NAMES: Final = ("math", "guess", "blackjack", "maze", "sql")
"""The environments of the embedded server: the names of `ors_gym.server.BUNDLED`,
again, because importing `ors_gym` imports nothing of the server."""

BUNDLED_REWARDS: Final = {
    "math": (0.0, 1.0),
    "guess": (-10 / 16, 1.0),
    "blackjack": (-1.0, 1.0),
    "maze": (-math.inf, 1.0),
    "sql": (0.0, 1.0),
}
"""The least and the greatest reward of an episode of each, as its rules have it."""

_ENTRY_POINT: Final = "ors_gym.env:ORSEnv"
_VECTOR_ENTRY_POINT: Final = "ors_gym.vector:ORSVectorEnv"


def register_bundled() -> None:
    """Register ``ors/math`` and the other bundled ids, and ``ors/remote``.

    Asks no server for anything. Importing `ors_gym` does it.
    """
    for name in BUNDLED_NAMES:
        _register(f"ors/{name}", {"env_name": name}, deterministic=True)
    # An empty name makes the env say that env_name= is missing; without one, Python
    # would only say that the constructor lacks an argument. An empty address stands for
    # ORS_BASE_URL, and never for the embedded server.
    _register("ors/remote", {"env_name": "", "base_url": ""})


def register_envs(
    base_url: str, namespace: str | None = None, **arguments: Any
) -> list[str]:
    """Register every environment of a server, which is asked once.

    Args:
        base_url: The server's address.
        namespace: The part of the ids before the slash. If None, it is ``ors``. If any
            of these ids already belongs to another server (``ors/math`` belongs to the
            bundled one), all ids get the server's host and port instead.
        **arguments: Defaults for the arguments of `ORSEnv`, such as ``split``. Pass
            secrets to ``gym.make`` or in environment variables instead: the arguments
            of an id are public.

    Returns:
        The ids, such as ``"ors/mathenv"`` or ``"localhost-8080/math"``: the names in
        lower case, with ``_`` for each character that an id cannot hold.

    Raises:
        InvalidRequestError: If an id is taken by another server, or two environments
            would get the same one.

    Example:
        >>> from ors_gym.server import serve
        >>> with serve() as base_url:
        ...     register_envs(base_url, namespace="served")[0]
        'served/math'
    """
    # Imported here, so that importing the package stays light.
    from ors_gym.client import ORSClient  # noqa: PLC0415
    from ors_gym.env._settings import (  # noqa: PLC0415
        merge_client_arguments,
        without_secrets,
    )
    from ors_gym.protocol._redaction import hide_arguments  # noqa: PLC0415

    # Some tracebacks show the local variables of this function.
    arguments = hide_arguments(arguments)
    if namespace is not None and not re.fullmatch(r"[\w-]+", namespace):
        raise InvalidRequestError(
            f"the namespace {namespace!r} may hold only letters, digits, '_' and '-'"
        )
    with ORSClient(base_url, **merge_client_arguments(arguments)) as client:
        names = client.list_environments()
        base_url = client.base_url
    arguments = without_secrets(arguments)
    wanted: dict[str, str] = {}
    for name in names:
        kept = _sanitise(name)
        if kept in wanted:
            raise InvalidRequestError(
                f"the environments {wanted[kept]!r} and {name!r} of {base_url} "
                f"would both be {kept!r}; use "
                f'gym.make("ors/remote", env_name=...) for them'
            )
        wanted[kept] = name
    if namespace is None:
        free = not any(_owner(f"ors/{kept}", base_url) for kept in wanted)
        namespace = "ors" if free else _name_server(base_url)
    for kept in wanted:
        if owner := _owner(f"{namespace}/{kept}", base_url):
            raise InvalidRequestError(
                f"the id '{namespace}/{kept}' is bound to {owner} and is not rebound "
                f"to {base_url}; pass another namespace="
            )
    for kept, name in wanted.items():
        own = {"env_name": name, "base_url": base_url}
        _register(f"{namespace}/{kept}", {**arguments, **own})
    return [f"{namespace}/{kept}" for kept in wanted]


def _sanitise(name: str) -> str:
    """Replace the characters that an id may not hold (Gymnasium's `ENV_ID_RE`)."""
    kept = re.sub(r"[^\w.-]+", "_", name.lower(), flags=re.ASCII).strip("._-")
    # A trailing -v0 would be read as a version.
    kept = re.sub(r"-v(\d+)$", r"_v\1", kept)
    return kept or "environment"


def _name_server(base_url: str) -> str:
    """Return host and port as a namespace, such as ``localhost-8080``."""
    return re.sub(r"[^\w-]+", "-", urlsplit(base_url).netloc, flags=re.ASCII).strip("-")


def _owner(identifier: str, base_url: str) -> str:
    """Return which other server an id is bound to; ``""`` if it is free."""
    known = gymnasium.registry.get(identifier)
    if known is None or known.kwargs.get("base_url") == base_url:
        return ""
    bound = known.kwargs.get("base_url")
    return str(bound or "the bundled environments (or ORS_BASE_URL)")


def _register(
    identifier: str, arguments: dict[str, Any], *, deterministic: bool = False
) -> None:
    if identifier in gymnasium.registry:
        del gymnasium.registry[identifier]
    gymnasium.register(
        identifier,
        entry_point=_ENTRY_POINT,
        vector_entry_point=_VECTOR_ENTRY_POINT,
        kwargs=arguments,
        # Nobody can know it of a stranger's environment.
        nondeterministic=not deterministic,
    )
