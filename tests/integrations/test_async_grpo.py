"""A model learns while its rollouts go on, also while its server is away."""

import asyncio
import contextlib
import statistics
from typing import Any

import pytest

from benchmarks import async_grpo
from ors_gym.rollout import Episode, Step, Turn
from tests.support.virtual_environments import ROOT

GROUP = "training"


def test_a_step_of_training_is_taken_while_episodes_go_on(example: Any) -> None:
    async def steps(count: int) -> list[tuple[float, int]]:
        learning = example("async_grpo").learn()
        async with contextlib.aclosing(learning):
            return [await anext(learning) for _ in range(count)]

    taken = asyncio.run(steps(4))
    assert all(-10 / 16 <= reward <= 1 for reward, _ in taken)
    # The first groups were played with the first weights, and none is too old.
    assert taken[0][1] == 0 < max(stale for _, stale in taken) <= 4


def test_a_turn_is_rated_by_what_came_of_it(example: Any) -> None:
    episodes = []
    for paid in ([-0.5, 1.0], [1.0], [-1.0, 0.0]):
        steps = [
            Step(number, "", "guess", {}, [], reward=reward)
            for number, reward in enumerate(paid)
        ]
        episodes.append(Episode("guess", turns=[Turn("")] * len(paid), steps=steps))
    rated = example("async_grpo").rate(episodes)
    # The first turns earned 0, 1 and -1, the second ones 1 and 0.
    assert (rated / rated[2]).tolist() == pytest.approx([0.0, 0.5, 1.0, -1.0, -0.5])


def test_the_example_is_short() -> None:
    text = (ROOT / "docs" / "examples" / "async_grpo.py").read_text(encoding="utf-8")
    assert len(text.splitlines()) < 150


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_a_random_model_learns_to_guess_through_an_outage() -> None:
    # Nine tenths of what the player of reference earns, as in the benchmark. How many
    # steps that takes depends on which groups end first, so on the machine.
    enough = 0.9 * 0.85
    curve, ages = async_grpo.learn(seed=0, steps=480, until=enough)
    assert curve.start < 0.2
    assert statistics.fmean(curve.rewards[-20:]) >= enough
    assert 1 <= max(ages) <= 4
