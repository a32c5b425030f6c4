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

from ors_gym import errors
from ors_gym.errors import (
    AmbiguousCallError as AmbiguousCallError,
    AuthenticationError as AuthenticationError,
    CallTimeoutError as CallTimeoutError,
    ConnectionFailedError as ConnectionFailedError,
    EpisodeOverError as EpisodeOverError,
    IncompleteGroupError as IncompleteGroupError,
    InsecureTransportError as InsecureTransportError,
    InvalidArgumentError as InvalidArgumentError,
    InvalidRequestError as InvalidRequestError,
    LimitExceededError as LimitExceededError,
    MissingExtraError as MissingExtraError,
    ORSError as ORSError,
    ProtocolError as ProtocolError,
    ReplayDiffersError as ReplayDiffersError,
    SchemaError as SchemaError,
    ServerError as ServerError,
    SessionClosedError as SessionClosedError,
    SessionLostError as SessionLostError,
    SetupFailedError as SetupFailedError,
    ToolFailedError as ToolFailedError,
    ToolRejectedError as ToolRejectedError,
    UnknownEnvironmentError as UnknownEnvironmentError,
    UnknownTaskError as UnknownTaskError,
    UnknownToolsetError as UnknownToolsetError,
)
from ors_gym.registration import register_bundled, register_envs as register_envs

if TYPE_CHECKING:
    __version__: str
    # The names of `_LAZY_NAMES` again: type checkers do not read that table.
    from ors_gym.client import (
        AsyncORSClient as AsyncORSClient,
        AsyncSession as AsyncSession,
        Limits as Limits,
        ORSClient as ORSClient,
        Session as Session,
        delete_sessions_on_sigterm as delete_sessions_on_sigterm,
    )
    from ors_gym.display import play as play, show as show
    from ors_gym.env import AsyncORSEnv as AsyncORSEnv, ORSEnv as ORSEnv
    from ors_gym.evaluation import (
        Evaluation as Evaluation,
        evaluate as evaluate,
        parallel_evaluate as parallel_evaluate,
    )
    from ors_gym.rollout import (
        ChatPolicy as ChatPolicy,
        Episode as Episode,
        EpisodeRunner as EpisodeRunner,
        Turn as Turn,
        replay as replay,
        run_episode as run_episode,
        run_episode_async as run_episode_async,
        run_group as run_group,
        stream_groups as stream_groups,
    )
    from ors_gym.spaces import FreeText as FreeText, ToolCallSpace as ToolCallSpace
    from ors_gym.vector import ORSVectorEnv as ORSVectorEnv

# The public names of each package. A package is imported when one of its names is first
# used: importing `ors_gym` itself only registers the ids.
_LAZY_NAMES: Final = {
    "client": (
        "AsyncORSClient",
        "AsyncSession",
        "Limits",
        "ORSClient",
        "Session",
        "delete_sessions_on_sigterm",
    ),
    "display": ("play", "show"),
    "env": ("AsyncORSEnv", "ORSEnv"),
    "evaluation": ("Evaluation", "evaluate", "parallel_evaluate"),
    "rollout": (
        "ChatPolicy",
        "Episode",
        "EpisodeRunner",
        "Turn",
        "replay",
        "run_episode",
        "run_episode_async",
        "run_group",
        "stream_groups",
    ),
    "spaces": ("FreeText", "ToolCallSpace"),
    "vector": ("ORSVectorEnv",),
}
_PACKAGE_OF: Final = {
    name: package for package, names in _LAZY_NAMES.items() for name in names
}
# Packages whose names are written in full, as in ``ors_gym.server.serve()``.
_LAZY_PACKAGES: Final = {
    *("agents", "formats", "integrations", "mcp", "server", "testing", "wrappers"),
    *_LAZY_NAMES,
}

__all__ = ["register_envs"]
__all__ += errors.__all__
__all__ += list(_PACKAGE_OF)


def __getattr__(name: str) -> Any:
    if name in _PACKAGE_OF:
        package = importlib.import_module(f"ors_gym.{_PACKAGE_OF[name]}")
        value = globals()[name] = getattr(package, name)
        return value
    if name == "__version__":
        from ors_gym.client._settings import find_version  # noqa: PLC0415

        return find_version()
    if name in _LAZY_PACKAGES:
        return importlib.import_module(f"ors_gym.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


register_bundled()
if "IPython" in sys.modules:
    # So that a notebook shows an env as a card, whatever it is wrapped in.
    importlib.import_module("ors_gym.display").register_formatters()
