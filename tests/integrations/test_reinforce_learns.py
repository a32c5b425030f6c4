"""REINFORCE in numpy learns one-shot tasks over HTTP."""

import numpy as np

GROUP = "training"


def test_a_softmax_over_tool_calls_learns_to_add(example):
    rewards = example("reinforce").learn(episodes=1200)
    assert np.mean(rewards[:100]) < 0.5
    assert np.mean(rewards[-200:]) >= 0.95
