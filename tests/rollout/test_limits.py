"""The limits of a run, in virtual time: what is used beyond them was in flight."""

import dataclasses
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Episode, Turn
from ors_gym.rollout._limits import Budget, RunLimits, Spending, take_limits
from tests.system.simulation.virtual_time import VirtualClock

pytestmark = pytest.mark.unit

PRICES = {"*": {"input": 1e6, "output": 1e6}}
"""One for each token."""


@dataclasses.dataclass
class Run:
    """A run in virtual time: episodes of turns that take a while and cost something."""

    limits: RunLimits
    concurrent: int
    seed: int
    whole_episodes: bool = False  # whether usage is told only at their end
    clock: VirtualClock = dataclasses.field(default_factory=VirtualClock)
    in_flight: dict[int, float] = dataclasses.field(default_factory=dict)
    spent: float = 0.0
    at_the_limit: float | None = None
    begun_later: int = 0

    def play(self) -> Budget:
        self.random = random.Random(self.seed)
        self.budget = Budget(self.limits, clock=lambda: self.clock.now)
        self.budget.on_stop(self.stopped)
        for number in range(self.concurrent):
            self.begin_episode(number)
        self.clock.drain()
        return self.budget

    def stopped(self) -> None:
        # The turn that is over by now is not among those in flight.
        self.at_the_limit = sum(self.in_flight.values())

    def begin_episode(self, number: int) -> None:
        if not self.budget.stopped:
            spending = self.budget.begin()
            turns = self.random.randrange(1, 6)
            episode = Episode("env", total_reward=1.0)
            self.begin_turn((number, spending, episode, turns))

    def begin_turn(self, playing: tuple[int, Spending, Episode, int]) -> None:
        number, spending, episode, turns = playing
        self.budget.look_at_clock()
        if spending.stopped or not turns:
            self.end_episode(playing)
            return
        self.begun_later += bool(self.budget.stopped)
        tokens = self.random.randrange(1, 1000)
        self.in_flight[number] = self.in_flight.get(number, 0) + tokens
        when = self.clock.now + self.random.uniform(0.1, 10)
        turn = Turn(["act"], extra={"usage": {"input_tokens": 0}, "model": "m"})
        turn.extra["usage"]["output_tokens"] = tokens
        playing = number, spending, episode, turns - 1
        self.clock.at(when, self.end_turn, (playing, turn))

    def end_turn(self, ended: tuple[tuple[int, Spending, Episode, int], Turn]) -> None:
        playing, turn = ended
        number, spending, episode, _ = playing
        tokens = turn.extra["usage"]["output_tokens"]
        self.spent += tokens
        if self.whole_episodes:
            total = sum(one.extra["told"] for one in episode.turns) + tokens
            episode.extra = {"usage": {"output_tokens": total}}
            turn = Turn(["act"], extra={"told": tokens})
        else:
            del self.in_flight[number]
        episode.turns.append(turn)
        spending.add_turn(turn)
        self.begin_turn(playing)

    def end_episode(self, playing: tuple[int, Spending, Episode, int]) -> None:
        number, spending, episode, _ = playing
        self.in_flight.pop(number, None)
        spending.end(episode)
        self.begin_episode(number)


runs = given(st.integers(1, 12), st.integers(1, 100_000), st.integers(), st.booleans())


@runs
def test_a_cost_never_overshoots_by_more_than_what_was_in_flight(
    concurrent, most, seed, whole
):
    run = Run(RunLimits(max_cost=most, prices=PRICES), concurrent, seed, whole)
    budget = run.play()
    assert budget.stopped.startswith("max_cost: ")
    assert budget.cost == budget.tokens == run.spent
    assert run.begun_later == 0
    assert run.at_the_limit is not None
    # What made it reach the limit was one turn, or one episode.
    last = 1000 * (5 if whole else 1)
    assert most <= budget.cost <= most + last + run.at_the_limit
    if concurrent == 1:
        assert budget.cost < most + last


@runs
def test_tokens_and_seconds_end_a_run_in_the_same_way(concurrent, most, seed, whole):
    run = Run(RunLimits(max_tokens=most), concurrent, seed, whole)
    budget = run.play()
    assert budget.stopped == f"max_tokens: {budget.stopped.split()[1]} of {most:,} used"
    assert most <= budget.tokens <= most + 5000 * concurrent
    run = Run(RunLimits(max_seconds=most / 1000), concurrent, seed, whole)
    assert run.play().stopped == f"max_seconds: {most / 1000:g} s are over"
    assert run.clock.now <= most / 1000 + 10


def lose(budget: Budget, kind: str = "connection") -> None:
    episode = Episode("env")
    episode.end_without_outcome("no route", kind)
    budget.begin().end(episode)


def test_outages_end_a_run_and_what_a_limit_ended_is_none():
    budget = Budget(RunLimits(max_outages=3))
    for kind in ("connection", "run_limit", "policy"):
        lose(budget, kind)
    assert (budget.stopped, budget.ends_what_is_in_flight) == ("", False)
    lose(budget)
    told = "max_outages: 3 attempts ended without an outcome, of 3 allowed"
    assert (budget.stopped, budget.ends_what_is_in_flight) == (told, True)


def test_what_earlier_calls_used_counts():
    used = {"input_tokens": 5, "output_tokens": 5, "cost": 2.0}
    assert Budget(RunLimits(max_cost=2.0), used).stopped == "max_cost: 2 of 2 used"
    assert Budget(RunLimits(max_tokens=11), used).stopped == ""
    assert Budget(RunLimits(max_tokens=10), used).stopped.startswith(
        "max_tokens: 10 of"
    )


@pytest.mark.parametrize(
    ("limits", "extra", "told"),
    [
        (RunLimits(max_cost=1), None, "does not say what it uses"),
        (RunLimits(max_tokens=1), {"usage": {"cost": 3}}, ""),
        (
            RunLimits(max_cost=1),
            {"usage": {"input_tokens": 3}},
            "reports tokens and no",
        ),
        (
            RunLimits(max_cost=1, prices={"a": {"input": 1, "output": 1}}),
            {"usage": {"input_tokens": 3}, "model": "b"},
            "'b' costs",
        ),
        (RunLimits(max_cost=1), {"usage": {"cost": 0.5}}, ""),
        (RunLimits(), None, ""),
    ],
)
def test_a_limit_that_cannot_be_watched_ends_the_run(limits, extra, told):
    budget = Budget(limits)
    turn = Turn(["act"], extra=extra)
    spending = budget.begin()
    spending.add_turn(turn)
    spending.end(Episode("env", turns=[turn], stop_reason="finished"))
    assert told in budget.stopped
    assert bool(told) == bool(budget.stopped)


@pytest.mark.parametrize(
    "given",
    [
        {"max_cost": 0},
        {"max_cost": float("nan")},
        {"max_tokens": -1},
        {"max_seconds": True},
        {"max_outages": "3"},
        {"prices": {}},
    ],
)
def test_what_is_no_limit_is_refused(given: dict[str, Any]):
    with pytest.raises(InvalidRequestError, match=next(iter(given))):
        take_limits(dict(given))
