"""One ORS session at a time as an environment: the mission of this package."""

from __future__ import annotations

from ors_gym.env._async_env import AsyncORSEnv
from ors_gym.env._env import ORSEnv

__all__ = ["AsyncORSEnv", "ORSEnv"]
