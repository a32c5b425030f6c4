"""Two evaluations of the same tasks, compared task by task."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Sequence

from ors_gym.evaluation._record import Record
from ors_gym.evaluation._statistics import Interval, mean_interval
from ors_gym.evaluation._tables import Value, by_task, mean, reward_of, success_of

__all__ = ["Comparison", "compare"]


@dataclasses.dataclass(frozen=True)
class Comparison:
    """By how much one evaluation is better than another, on the tasks of both.

    Args:
        tasks: The number of tasks that both have outcomes of.
        only_first: The number of tasks that only the first has outcomes of.
        only_second: The number of tasks that only the second has outcomes of.
        wins: The number of tasks on which the first succeeds more often.
        losses: The number of tasks on which the second succeeds more often.
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
    """Return the differences of two evaluations, the first minus the second."""
    rates, only_first, only_second = _differences(first, second, success_of)
    rewards, _, _ = _differences(first, second, reward_of)
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
    first: Sequence[Record], second: Sequence[Record], value: Value
) -> tuple[list[float], int, int]:
    """Return the differences of the tasks' means, and the tasks without a partner."""
    before, after = by_task(first, value), by_task(second, value)
    common = [task for task in before if task in after]
    differences = [
        before[task][0] / before[task][1] - after[task][0] / after[task][1]
        for task in common
    ]
    return differences, len(before) - len(common), len(after) - len(common)
