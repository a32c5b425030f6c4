"""Episodes that are played again."""

import pytest

from ors_gym import ORSClient
from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Difference, Episode, Replay, replay
from tests.rollout.contract_episodes import ADD, play, scripted
from tests.rollout.scripted_env import call
from tests.support.proxy.faults import Point, Reset


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


def test_an_outage_is_told_apart_from_a_difference(one_server, proxy):
    def broken(path: str, after: int) -> Replay:
        proxy.clear()
        proxy.plan(path, [*[None] * after, Reset(Point.BEFORE_REQUEST)], then="forever")
        return replay(proxy.url, episode, setup_timeout=1.0)

    actions = [call("count"), ADD, call("count")]
    episode = play(one_server, scripted(*actions))
    again = broken("/create_session", 0)
    assert again.difference is None
    assert "/create_session failed" in again.error
    assert str(again) == f"could not be replayed: {again.error}"
    again = broken("/call", 2)
    assert (again.same, again.difference) == (False, None)
    assert again.error.startswith("step 2: ")
    # What differed before the outage is a difference.
    episode.steps[1].reward = 9.0
    assert broken("/call", 2).difference == Difference(1, "reward", 9.0, 0.5)
    # What an outage hid cannot be compared.
    episode.steps[1].reward = 0.5
    episode.steps[2].error_kind = "connection"
    assert replay(one_server.base_url, episode).same


def test_a_set_up_that_fails_is_a_difference_unless_it_failed_before(contract):
    episode = play(contract, scripted(call("submit", answer="a")))
    episode.environment = "brokensetup"
    failed = replay(contract.base_url, episode)
    assert failed.difference is not None
    assert (failed.difference.step, failed.difference.what) == (-1, "set-up")
    assert failed.episode.error_kind == "setup_failed"
    assert replay(contract.base_url, failed.episode).same
    lost = Episode("contract", 0, "train")
    lost.end_without_outcome("gone", "connection")
    with pytest.raises(InvalidRequestError, match=r"nothing was played .* gone"):
        replay(contract.base_url, lost)


def test_a_replay_needs_the_task(contract):
    spec = {"id": "mine", "question": "q", "answer": "a"}
    episode = play(contract, scripted(call("submit", answer="a")), task=spec)
    with pytest.raises(InvalidRequestError, match="task="):
        replay(contract.base_url, episode)
    assert replay(contract.base_url, episode, task=spec).same
    other = replay(contract.base_url, episode, task=spec | {"question": "other"})
    assert other.difference is not None
    assert other.difference.what == "prompt"
