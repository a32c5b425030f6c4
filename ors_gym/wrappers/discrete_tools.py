"""Tool calls as the numbers of a ``Discrete`` space."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, SupportsFloat

import gymnasium
import numpy as np
from gymnasium.utils import RecordConstructorArgs
from numpy.typing import NDArray

from ors_gym.types import ToolCall
from ors_gym.wrappers.call_menu import CallMenu, calls_within

__all__ = ["DiscreteTools"]


class DiscreteTools(gymnasium.Wrapper[Any, Any, Any, Any], RecordConstructorArgs):
    """Numbers the tool calls of an env: its actions are ``Discrete(n)``.

    The numbers are given once, when the env is wrapped, and stay for its life; wrap it
    before its first reset, while its tools are those of all sessions. Tools may differ
    from session to session: ``info["action_mask"]``, an int8 array at reset and at
    every step, has a 1 for each call that this session's tools take
    (``env.action_space.sample(info["action_mask"])`` draws one of them).

    A number that is masked or out of range, or an action that is no number, is a step
    like any other invalid action: nothing is sent, the observation says what is wrong,
    ``info["error_kind"]`` is ``invalid_action``, and the reward is the env's
    ``invalid_action_reward``.

    Args:
        env: An env whose actions are tool calls (``ToolCallSpace``, or
            ``action_mode="text"``).
        calls: The calls to number, in any form that the env takes, such as
            ``{"tool": "guess", "input": {"number": 3}}``. If None, every call that the
            tools' schemas allow, at most 1000.

    Raises:
        SchemaError: If ``calls`` is None and the tools take infinitely many different
            calls, more than 1000 or none.
        InvalidRequestError: If one of the calls cannot be read, or the env's actions
            are no tool calls.

    Example:
        >>> import gymnasium as gym
        >>> import ors_gym
        >>> env = DiscreteTools(gym.make("ors/guess"))
        >>> env.action_space
        Discrete(16)
        >>> env.calls[8]
        {'tool': 'guess', 'input': {'number': 9}}
        >>> observation, info = env.reset(seed=7)
        >>> info["action_mask"]
        array([1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1], dtype=int8)
        >>> env.step(8)[0]
        'It is higher than 9. It is in 10..16, and you have 9 guesses left.'
        >>> env.close()
    """

    def __init__(
        self,
        env: gymnasium.Env[Any, Any],
        calls: Sequence[object] | None = None,
    ) -> None:
        RecordConstructorArgs.__init__(self, calls=calls)
        gymnasium.Wrapper.__init__(self, env)
        self._menu = CallMenu(env.action_space, calls)
        self.action_space = gymnasium.spaces.Discrete(len(self._menu))

    @property
    def calls(self) -> tuple[ToolCall, ...]:
        """The calls by number."""
        return self._menu.calls

    @property
    def action_mask(self) -> NDArray[np.int8]:
        """Which calls the current session takes, as in ``info["action_mask"]``."""
        return self._menu.mask(calls_within(self.env.action_space).tools)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Start an episode, as the env does.

        Args:
            seed: As for the env.
            options: As for the env.

        Returns:
            The observation, and the info with ``action_mask``.
        """
        observation, info = self.env.reset(seed=seed, options=options)
        info["action_mask"] = self.action_mask
        return observation, info

    def step(
        self, action: Any
    ) -> tuple[Any, SupportsFloat, bool, bool, dict[str, Any]]:
        """Make the call of a number.

        Args:
            action: The number.

        Returns:
            As the env, with ``action_mask`` in the info.
        """
        chosen = self._menu.choose(action, self.action_mask)
        observation, reward, terminated, truncated, info = self.env.step(chosen)
        info["action_mask"] = self.action_mask
        return observation, reward, terminated, truncated, info
