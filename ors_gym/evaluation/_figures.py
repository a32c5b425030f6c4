"""The figures of episodes as plain numbers and rows, and those of two evaluations."""

from __future__ import annotations

import dataclasses
import html
import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import numpy as np

from ors_gym.evaluation._output import Record
from ors_gym.evaluation._statistics import (
    Interval,
    interval_if_possible,
    mean_interval,
    rate_interval,
)
from ors_gym.types import JSONObject

Value: TypeAlias = Callable[[Record], float]
_PERCENTILES: Final = (50, 90, 99)


def success_of(record: Record) -> float:
    return float(bool(record.success))


def reward_of(record: Record) -> float:
    """Return the reward of an episode that has an outcome."""
    return record.episode.total_reward or 0.0


def mean(values: Iterable[float]) -> float:
    listed = list(values)
    if not listed:
        return math.nan  # the mean of nothing
    try:
        return math.fsum(listed) / len(listed)
    except (OverflowError, ValueError):
        # The sum is too large for a float, or infinities are in it. The mean may do.
        return sum(value / len(listed) for value in listed)


def _percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 90th and the 99th percentile, NaN of nothing."""
    if not values:
        return {f"p{q}": math.nan for q in _PERCENTILES}
    found = np.percentile(values, _PERCENTILES)
    return {f"p{q}": float(value) for q, value in zip(_PERCENTILES, found, strict=True)}


def by_task(
    records: Iterable[Record], value: Value
) -> dict[tuple[str, int | str], tuple[float, int]]:
    """Return each task's sum of a value, and its number of episodes with an outcome."""
    sums: dict[tuple[str, int | str], tuple[float, int]] = {}
    for record in records:
        if record.has_outcome:
            task = record.key[:2]
            total, count = sums.get(task, (0.0, 0))
            sums[task] = total + value(record), count + 1
    return sums


def by_split(records: Iterable[Record], confidence: float) -> list[JSONObject]:
    """Return a row of figures for each split."""
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.episode.split].append(record)
    return [_row_of_split(one, groups[one], confidence) for one in sorted(groups)]


def _row_of_split(
    split: str, records: Sequence[Record], confidence: float
) -> JSONObject:
    outcomes = [record for record in records if record.has_outcome]
    tasks = by_task(records, success_of).values()
    won, played = [k for k, _ in tasks], [n for _, n in tasks]
    interval = interval_if_possible(lambda: rate_interval(won, played, confidence))
    return {
        "split": split,
        "tasks": len({record.key[:2] for record in records}),
        "episodes": len(records),
        "outcomes": len(outcomes),
        "success_rate": mean(map(success_of, outcomes)),
        "success_low": interval.low,
        "success_high": interval.high,
        "avg_reward": mean(map(reward_of, outcomes)),
        "avg_steps": mean(len(record.episode.steps) for record in outcomes),
    }


def by_tool(records: Iterable[Record]) -> list[JSONObject]:
    """Return a row for each tool that was called, the most called first."""
    groups: dict[str, list[Any]] = defaultdict(list)
    for record in records:
        for step in record.episode.steps:
            groups[step.tool].append(step)
    rows = [
        {
            "tool": tool or "(no tool call)",
            "calls": len(steps),
            "errors": sum(bool(step.error) for step in steps),
            "avg_reward": mean(step.reward for step in steps if step.is_paid),
            **_percentiles([step.seconds for step in steps]),
        }
        for tool, steps in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(row["calls"]))


def count_errors(records: Iterable[Record]) -> dict[str, int]:
    """Count the episodes that an error ended, by its kind, the most frequent first."""
    kinds = (
        record.episode.error_kind
        for record in records
        if record.episode.stop_reason == "error"
    )
    return dict(Counter(kinds).most_common())


def latencies(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return percentiles of seconds: of an episode, a set-up, a call, a turn."""
    episodes = [record.episode for record in records]
    steps = [step for one in episodes for step in one.steps]
    turns = [turn for one in episodes for turn in one.turns]
    return {
        "episode": _percentiles([one.seconds for one in episodes]),
        "setup": _percentiles([one.setup_seconds for one in episodes]),
        "tool": _percentiles([step.seconds for step in steps]),
        "policy": _percentiles([turn.seconds for turn in turns]),
    }


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
