"""Whether two results of vector envs are the same, down to types and masks."""

# The oldest Gymnasium that is allowed has no generic SyncVectorEnv.
from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import gymnasium as gym
import numpy as np
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ors_gym.vector import ORSVectorEnv
from tests.support.servers.process import RunningServer

ENVS = 4
ADD = {"tool": "add", "input": {"a": 1, "b": 2}}
MARKED = {"tool": "add", "input": {"a": 7777, "b": 0}}


def is_marked(request: Any) -> bool:
    return b"7777" in request.body


def submit(answer: object) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": str(answer)}}


def make_vector(base_url: str, num_envs: int = ENVS, **arguments: Any) -> ORSVectorEnv:
    arguments = {"env_name": "Contract", "base_url": base_url, **arguments}
    made = gym.make_vec("ors/remote", num_envs=num_envs, **arguments)
    assert isinstance(made, ORSVectorEnv)
    return made


@contextlib.contextmanager
def open_envs(base_url: str, **arguments: Any) -> Iterator[ORSVectorEnv]:
    """Yield a vector env of the contract environment after a reset with seed 0."""
    with contextlib.closing(make_vector(base_url, **arguments)) as envs:
        envs.reset(seed=0)
        yield envs


@contextlib.contextmanager
def playing_both(
    server: RunningServer, mode: AutoresetMode, num_envs: int = ENVS, **arguments: Any
) -> Iterator[tuple[SyncVectorEnv[Any, Any], ORSVectorEnv]]:
    """Yield Gymnasium's vector env and ours over the same tasks."""
    contract = {"env_name": "Contract", "base_url": server.base_url}
    arguments = {**contract, "on_error": "truncate", **arguments}

    def make(i: int) -> Any:
        own = {"task_offset": i, "task_stride": num_envs, **arguments}
        return lambda: gym.make("ors/remote", **own)

    envs = [make(i) for i in range(num_envs)]
    theirs: SyncVectorEnv[Any, Any] = SyncVectorEnv(envs, autoreset_mode=mode)
    ours = make_vector(num_envs=num_envs, autoreset_mode=mode, **arguments)
    with contextlib.closing(theirs), contextlib.closing(ours):
        yield theirs, ours


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
