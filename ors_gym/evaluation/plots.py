"""An evaluation as a figure."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ors_gym.evaluation.extras import load

if TYPE_CHECKING:
    from ors_gym.evaluation.result import Evaluation

__all__ = ["draw"]


def draw(evaluation: Evaluation) -> Any:
    """Draw an evaluation.

    The figure belongs to no window, so that nothing has to be closed, and no backend
    is chosen for the rest of the process.

    Args:
        evaluation: The evaluation.

    Returns:
        A ``matplotlib.figure.Figure`` with four parts: rewards, success rates with
        their intervals, steps, and latencies.

    Raises:
        MissingExtraError: If the extra ``eval`` is not installed.
    """
    figure = load("matplotlib.figure", "A plot").Figure(
        figsize=(10, 7), layout="constrained"
    )
    ((rewards, success), (steps, latency)) = figure.subplots(2, 2)
    _draw_histogram(rewards, evaluation.rewards, "reward")
    _draw_success(success, evaluation)
    outcomes = [record for record in evaluation.records if record.has_outcome]
    counts = [len(record.episode.steps) for record in outcomes]
    _draw_histogram(steps, counts, "steps")
    _draw_latency(latency, evaluation)
    return figure


def _draw_histogram(axes: Any, values: list[Any], name: str) -> None:
    axes.hist(values, bins=min(30, max(10, len(set(values)))), color="#4477aa")
    axes.set_xlabel(name)
    axes.set_ylabel("episodes")


def _draw_success(axes: Any, evaluation: Evaluation) -> None:
    rows = [row for row in evaluation.by_split if row["outcomes"]]
    names = [row["split"] or "all" for row in rows]
    rates = [row["success_rate"] for row in rows]
    below = [_reach(row["success_rate"], row["success_low"]) for row in rows]
    above = [_reach(row["success_high"], row["success_rate"]) for row in rows]
    axes.bar(names, rates, yerr=[below, above], capsize=6, color="#66ccee", width=0.5)
    axes.set_xlim(-1, max(1, len(rows)))
    axes.set_ylim(0, 1)
    axes.set_ylabel(f"success rate, {evaluation.confidence:.0%} interval")


def _reach(high: float, low: float) -> float:
    """Return the length of an error bar: none where the interval is not known."""
    length = high - low
    return 0.0 if math.isnan(length) else max(0.0, length)


def _draw_latency(axes: Any, evaluation: Evaluation) -> None:
    episodes = evaluation.episodes
    seconds = {
        "tool": [step.seconds for one in episodes for step in one.steps],
        "policy": [turn.seconds for one in episodes for turn in one.turns],
        "set-up": [one.setup_seconds for one in episodes],
    }
    for name, values in seconds.items():
        if values:
            axes.ecdf(values, label=name)
            axes.set_xscale("log")
    if any(seconds.values()):
        axes.legend()
    axes.set_xlabel("seconds")
    axes.set_ylabel("share of calls")
