"""Which episodes of a run are exported, and which of them are pairs."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any, TypeAlias

from ors_gym.evaluation._read_run import Row

Rewards: TypeAlias = tuple[float | None, float | None]
"""The least and the greatest reward, None where there is no such limit."""


def choose(
    rows: Iterable[Row],
    *,
    split: str | None = None,
    success: bool | None = None,
    rewards: Rewards = (None, None),
    with_steps: bool = False,
) -> tuple[list[Row], Counter[str]]:
    """Return the rows that are wanted, and count the others by the reason."""
    least, most = rewards
    low = -math.inf if least is None else least
    high = math.inf if most is None else most
    chosen: list[Row] = []
    left_out: Counter[str] = Counter()
    for row in rows:
        if row.reward is None:
            left_out["without an outcome"] += 1
        elif split not in (None, row.key[0]):
            left_out["of another split"] += 1
        elif success not in (None, row.success):
            left_out["failed" if success else "successful"] += 1
        elif not low <= row.reward <= high:
            left_out["with another reward"] += 1
        elif with_steps and not row.steps:
            left_out["without a step"] += 1
        else:
            chosen.append(row)
    return chosen, left_out


def make_pairs(rows: Iterable[Row]) -> list[tuple[Row, Row]]:
    """Pair the best of each task with the worst, while their rewards differ."""
    tasks: dict[Any, list[Row]] = {}
    for row in rows:
        tasks.setdefault(row.key[:2], []).append(row)
    pairs: list[tuple[Row, Row]] = []
    for group in tasks.values():
        ranked = sorted(group, key=lambda row: -(row.reward or 0.0))
        pairs += (
            (better, worse)
            for better, worse in zip(
                ranked[: len(ranked) // 2], reversed(ranked), strict=False
            )
            if better.reward != worse.reward
        )
    return pairs
