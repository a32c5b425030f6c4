"""The reward that a policy sees while its episode goes on."""

from __future__ import annotations

from typing import Any, get_args
from unittest.mock import PropertyMock, patch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.rollout import Episode, reduce_rewards, run_episode
from ors_gym.rollout._episode import Step
from ors_gym.rollout._rules import RewardReduction, RunningReward
from tests.rollout.scripted_env import ScriptedEnv, submit

REDUCTIONS = get_args(RewardReduction)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30),
    st.sampled_from(REDUCTIONS),
)
def test_it_is_the_reward_of_the_steps_so_far(rewards: list[float], kind: Any) -> None:
    running = RunningReward(kind)
    for played, reward in enumerate(rewards, start=1):
        expected = reduce_rewards(rewards[:played], kind)
        assert running.add(reward) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("kind", "seen"),
    [
        ("sum", [0.0, 1.0, 1.0, 1.5]),
        ("last", [0.0, 1.0, 1.0, 0.5]),
        ("mean", [0.0, 1.0, 1.0, 0.75]),
        ("max", [0.0, 1.0, 1.0, 1.0]),
        ("min", [0.0, 1.0, 1.0, 0.5]),
    ],
)
def test_a_policy_sees_it_without_steps_that_were_paid_nothing(
    kind: Any, seen: list[float]
) -> None:
    unpaid = {"reward": 0.0, "reward_is_null": True}
    env = ScriptedEnv({"reward": 1.0}, unpaid, {"reward": 0.5}, {"finished": True})
    found: list[float | None] = []

    def policy(episode: Episode) -> Any:
        found.append(episode.total_reward)
        return submit()

    run_episode(env, policy, reward_reduction=kind)
    assert found == seen


def test_no_step_looks_at_all_the_steps_before_it() -> None:
    steps = 200
    env = ScriptedEnv(*[{"reward": 1.0}] * steps, {"finished": True})
    paid = PropertyMock(return_value=True)
    with patch.object(Step, "is_paid", paid):
        episode = run_episode(env, lambda _: submit())
    assert episode.total_reward == steps
    assert paid.call_count <= 2 * len(episode.steps)
