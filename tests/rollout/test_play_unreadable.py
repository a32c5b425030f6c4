"""Answers that hold no action: a mistake in the policy's code, or a model's own."""

from __future__ import annotations

import numpy as np
import pytest

from ors_gym.errors import InvalidRequestError
from ors_gym.formats import InvalidAction
from ors_gym.rollout import Turn, run_episode
from ors_gym.rollout._play import TurnReader
from tests.rollout.scripted_env import TOOLS, ScriptedEnv, submit


class Dumped:
    """What a client library returns: an object that gives a dict."""

    def model_dump(self):
        return submit()


@pytest.mark.parametrize(
    "answer",
    [Dumped(), np.array("text"), (submit(),), {}, [], [8], "", InvalidAction("no")],
)
def test_what_a_model_or_its_library_can_return_is_read(answer):
    assert TurnReader(TOOLS).read(answer, 0) is not None
    assert TurnReader(TOOLS).read(Turn(answer), 0) is not None


@pytest.mark.parametrize(
    "answer", [8, True, 0.5, {1}, b"text", object(), len, np.zeros(3), range(2)]
)
def test_what_no_model_can_return_is_a_mistake_of_the_policy(answer):
    for one in (answer, Turn(answer)):
        with pytest.raises(InvalidRequestError, match=r"the policy returned an? \w+, "):
            TurnReader(TOOLS).read(one, 0)


@pytest.mark.parametrize("answer", [8, np.zeros(3), len])
def test_a_wrapper_takes_whatever_actions_it_likes(answer):
    read = TurnReader(TOOLS, raw=True).read(answer, 0)
    assert read is not None
    _, planned = read
    assert planned[0].action is answer


def test_ten_unreadable_turns_in_a_row_are_answered_and_no_more():
    env = ScriptedEnv(*({} for _ in range(40)))
    bad = [[8], "text", {"tool": 3}] * 4
    answers = [*bad[:10], submit(), *bad]

    def policy(episode):
        return answers[len(episode.turns)]

    episode = run_episode(env, policy)
    assert episode.stop_reason == "policy_stopped"
    assert len(episode.turns) == 22
    assert len(env.taken) == len(episode.steps) == 21
    assert episode.turns[10].actions == [submit()]


def test_one_readable_call_makes_a_turn_readable():
    env = ScriptedEnv(*({} for _ in range(40)))
    episode = run_episode(env, lambda episode: [[8], submit()], max_turns=15)
    assert episode.stop_reason == "max_turns"
