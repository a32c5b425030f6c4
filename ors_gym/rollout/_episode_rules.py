"""The rules of an episode: when it ends, what it is worth, what is kept of it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, TypeAlias, TypedDict, get_args

import numpy as np

from ors_gym import errors
from ors_gym.errors import InvalidRequestError, ORSError
from ors_gym.rollout._episode import Episode, StopReason

OnPlainText: TypeAlias = Literal["nudge", "stop", "submit"]
RewardReduction: TypeAlias = Literal["sum", "last", "mean", "max", "min"]
"""How the rewards of an episode become one number."""

_ERRORS: Final[Mapping[str, type[ORSError]]] = {
    error.kind: error for name in errors.__all__ if (error := getattr(errors, name))
}
"""The classes of errors by their kinds."""

OUTAGES: Final = frozenset(kind for kind, error in _ERRORS.items() if error.outage)
"""The kinds of errors after which an episode has no outcome."""


def error_of(episode: Episode) -> BaseException:
    """Return what ended an episode without an outcome: its cause, or what is like it.

    There is no cause where the env told of an outage without raising it.
    """
    kind = _ERRORS.get(episode.error_kind, ORSError)
    return episode.cause or kind(episode.error)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
    """When an episode ends, what it is worth, and what is kept of it.

    Args:
        max_turns: Turns after which it ends.
        deadline: Seconds after which it ends, set-up included.
        on_plain_text: What happens after text without a tool call. ``nudge``: an
            invalid action whose reply says how to call a tool; the fourth such turn in
            a row ends the episode. ``stop``: the episode ends. ``submit``: the text
            goes to the one tool with one required string; without such a tool it is a
            nudge. A terminal tool that the server declares takes plain text in any
            case, unless the env has ``terminal_tool_as="tool"``. Whatever the rule,
            the eleventh turn in a row without a readable call ends the episode.
        reward_reduction: How the rewards of the steps become one.
        nonterminal_reward: Added where the server did not finish the episode.
        keep_metadata: Whether ``Step.metadata`` has what a tool reported beside its
            blocks. Authors put the expected answer there, so with this the policy can
            read it, and so can whoever trains on the rows of an evaluation. An env
            gives it as ``info["metadata"]`` in any case.

    Raises:
        InvalidRequestError: If an argument cannot be right.

    Example:
        >>> Rules(max_turns=10, reward_reduction="last").nonterminal_reward
        0.0
    """

    max_turns: int | None = None
    deadline: float | None = None
    on_plain_text: OnPlainText = "nudge"
    reward_reduction: RewardReduction = "sum"
    nonterminal_reward: float = 0.0
    keep_metadata: bool = False

    def __post_init__(self) -> None:
        check_reward_rule(self.reward_reduction, self.nonterminal_reward)
        if self.max_turns is not None and self.max_turns < 1:
            raise InvalidRequestError("max_turns must be at least 1")
        if self.deadline is not None and not self.deadline > 0:
            raise InvalidRequestError("deadline must be more than 0 seconds")
        if self.on_plain_text not in get_args(OnPlainText):
            raise InvalidRequestError(
                f"on_plain_text is {self.on_plain_text!r}; it must be 'nudge', 'stop' "
                "or 'submit'"
            )

    def conclude(self, episode: Episode, reason: StopReason) -> None:
        """End an episode that has an outcome, and set its reward."""
        episode.stop_reason = reason
        episode.total_reward = self.reward_of(episode)

    def reward_of(self, episode: Episode) -> float:
        """Return what an episode is worth that ends as it stands."""
        return reduce_rewards(
            episode.rewards,
            self.reward_reduction,
            finished=episode.finished,
            nonterminal_reward=self.nonterminal_reward,
        )


class RuleOptions(TypedDict, total=False):
    """The arguments of `Rules`, for functions that take them as their own."""

    max_turns: int | None
    deadline: float | None
    on_plain_text: OnPlainText
    reward_reduction: RewardReduction
    nonterminal_reward: float
    keep_metadata: bool


def take_rules(arguments: dict[str, Any]) -> Rules:
    """Take the rules out of keyword arguments that hold other arguments too."""
    names = RuleOptions.__annotations__.keys() & arguments.keys()
    return Rules(**{name: arguments.pop(name) for name in names})


def _last(rewards: Sequence[float]) -> float:
    return rewards[-1]


def _sum(rewards: Sequence[float]) -> float:
    try:
        # The order of the steps does not matter to it.
        return math.fsum(rewards)
    except OverflowError:
        return sum(rewards)


_REDUCTIONS: Final[dict[str, Callable[[Sequence[float]], float]]] = {
    "sum": _sum,
    "last": _last,
    "mean": np.mean,
    "max": max,
    "min": min,
}


def check_reward_rule(reduction: str, nonterminal_reward: float) -> None:
    """Raise `InvalidRequestError` where these cannot be a rule for rewards."""
    if reduction not in _REDUCTIONS:
        names = " or ".join(map(repr, _REDUCTIONS))
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
    """Return the reward of an episode that no outage cut short.

    Args:
        rewards: The rewards of its steps in order, without the steps for which nobody
            gave one. A null reward is no reward, so ``last`` is the last that
            somebody gave.
        reduction: How they become one number; 0 where there are none.
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


_FOLDS: Final[dict[str, Callable[[float, float, int], float]]] = {
    "sum": lambda value, reward, _: value + reward,
    "last": lambda _, reward, __: reward,
    "mean": lambda value, reward, count: value + (reward - value) / count,
    "max": lambda value, reward, _: max(value, reward),
    "min": lambda value, reward, _: min(value, reward),
}
"""The next running value, from the value so far, the new reward, and the new count."""


class RunningReward:
    """The reward of an episode so far, at the same small cost after every step."""

    def __init__(self, reduction: RewardReduction) -> None:
        self._fold = _FOLDS[reduction]
        self._count = 0
        self._value = 0.0

    def add(self, reward: float) -> float:
        """Add a step's reward; return what `reduce_rewards` does, but for rounding."""
        self._count += 1
        first = self._count == 1
        self._value = reward if first else self._fold(self._value, reward, self._count)
        return self._value
