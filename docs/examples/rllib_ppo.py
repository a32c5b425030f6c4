"""RLlib's PPO on an ORS environment, through the wrappers alone.

    pip install "ors-gym[server,rllib]" torch
    python rllib_ppo.py

RLlib makes its envs in workers of its own; all of them play on the one server whose
address is in ``ORS_BASE_URL``, or on the embedded one.
"""

from __future__ import annotations

import re
from typing import Any

import gymnasium as gym
import numpy as np
import ray
from gymnasium.spaces import Box
from numpy.typing import NDArray
from ray.rllib.algorithms.ppo import PPOConfig
from ray.tune.registry import register_env

from ors_gym.server import serve
from ors_gym.wrappers import DiscreteTools, ParsedText


def mark(text: str) -> NDArray[np.float32] | None:
    """Mark both ends of the interval that a text names, which RLlib reads best."""
    found = re.search(r"in (\d+)\.\.(\d+)", text)
    return np.eye(17, dtype="float32")[[*map(int, found.groups())]] if found else None


def make(config: dict[str, Any]) -> gym.Env[Any, Any]:
    """Make an env in a worker, which imports ors_gym for its ids."""
    place = getattr(config, "worker_index", 0)
    env = gym.make(
        "ors_gym:ors/guess",
        base_url=config["base_url"],
        task_offset=place,
        task_stride=8,
        on_error="truncate",
    )
    return DiscreteTools(ParsedText(env, mark, Box(0, 1, (2 * 17,), "float32")))


def train(iterations: int = 4, runners: int = 2) -> list[float]:
    """Train, and return the mean reward of an episode in each iteration."""
    register_env("guess", make)
    with serve() as base_url:
        config = (
            PPOConfig()
            .environment("guess", env_config={"base_url": base_url})
            .env_runners(num_env_runners=runners, num_envs_per_env_runner=4)
            .training(
                train_batch_size_per_learner=1024,
                minibatch_size=128,
                num_epochs=10,
                lr=3e-3,
                gamma=0.95,
                entropy_coeff=0.01,
            )
            .debugging(seed=0)
        )
        algorithm = config.build_algo()
        results = [algorithm.train() for _ in range(iterations)]
        algorithm.stop()
        ray.shutdown()
    return [float(r["env_runners"]["episode_return_mean"]) for r in results]


if __name__ == "__main__":
    for number, mean in enumerate(train(), start=1):
        print(f"iteration {number}: mean reward {mean:+.2f}")
