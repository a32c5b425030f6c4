"""Episodes that are played again."""

import pytest

from ors_gym import ORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import replay
from tests.rollout.contract_episodes import ADD, play, scripted
from tests.rollout.scripted_env import call


def test_a_replay_is_the_same_until_the_environment_differs(contract):
    actions = [[call("count"), ADD], "hm", call("count")]
    episode = play(contract, scripted(*actions))
    again = replay(contract.base_url, episode)
    assert again.same, again.difference
    assert [step.tool for step in again.episode.steps] == ["count", "add", "", "count"]
    episode.steps[3].blocks[0]["text"] = "7"
    again = replay(ORSClient(contract.base_url), episode)
    assert again.difference is not None
    assert (again.difference.step, again.difference.what) == (3, "blocks")
    assert "'7'" in str(again)


def test_a_replay_needs_the_task(contract):
    spec = {"id": "mine", "question": "q", "answer": "a"}
    episode = play(contract, scripted(call("submit", answer="a")), task=spec)
    with pytest.raises(InvalidRequestError, match="task="):
        replay(contract.base_url, episode)
    assert replay(contract.base_url, episode, task=spec).same
    other = replay(contract.base_url, episode, task=spec | {"question": "other"})
    assert other.difference is not None
    assert other.difference.what == "prompt"
