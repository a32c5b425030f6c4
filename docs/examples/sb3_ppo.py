"""PPO of Stable-Baselines3 learns to guess a number, about a minute on a CPU.

    pip install "ors-gym[server,sb3]" matplotlib
    python sb3_ppo.py

The prompt says "It is in 1..16", each answer narrows it down; a wrong guess costs 1/16,
the right one pays 1. A random player gets about 0.03, one that bisects 0.84.

``PPO("MlpPolicy", gym.make("ors/guess"))`` fails in Stable-Baselines3 with "'NoneType'
object is not iterable", since text has no shape. `make` shows what to write.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from gymnasium.spaces import MultiDiscrete
from stable_baselines3 import PPO
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.vec_env import VecMonitor

from ors_gym import ORSVectorEnv
from ors_gym.integrations.sb3 import ORSVecEnv
from ors_gym.wrappers.vector import DiscreteTools, ParsedText


def make(split: str, base_url: str | None = None) -> VecMonitor:
    """Make 16 sessions that take numbers and show numbers."""
    envs = ORSVectorEnv(
        "guess", base_url, num_envs=16, split=split, autoreset_mode="SameStep"
    )
    states = ParsedText(envs, r"in (\d+)\.\.(\d+)", MultiDiscrete([17, 17]))
    return VecMonitor(ORSVecEnv(DiscreteTools(states)))


class Curve(BaseCallback):
    """Notes the mean reward of the episodes that ended in each rollout."""

    def __init__(self) -> None:
        super().__init__()
        self.steps: list[int] = []
        self.means: list[float] = []
        self._ended: list[float] = []

    def _on_step(self) -> bool:
        infos = self.locals["infos"]
        self._ended += [info["episode"]["r"] for info in infos if "episode" in info]
        return True

    def _on_rollout_end(self) -> None:
        self.steps.append(self.num_timesteps)
        self.means.append(float(np.mean(self._ended)))
        self._ended.clear()


class Trained(NamedTuple):
    """The curve, and the mean reward on tasks that were not trained on."""

    steps: list[int]
    means: list[float]
    before: float
    after: float


def train(steps: int = 8192, seed: int = 0, base_url: str | None = None) -> Trained:
    """Train a policy."""
    torch.set_num_threads(1)  # for a small network, more threads take longer
    env, unseen = make("train", base_url), make("test", base_url)
    model = PPO(
        "MlpPolicy",
        env,
        n_steps=32,
        batch_size=128,
        learning_rate=2e-3,
        gamma=0.95,
        ent_coef=0.01,
        seed=seed,
        device="cpu",
    )
    unseen.seed(seed)
    before, _ = evaluate_policy(model, unseen, n_eval_episodes=64, deterministic=False)
    curve = Curve()
    model.learn(steps, callback=curve)
    unseen.seed(seed)  # the same tasks again
    after, _ = evaluate_policy(model, unseen, n_eval_episodes=64)
    env.close()
    unseen.close()
    return Trained(curve.steps, curve.means, float(before), float(after))


if __name__ == "__main__":
    from matplotlib import pyplot as plt

    learned = train()
    print(f"on unseen tasks {learned.before:.2f} before, {learned.after:.2f} after")
    plt.plot(learned.steps, learned.means)
    plt.xlabel("steps")
    plt.ylabel("mean reward of an episode")
    plt.savefig("sb3_ppo.png")
