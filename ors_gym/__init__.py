"""A Gymnasium adapter for every server that speaks the Open Reward Standard.

Importing it registers ``ors/math``, ``ors/guess``, ``ors/blackjack``, ``ors/maze``,
``ors/sql`` (bundled) and ``ors/remote``; it opens no connection.

    >>> import gymnasium as gym
    >>> import ors_gym
    >>> env = gym.make("ors/math")
    >>> observation, info = env.reset(seed=0)
    >>> env.close()
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any, Final

from ors_gym.registration import register_bundled

if TYPE_CHECKING:
    from ors_gym.client import AsyncORSClient, AsyncSession, ORSClient, Session
    from ors_gym.client._sigterm import delete_sessions_on_sigterm
    from ors_gym.display import show
    from ors_gym.display._play import play
    from ors_gym.env import ORSEnv
    from ors_gym.env._async_env import AsyncORSEnv
    from ors_gym.errors import (
        AmbiguousCallError,
        AuthenticationError,
        CallTimeoutError,
        ConnectionFailedError,
        EpisodeOverError,
        InsecureTransportError,
        InvalidRequestError,
        LimitExceededError,
        MissingExtraError,
        ORSError,
        ProtocolError,
        SchemaError,
        ServerError,
        SessionClosedError,
        SessionLostError,
        SetupFailedError,
        ToolFailedError,
        ToolRejectedError,
        UnknownEnvironmentError,
        UnknownTaskError,
    )
    from ors_gym.evaluation import Evaluation, evaluate, parallel_evaluate
    from ors_gym.protocol._exchange import Limits
    from ors_gym.registration import register_envs
    from ors_gym.rollout import (
        ChatPolicy,
        Episode,
        EpisodeRunner,
        Turn,
        replay,
        run_episode,
        run_episode_async,
        run_group,
    )
    from ors_gym.spaces import FreeText, ToolCallSpace
    from ors_gym.vector import ORSVectorEnv

__all__ = [
    "AmbiguousCallError",
    "AsyncORSClient",
    "AsyncORSEnv",
    "AsyncSession",
    "AuthenticationError",
    "CallTimeoutError",
    "ChatPolicy",
    "ConnectionFailedError",
    "Episode",
    "EpisodeOverError",
    "EpisodeRunner",
    "Evaluation",
    "FreeText",
    "InsecureTransportError",
    "InvalidRequestError",
    "LimitExceededError",
    "Limits",
    "MissingExtraError",
    "ORSClient",
    "ORSEnv",
    "ORSError",
    "ORSVectorEnv",
    "ProtocolError",
    "SchemaError",
    "ServerError",
    "Session",
    "SessionClosedError",
    "SessionLostError",
    "SetupFailedError",
    "ToolCallSpace",
    "ToolFailedError",
    "ToolRejectedError",
    "Turn",
    "UnknownEnvironmentError",
    "UnknownTaskError",
    "delete_sessions_on_sigterm",
    "evaluate",
    "parallel_evaluate",
    "play",
    "register_envs",
    "replay",
    "run_episode",
    "run_episode_async",
    "run_group",
    "show",
]

_HOMES: Final = {
    "ors_gym.client": (
        "AsyncORSClient",
        "AsyncSession",
        "ORSClient",
        "Session",
    ),
    "ors_gym.client._sigterm": ("delete_sessions_on_sigterm",),
    "ors_gym.env": ("AsyncORSEnv", "ORSEnv"),
    "ors_gym.errors": (
        "AmbiguousCallError",
        "AuthenticationError",
        "CallTimeoutError",
        "ConnectionFailedError",
        "EpisodeOverError",
        "InsecureTransportError",
        "InvalidRequestError",
        "LimitExceededError",
        "MissingExtraError",
        "ORSError",
        "ProtocolError",
        "SchemaError",
        "ServerError",
        "SessionClosedError",
        "SessionLostError",
        "SetupFailedError",
        "ToolFailedError",
        "ToolRejectedError",
        "UnknownEnvironmentError",
        "UnknownTaskError",
    ),
    "ors_gym.evaluation": (
        "Evaluation",
        "evaluate",
        "parallel_evaluate",
    ),
    "ors_gym.display": ("play", "show"),
    "ors_gym.protocol._exchange": ("Limits",),
    "ors_gym.registration": ("register_envs",),
    "ors_gym.rollout": (
        "ChatPolicy",
        "Episode",
        "EpisodeRunner",
        "Turn",
        "replay",
        "run_episode",
        "run_episode_async",
        "run_group",
    ),
    "ors_gym.spaces": (
        "FreeText",
        "ToolCallSpace",
    ),
    "ors_gym.vector": ("ORSVectorEnv",),
}
"""The module of each public name, imported when the name is first used: importing this
package only registers the ids."""

_MODULES: Final = {name: home for home, names in _HOMES.items() for name in names}
_SUBMODULES: Final = (
    *("formats", "integrations", "rollout", "server", "testing", "wrappers"),
)
"""Those that people write in full, as in ``ors_gym.server.serve()``."""


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"ors_gym.{name}")
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


register_bundled()
if "IPython" in sys.modules:
    # So that a notebook shows an env as a card, whatever it is wrapped in.
    importlib.import_module("ors_gym.display").register_formatters()
