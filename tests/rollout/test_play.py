"""How an episode goes: turns, ends and rewards, without a server."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import gymnasium
import numpy as np
import pytest

from ors_gym.errors import (
    AmbiguousCallError,
    AuthenticationError,
    ConnectionFailedError,
    InvalidRequestError,
)
from ors_gym.rollout import Episode, Turn, reduce_rewards, run_episode
from tests.rollout.scripted_env import ScriptedEnv, submit

FINISH = {"reward": 1.0, "finished": True}


def play(env, *answers, **rules) -> Episode:
    queue = list(answers)
    return run_episode(env, lambda episode: queue.pop(0), **rules)


def test_calls_of_one_turn_run_in_order_and_stop_at_the_end():
    env = ScriptedEnv({"reward": 0.5}, FINISH)
    episode = play(env, [{"tool": "look", "input": {}}, submit(), submit("late")])
    assert [step.tool for step in episode.steps] == ["look", "submit"]
    assert (episode.stop_reason, episode.total_reward) == ("finished", 1.5)
    assert env.taken[1:] == [submit()]
    answers = [m for m in episode.messages() if m["role"] == "tool"]
    assert [m["tool_call_id"] for m in answers] == episode.turns[0].call_ids
    assert answers[-1]["content"] == "not run: episode finished"


def test_a_policy_gives_up_with_none():
    episode = play(ScriptedEnv({"reward": 0.5}), submit(), None)
    assert (episode.stop_reason, episode.total_reward) == ("policy_stopped", 0.5)


def test_max_turns_counts_turns_and_not_calls():
    env = ScriptedEnv({}, {}, {}, {})
    episode = play(env, [submit(), submit()], [submit(), submit()], max_turns=2)
    assert (episode.stop_reason, len(episode.steps)) == ("max_turns", 4)


def test_truncation_by_the_env_is_max_steps():
    episode = play(ScriptedEnv({"truncated": True}), submit())
    assert episode.stop_reason == "max_steps"
    assert episode.total_reward == 0.0


@pytest.mark.parametrize("error", [AmbiguousCallError("x"), ConnectionFailedError("x")])
def test_an_outage_that_the_env_raises_leaves_no_reward(error):
    episode = play(ScriptedEnv({"reward": 0.5}, error), submit(), submit())
    assert (episode.stop_reason, episode.total_reward) == ("error", None)
    assert (episode.error_kind, episode.cause) == (error.kind, error)
    assert len(episode.steps) == 2


def test_an_outage_that_the_env_reports_leaves_no_reward():
    lost = {"error": "gone", "error_kind": "session_lost", "truncated": True}
    episode = play(ScriptedEnv(lost), submit(), nonterminal_reward=-1.0)
    assert (episode.stop_reason, episode.total_reward) == ("error", None)
    assert (episode.error, episode.error_kind) == ("gone", "session_lost")


def test_a_mistake_of_the_caller_is_raised():
    with pytest.raises(AuthenticationError):
        play(ScriptedEnv(AuthenticationError("no key")), submit())


def test_what_a_policy_raises_is_raised():
    def policy(episode):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_episode(ScriptedEnv(), policy)


def test_a_tool_failure_that_ends_the_episode_is_an_outcome():
    failed = {"error": "boom", "error_kind": "tool_failed", "truncated": True}
    episode = play(ScriptedEnv({"reward": 0.5}, failed), submit(), submit())
    assert (episode.stop_reason, episode.total_reward) == ("error", 0.5)


def test_the_deadline_is_looked_at_between_steps():
    done = threading.Event()

    def policy(episode):
        done.wait(0.02)
        return [submit()] * 3

    episode = run_episode(ScriptedEnv({}, {}, {}), policy, deadline=0.001)
    assert episode.stop_reason == "deadline"
    assert episode.total_reward == 0.0


def test_plain_text_is_nudged_three_times():
    env = ScriptedEnv({}, {}, {}, {})
    episode = play(env, "a", "b", "c", "d")
    assert env.taken == ["a", "b", "c"]
    assert episode.stop_reason == "policy_stopped"
    roles = [message["role"] for message in episode.messages()]
    assert roles == ["user", *["assistant", "user"] * 3, "assistant"]


def test_plain_text_in_between_is_nudged_every_time():
    env = ScriptedEnv(*[{}] * 8, FINISH)
    episode = play(env, *["hm", submit()] * 4, submit())
    assert episode.stop_reason == "finished"


def test_plain_text_stops_on_request():
    env = ScriptedEnv()
    episode = play(env, "that is all", on_plain_text="stop")
    assert episode.stop_reason == "policy_stopped"
    assert episode.messages()[-1] == {"role": "assistant", "content": "that is all"}


def test_plain_text_is_submitted_on_request():
    env = ScriptedEnv(FINISH)
    episode = play(env, "42", on_plain_text="submit")
    assert env.taken == [submit("42")]
    assert episode.steps[0].input == {"answer": "42"}


def test_an_unreadable_call_among_others_is_an_invalid_step():
    message = {
        "role": "assistant",
        "content": None,
        "tool_calls": [
            _chat_call("a", "look", "{}"),
            _chat_call("b", "submit", "{oops"),
            _chat_call("c", "submit", '{"answer": "4"}'),
        ],
    }
    episode = play(ScriptedEnv({}, {}, FINISH), message)
    kinds = [step.error_kind for step in episode.steps]
    assert kinds == ["", "invalid_action", ""]
    assert "JSON" in episode.steps[1].error
    messages = episode.messages()
    assert messages[1] == message
    assert [m["tool_call_id"] for m in messages[2:]] == ["a", "b", "c"]


def test_ids_that_a_model_uses_twice_are_replaced():
    calls = [_chat_call("a", "look", "{}"), _chat_call("a", "look", "{}")]
    message = {"role": "assistant", "tool_calls": calls}
    episode = play(ScriptedEnv({}, {}), message, None)
    assert len(set(episode.turns[0].call_ids)) == 2
    assistant, *answers = episode.messages()[1:]
    ids = [call["id"] for call in assistant["tool_calls"]]
    assert ids == [answer["tool_call_id"] for answer in answers]


def test_a_turn_keeps_the_message_and_what_is_the_policys_own():
    extra = {"token_ids": np.array([1, 2]), "usage": {"total": 3}}
    turn = Turn(submit(), message="I submit 4.", extra=extra)
    episode = play(ScriptedEnv(FINISH), turn)
    kept = episode.turns[0]
    assert kept.message == "I submit 4."
    assert kept.extra == {"token_ids": [1, 2], "usage": {"total": 3}}
    assert episode.messages()[1]["content"] == "I submit 4."


def test_actions_read_by_the_policy_have_the_ids_of_its_message():
    call = _chat_call("abc", "submit", '{"answer": "4"}')
    message = {"role": "assistant", "content": None, "tool_calls": [call]}
    episode = play(ScriptedEnv(FINISH), Turn([submit()], message=message))
    assert episode.turns[0].call_ids == ["abc"]
    assert episode.messages()[1] == message


def test_a_turn_may_leave_its_actions_to_its_message():
    text = 'Sure. <tool_call>{"name": "look", "arguments": {}}</tool_call>'
    episode = play(ScriptedEnv(FINISH), Turn(None, message=text))
    assert episode.steps[0].tool == "look"
    assert episode.turns[0].message == text
    assistant = episode.messages()[1]
    assert assistant["content"] == "Sure."
    assert assistant["tool_calls"][0]["function"]["name"] == "look"


def test_what_is_no_json_is_told_by_its_path():
    with pytest.raises(InvalidRequestError, match=r"extra\.logprobs\[0\]"):
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


def test_no_reward_at_all_is_nothing():
    assert reduce_rewards([], "max") == 0.0


def _chat_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"id": call_id, "type": "function", "function": function}
