"""The figures of an evaluation, as plain numbers and rows."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ors_gym.evaluation._output import Record
from ors_gym.evaluation._statistics import interval_if_possible, rate_interval
from ors_gym.types import JSONObject

__all__ = [
    "by_split",
    "by_task",
    "by_tool",
    "count_errors",
    "latencies",
    "mean",
    "percentiles",
]

_PERCENTILES = (50, 90, 99)


def mean(values: Iterable[float]) -> float:
    """Return the mean, NaN of nothing.

    Args:
        values: The values.

    Example:
        >>> mean([1.0, 2.0]), mean([])
        (1.5, nan)
    """
    listed = list(values)
    if not listed:
        return math.nan
    try:
        return math.fsum(listed) / len(listed)
    except (OverflowError, ValueError):
        # The sum is no float, or its parts are infinite; the mean may be one.
        return sum(value / len(listed) for value in listed)


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """Return the median, the 90th and the 99th percentile, NaN of nothing.

    Args:
        values: The values.

    Example:
        >>> percentiles([1.0, 2.0, 3.0])["p50"]
        2.0
    """
    if not values:
        return {f"p{q}": math.nan for q in _PERCENTILES}
    found = np.percentile(values, _PERCENTILES)
    return {f"p{q}": float(value) for q, value in zip(_PERCENTILES, found, strict=True)}


def by_task(
    records: Iterable[Record], value: Callable[[Record], float]
) -> dict[tuple[str, int | str], tuple[float, int]]:
    """Add a value up over the episodes of each task that have an outcome.

    Args:
        records: The episodes.
        value: The value of one.

    Returns:
        For each task the sum and the number of its episodes.
    """
    sums: dict[tuple[str, int | str], tuple[float, int]] = {}
    for record in records:
        if record.has_outcome:
            task = record.key[:2]
            total, count = sums.get(task, (0.0, 0))
            sums[task] = total + value(record), count + 1
    return sums


def by_split(records: Iterable[Record], confidence: float) -> list[JSONObject]:
    """Return a row for each split.

    Args:
        records: The episodes.
        confidence: Of the intervals.
    """
    groups: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        groups[record.episode.split].append(record)
    return [_row_of(split, groups[split], confidence) for split in sorted(groups)]


def _row_of(split: str, records: Sequence[Record], confidence: float) -> JSONObject:
    outcomes = [record for record in records if record.has_outcome]
    tasks = by_task(records, lambda record: float(bool(record.success))).values()
    won, played = [k for k, _ in tasks], [n for _, n in tasks]
    interval = interval_if_possible(lambda: rate_interval(won, played, confidence))
    return {
        "split": split,
        "tasks": len({record.key[:2] for record in records}),
        "episodes": len(records),
        "outcomes": len(outcomes),
        "success_rate": mean(bool(record.success) for record in outcomes),
        "success_low": interval.low,
        "success_high": interval.high,
        "avg_reward": mean(record.episode.total_reward or 0.0 for record in outcomes),
        "avg_steps": mean(len(record.episode.steps) for record in outcomes),
    }


def by_tool(records: Iterable[Record]) -> list[JSONObject]:
    """Return a row for each tool that was called, the most called first.

    Args:
        records: The episodes.
    """
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
            **percentiles([step.seconds for step in steps]),
        }
        for tool, steps in groups.items()
    ]
    return sorted(rows, key=lambda row: -int(row["calls"]))


def count_errors(records: Iterable[Record]) -> dict[str, int]:
    """Count the episodes that ended by an error, by its kind, the most frequent first.

    Args:
        records: The episodes.
    """
    kinds = (
        record.episode.error_kind
        for record in records
        if record.episode.stop_reason == "error"
    )
    return dict(Counter(kinds).most_common())


def latencies(records: Sequence[Record]) -> dict[str, dict[str, float]]:
    """Return percentiles of the seconds that things took.

    Args:
        records: The episodes.

    Returns:
        For ``episode``, ``setup``, ``tool`` (one call) and ``policy`` (one turn) the
        ``p50``, ``p90`` and ``p99``.
    """
    episodes = [record.episode for record in records]
    return {
        "episode": percentiles([one.seconds for one in episodes]),
        "setup": percentiles([one.setup_seconds for one in episodes]),
        "tool": percentiles([step.seconds for one in episodes for step in one.steps]),
        "policy": percentiles([turn.seconds for one in episodes for turn in one.turns]),
    }
