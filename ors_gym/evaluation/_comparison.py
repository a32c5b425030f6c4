"""Two evaluations of the same tasks, task by task."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Callable, Sequence

from ors_gym.evaluation._output import Record
from ors_gym.evaluation._statistics import Interval, mean_interval
from ors_gym.evaluation._tables import by_task, mean

__all__ = ["Comparison", "compare"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """By how much one evaluation is better than another, on the tasks of both.

    Args:
        tasks: How many tasks both have outcomes of.
        only_first: How many only the first has.
        only_second: How many only the second has.
        wins: On how many the first succeeds more often.
        losses: On how many the second does.
        success_rate: The mean over tasks of the difference in success rate.
        success_interval: Its confidence interval, over tasks.
        avg_reward: The mean over tasks of the difference in mean reward.
        reward_interval: Its confidence interval, over tasks.
    """

    tasks: int
    only_first: int
    only_second: int
    wins: int
    losses: int
    success_rate: float
    success_interval: Interval
    avg_reward: float
    reward_interval: Interval

    def __str__(self) -> str:
        return "\n".join(f"{name:14}{value}" for name, value in self._lines())

    def _repr_html_(self) -> str:
        rows = "".join(
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>"
            for name, value in self._lines()
        )
        return f"<table>{rows}</table>"

    def _lines(self) -> list[tuple[str, str]]:
        alone = ""
        if self.only_first or self.only_second:
            alone = f" (not compared: {self.only_first} and {self.only_second})"
        ties = self.tasks - self.wins - self.losses
        return [
            ("tasks", f"{self.tasks} in both{alone}"),
            ("success rate", f"{self.success_rate:+.3f} {self.success_interval:+.3f}"),
            ("reward", f"{self.avg_reward:+.3f} {self.reward_interval:+.3f}"),
            ("by task", f"{self.wins} better, {self.losses} worse, {ties} equal"),
        ]


def compare(
    first: Sequence[Record], second: Sequence[Record], confidence: float
) -> Comparison:
    """Compare the episodes of two evaluations, paired by task.

    Args:
        first: Those of the one.
        second: Those of the other.
        confidence: The probability that an interval should hold the true difference.

    Returns:
        The differences, the first minus the second.
    """

    def success(record: Record) -> float:
        return float(bool(record.success))

    def reward(record: Record) -> float:
        return record.episode.total_reward or 0.0

    rates, only_first, only_second = _differences(first, second, success)
    rewards, _, _ = _differences(first, second, reward)
    ones = [1] * len(rates)
    return Comparison(
        tasks=len(rates),
        only_first=only_first,
        only_second=only_second,
        wins=sum(difference > 0 for difference in rates),
        losses=sum(difference < 0 for difference in rates),
        success_rate=mean(rates),
        success_interval=mean_interval(rates, ones, confidence, (-1, 1)),
        avg_reward=mean(rewards),
        reward_interval=mean_interval(rewards, ones, confidence),
    )


def _differences(
    first: Sequence[Record], second: Sequence[Record], value: Callable[[Record], float]
) -> tuple[list[float], int, int]:
    """Return the differences of the tasks' means, and how many have no partner."""
    before, after = by_task(first, value), by_task(second, value)
    common = [task for task in before if task in after]
    differences = [
        before[task][0] / before[task][1] - after[task][0] / after[task][1]
        for task in common
    ]
    return differences, len(before) - len(common), len(after) - len(common)
