"""Gymnasium's wrappers that need an empty observation work with images too."""

from __future__ import annotations

import gymnasium as gym

import ors_gym
from tests.support.servers.process import RunningServer


def test_images_are_delayed_and_stacked(server: RunningServer) -> None:
    image = {"tool": "image", "input": {}}
    for wrapper in (gym.wrappers.DelayObservation, gym.wrappers.FrameStackObservation):
        env = ors_gym.ORSEnv("contract", server.base_url, observation_mode="dict")
        wrapped = wrapper(env, 2)
        wrapped.reset(seed=0)
        observation = wrapped.step(image)[0]
        assert observation in wrapped.observation_space
        wrapped.close()
