"""How an episode is played: turns, answers and ends, without a server."""

import asyncio
import threading
from typing import Any

import gymnasium
import numpy as np
import pytest

from ors_gym import errors
from ors_gym.formats import InvalidAction
from ors_gym.rollout import Stop, Turn, run_episode
from ors_gym.rollout._turn_by_turn import TurnReader
from tests.rollout.scripted_env import (
    FINISH,
    TOOLS,
    ScriptedEnv,
    chat_call,
    play,
    submit,
)

pytestmark = pytest.mark.unit


def test_calls_of_one_turn_run_in_order_and_stop_at_the_end():
    env = ScriptedEnv({"reward": 0.5}, FINISH)
    episode = play(env, [{"tool": "look", "input": {}}, submit(), submit("late")])
    assert [step.tool for step in episode.steps] == ["look", "submit"]
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.5)
    assert env.taken[1:] == [submit()]
    answers = [m for m in episode.messages() if m["role"] == "tool"]
    assert [m["tool_call_id"] for m in answers] == episode.turns[0].call_ids
    assert answers[-1]["content"] == "not run: episode finished"


PAID = {"reward": 0.5}
LOST = {"error": "gone", "error_kind": "session_lost", "truncated": True}
FAILED = {"error": "boom", "error_kind": "tool_failed", "truncated": True}


@pytest.mark.parametrize(
    ("script", "answers", "rules", "reason", "total"),
    [
        ([PAID], [submit(), None], {}, "policy_stopped", 0.5),
        # Turns are counted, not calls.
        ([PAID] * 4, [[submit()] * 2] * 2, {"max_turns": 2}, "max_turns", 2.0),
        ([{"truncated": True}], [submit()], {}, "max_steps", 0.0),
        ([LOST], [submit()], {"nonterminal_reward": -1.0}, "error", None),
        # A tool's failure that ends the episode is an outcome.
        ([PAID, FAILED], [submit()] * 2, {}, "error", 0.5),
    ],
)
def test_ends_of_an_episode(script, answers, rules, reason, total):
    env = ScriptedEnv(*map(dict, script))
    episode = play(env, *answers, **rules)
    assert (episode.stop_reason, episode.total_reward) == (reason, total)
    assert not env.script
    last = script[-1]
    assert episode.error == last.get("error", "")
    assert episode.error_kind == last.get("error_kind", "")


def test_mistakes_of_the_caller_and_errors_of_a_policy_are_raised():
    with pytest.raises(errors.AuthenticationError):
        play(ScriptedEnv(errors.AuthenticationError("no key")), submit())
    with pytest.raises(ZeroDivisionError):
        run_episode(ScriptedEnv(), lambda episode: 1 / 0)


@pytest.mark.parametrize(
    "error", [errors.AmbiguousCallError("x"), errors.ConnectionFailedError("x")]
)
def test_an_outage_that_the_env_raises_leaves_no_reward(error):
    episode = play(ScriptedEnv({"reward": 0.5}, error), submit(), submit())
    assert (episode.stop_reason, episode.total_reward) == ("error", None)
    assert (episode.error_kind, episode.cause) == (error.kind, error)
    assert len(episode.steps) == 2


def test_the_deadline_is_looked_at_between_steps():
    done = threading.Event()

    def policy(episode):
        done.wait(0.02)
        return [submit()] * 3

    episode = run_episode(ScriptedEnv({}, {}, {}), policy, deadline=0.001)
    assert (episode.stop_reason, episode.total_reward) == ("deadline", 0.0)


def test_plain_text_is_nudged_three_times_in_a_row():
    env = ScriptedEnv({}, {}, {}, {})
    episode = play(env, "a", "b", "c", "d")
    assert env.taken == ["a", "b", "c"]
    assert episode.stop_reason == "policy_stopped"
    roles = [message["role"] for message in episode.messages()]
    assert roles == ["user", *["assistant", "user"] * 3, "assistant"]
    # Calls in between begin the count again.
    env = ScriptedEnv(*[{}] * 8, FINISH)
    assert play(env, *["hm", submit()] * 4, submit()).finished


def test_plain_text_stops_or_is_submitted_on_request():
    episode = play(ScriptedEnv(), "that is all", on_plain_text="stop")
    assert episode.stop_reason == "policy_stopped"
    assert episode.messages()[-1] == {"role": "assistant", "content": "that is all"}
    env = ScriptedEnv(FINISH)
    episode = play(env, "42", on_plain_text="submit")
    assert env.taken == [submit("42")]
    assert episode.steps[0].input == {"answer": "42"}


def test_an_unreadable_call_among_others_is_an_invalid_step():
    calls = [
        chat_call("a", "look", "{}"),
        chat_call("b", "submit", "{oops"),
        chat_call("c", "submit", '{"answer": "4"}'),
    ]
    message = {"role": "assistant", "content": None, "tool_calls": calls}
    episode = play(ScriptedEnv({}, {}, FINISH), message)
    kinds = [step.error_kind for step in episode.steps]
    assert kinds == ["", "invalid_action", ""]
    assert "JSON" in episode.steps[1].error
    messages = episode.messages()
    assert messages[1] == message
    assert [m["tool_call_id"] for m in messages[2:]] == ["a", "b", "c"]


def test_ids_that_a_model_uses_twice_are_replaced():
    calls = [chat_call("a", "look", "{}"), chat_call("a", "look", "{}")]
    message = {"role": "assistant", "tool_calls": calls}
    episode = play(ScriptedEnv({}, {}), message, None)
    assert len(set(episode.turns[0].call_ids)) == 2
    assistant, *answers = episode.messages()[1:]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert ids == [answer["tool_call_id"] for answer in answers]


def test_a_turn_keeps_the_message_and_what_is_the_policys_own():
    extra = {"token_ids": np.array([1, 2]), "usage": {"total": 3}}
    call = chat_call("abc", "submit", '{"answer": "4"}')
    for message, ids in (
        ("I submit 4.", ["call_0_0"]),
        # Actions that the policy has read itself get the ids of its message.
        ({"role": "assistant", "content": None, "tool_calls": [call]}, ["abc"]),
    ):
        episode = play(ScriptedEnv(FINISH), Turn([submit()], message, extra))
        turn = episode.turns[0]
        assert (turn.message, turn.call_ids) == (message, ids)
        assert turn.extra == {"token_ids": [1, 2], "usage": {"total": 3}}
        assert message in (episode.messages()[1], episode.messages()[1]["content"])


def test_a_turn_may_leave_its_actions_to_its_message():
    text = 'Sure. <tool_call>{"name": "look", "arguments": {}}</tool_call>'
    episode = play(ScriptedEnv(FINISH), Turn(None, message=text))
    assert (episode.steps[0].tool, episode.turns[0].message) == ("look", text)
    assistant = episode.messages()[1]
    assert assistant["content"] == "Sure."
    assert assistant["tool_calls"][0]["function"]["name"] == "look"


def test_what_is_no_json_is_told_by_its_path():
    with pytest.raises(errors.InvalidRequestError, match=r"extra\.logprobs\[0\]"):
        play(ScriptedEnv(), Turn(submit(), extra={"logprobs": [-np.inf]}))


def test_an_empty_list_is_no_call():
    env = ScriptedEnv({}, FINISH)
    episode = play(env, [], submit())
    assert episode.steps[0].error_kind == "invalid_action"


def test_a_wrapper_that_takes_its_own_actions_gets_them():
    class Numbered(gymnasium.ActionWrapper[Any, Any, Any]):
        def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
            super().__init__(env)
            self.action_space = gymnasium.spaces.Discrete(2)

        def action(self, action):
            return submit(str(action))

    env = ScriptedEnv({}, FINISH)
    episode = play(Numbered(env), [np.int64(0)], 1)
    assert env.taken == [submit("0"), submit("1")]
    assert [step.tool for step in episode.steps] == ["submit", "submit"]
    assert episode.turns[0].actions == [0]


def test_async_policies_play_a_blocking_env():
    async def policy(episode):
        await asyncio.sleep(0)
        return submit()

    assert run_episode(ScriptedEnv(FINISH), policy).finished

    async def inside() -> bool:
        return run_episode(ScriptedEnv(FINISH), policy).finished

    assert asyncio.run(inside())


def test_a_policy_has_a_state_and_a_running_reward():
    seen = []

    def policy(episode):
        seen.append((episode.state.setdefault("n", 0), episode.total_reward))
        episode.state["n"] += 1
        return submit()

    run_episode(ScriptedEnv({"reward": 0.25}, {"reward": 0.5}, FINISH), policy)
    assert seen == [(0, 0.0), (1, 0.25), (2, 0.75)]


class Dumped:
    """What a client library returns: an object that gives a dict."""

    def model_dump(self):
        return submit()


@pytest.mark.parametrize(
    "answer",
    [Dumped(), np.array("text"), (submit(),), {}, [], [8], "", InvalidAction("no")],
)
def test_what_a_model_or_its_library_can_return_is_read(answer):
    assert isinstance(TurnReader(TOOLS).read(answer, 0), tuple)
    assert isinstance(TurnReader(TOOLS).read(Turn(answer), 0), tuple)


@pytest.mark.parametrize(
    "answer", [8, True, 0.5, {1}, b"text", object(), len, np.zeros(3), range(2)]
)
def test_what_no_model_can_return_is_a_mistake_of_the_policy(answer):
    for one in (answer, Turn(answer)):
        with pytest.raises(
            errors.InvalidRequestError, match=r"the policy returned an? \w+, "
        ):
            TurnReader(TOOLS).read(one, 0)


@pytest.mark.parametrize("answer", [8, np.zeros(3), len])
def test_a_wrapper_takes_whatever_actions_it_likes(answer):
    read = TurnReader(TOOLS, raw=True).read(answer, 0)
    assert not isinstance(read, Stop)
    _, planned = read
    assert planned[0].action is answer


def test_ten_unreadable_turns_in_a_row_are_answered_and_no_more():
    env = ScriptedEnv(*({} for _ in range(40)))
    bad = [[8], "text", {"tool": 3}] * 4
    answers = [*bad[:10], submit(), *bad]

    def policy(episode):
        return answers[len(episode.turns)]

    episode = run_episode(env, policy)
    assert (episode.stop_reason, len(episode.turns)) == ("policy_stopped", 22)
    assert len(env.taken) == len(episode.steps) == 21
    assert episode.turns[10].actions == [submit()]
    # One readable call makes a turn readable.
    env = ScriptedEnv(*({} for _ in range(40)))
    episode = run_episode(env, lambda episode: [[8], submit()], max_turns=15)
    assert episode.stop_reason == "max_turns"
