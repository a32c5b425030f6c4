"""Gymnasium ids for ORS environments."""

from __future__ import annotations

import re
from typing import Any, Final

import gymnasium

from ors_gym.errors import InvalidRequestError

__all__ = ["BUNDLED_NAMES", "register_bundled", "register_envs"]

BUNDLED_NAMES: Final = ("math", "guess", "blackjack", "maze", "sql")
"""The environments of the embedded server: the names of `ors_gym.server.BUNDLED`,
again, because importing `ors_gym` imports nothing of the server."""

_ENTRY_POINT: Final = "ors_gym.env:ORSEnv"
_VECTOR_ENTRY_POINT: Final = "ors_gym.vector:ORSVectorEnv"


def register_bundled() -> None:
    """Register ``ors/math`` and the other bundled ids, and ``ors/remote``.

    Asks no server for anything. Importing `ors_gym` does it.
    """
    for name in BUNDLED_NAMES:
        _register(f"ors/{name}", {"env_name": name}, deterministic=True)
    # With an empty name the env says which argument is missing; without one, Python
    # would only say that the constructor lacks an argument.
    _register("ors/remote", {"env_name": ""})


def register_envs(base_url: str, namespace: str = "ors", **arguments: Any) -> list[str]:
    """Register every environment of a server, which is asked once.

    Args:
        base_url: The server's address.
        namespace: The part of the ids before the slash.
        **arguments: Defaults for the arguments of `ORSEnv`, such as ``split``. Pass
            secrets to ``gym.make`` or in environment variables instead: the arguments
            of an id are public.

    Returns:
        The ids, such as ``"ors/mathenv"``: the names in lower case, with ``_`` for
        each character that an id cannot hold.

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
    from ors_gym.env._settings import without_secrets  # noqa: PLC0415

    if not re.fullmatch(r"[\w:.-]+", namespace) or ":" in namespace:
        raise InvalidRequestError(
            f"the namespace {namespace!r} may hold only letters, digits, '_', '-' "
            "and '.'"
        )
    with ORSClient(base_url, api_key=arguments.get("api_key")) as client:
        names = client.list_environments()
        base_url = client.base_url
    arguments = without_secrets(arguments)
    wanted: dict[str, str] = {}
    for name in names:
        identifier = f"{namespace}/{_sanitise(name)}"
        if identifier in wanted:
            raise InvalidRequestError(
                f"the environments {wanted[identifier]!r} and {name!r} of {base_url} "
                f"would both be {identifier!r}; use "
                f'gym.make("ors/remote", env_name=...) for them'
            )
        wanted[identifier] = name
    for identifier in wanted:
        _check_free(identifier, base_url)
    for identifier, name in wanted.items():
        _register(identifier, {**arguments, "env_name": name, "base_url": base_url})
    return list(wanted)


def _sanitise(name: str) -> str:
    """Replace the characters that an id may not hold (Gymnasium's `ENV_ID_RE`)."""
    kept = re.sub(r"[^\w.-]+", "_", name.lower(), flags=re.ASCII).strip("._-")
    # A trailing -v0 would be read as a version.
    kept = re.sub(r"-v(\d+)$", r"_v\1", kept)
    return kept or "environment"


def _check_free(identifier: str, base_url: str) -> None:
    known = gymnasium.registry.get(identifier)
    if known is None:
        return
    bound = known.kwargs.get("base_url")
    if bound != base_url:
        where = bound or "the bundled environments (or ORS_BASE_URL)"
        raise InvalidRequestError(
            f"the id {identifier!r} is bound to {where} and is not rebound to "
            f"{base_url}; pass another namespace="
        )


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
