"""``check_env`` finds nothing, on every bundled env and on every view of it."""

import warnings
from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Box, MultiDiscrete
from gymnasium.utils.env_checker import check_env

from ors_gym.registration import BUNDLED_NAMES
from ors_gym.wrappers import DiscreteTools, ParsedText

MODES: list[dict[str, Any]] = [
    {},
    {"action_mode": "text"},
    {"observation_mode": "dict"},
    {"action_mode": "text", "observation_mode": "dict", "task_order": "shuffle"},
    {"prefetch": True, "task_order": "random"},
]


def length(text: str) -> int:
    return min(len(text), 9999)


LENGTH = Box(0, 9999, (), np.float32)
SUBMIT = [{"tool": "submit", "input": {"answer": answer}} for answer in "12"]

VIEWS: list[tuple[str, Callable[[Any], Any]]] = [
    ("guess", DiscreteTools),
    ("blackjack", DiscreteTools),
    ("maze", DiscreteTools),
    ("math", lambda env: DiscreteTools(env, SUBMIT)),
    ("sql", lambda env: DiscreteTools(env, SUBMIT)),
    *((name, lambda env: ParsedText(env, length, LENGTH)) for name in BUNDLED_NAMES),
    (
        "guess",
        lambda env: DiscreteTools(
            ParsedText(env, r"in (\d+)\.\.(\d+)", MultiDiscrete([17, 17]))
        ),
    ),
    (
        "maze",
        lambda env: ParsedText(
            DiscreteTools(env),
            r"row (\d+), column (\d+)",
            Box(0, 99, (2,)),
            default=[0, 0],
        ),
    ),
]


def make(name: str, **arguments: Any) -> Any:
    """Make an env that says of itself that it is deterministic, and is held to it."""
    assert not gym.spec(f"ors/{name}").nondeterministic
    return gym.make(f"ors/{name}", **arguments)


@pytest.mark.parametrize("arguments", MODES, ids=str)
@pytest.mark.parametrize("name", BUNDLED_NAMES)
def test_bundled_envs(name: str, arguments: dict[str, Any], closing) -> None:
    env = closing(make(name, **arguments))
    check_env(env.unwrapped)


@pytest.mark.parametrize(("name", "wrap"), VIEWS)
@pytest.mark.parametrize("mode", ["tool_call", "text"])
def test_views(name: str, wrap: Callable[[Any], Any], mode: str, closing) -> None:
    env = closing(wrap(make(name, action_mode=mode).unwrapped))
    with warnings.catch_warnings():
        # It would rather check the env below, which has its own test.
        warnings.filterwarnings("ignore", message=".*different from the unwrapped")
        check_env(env, skip_render_check=True)
