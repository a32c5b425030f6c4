"""An env made anew from the spec or the pickle of a wrapped one plays as that does."""

import pickle
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import pytest
from gymnasium.envs.registration import EnvSpec
from gymnasium.spaces import Discrete

from ors_gym.wrappers import DiscreteTools, ParsedText, PlainInfo

BOUNDS = r"in (\d+)\.\.(\d+)"
CALLS = [{"tool": "guess", "input": {"number": number}} for number in (3, 9)]


def by_spec(env: Any) -> Any:
    return gym.make(EnvSpec.from_json(env.spec.to_json()))


def by_pickle(env: Any) -> Any:
    return pickle.loads(pickle.dumps(env))


def by_length(env: Any) -> Any:
    return ParsedText(env, len, Discrete(1000))


def played(env: Any) -> str:
    numbered = isinstance(env.action_space, Discrete)
    return repr([env.reset(seed=7), env.step(1 if numbered else CALLS[1])])


WRAPS: list[Callable[[Any], Any]] = [
    DiscreteTools,
    lambda env: DiscreteTools(env, CALLS),
    lambda env: ParsedText(env, BOUNDS, default=[0, 0]),
    lambda env: DiscreteTools(ParsedText(env, BOUNDS)),
    lambda env: PlainInfo(DiscreteTools(env)),
]


@pytest.mark.parametrize(
    ("wrap", "copy"),
    # A function is not part of a spec that is JSON.
    [
        *((wrap, by_spec) for wrap in WRAPS),
        *((wrap, by_pickle) for wrap in [*WRAPS, by_length]),
    ],
)
def test_a_copy_plays_alike(wrap, copy, closing):
    env = closing(wrap(gym.make("ors/guess")))
    other = closing(copy(env))
    assert played(other) == played(env)
