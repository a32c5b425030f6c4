"""Gymnasium's wrappers for numbers, on the views that make numbers of an env."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import wrappers
from gymnasium.spaces import MultiDiscrete, Tuple

from ors_gym.wrappers import DiscreteTools, ParsedText
from tests.system.gymnasium.mazes import SEED, make

ROWS = r"row (\d+), column (\d+)"


def numbers(env: Any) -> Any:
    return DiscreteTools(ParsedText(env, ROWS, MultiDiscrete([20, 20])))


def floats(env: Any) -> Any:
    bounded = gym.spaces.Box(0, 20, (2,), np.float32)
    return DiscreteTools(ParsedText(env, ROWS, bounded))


@pytest.mark.parametrize(
    ("wrap", "shape"),
    [
        (lambda e: wrappers.NormalizeObservation(floats(e)), (2,)),
        (lambda e: wrappers.FlattenObservation(numbers(e)), (40,)),
        (lambda e: wrappers.MaxAndSkipObservation(floats(e), 2), (2,)),
        (lambda e: wrappers.DtypeObservation(numbers(e), np.int32), (2,)),
        (lambda e: wrappers.ReshapeObservation(floats(e), (2, 1)), (2, 1)),
        (
            lambda e: wrappers.RescaleObservation(
                floats(e), np.float32(-1), np.float32(1)
            ),
            (2,),
        ),
        (lambda e: wrappers.DiscretizeObservation(floats(e), 5), ()),
        (lambda e: wrappers.FrameStackObservation(floats(e), 3), (3, 2)),
        (lambda e: wrappers.DelayObservation(numbers(e), 1), (2,)),
        (
            lambda e: wrappers.TimeAwareObservation(wrappers.TimeLimit(floats(e), 9)),
            (3,),
        ),
        (lambda e: wrappers.StickyAction(numbers(e), 0.5), (2,)),
        (lambda e: wrappers.RepeatAction(numbers(e), 2), (2,)),
    ],
)
def test_through_the_views_those_for_numbers_work(
    wrap: Callable[[Any], Any], shape: tuple[int, ...]
) -> None:
    env = wrap(make())
    env.action_space.seed(1)
    observation, info = env.reset(seed=SEED)
    for _ in range(5):
        assert np.shape(observation) == shape
        assert observation in env.observation_space
        assert info["action_mask"].tolist() == [1, 1, 1, 1]
        observation, *_, info = env.step(env.action_space.sample(info["action_mask"]))
    env.close()


def test_frames_of_text_are_a_tuple_of_texts() -> None:
    env = wrappers.FrameStackObservation(make(), 3)
    assert isinstance(env.observation_space, Tuple)
    env.close()
