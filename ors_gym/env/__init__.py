"""One ORS session at a time as an environment: the mission of this package."""

from __future__ import annotations

from ors_gym.env._env import AsyncORSEnv, ORSEnv
from ors_gym.env._task_env import AsyncTaskEnv, TaskEnv

__all__ = ["AsyncORSEnv", "AsyncTaskEnv", "ORSEnv", "TaskEnv"]
