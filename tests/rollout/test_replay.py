"""Episodes that are played again, and that go on from one of their steps."""

import asyncio
import contextlib
from typing import Any

import gymnasium
import pytest

from ors_gym import ORSClient
from ors_gym.errors import (
    AmbiguousCallError,
    ConnectionFailedError,
    EpisodeOverError,
    InvalidRequestError,
    ReplayDiffersError,
    SetupFailedError,
)
from ors_gym.rollout import (
    Difference,
    Episode,
    LiveEpisode,
    Replay,
    Turn,
    connect,
    replay,
    revive,
    revive_async,
    run_episode,
)
from ors_gym.wrappers import DiscreteTools
from tests.rollout.contract_episodes import ADD, SUBMIT, play, scripted
from tests.rollout.scripted_env import call, chat_call
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


COUNT = call("count")
"""Pays 1, and says how often it was called in its session."""


def test_an_episode_goes_on_from_each_of_its_steps(server):
    episode = play(server, scripted(COUNT, [ADD, COUNT], "hm", COUNT, SUBMIT))
    assert len(episode.steps) == 6
    for step in range(6):
        with revive(episode, step, client=server.base_url, max_turns=9) as again:
            before = episode.steps[:step]
            now = again.episode
            assert [one.reply for one in now.steps] == [one.reply for one in before]
            assert now.task_index == episode.task_index
            counted = sum(one.tool == "count" for one in before)
            (told,) = again.take(COUNT)
            assert told["content"] == str(counted + 1)
            # What was earned before is part of the reward.
            assert again.play(scripted(ADD, SUBMIT)) is now
            assert (now.stop_reason, len(now.steps)) == ("finished", step + 3)
            earned = sum(one.reward for one in before)
            assert now.total_reward == earned + 1.0 + 0.5 + 1.0
        again.close()
    assert server.open_sessions() == set()


def test_branches_of_a_step_are_open_at_once(server):
    episode = play(server, scripted(COUNT, COUNT, SUBMIT))

    async def branch(client: Any, number: int) -> Any:
        async with revive_async(episode, 2, client=client) as live:
            for _ in range(number):
                await live.take(COUNT)
            await live.play(scripted(SUBMIT))
            return live.episode.total_reward

    async def search() -> list[Any]:
        async with connect(server.base_url) as client:
            return await asyncio.gather(*(branch(client, n) for n in range(6)))

    assert asyncio.run(search()) == [3.0 + n for n in range(6)]
    assert server.open_sessions() == set()


def test_an_environment_that_answers_otherwise_is_refused(server):
    episode = play(server, scripted(ADD, COUNT, COUNT, SUBMIT))
    episode.steps[1].blocks[0]["text"] = "7"
    server.mark()
    with pytest.raises(ReplayDiffersError, match=r"step 1: blocks was .*'7'") as caught:
        revive(episode, 3, client=server.base_url)
    assert (caught.value.step, caught.value.what) == (1, "blocks")
    # What comes after the difference is not sent.
    assert (server.runs("add"), server.runs("count")) == (1, 1)
    assert server.open_sessions() == set()
    with revive(episode, 1, client=server.base_url) as again:
        assert len(again.episode.steps) == 1
    episode.prompt[0]["text"] = "another question"
    with pytest.raises(ReplayDiffersError, match="prompt was") as caught:
        revive(episode, 0, client=server.base_url)
    assert (caught.value.step, caught.value.what) == (-1, "prompt")
    assert server.open_sessions() == set()


def test_an_env_that_ends_earlier_is_refused(contract):
    episode = play(contract, scripted(COUNT, COUNT, SUBMIT))
    with pytest.raises(ReplayDiffersError, match="steps was 2, is now 1") as caught:
        revive(episode, 2, client=contract.base_url, max_episode_steps=1)
    assert (caught.value.step, caught.value.what) == (1, "steps")


def test_metadata_is_compared_where_the_episode_has_it(contract):
    answers = call("metadata"), SUBMIT
    episode = play(contract, scripted(*answers), keep_metadata=True)
    with revive(episode, 1, client=contract.base_url) as again:
        assert again.episode.steps[0].metadata == episode.steps[0].metadata
    episode.steps[0].metadata = {"expected": 1}
    with pytest.raises(ReplayDiffersError, match="metadata was"):
        revive(episode, 1, client=contract.base_url)


def test_a_step_has_to_be_one_after_which_the_episode_went_on(contract):
    def refused(match: str, episode: Episode, step: int) -> None:
        with pytest.raises(InvalidRequestError, match=match):
            revive(episode, step, client=contract.base_url)

    episode = play(contract, scripted(COUNT, SUBMIT))
    refused(r"step 1 \(finished\), .* pass step=1, or less", episode, 2)
    refused("step is 3, but the episode has 2 steps; 0 is the prompt", episode, 3)
    refused("step is -1", episode, -1)
    episode.steps[0].truncated, episode.steps[0].error = True, "gone"
    refused(r"step 0 \(gone\), .* pass step=0", episode, 1)
    lost = Episode("contract", 0, "train")
    lost.end_without_outcome("gone", "connection")
    refused("nothing was played", lost, 0)
    broken = Episode("brokensetup", 0, "train", prompt=episode.prompt)
    with pytest.raises(SetupFailedError):
        revive(broken, 0, client=contract.base_url)
    assert contract.open_sessions() == set()


def test_a_task_without_an_index_is_given_again(contract):
    spec = {"id": "mine", "question": "q", "answer": "a"}
    episode = play(contract, scripted(COUNT, call("submit", answer="a")), task=spec)
    with pytest.raises(InvalidRequestError, match="task="):
        revive(episode, 1, client=contract.base_url)
    with revive(episode, 1, client=contract.base_url, task=spec) as again:
        assert again.play(scripted(call("submit", answer="a"))).total_reward == 2.0


def test_an_outage_while_an_episode_is_revived_is_raised(one_server, proxy):
    episode = play(one_server, scripted(COUNT, COUNT, SUBMIT))
    proxy.plan("/call", [None, Reset(Point.BEFORE_REQUEST)], then="forever")
    with pytest.raises(AmbiguousCallError):
        revive(episode, 2, client=proxy.url, call_timeout=1.0)
    proxy.clear()
    with revive(episode, 1, client=proxy.url, call_timeout=1.0) as again:
        proxy.plan("/call", [Reset(Point.BEFORE_REQUEST)], then="forever")
        # Where it goes on, an outage ends it as any other episode.
        ended = again.play(scripted(COUNT))
    assert (ended.stop_reason, ended.total_reward) == ("error", None)
    assert ended.error_kind == "ambiguous_call"


def test_a_turn_is_sent_as_it_was_or_as_far_as_it_goes(contract):
    calls = [chat_call("a", "count", "{}"), chat_call("b", "add", '{"a": 1, "b": 2}')]
    message = {"role": "assistant", "content": "Both.", "tool_calls": calls}
    turn = Turn(None, message, {"mine": 1})
    episode = play(contract, scripted(turn, COUNT, SUBMIT))
    with revive(episode, 2, client=contract.base_url) as again:
        assert again.episode.messages() == episode.messages()[:4]
        assert again.episode.turns[0].extra == {"mine": 1}
    with revive(episode, 1, client=contract.base_url) as again:
        said, told = again.episode.messages()[1:]
        assert [one["function"]["name"] for one in said["tool_calls"]] == ["count"]
        assert told["content"] == "1"


class SpelledOut(gymnasium.ActionWrapper[Any, Any, Any]):
    """Takes numbers as words."""

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.action_space = gymnasium.spaces.Text(9)

    def action(self, action: Any) -> Any:
        return call("guess", number=["one", "two", "three", "four"].index(action) + 1)


@pytest.mark.parametrize(
    ("wrapper", "action"),
    [(DiscreteTools, 3), (DiscreteTools, 99), (SpelledOut, "four")],
)
def test_an_episode_of_a_wrapped_env_is_refused(wrapper, action):
    """The env was stepped with calls that the wrapper made, and nobody recorded."""
    with contextlib.closing(wrapper(gymnasium.make("ors/guess"))) as env:
        episode = run_episode(env, lambda _: action, seed=0, max_turns=2)
    assert len(episode.steps) == 2
    with pytest.raises(InvalidRequestError, match=r"step 0 .* wrapper"):
        replay(None, episode)
    with pytest.raises(InvalidRequestError, match=r"step 0 .* wrapper"):
        revive(episode, 1)
    with revive(episode, 0) as again:
        assert again.episode.prompt == episode.prompt


def test_a_policy_that_raises_while_it_plays_on_is_not_an_outage(contract):
    episode = play(contract, scripted(COUNT, SUBMIT))

    def fail(_: Episode) -> None:
        raise ConnectionFailedError("the model is gone")

    with (
        revive(episode, 1, client=contract.base_url) as again,
        pytest.raises(ConnectionFailedError, match="the model is gone"),
    ):
        again.play(fail)
    assert again.ended
    assert (again.episode.error_kind, again.episode.total_reward) == ("policy", None)
    assert contract.open_sessions() == set()

    async def too_early() -> None:
        async with connect(contract.base_url) as client:
            await LiveEpisode(client, "Contract", 0).play(scripted(COUNT))

    with pytest.raises(EpisodeOverError, match="has not started"):
        asyncio.run(too_early())
