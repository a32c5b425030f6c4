"""The reward of an episode: the one place where the rewards of its steps meet."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Final, Literal, TypeAlias, get_args

import numpy as np

from ors_gym.errors import InvalidRequestError

__all__ = ["RewardReduction", "RunningReward", "check_reward_rule", "reduce_rewards"]

RewardReduction: TypeAlias = Literal["sum", "last", "mean", "max", "min"]
"""How the rewards of an episode become one number."""


def _last(rewards: Sequence[float]) -> float:
    return rewards[-1]


# fsum, so that the order of the steps does not matter.
_REDUCTIONS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "sum": math.fsum,
    "last": _last,
    "mean": np.mean,
    "max": max,
    "min": min,
}


def check_reward_rule(reduction: str, nonterminal_reward: float) -> None:
    """Refuse what cannot be a rule for an episode's reward.

    Args:
        reduction: The name of the reduction.
        nonterminal_reward: What an unfinished episode is paid.

    Raises:
        InvalidRequestError: If there is no such reduction, or the number is not finite.

    Example:
        >>> check_reward_rule("sum", 0.0)
    """
    if reduction not in _REDUCTIONS:
        names = " or ".join(map(repr, get_args(RewardReduction)))
        raise InvalidRequestError(
            f"reward_reduction is {reduction!r}; it must be {names}"
        )
    if not math.isfinite(nonterminal_reward):
        raise InvalidRequestError("nonterminal_reward must be a finite number")


def reduce_rewards(
    rewards: Sequence[float],
    reduction: RewardReduction = "sum",
    *,
    finished: bool = True,
    nonterminal_reward: float = 0.0,
) -> float:
    """Return the reward of an episode that was not cut short by an outage.

    Args:
        rewards: What its steps were paid, in order, without the steps that were paid
            nothing at all (a null reward is no reward, so ``last`` is the last that
            somebody gave).
        reduction: How they become one number; the sum of none, and their maximum, is 0.
        finished: Whether the server finished the episode.
        nonterminal_reward: Added if it did not.

    Returns:
        The episode's reward.

    Example:
        >>> reduce_rewards([0.5, 1.0], "last")
        1.0
        >>> reduce_rewards([0.5], finished=False, nonterminal_reward=-1.0)
        -0.5
    """
    total = float(_REDUCTIONS[reduction](rewards)) if rewards else 0.0
    return total if finished else total + nonterminal_reward


class RunningReward:
    """The reward of an episode so far, at the same small cost after every step.

    Args:
        reduction: How the rewards become one number.

    Example:
        >>> running = RunningReward("mean")
        >>> running.add(0.0), running.add(1.0)
        (0.0, 0.5)
    """

    def __init__(self, reduction: RewardReduction = "sum") -> None:
        self._reduction = reduction
        self._count = 0
        self._sum = self._last = 0.0
        self._max, self._min = -math.inf, math.inf

    def add(self, reward: float) -> float:
        """Add what a step was paid.

        Args:
            reward: The reward; not called for a step that was paid nothing at all.

        Returns:
            The reward so far, as `reduce_rewards` gives it but for rounding.
        """
        self._count += 1
        self._sum += reward
        self._last = reward
        self._max, self._min = max(self._max, reward), min(self._min, reward)
        return {
            "sum": self._sum,
            "last": self._last,
            "mean": self._sum / self._count,
            "max": self._max,
            "min": self._min,
        }[self._reduction]
