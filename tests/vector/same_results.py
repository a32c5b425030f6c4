"""Whether two results of vector envs are the same, down to types and masks."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ors_gym.vector import ORSVectorEnv
from tests.support.servers.process import RunningServer

__all__ = ["assert_same", "make_both", "make_vector", "submit"]


def submit(answer: object) -> dict[str, Any]:
    """Return the call that ends an episode."""
    return {"tool": "submit", "input": {"answer": str(answer)}}


def make_vector(base_url: str, num_envs: int = 4, **arguments: Any) -> ORSVectorEnv:
    """Make a vector env of the contract environment."""
    arguments = {"env_name": "Contract", "base_url": base_url, **arguments}
    made = gym.make_vec("ors/remote", num_envs=num_envs, **arguments)
    assert isinstance(made, ORSVectorEnv)
    return made


def make_both(
    server: RunningServer, mode: AutoresetMode, num_envs: int = 4, **arguments: Any
) -> tuple[SyncVectorEnv[Any, Any], ORSVectorEnv]:
    """Make Gymnasium's vector env and ours over the same tasks."""
    arguments = {
        "env_name": "Contract",
        "base_url": server.base_url,
        "on_error": "truncate",
        **arguments,
    }

    def make(i: int) -> Any:
        return lambda: gym.make(
            "ors/remote", task_offset=i, task_stride=num_envs, **arguments
        )

    theirs: SyncVectorEnv[Any, Any] = SyncVectorEnv(
        [make(i) for i in range(num_envs)], autoreset_mode=mode
    )
    ours = make_vector(num_envs=num_envs, autoreset_mode=mode, **arguments)
    return theirs, ours


def assert_same(theirs: Any, ours: Any, path: str = "") -> None:
    """Fail unless both are equal in value, type, dtype, shape and keys."""
    assert type(theirs) is type(ours), path
    if isinstance(theirs, dict):
        assert theirs.keys() == ours.keys(), path
        for key in theirs:
            assert_same(theirs[key], ours[key], f"{path}[{key!r}]")
    elif isinstance(theirs, tuple | list):
        assert len(theirs) == len(ours), path
        for i, (one, other) in enumerate(zip(theirs, ours, strict=True)):
            assert_same(one, other, f"{path}[{i}]")
    elif isinstance(theirs, np.ndarray):
        assert (theirs.dtype, theirs.shape) == (ours.dtype, ours.shape), path
        assert_same(theirs.tolist(), ours.tolist(), path)
    else:
        assert theirs == ours, path
