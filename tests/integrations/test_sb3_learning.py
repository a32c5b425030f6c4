"""Policies learn through `ORSVecEnv`, over HTTP."""

from typing import Any

import numpy as np
import pytest
import torch
from sb3_contrib import MaskablePPO

from benchmarks.learning import GAMES, play
from benchmarks.ppo import play_reference, train
from ors_gym.integrations.sb3 import ORSVecEnv

GROUP = "training"


@pytest.mark.timeout(400)
def test_ppo_learns_to_bisect(example, bundled):
    trained = example("sb3_ppo").train(base_url=bundled)
    # At random a game brings about 0.03.
    assert trained.before < 0.3
    assert trained.after > max(0.5, 2 * trained.before)
    assert np.mean(trained.means[-2:]) > np.mean(trained.means[:2]) + 0.2


def test_maskable_ppo_trains_through_the_masks():
    torch.set_num_threads(1)
    env = ORSVecEnv(GAMES["guess"].make("train", 8))
    model: Any = MaskablePPO("MlpPolicy", env, n_steps=8, batch_size=32, device="cpu")
    masked: list[Any] = []
    decide = model.policy.forward

    def record(*args: Any, action_masks: Any, **kwargs: Any) -> Any:
        masked.append(action_masks)
        return decide(*args, action_masks=action_masks, **kwargs)

    model.policy.forward = record
    model.learn(64)
    assert [masks.shape for masks in masked] == [(8, 16)] * 8
    assert all(masks.all() for masks in masked)
    env.close()


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_ppo_plays_blackjack_about_as_well_as_the_reference():
    game = GAMES["blackjack"]
    after = train(game, 12_288).after
    # 200 hands: both numbers are good to about 0.07.
    assert after > play(game, None) + 0.15
    assert after > play_reference(game) - 0.15


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_cleanrl_style_loop_learns(example):
    curve = example("cleanrl_ppo").train(updates=14)
    assert np.mean(curve[-3:]) > np.mean(curve[:3]) + 0.3
