"""Confidence intervals of rates and means, and pass@k.

Episodes of one task are alike, so only tasks are independent. Where tasks have several
episodes, every interval is one over tasks (Miller, "Adding Error Bars to Evals", 2024).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ors_gym.errors import InvalidRequestError, MissingExtraError, import_extra

ANYTHING: Final = (-math.inf, math.inf)
"""The bounds of a value whose bounds are not known."""
_SEED: Final = 20240229
_MOST_DRAWS: Final = 10_000_000
"""Numbers drawn for one bootstrap: the more tasks, the fewer resamples."""
_FEWEST_RESAMPLES: Final = 1000
"""If there are too many tasks for so many resamples, the mean counts as normally
distributed."""


class Interval(NamedTuple):
    """A confidence interval; both ends are NaN where it is unknown.

    Args:
        low: The lower end.
        high: The upper end.

    Example:
        >>> f"{Interval(0.25, 0.5):.2f}"
        '[0.25, 0.50]'
    """

    low: float
    high: float

    def __format__(self, form: str) -> str:
        if math.isnan(self.low):
            return "(unknown)"
        return f"[{self.low:{form}}, {self.high:{form}}]"


def _unknown_interval() -> Interval:
    return Interval(math.nan, math.nan)


def interval_if_possible(ask: Callable[[], Interval]) -> Interval:
    """Return an interval, or the unknown one where the extra ``eval`` is missing."""
    try:
        return ask()
    except MissingExtraError:
        return _unknown_interval()


def rate_interval(
    successes: ArrayLike, counts: ArrayLike, confidence: float = 0.95
) -> Interval:
    """Return Wilson's interval for a success rate, within [0, 1].

    ``successes`` and ``counts`` (at least 1) have the number of successes and of
    episodes of each task. Where tasks have several episodes, the interval counts the
    effective number of episodes: the number of independent ones that would give the
    same variance. Student's t lowers it, since few tasks tell little of the variance
    (Korn and Graubard, "Confidence intervals for proportions with small expected number
    of positive counts estimated from survey data", 1998, who do so for another
    interval).
    """
    won, played = _in_order(successes, counts)
    if not len(played):
        return _unknown_interval()
    if played.max() == 1:
        stats = import_extra("scipy.stats", "eval", "An interval")
        test = stats.binomtest(int(won.sum()), len(played))
        found = test.proportion_ci(confidence, method="wilson")
        return Interval(float(found.low), float(found.high))
    return _clustered_wilson(won, played, confidence)


def _clustered_wilson(
    won: NDArray[np.float64], played: NDArray[np.float64], confidence: float
) -> Interval:
    stats = import_extra("scipy.stats", "eval", "An interval")
    tasks, episodes = len(played), float(played.sum())
    if tasks < 2:
        return _unknown_interval()
    rate = float(won.sum()) / episodes
    z = float(stats.norm.ppf((1 + confidence) / 2))
    t = float(stats.t.ppf((1 + confidence) / 2, tasks - 1))
    # Of whole numbers, so that equal rates give 0: 100 * 0.07 is not 7.
    residuals = (won * episodes - won.sum() * played) / episodes
    variance = tasks / (tasks - 1) * float(residuals @ residuals) / episodes**2
    # Without any variance seen, only the tasks are certain to be independent.
    effective = rate * (1 - rate) / variance if variance > 0 else float(tasks)
    effective = min(effective, episodes) * (z / t) ** 2
    centre = rate + z**2 / (2 * effective)
    spread = z * math.sqrt(rate * (1 - rate) / effective + z**2 / (4 * effective**2))
    scale = 1 + z**2 / effective
    low, high = (centre - spread) / scale, (centre + spread) / scale
    return Interval(max(0.0, low), min(1.0, high))


def mean_interval(
    sums: ArrayLike,
    counts: ArrayLike,
    confidence: float = 0.95,
    bounds: tuple[float, float] = ANYTHING,
) -> Interval:
    """Return a bootstrap interval for a mean over episodes, with tasks resampled.

    ``sums`` and ``counts`` (at least 1) have the sum of the values and the number of
    episodes of each task. ``bounds`` are limits of the mean, and so of the interval,
    such as ``(0, inf)`` for steps. The same numbers give the same interval, in any
    order. It is unknown for less than two tasks, and for sums that are not finite.

    The interval is the studentised one, which skewed rewards need most (Efron and
    Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 12). Binary rewards of
    few tasks give resamples without any standard error; a resample's standard error
    therefore counts as at least half of the sample's.

    In simulations with 15 and 30 tasks it held the true mean in 0.95 and 0.95 of the
    runs for normal rewards, 0.93 and 0.94 for exponential, 0.96 and 0.97 for bimodal,
    0.91 and 0.93 for log-normal ones. Expanded percentiles and BCa held fewer of the
    skewed means (0.87 and 0.90, 0.86 and 0.90 of the log-normal ones).
    """
    totals, played = _in_order(sums, counts)
    if len(totals) < 2 or not np.isfinite(totals).all():
        return _unknown_interval()
    # Scaled by a power of two, which is exact: squares must not overflow or vanish.
    _, exponent = math.frexp(float(np.abs(totals).max()))
    found = _bootstrap(np.ldexp(totals, -exponent), played, confidence)
    with np.errstate(over="ignore"):
        low, high = np.clip(np.ldexp(np.asarray(found), exponent), *bounds)
    return Interval(float(low), float(high))


def _in_order(
    sums: ArrayLike, counts: ArrayLike
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return tasks sorted by their numbers.

    A run lists its tasks in order, its file in the order in which episodes ended. Once
    sorted, both draw the same resamples.
    """
    totals, played = np.asarray(sums, dtype=float), np.asarray(counts, dtype=float)
    order = np.lexsort((played, totals))
    return totals[order], played[order]


def _bootstrap(
    totals: NDArray[np.float64], played: NDArray[np.float64], confidence: float
) -> Interval:
    tasks = len(totals)
    mean, error = (float(value) for value in _mean_and_error(totals, played))
    means = totals / played
    # As many roundings as additions: three times 0.1 is not 0.3.
    noise = (8 + played.max()) * np.finfo(float).eps * np.abs(means).max()
    if error == 0 or np.ptp(means) <= noise:
        return Interval(mean, mean)
    stats = import_extra("scipy.stats", "eval", "An interval")
    if tasks > _MOST_DRAWS // _FEWEST_RESAMPLES:
        reach = error * float(stats.t.ppf((1 + confidence) / 2, tasks - 1))
        return Interval(mean - reach, mean + reach)

    def pivot(drawn: Any, played: Any, axis: int = -1) -> Any:
        means, errors = _mean_and_error(drawn, played, axis)
        return (means - mean) / np.maximum(errors, error / 2)

    found = stats.bootstrap(
        (totals, played),
        pivot,
        paired=True,
        vectorized=True,
        n_resamples=int(np.clip(_MOST_DRAWS // tasks, _FEWEST_RESAMPLES, 9999)),
        batch=max(1, 2_000_000 // tasks),
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(_SEED),
    ).confidence_interval
    return Interval(mean - float(found.high) * error, mean - float(found.low) * error)


def _mean_and_error(sums: Any, counts: Any, axis: int = -1) -> tuple[Any, Any]:
    """Return a mean over episodes and its linearised standard error over tasks."""
    tasks, episodes = sums.shape[axis], counts.sum(axis=axis)
    means = sums.sum(axis=axis) / episodes
    residuals = sums - np.expand_dims(means, axis) * counts
    squares = np.square(residuals).sum(axis=axis)
    return means, np.sqrt(tasks / (tasks - 1) * squares) / episodes


def pass_at_k(successes: Sequence[int], counts: Sequence[int], k: int) -> float:
    """Return the probability that at least one of k episodes of a task succeeds.

    The estimate is unbiased: for each task it is the share of all choices of k of its
    episodes that contain a success (Chen et al., "Evaluating Large Language Models
    Trained on Code", 2021), averaged over the tasks that have at least k; NaN if none
    has.

    Args:
        successes: The number of successes of each task.
        counts: The number of episodes of each task.
        k: The number of episodes that are drawn, at least 1.

    Raises:
        InvalidRequestError: If k is less than 1.
        MissingExtraError: If the extra ``eval`` is not installed.

    Example:
        >>> pass_at_k([1], [4], 2)
        0.5
    """
    return _mean_over_draws("sf", 0, successes, counts, k)


def pass_hat_k(successes: Sequence[int], counts: Sequence[int], k: int) -> float:
    """Return the probability that all of k episodes of a task succeed: pass^k.

    Unbiased in the same way (Yao et al., "tau-bench", 2024, section 3).

    Args:
        successes: The number of successes of each task.
        counts: The number of episodes of each task.
        k: The number of episodes that are drawn, at least 1.

    Raises:
        InvalidRequestError: If k is less than 1.
        MissingExtraError: If the extra ``eval`` is not installed.

    Example:
        >>> round(pass_hat_k([3], [4], 2), 12)
        0.5
    """
    return _mean_over_draws("pmf", k, successes, counts, k)


def _mean_over_draws(
    function: str, at: int, successes: Sequence[int], counts: Sequence[int], k: int
) -> float:
    """Average, over tasks, a function of the number of successes among k drawn.

    That number has the hypergeometric distribution.
    """
    if k < 1:
        raise InvalidRequestError("k must be at least 1")
    won, played = np.asarray(successes), np.asarray(counts)
    enough = played >= k
    if not enough.any():
        return math.nan
    law = import_extra("scipy.stats", "eval", "pass@k").hypergeom
    values = getattr(law, function)(at, played[enough], won[enough], k)
    return float(values.mean())
