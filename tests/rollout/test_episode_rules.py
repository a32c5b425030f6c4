"""The rules of an episode: what it is worth, and what a policy sees of that."""

import math
from typing import Any, get_args
from unittest.mock import PropertyMock, patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Episode, reduce_rewards, run_episode
from ors_gym.rollout._episode import Step
from ors_gym.rollout._episode_rules import RewardReduction, RunningReward
from tests.rollout.scripted_env import FINISH, ScriptedEnv, play, submit

pytestmark = pytest.mark.unit


@pytest.mark.parametrize(
    ("reduction", "expected"),
    [("sum", 2.0), ("last", 0.5), ("mean", 2 / 3), ("max", 2.0), ("min", -0.5)],
)
def test_reductions_leave_out_what_was_not_paid(reduction, expected):
    env = ScriptedEnv(
        {"reward": 2.0},
        {"reward": -0.5},
        {"reward": 0.5},
        {"reward_is_null": True},
        {"error": "x", "error_kind": "tool_failed"},
        {"finished": True, "reward_is_null": True},
    )
    episode = play(env, *[submit()] * 6, reward_reduction=reduction)
    assert episode.total_reward == pytest.approx(expected)
    assert reduce_rewards([], reduction) == 0.0


def test_rewards_whose_sum_no_float_holds_end_no_run():
    env = ScriptedEnv({"reward": 1e308}, {"reward": 1e308, "finished": True})
    assert play(env, *[submit()] * 2).total_reward == math.inf


def test_an_unfinished_episode_is_paid_for_it():
    env = ScriptedEnv({"reward": 0.25})
    assert play(env, submit(), None, nonterminal_reward=-1.0).total_reward == -0.75
    env = ScriptedEnv(FINISH)
    assert play(env, submit(), nonterminal_reward=-1.0).total_reward == 1.0


def test_a_price_for_invalid_actions_is_a_reward():
    env = ScriptedEnv({"reward": -0.25}, FINISH)
    assert play(env, "hm", submit(), reward_reduction="min").total_reward == -0.25


@pytest.mark.parametrize(
    "rules",
    [
        {"reward_reduction": "median"},
        {"nonterminal_reward": np.nan},
        {"max_turns": 0},
        {"deadline": 0},
        {"on_plain_text": "ignore"},
    ],
)
def test_rules_that_cannot_be_are_refused(rules):
    with pytest.raises(InvalidRequestError):
        play(ScriptedEnv(), submit(), **rules)


REDUCTIONS = get_args(RewardReduction)


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.sampled_from(REDUCTIONS)
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
def test_a_policy_sees_it_without_steps_that_were_paid_nothing(kind, seen):
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
