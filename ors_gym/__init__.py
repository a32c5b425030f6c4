"""A Gymnasium adapter for every server that speaks the Open Reward Standard.

Importing it registers ``ors/math``, ``ors/guess``, ``ors/blackjack``, ``ors/maze``,
``ors/sql`` (bundled) and ``ors/remote``; it opens no connection.

    >>> import gymnasium as gym
    >>> import ors_gym
    >>> env = gym.make("ors/math")
    >>> observation, info = env.reset(seed=0)
    >>> env.close()
"""

from ors_gym.async_env import AsyncORSEnv
from ors_gym.client import AsyncORSClient, AsyncSession, ORSClient, Session
from ors_gym.client.termination import delete_sessions_on_sigterm
from ors_gym.env import ORSEnv
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
from ors_gym.protocol.limits import Limits
from ors_gym.registration import register_bundled, register_envs
from ors_gym.spaces import FreeText, ToolCallSpace

__all__ = [
    "AmbiguousCallError",
    "AsyncORSClient",
    "AsyncORSEnv",
    "AsyncSession",
    "AuthenticationError",
    "CallTimeoutError",
    "ConnectionFailedError",
    "EpisodeOverError",
    "FreeText",
    "InsecureTransportError",
    "InvalidRequestError",
    "LimitExceededError",
    "Limits",
    "MissingExtraError",
    "ORSClient",
    "ORSEnv",
    "ORSError",
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
    "UnknownEnvironmentError",
    "UnknownTaskError",
    "delete_sessions_on_sigterm",
    "register_envs",
]

register_bundled()
