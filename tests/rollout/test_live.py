"""An episode that is played from outside, on a real server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ors_gym.errors import EpisodeOverError, ORSError, SessionLostError
from ors_gym.rollout import run_episode_async
from ors_gym.rollout._live import LiveEpisode, connect
from tests.rollout.contract_episodes import SDK
from tests.rollout.scripted_env import call
from tests.support.servers.process import start_server


@contextlib.asynccontextmanager
async def opened(
    server: Any, task: Any = 0, **arguments: Any
) -> AsyncIterator[LiveEpisode]:
    async with (
        connect(server.base_url) as client,
        LiveEpisode(client, "Contract", task, **arguments) as live,
    ):
        yield live


def play(server: Any, *answers: Any, task: Any = 0, **arguments: Any) -> Any:
    """Hand the answers in; return the episode and what each was answered."""

    async def work() -> Any:
        async with opened(server, task, **arguments) as live:
            told = [await live.start()]
            told += [await live.take(answer) for answer in answers]
        return live, told

    return asyncio.run(work())


def test_it_goes_as_if_a_policy_had_been_asked(contract):
    answers = [
        call("add", a=1, b=2),
        [call("echo", text="hello"), {"nonsense": 1}],
        "what now?",
        call("submit", answer="0"),
    ]
    live, _ = play(contract, *answers, invalid_action_reward=-0.5)
    queue = list(answers)
    asked = asyncio.run(
        run_episode_async(
            contract.base_url,
            "Contract",
            0,
            lambda episode: queue.pop(0),
            invalid_action_reward=-0.5,
        )
    )
    assert live.ended
    assert live.episode.messages() == asked.messages()
    assert live.episode.rewards == asked.rewards
    assert live.episode.total_reward == asked.total_reward
    assert contract.open_sessions() == set()


def test_every_call_is_answered_in_the_words_of_the_conversation(contract):
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            {"id": name, "type": "function", "function": function}
            for name, function in [
                ("a", {"name": "submit", "arguments": '{"answer": "0"}'}),
                ("b", {"name": "add", "arguments": '{"a": 1, "b": 1}'}),
            ]
        ],
    }
    live, told = play(contract, message)
    assert [answer["role"] for answer in told[0]] == ["user"]
    assert [answer["tool_call_id"] for answer in told[1]] == ["a", "b"]
    assert told[1][1]["content"] == "not run: episode finished"
    assert live.episode.messages() == [*told[0], message, *told[1]]
    assert contract.runs("add") == 0


def test_turns_handed_in_at_once_are_played_in_their_order(contract):
    async def work() -> Any:
        async with opened(contract) as live:
            await live.start()
            calls = [call("add", a=n, b=0) for n in range(5)]
            await asyncio.gather(*map(live.take, calls))
            return [step.input["a"] for step in live.episode.steps]

    assert asyncio.run(work()) == [0, 1, 2, 3, 4]


def test_what_is_stopped_from_outside_keeps_what_it_earned(contract):
    async def work() -> Any:
        async with opened(contract, nonterminal_reward=-1.0) as live:
            assert live.stop() is None
            await live.start()
            await live.take(call("add", a=1, b=1))
            earned = live.episode.total_reward or 0.0
            assert live.stop("deadline") == earned - 1.0
            assert live.stop("max_turns") == earned - 1.0
            with pytest.raises(EpisodeOverError, match="deadline"):
                await live.take(call("add", a=1, b=1))
            return live.episode

    assert asyncio.run(work()).stop_reason == "deadline"
    assert contract.open_sessions() == set()


def test_a_cancelled_turn_ends_the_episode_as_a_deadline_does(contract, monkeypatch):
    async def work() -> Any:
        async with opened(contract, nonterminal_reward=-1.0) as live:
            await live.start()
            await live.take(call("add", a=1, b=2))
            stepping = asyncio.Event()

            async def hang(_: Any) -> None:
                stepping.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(live._env, "step", hang)
            turn = asyncio.ensure_future(live.take(call("submit", answer="0")))
            await asyncio.wait_for(stepping.wait(), 30)
            later = asyncio.ensure_future(live.take(call("add", a=2, b=2)))
            turn.cancel()
            with pytest.raises(asyncio.CancelledError):
                await turn
            monkeypatch.undo()
            # Neither is read as the result that the turn before waited for.
            for _ in range(2):
                with pytest.raises(EpisodeOverError, match="deadline"):
                    await later
                later = asyncio.ensure_future(live.take(call("add", a=2, b=2)))
            with pytest.raises(EpisodeOverError):
                await later
            assert contract.open_sessions() == set()
            assert live.ended
            assert live.stop() == 0.5 - 1.0
            return live.episode

    episode = asyncio.run(work())
    assert (episode.stop_reason, len(episode.steps)) == ("deadline", 1)
    assert "deadline" in episode.messages()[-1]["content"]
    assert contract.runs() == 1


def test_a_turn_that_waits_for_another_is_cancelled_alone(contract):
    async def work() -> Any:
        async with opened(contract) as live:
            await live.start()
            first = asyncio.ensure_future(live.take(call("add", a=1, b=2)))
            await asyncio.sleep(0)
            second = asyncio.ensure_future(live.take(call("submit", answer="0")))
            await asyncio.sleep(0)
            second.cancel()
            with pytest.raises(asyncio.CancelledError):
                await second
            await first
            await live.take(call("add", a=1, b=3))
            return live.stop()

    assert asyncio.run(work()) == 1.0


def test_a_failure_of_our_own_ends_the_episode_without_a_reward(contract, monkeypatch):
    async def work() -> Any:
        async with opened(contract) as live:
            await live.start()

            async def fail(_: Any) -> None:
                raise RuntimeError("a bug")

            monkeypatch.setattr(live._env, "step", fail)
            with pytest.raises(RuntimeError, match="a bug"):
                await live.take(call("add", a=1, b=2))
            assert contract.open_sessions() == set()
            with pytest.raises(EpisodeOverError):
                await live.take(call("add", a=1, b=2))
            assert live.stop() is None
            return live.episode

    episode = asyncio.run(work())
    assert (episode.stop_reason, episode.error) == ("error", "a bug")


def test_an_outage_is_raised_and_is_no_reward():
    async def work(server: Any) -> Any:
        async with opened(server) as live:
            await live.start()
            await live.take(call("add", a=1, b=2))
            server.restart()
            with pytest.raises(SessionLostError):
                await live.take(call("add", a=1, b=1))
            assert live.stop() is None
            return live.episode

    with start_server(SDK) as server:
        episode = asyncio.run(work(server))
    assert (episode.stop_reason, episode.total_reward) == ("error", None)


def test_a_task_that_does_not_exist_is_raised_and_leaves_nothing(contract):
    with pytest.raises(ORSError):
        play(contract, task=10**9)
    assert contract.open_sessions() == set()
