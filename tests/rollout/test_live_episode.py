"""An episode that is played from outside, on a real server."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import pytest

from ors_gym.env import AsyncTaskEnv
from ors_gym.errors import (
    AmbiguousCallError,
    EpisodeOverError,
    InvalidRequestError,
    ORSError,
    SessionLostError,
    SetupFailedError,
)
from ors_gym.rollout._clients import connect
from ors_gym.rollout._live_episode import LiveEpisode
from tests.rollout import contract_episodes
from tests.rollout.contract_episodes import ADD, SDK, SUBMIT, scripted
from tests.rollout.scripted_env import call, chat_call
from tests.support.proxy.faults import Point, Reset
from tests.support.servers.process import start_server

Script: TypeAlias = Callable[[LiveEpisode], Awaitable[Any]]


def run_live(server: Any, script: Script, task: Any = 0, **arguments: Any) -> Any:
    async def work() -> Any:
        async with (
            connect(server.base_url) as client,
            LiveEpisode(client, "Contract", task, **arguments) as live,
        ):
            return await script(live)

    return asyncio.run(work())


def play(server: Any, *answers: Any, **arguments: Any) -> tuple[LiveEpisode, list[Any]]:
    """Hand the answers in; return the episode and what each was answered."""

    async def script(live: LiveEpisode) -> Any:
        told = [await live.start()]
        return live, told + [await live.take(answer) for answer in answers]

    played: tuple[LiveEpisode, list[Any]] = run_live(server, script, **arguments)
    return played


def test_it_goes_as_if_a_policy_had_been_asked(contract):
    unreadable = [call("echo", text="hello"), {"nonsense": 1}]
    answers = [ADD, unreadable, "what now?", SUBMIT]
    rules = {"invalid_action_reward": -0.5}
    live, _ = play(contract, *answers, **rules)
    asked = contract_episodes.play(contract, scripted(*answers), **rules)
    assert live.ended
    assert live.episode.messages() == asked.messages()
    assert live.episode.rewards == asked.rewards
    assert live.episode.total_reward == asked.total_reward
    assert contract.open_sessions() == set()


def test_every_call_is_answered_in_the_words_of_the_conversation(contract):
    calls = [
        chat_call("a", "submit", '{"answer": "0"}'),
        chat_call("b", "add", '{"a": 1, "b": 1}'),
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    live, told = play(contract, message)
    assert [answer["role"] for answer in told[0]] == ["user"]
    assert [answer["tool_call_id"] for answer in told[1]] == ["a", "b"]
    assert told[1][1]["content"] == "not run: episode finished"
    assert live.episode.messages() == [*told[0], message, *told[1]]
    assert contract.runs("add") == 0


def test_turns_handed_in_at_once_are_played_in_their_order(contract):
    async def script(live: LiveEpisode) -> None:
        await live.start()
        await asyncio.gather(*(live.take(call("add", a=n, b=0)) for n in range(5)))
        assert [step.input["a"] for step in live.episode.steps] == [0, 1, 2, 3, 4]

    run_live(contract, script)


def test_it_plays_on_a_session_that_was_opened_ahead(contract):
    async def work() -> None:
        async with connect(contract.base_url) as client:
            opener = AsyncTaskEnv("Contract", client=client)
            ahead = await opener.open_ahead(3)
            live = LiveEpisode(client, "Contract", ahead, attempts=2)
            assert (await live.start())[0]["content"] == "3 + 3 = ?"
            assert (live.episode.task_index, live.episode.split) == (3, "train")
            await live.take(ADD)
            (lost,) = contract.open_sessions()
            await client.delete_episode(lost)
            # The next attempt opens a session of its own.
            await live.take(ADD)
            assert live.episode.rewards == [0.5, 0.5]
            assert len(live.episode.attempts) == 1
            assert len(contract.log("ready")) == 2
            live.discard()
            await asyncio.to_thread(contract.wait_for, "teardown", 2)

    asyncio.run(work())


def test_a_turn_can_be_answered_with_its_steps(contract):
    async def script(live: LiveEpisode) -> None:
        await live.start()
        [step] = await live.step(ADD)
        assert (step.reward, step.blocks[0]["text"]) == (0.5, "3")
        steps = await live.step([ADD, SUBMIT, ADD])
        assert [step.tool for step in steps] == ["add", "submit"]
        assert live.ended
        with pytest.raises(EpisodeOverError, match="finished"):
            await live.step(ADD)

    run_live(contract, script)
    assert contract.runs() == 3


def test_what_is_stopped_from_outside_keeps_what_it_earned(contract):
    async def script(live: LiveEpisode) -> None:
        assert live.stop() is None
        await live.start()
        await live.take(ADD)
        earned = live.episode.total_reward or 0.0
        assert live.stop("deadline") == earned - 1.0
        assert live.stop("max_turns") == earned - 1.0
        with pytest.raises(EpisodeOverError, match="deadline"):
            await live.take(ADD)
        assert live.episode.stop_reason == "deadline"

    run_live(contract, script, nonterminal_reward=-1.0)
    assert contract.open_sessions() == set()


def test_a_turn_that_is_under_way_when_it_is_stopped_pays_as_well(
    contract, monkeypatch
):
    async def script(live: LiveEpisode) -> Any:
        await live.start()
        stepping, go_on = asyncio.Event(), asyncio.Event()
        step = live._env.step

        async def step_late(action: Any) -> Any:
            stepping.set()
            await go_on.wait()
            return await step(action)

        monkeypatch.setattr(live._env, "step", step_late)
        turn = asyncio.ensure_future(live.take(ADD))
        await asyncio.wait_for(stepping.wait(), 30)
        assert live.stop("max_tokens") == -5.0
        go_on.set()
        await asyncio.wait_for(turn, 30)
        return live.episode

    episode = run_live(contract, script, nonterminal_reward=-5.0)
    assert (episode.stop_reason, episode.total_reward) == ("max_tokens", 0.5 - 5.0)


def test_a_cancelled_turn_ends_the_episode_as_a_deadline_does(contract, monkeypatch):
    async def script(live: LiveEpisode) -> Any:
        await live.start()
        await live.take(ADD)
        stepping = asyncio.Event()

        async def hang(_: Any) -> None:
            stepping.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(live._env, "step", hang)
        turn = asyncio.ensure_future(live.take(SUBMIT))
        await asyncio.wait_for(stepping.wait(), 30)
        later = asyncio.ensure_future(live.take(ADD))
        turn.cancel()
        with pytest.raises(asyncio.CancelledError):
            await turn
        monkeypatch.undo()
        # No later turn is read as the result that the cancelled turn waited for.
        for _ in range(3):
            with pytest.raises(EpisodeOverError, match="deadline"):
                await later
            later = asyncio.ensure_future(live.take(ADD))
        with pytest.raises(EpisodeOverError):
            await later
        assert contract.open_sessions() == set()
        assert live.ended
        assert live.stop() == 0.5 - 1.0
        return live.episode

    episode = run_live(contract, script, nonterminal_reward=-1.0)
    assert (episode.stop_reason, len(episode.steps)) == ("deadline", 1)
    assert "deadline" in episode.messages()[-1]["content"]
    assert contract.runs() == 1


def test_a_turn_that_waits_for_another_is_cancelled_alone(contract):
    async def script(live: LiveEpisode) -> float | None:
        await live.start()
        first = asyncio.ensure_future(live.take(ADD))
        await asyncio.sleep(0)
        second = asyncio.ensure_future(live.take(SUBMIT))
        await asyncio.sleep(0)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        await first
        await live.take(ADD)
        return live.stop()

    assert run_live(contract, script) == 1.0


def test_a_failure_of_our_own_ends_the_episode_without_a_reward(contract, monkeypatch):
    async def script(live: LiveEpisode) -> None:
        await live.start()

        async def fail(_: Any) -> None:
            raise RuntimeError("a bug")

        monkeypatch.setattr(live._env, "step", fail)
        with pytest.raises(RuntimeError, match="a bug"):
            await live.take(ADD)
        assert contract.open_sessions() == set()
        with pytest.raises(EpisodeOverError):
            await live.take(ADD)
        assert live.stop() is None
        assert (live.episode.stop_reason, live.episode.error) == ("error", "a bug")

    run_live(contract, script)


def test_an_outage_is_raised_and_is_no_reward():
    async def script(live: LiveEpisode) -> None:
        await live.start()
        await live.take(ADD)
        server.restart()
        with pytest.raises(SessionLostError):
            await live.take(ADD)
        assert live.stop() is None
        assert live.episode.stop_reason == "error"
        assert live.episode.total_reward is None

    with start_server(SDK) as server:
        run_live(server, script)


def test_a_task_that_does_not_exist_is_raised_and_leaves_nothing(contract):
    with pytest.raises(ORSError):
        play(contract, task=10**9)
    assert contract.open_sessions() == set()


COUNT = call("count")
"""Pays 1, and says how often it was called in its session."""


@pytest.mark.parametrize("breaks", [1, 2])
def test_an_outage_is_repaired_and_the_episode_goes_on(breaks):
    told: list[Any] = []

    async def script(live: LiveEpisode) -> Any:
        await live.start()
        for turn in range(4):
            if turn in range(2, 2 + breaks):
                server.restart()
                server.mark()
            chat = {"id": f"mine{turn}", "name": "count", "arguments": {}}
            told.append(await live.take([chat, ADD]))
            if turn == 1:
                assert live.collect_reward() == 3.0
        told.append(await live.take(SUBMIT))
        assert live.collect_reward() == 4.0
        return live.episode

    with start_server(SDK) as server:
        episode = run_live(server, script, attempts=3)
        assert server.open_sessions() == set()
    assert (episode.stop_reason, episode.total_reward) == ("finished", 7.0)
    assert [one[0]["content"] for one in told[:4]] == ["1", "2", "3", "4"]
    assert [one[0]["tool_call_id"] for one in told[:4]] == [
        f"mine{n}" for n in range(4)
    ]
    ids = [call_id for turn in episode.turns[:4] for call_id in turn.call_ids[:1]]
    assert ids == [f"mine{number}" for number in range(4)]
    assert [(one.kind, one.steps) for one in episode.attempts] == [
        ("session_lost", 5),
        ("session_lost", 7),
    ][:breaks]


def test_an_environment_that_answers_otherwise_is_not_gone_on_with():
    async def script(live: LiveEpisode) -> Any:
        await live.start()
        await live.take(COUNT)
        live.episode.steps[0].blocks[0]["text"] = "7"
        server.restart()
        server.mark()
        with pytest.raises(SessionLostError, match="answer as before: step 0: blocks"):
            await live.take(ADD)
        assert live.stop() is None
        return live.episode

    with start_server(SDK) as server:
        episode = run_live(server, script, attempts=5)
        assert server.open_sessions() == set()
    assert len(episode.turns) == 2
    assert [one.kind for one in episode.attempts] == ["session_lost"]


def test_attempts_come_to_an_end(one_server, proxy, monkeypatch):
    async def script(live: LiveEpisode) -> Any:
        await live.start()
        await live.take(ADD)
        proxy.plan("/call", [Reset(Point.BEFORE_REPLY)], then="forever")
        with pytest.raises(AmbiguousCallError):
            await live.take(ADD)
        return live.episode

    monkeypatch.setattr(proxy, "base_url", proxy.url, raising=False)
    episode = run_live(proxy, script, attempts=3)
    assert (episode.total_reward, len(episode.turns)) == (None, 2)
    assert [one.kind for one in episode.attempts] == ["ambiguous_call"] * 2
    assert one_server.runs("add") == 4
    assert one_server.open_sessions() == set()
    with pytest.raises(InvalidRequestError, match="attempts"):
        run_live(one_server, script, attempts=0)


def test_a_set_up_is_tried_again_where_it_failed_and_not_where_it_cannot_be(contract):
    broken = {"id": "x", "setup_error": "no disk"}

    async def script(live: LiveEpisode) -> None:
        with pytest.raises(SetupFailedError, match="no disk"):
            await live.start()
        assert [one.kind for one in live.episode.attempts] == ["setup_failed"]
        assert (live.episode.stop_reason, live.stop()) == ("error", None)

    run_live(contract, script, broken, attempts=2)
    assert contract.open_sessions() == set()

    async def unknown(live: LiveEpisode) -> None:
        with pytest.raises(ORSError):
            await live.start()
        assert not live.episode.attempts

    run_live(contract, unknown, 10**9, attempts=2)


def test_an_episode_that_was_closed_takes_no_turn_and_asks_no_policy_for_ever(contract):
    async def run() -> None:
        async with LiveEpisode(contract.base_url, "Contract", 0) as live:
            await live.start()
        with pytest.raises(EpisodeOverError, match="been closed"):
            await live.take("Hm.")
        with pytest.raises(EpisodeOverError, match="been closed"):
            await live.play(lambda _: "Hm.")

    asyncio.run(run())
