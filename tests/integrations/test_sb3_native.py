"""PPO learns a served Gymnasium environment as it learns the environment itself."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from stable_baselines3 import PPO

from ors_gym.server import serve
from ors_gym.wrappers import NativeSpaces

GROUP = "training"

STEPS = 24_576
SOLVED = 400


class Seeded(gym.Wrapper[Any, Any, Any, Any]):
    """Resets with seed after seed, as the episodes of an ORS env go on."""

    def __init__(self, env: Any) -> None:
        super().__init__(env)
        self._seed = 0

    def reset(self, *, seed=None, options=None):
        self._seed = self._seed + 1 if seed is None else seed
        return self.env.reset(seed=self._seed, options=options)


def learn(env: Any, steps: int) -> list[float]:
    """Train, and return the return of each of the latest episodes."""
    torch.set_num_threads(1)
    model: Any = PPO(
        "MlpPolicy",
        env,
        n_steps=512,
        batch_size=256,
        n_epochs=20,
        gae_lambda=0.8,
        gamma=0.98,
        learning_rate=1e-3,
        ent_coef=0.0,
        seed=3,
        device="cpu",
    )
    model.learn(steps)
    env.close()
    return [float(episode["r"]) for episode in model.ep_info_buffer]


def both(steps: int) -> tuple[list[float], list[float]]:
    native = learn(Seeded(gym.make("CartPole-v1")), steps)
    with serve("gymnasium:CartPole-v1") as base_url:
        remote = gym.make("ors/remote", env_name="cartpole-v1", base_url=base_url)
        return native, learn(NativeSpaces(remote), steps)


@pytest.mark.timeout(300)
def test_ppo_sees_the_same_episodes():
    native, served = both(1024)
    assert served == native
    assert len(native) > 10


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ppo_learns_over_http_what_it_learns_natively():
    native, served = both(STEPS)
    assert served == native
    assert np.mean(served[-10:]) > SOLVED
