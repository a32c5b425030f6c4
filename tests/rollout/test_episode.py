"""Episodes of any shape: kept as JSON, and told as a conversation."""

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ors_gym.errors import InvalidRequestError
from ors_gym.rollout import Attempt, Episode, Turn, run_episode
from ors_gym.rollout._limits import Budget
from tests.rollout.scripted_env import ScriptedEnv

pytestmark = pytest.mark.unit

texts = st.text(max_size=20)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3)
    ),
    max_leaves=8,
)
inputs = st.dictionaries(texts, json_values, max_size=3)
names = st.sampled_from(["submit", "look", "no such tool", "räume/öffnen"])
canonical = st.fixed_dictionaries({"tool": names, "input": inputs})
arguments = inputs.map(json.dumps) | texts
functions = st.fixed_dictionaries({"name": names, "arguments": arguments})
ids = st.sampled_from(["a", "b", "c", "call_0_0", ""])
kind = st.just("function")
chat_calls = st.fixed_dictionaries({"id": ids, "type": kind, "function": functions})
contents, call_lists = st.none() | texts, st.lists(chat_calls, max_size=3)
chat_messages = st.fixed_dictionaries(
    {"role": st.just("assistant"), "content": contents, "tool_calls": call_lists}
)
use_ids, given_input = st.sampled_from(["t1", "t2"]), inputs | texts
tool_uses = st.fixed_dictionaries(
    {"type": st.just("tool_use"), "id": use_ids, "name": names, "input": given_input}
)
anthropic_parts = tool_uses | texts.map(lambda text: {"type": "text", "text": text})
bodies = functions.map(json.dumps) | texts
tags = bodies.map(lambda body: f"<tool_call>{body}</tool_call>")
tag_lists = st.lists(tags, max_size=3)
hermes = st.builds(lambda text, calls: text + "".join(calls), texts, tag_lists)
answers = st.one_of(
    canonical,
    st.lists(canonical, max_size=3),
    chat_messages,
    st.lists(anthropic_parts, min_size=1, max_size=3),
    hermes,
    st.lists(json_values, max_size=3),
    st.builds(Turn, canonical, texts | chat_messages, json_values),
    st.builds(Turn, st.none(), hermes | chat_messages),
)
outcomes = st.sampled_from(
    [
        {"reward": 0.5},
        {"reward_is_null": True, "metadata": {"tokens": 3}},
        {"error": "boom", "error_kind": "tool_failed", "blocks": []},
        {"reward": 1.0, "finished": True},
        {"truncated": True},
        {"error": "gone", "error_kind": "timeout", "truncated": True, "blocks": []},
    ]
)


@st.composite
def episodes(draw) -> Episode:
    queue = draw(st.lists(answers, max_size=4))
    script = draw(st.lists(outcomes, min_size=16, max_size=16))
    env = ScriptedEnv(*map(dict, script))
    plain = draw(st.sampled_from(["nudge", "stop", "submit"]))

    def policy(episode):
        episode.messages()
        return queue.pop(0) if queue else None

    return run_episode(env, policy, on_plain_text=plain, max_turns=4)


@given(episodes())
def test_every_id_is_answered_once_right_after_its_call(episode):
    waiting: list[str] = []
    for message in episode.messages():
        if message["role"] == "tool":
            assert message["tool_call_id"] == waiting.pop(0)
            assert isinstance(message["content"], str)
            continue
        assert not waiting
        if message["role"] == "assistant":
            waiting = [call["id"] for call in message.get("tool_calls") or []]
            assert len(set(waiting)) == len(waiting)
    assert not waiting


@given(episodes())
def test_ors_messages_answer_every_call_in_the_next_message(episode):
    messages = episode.messages("ors")
    for before, after in zip(messages, [*messages[1:], {"blocks": []}], strict=True):
        calls = [b["id"] for b in before["blocks"] if b["type"] == "tool_call"]
        results = [b for b in after["blocks"] if b["type"] == "tool_result"]
        assert calls == [block["tool_call_id"] for block in results]


def test_messages_of_an_unknown_format_are_refused():
    unknown: Any = "anthropic"
    with pytest.raises(InvalidRequestError, match="'openai' or 'ors'"):
        Episode("math").messages(unknown)


@given(episodes())
def test_episodes_survive_json(episode):
    text = episode.to_json()
    assert "\n" not in text
    again = Episode.from_json(text)
    assert again == episode
    assert again.messages() == episode.messages()
    assert Episode.from_json(json.loads(text)) == episode
    json.dumps(episode.metrics(), allow_nan=False)


@given(episodes())
def test_an_episode_has_an_outcome_or_an_error(episode):
    assert episode.stop_reason
    assert (episode.total_reward is None) == (
        episode.stop_reason == "error" and episode.error_kind == "timeout"
    )


@pytest.mark.parametrize(
    "text",
    [
        *("", "[]", "3", '{"environment": 1, "turns": 2}', "{}"),
        *(
            '{"environment": "a", "task_index": {}}',
            '{"environment": "a", "steps": [1]}',
        ),
        *('{"environment": "a", "prompt": [1]}', '{"environment": "a", "error": null}'),
        '{"environment": "a", "turns": [{"actions": [], "call_ids": 1}]}',
        '{"environment": "a", "total_reward": NaN}',
        f'{{"environment": "a", "seconds": {10**400}}}',
        f'{{"environment": "a", "total_reward": -{10**400}}}',
        '{"environment": "a", "seconds": true}',
        f'{{"environment": "a", "steps": [{{"reward": {10**400}}}]}}',
        *('{"environment": "a", "extra": ' + "[" * 100_000, b"\xff"),
    ],
)
def test_what_is_no_episode_is_refused(text):
    with pytest.raises(InvalidRequestError, match="no episode"):
        Episode.from_json(text)


def test_attempts_and_versions_are_part_of_the_json():
    lost = Attempt("connection", "no route", 1.5e9, 2.0, 3)
    episode = Episode("maze", attempts=[lost])
    episode.turns.append(Turn([], version=7, call_ids=[]))
    again = Episode.from_json(episode.to_json())
    assert again == episode
    assert (again.attempts, again.turns[0].version) == ([lost], 7)


@pytest.mark.parametrize(
    "change",
    [
        *({"kind": 1}, {"steps": "3"}, {"time": "now"}),
        pytest.param({"seconds": 10**400}, id="huge seconds"),
        pytest.param({"usage": {"cost": 10**400}}, id="huge usage"),
    ],
)
def test_what_is_no_attempt_is_no_episode(change):
    written = Episode("maze").to_dict()
    attempt = {"kind": "a", "error": "", "time": 1, "seconds": 1, "steps": 0}
    written["attempts"] = [attempt | change]
    with pytest.raises(InvalidRequestError, match="no episode"):
        Episode.from_dict(written)


@pytest.mark.parametrize(
    "told", [math.nan, math.inf, pytest.param(10**400, id="huge"), True, "3"]
)
def test_what_is_no_finite_number_is_no_usage(told):
    episode = Episode("maze", turns=[Turn([], extra={"usage": {"input_tokens": 2}})])
    episode.extra = {"usage": {"input_tokens": told}}
    assert episode.usage == {"input_tokens": 2}
    budget = Budget()
    budget.begin().end(episode)
    assert budget.tokens == 2
