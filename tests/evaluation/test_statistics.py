"""Intervals by simulation, pass@k by brute force."""

import itertools
import math
from collections.abc import Iterable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.evaluation import Interval, pass_at_k, pass_hat_k
from ors_gym.evaluation import _statistics as statistics
from ors_gym.evaluation._statistics import mean_interval, rate_interval

RUNS = 2000


def coverage(truth: float, intervals: Iterable[Interval]) -> float:
    held = [low <= truth <= high for low, high in intervals]
    assert len(held) == RUNS
    return sum(held) / RUNS


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "tasks"), [(0.3, 50), (0.5, 200), (0.9, 60)])
def test_wilsons_interval_holds_the_rate(rate, tasks):
    random = np.random.default_rng(0)
    runs = (random.random(tasks) < rate for _ in range(RUNS))
    found = [rate_interval(won, np.ones(tasks)) for won in runs]
    assert 0.93 <= coverage(rate, found) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("a", "b", "tasks", "episodes"),
    [(1, 1, 20, 4), (0.5, 0.5, 30, 8), (2, 1, 50, 4), (9, 1, 60, 4)],
)
def test_the_interval_over_tasks_holds_the_rate(a, b, tasks, episodes):
    """Tasks differ in difficulty, by a beta distribution."""
    random = np.random.default_rng(1)
    rates = random.beta(a, b, (RUNS, tasks))
    won = random.binomial(episodes, rates)
    found = [rate_interval(one, np.full(tasks, episodes)) for one in won]
    assert 0.93 <= coverage(a / (a + b), found) <= 0.97


@pytest.mark.slow
def test_an_interval_that_takes_episodes_for_independent_does_not():
    """What the clustering is for: the same runs, each episode a task of its own."""
    random = np.random.default_rng(1)
    won = random.binomial(8, random.beta(0.5, 0.5, (RUNS, 30)))
    ones = [np.repeat([1, 0], [k, 240 - k]) for k in won.sum(axis=1)]
    found = [rate_interval(one, np.ones(240)) for one in ones]
    assert coverage(0.5, found) < 0.7


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [20, 60])
@pytest.mark.parametrize("episodes", [1, 4])
def test_the_bootstrap_interval_holds_the_mean(tasks, episodes, monkeypatch):
    monkeypatch.setattr(statistics, "_MOST_DRAWS", 1000 * tasks)
    random = np.random.default_rng(2)
    # Between -1 and 3, skewed, alike within a task.
    level = random.beta(1, 2, (RUNS, tasks, 1))
    rewards = 4 * (level + random.random((RUNS, tasks, episodes))) / 2 - 1
    sums = rewards.sum(axis=2)
    found = [mean_interval(one, np.full(tasks, episodes)) for one in sums]
    truth = 4 * (1 / 3 + 1 / 2) / 2 - 1
    assert 0.93 <= coverage(truth, found) <= 0.97


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "tasks", "at_least"),
    [
        ("exponential", 15, 0.92),
        ("exponential", 30, 0.93),
        ("bimodal", 30, 0.93),
        ("two values", 30, 0.93),
        # What few tasks do not show, no interval can know.
        ("log-normal", 30, 0.91),
    ],
)
def test_the_bootstrap_interval_bears_skew(name, tasks, at_least, monkeypatch):
    monkeypatch.setattr(statistics, "_MOST_DRAWS", 1000 * tasks)
    random = np.random.default_rng(4)
    shape = RUNS, tasks
    signs = np.where(random.random(shape) < 0.8, 1.0, -1.0)
    rewards, truth = {
        "exponential": (random.exponential(size=shape), 1.0),
        "bimodal": (signs + random.normal(0, 0.1, shape), 0.6),
        "two values": ((random.random(shape) < 0.5) * 1.0, 0.5),
        "log-normal": (random.lognormal(size=shape), math.exp(0.5)),
    }[name]
    found = [mean_interval(one, np.ones(tasks)) for one in rewards]
    # Few values in any order are few resamples: their coverage goes in steps.
    assert at_least <= coverage(truth, found) <= 0.99


def test_an_interval_of_very_many_tasks_is_the_normal_one():
    random = np.random.default_rng(5)
    rewards = random.exponential(size=10_001)
    low, high = mean_interval(rewards, np.ones(10_001))
    few = mean_interval(rewards[:10_000], np.ones(10_000))
    assert (low, high) == pytest.approx(few, abs=0.002)
    assert (low + high) / 2 == pytest.approx(rewards.mean())


def test_an_interval_moves_with_the_rewards():
    rewards = np.random.default_rng(6).exponential(size=25)
    low, high = mean_interval(rewards, np.ones(25))
    # The same numbers always give the same interval.
    assert mean_interval(rewards, np.ones(25)) == (low, high)
    moved = mean_interval(3 * rewards - 1, np.ones(25))
    assert moved == pytest.approx((3 * low - 1, 3 * high - 1))
    # Where rewards are skewed, more is possible on that side.
    assert high - rewards.mean() > rewards.mean() - low


def test_wilsons_interval_is_the_textbooks():
    # Newcombe, "Two-sided confidence intervals for the single proportion" (1998),
    # table I: 81 of 263, 15 of 148, 0 of 20, 1 of 29.
    for won, played, low, high in (
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ):
        found = rate_interval(np.arange(played) < won, np.ones(played))
        assert found == pytest.approx((low, high), abs=6e-5)


def test_nothing_is_known_of_nothing():
    for found in (
        rate_interval([], []),
        rate_interval([3], [4]),
        mean_interval([], []),
        mean_interval([3.0], [1]),
    ):
        assert all(map(math.isnan, found))
        assert f"{found:.3f}" == "(unknown)"
    assert math.isnan(pass_at_k([1], [2], 3))


@given(
    st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=2, max_size=9)
)
def test_intervals_are_within_bounds_and_hold_the_estimate(pairs):
    won = [min(pair) for pair in pairs]
    played = [max(*pair, 1) for pair in pairs]
    low, high = rate_interval(won, played)
    rate = sum(won) / sum(played)
    assert 0 <= low <= rate + 1e-9
    assert rate - 1e-9 <= high <= 1


@given(
    st.lists(st.lists(st.booleans(), min_size=1, max_size=7), min_size=1, max_size=4),
    st.integers(1, 5),
)
def test_pass_at_k_is_the_share_of_all_choices(tasks, k):
    enough = [task for task in tasks if len(task) >= k]
    won, played = [sum(task) for task in tasks], [len(task) for task in tasks]
    for function, holds in ((pass_at_k, any), (pass_hat_k, all)):
        found = function(won, played, k)
        if not enough:
            assert math.isnan(found)
            continue
        shares = [
            np.mean([holds(choice) for choice in itertools.combinations(task, k)])
            for task in enough
        ]
        assert found == pytest.approx(np.mean(shares))


def test_pass_at_nothing_is_refused():
    with pytest.raises(InvalidRequestError):
        pass_at_k([1], [1], 0)


def test_an_interval_stays_within_what_is_possible():
    steps, ones = [1] * 9 + [50], [1] * 10
    free = mean_interval(steps, ones)
    assert free.low < 0
    assert mean_interval(steps, ones, bounds=(0, math.inf)) == (0, free.high)
    rates = [1.0] * 5 + [0.0]
    free = mean_interval(rates, [1] * 6)
    assert free.high > 1
    assert mean_interval(rates, [1] * 6, bounds=(-1, 1)) == (free.low, 1)


@given(st.randoms())
@settings(max_examples=5)
def test_an_interval_does_not_depend_on_the_order_of_tasks(random):
    """A run has the order of its tasks, its file that in which episodes ended."""
    tasks = [(value / 16, 1 + place % 3) for place, value in enumerate(range(-9, 16))]
    mixed = random.sample(tasks, len(tasks))
    sums, counts = zip(*tasks, strict=True)
    mixed_sums, mixed_counts = zip(*mixed, strict=True)
    assert mean_interval(sums, counts) == mean_interval(mixed_sums, mixed_counts)


def test_an_interval_of_huge_and_of_tiny_rewards_is_that_of_others():
    rewards = np.array([1.0, -1.0, 0.5, 0.25, 1.0, 1.0])
    low, high = mean_interval(rewards, np.ones(6))
    for power in (-900, 900):
        found = mean_interval(np.ldexp(rewards, power), np.ones(6))
        assert found == (math.ldexp(low, power), math.ldexp(high, power))
    for endless in (math.inf, -math.inf, math.nan):
        assert all(map(math.isnan, mean_interval([endless, 1.0], [1, 1])))


@pytest.mark.parametrize(("won", "played"), [(7, 100), (29, 100), (1, 2), (1, 49)])
def test_equal_rates_are_not_told_apart_by_rounding(won, played):
    """Whether a rate is a float of the right size, as 1/2 is and 0.07 is not."""
    found = rate_interval([won] * 2, [played] * 2)
    assert found == pytest.approx(rate_interval([won * 16] * 2, [played * 16] * 2))


@pytest.mark.parametrize("counts", [[3] * 5 + [2], [1, 7], [1, 10, 100, 1000]])
@pytest.mark.parametrize("reward", [0.1, -0.7, 1e300, 1 / 3])
def test_rewards_that_are_all_the_same_leave_no_interval(counts, reward):
    sums = [sum([reward] * count) for count in counts]
    low, high = mean_interval(sums, counts)
    assert low == high == pytest.approx(reward)
