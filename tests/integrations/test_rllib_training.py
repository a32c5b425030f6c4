"""RLlib trains through the wrappers, with Gymnasium 1.2, which it asks for."""

from importlib import metadata

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from benchmarks.learning import GAMES

GROUP = "rllib"


def test_the_wrappers_work_with_the_gymnasium_that_rllib_asks_for(example, bundled):
    assert metadata.version("gymnasium").startswith("1.2.")
    env = example("rllib_ppo").make({"base_url": bundled})
    check_env(env.unwrapped, skip_render_check=True)
    env.close()
    envs = GAMES["guess"].make("train", 4)
    assert envs.metadata["autoreset_mode"] is AutoresetMode.SAME_STEP
    states, infos = envs.reset(seed=0)
    assert isinstance(envs, gym.vector.VectorEnv)
    assert states.tolist() == [[1, 16]] * 4
    assert infos["action_mask"].all()
    envs.step(np.array([0, 3, 8, 15]))
    envs.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ppo_of_rllib_learns_in_four_iterations(example):
    means = example("rllib_ppo").train(iterations=4)
    assert means[-1] > means[0] + 0.1
