"""A chat model as the policy, against a server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
import json
import threading
from typing import Any

import pytest

from ors_gym import ORSEnv
from ors_gym.evaluation import evaluate
from ors_gym.rollout import Episode, run_episode, run_episode_async, run_group
from ors_gym.rollout._chat_policy import ChatPolicy
from tests.rollout.chat_server import USAGE, ChatServer, running_chat_server

SDK = "ors-sdk-0.1.0"
KEY = "sk-very-secret"


@pytest.fixture(scope="module")
def chat():
    with running_chat_server() as server:
        yield server


@pytest.fixture
def contract(shared_server):
    return shared_server(SDK)


def call(tool: str, call_id: str = "c1", **given: Any) -> list[str]:
    return [call_id, tool, json.dumps(given)]


SUBMIT = {"calls": [call("submit", "end", answer="0")]}


def policy_of(chat: ChatServer, *script: dict[str, Any], **options: Any) -> ChatPolicy:
    options = {"api_key": KEY, "base_url": chat.base_url} | options
    return ChatPolicy(chat.script(*script), **options)


def play(server, policy: ChatPolicy, task: Any = 0, **rules: Any) -> Episode:
    work = run_episode_async(server.base_url, "Contract", task, policy, **rules)
    return asyncio.run(work)


def test_tools_are_passed_natively_and_called_in_order(chat, contract):
    both = [call("add", "one", a=1, b=2), call("add", "two", a=3, b=4)]
    policy = policy_of(chat, {"calls": both}, SUBMIT)
    episode = play(contract, policy)
    assert (episode.stop_reason, episode.total_reward) == ("finished", 2.0)
    texts = [step.reply[0]["text"] for step in episode.steps]
    assert texts == ["3", "7", "right"]
    assert [step.call_id for step in episode.steps] == ["one", "two", "end"]
    first, second = (one["body"] for one in chat.requests(policy.model))
    assert {tool["function"]["name"] for tool in first["tools"]} == {
        tool["name"] for tool in episode.tools
    }
    said = [(one["tool_call_id"], one["content"]) for one in second["messages"][2:]]
    assert said == [("one", "3"), ("two", "7")]


def test_the_message_is_kept_verbatim_with_what_it_cost(chat, contract):
    message = {
        "role": "assistant",
        "content": "Hm.",
        "reasoning_content": "2 + 2 is 4",
        "refusal": None,
        "tool_calls": [
            {
                "id": "x",
                "type": "function",
                "function": {"name": "submit", "arguments": '{ "answer":"0" }'},
            }
        ],
    }
    logprobs = {"content": [{"token": "4", "logprob": -0.1}]}
    policy = policy_of(chat, {"message": message, "logprobs": logprobs})
    turn = play(contract, policy).turns[0]
    assert turn.message == message
    assert turn.extra["usage"] == USAGE
    assert turn.extra["finish_reason"] == "stop"
    assert turn.extra["logprobs"] == logprobs
    assert turn.extra["model"] == f"{policy.model}-2026"
    assert turn.actions == [{"tool": "submit", "input": {"answer": "0"}}]


def test_images_of_tools_come_back_in_a_user_message(chat, contract):
    policy = policy_of(chat, {"calls": [call("image")]}, SUBMIT)
    assert play(contract, policy).finished
    *_, result, shown = chat.requests(policy.model)[1]["body"]["messages"]
    assert (result["role"], shown["role"]) == ("tool", "user")
    images = [part for part in shown["content"] if part["type"] == "image_url"]
    assert images[0]["image_url"]["url"].startswith("data:image/png;base64,")


@pytest.mark.parametrize(
    "arguments", ['{"a": 1', '"text"', "[1]", '{"a": "\\ud800", "b": 1}', "\ud800"]
)
def test_arguments_that_cannot_be_read_are_answered(chat, contract, arguments):
    first = {"calls": [["c1", "add", arguments]], "finish_reason": "length"}
    policy = policy_of(chat, first, SUBMIT)
    episode = play(contract, policy)
    assert episode.finished
    assert episode.steps[0].error_kind in ("invalid_action", "tool_failed")
    call = episode.turns[0].message["tool_calls"][0]
    assert call["function"]["arguments"] == arguments
    answered = chat.requests(policy.model)[1]["body"]["messages"][-1]
    assert answered["tool_call_id"] == "c1"
    assert answered["content"]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "", "tool_calls": []},
        {"content": "text \ud800"},
        {"content": None},
        {},
        {"tool_calls": [{"function": {"arguments": "{}"}}]},
        {
            "tool_calls": [
                {"id": "a", "function": {"name": "no tool!", "arguments": ""}}
            ]
        },
        {"tool_calls": [{"id": "a", "function": {"name": "", "arguments": "{}"}}]},
        {"tool_calls": [call("add", "a"), 5, None]},
        {
            "tool_calls": [
                {"id": "a", "function": {"name": "count", "arguments": "{}"}}
            ]
            * 2
        },
        {"content": '<tool_call>{"name": "count"}</tool_call>'},
        {"content": [{"type": "text", "text": "parts"}], "role": "assistant"},
    ],
    ids=repr,
)
def test_odd_messages_of_models_do_not_end_the_conversation(chat, contract, message):
    # Those that leave no assistant message behind are repeated once.
    script = [{"message": {"role": "assistant"} | message}, SUBMIT]
    policy = policy_of(chat, *script)
    episode = play(contract, policy, max_turns=2)
    assert episode.stop_reason in ("finished", "max_turns")
    assert len(episode.turns) == 2
    assert len(chat.requests(policy.model)) == 2


def test_plain_text_is_nudged_stopped_or_submitted(chat, contract):
    policy = policy_of(chat, {"text": "It is 4."}, SUBMIT)
    assert play(contract, policy).finished
    nudge = chat.requests(policy.model)[1]["body"]["messages"][-1]
    assert nudge["role"] == "user"
    assert "no tool call" in nudge["content"]
    policy = policy_of(chat, {"text": "It is 4."})
    episode = play(contract, policy, on_plain_text="stop")
    assert episode.stop_reason == "policy_stopped"
    assert episode.turns[0].message["content"] == "It is 4."


def test_parameters_and_the_system_prompt_are_passed_on(chat, contract):
    policy = policy_of(
        chat,
        SUBMIT,
        system_prompt="Be brief.",
        temperature=0.5,
        max_tokens=9,
        top_p=None,
        tool_choice="required",
        extra_body={"top_k": 4},
        extra_headers={"X-Team": "a"},
    )
    assert play(contract, policy, seed=8).finished
    (request,) = chat.requests(policy.model)
    body = request["body"]
    assert body["messages"][0] == {"role": "system", "content": "Be brief."}
    picked = {name: body.get(name) for name in ("temperature", "max_tokens", "top_k")}
    assert picked == {"temperature": 0.5, "max_tokens": 9, "top_k": 4}
    assert (body["seed"], body["tool_choice"]) == (8, "required")
    assert "top_p" not in body
    assert request["headers"]["x-team"] == "a"
    assert request["headers"]["authorization"] == f"Bearer {KEY}"


@pytest.mark.parametrize(("given", "sent"), [({"seed": 3}, 3), ({"seed": None}, None)])
def test_a_seed_of_the_policy_goes_before_the_episodes(chat, contract, given, sent):
    policy = policy_of(chat, SUBMIT, **given)
    play(contract, policy, seed=8)
    (request,) = chat.requests(policy.model)
    assert request["body"].get("seed") == sent


def test_without_tools_none_are_passed(chat):
    policy = policy_of(chat, {"text": "Hi"}, tool_choice="auto")
    hello = Episode("talk", prompt=[{"type": "text", "text": "Hello"}])
    turn = asyncio.run(policy(hello))
    assert turn is not None
    assert turn.message["content"] == "Hi"
    assert not {"tools", "tool_choice"} & chat.requests(policy.model)[0]["body"].keys()


def test_evaluate_plays_many_at_once_with_one_client(chat, contract, tmp_path):
    script = [{"calls": [call("add", a=1, b=2)]}, SUBMIT]
    policy = policy_of(chat, *script, temperature=0.0)
    output = tmp_path / "run.jsonl"
    tasks = list(range(6))
    found = evaluate(
        contract.base_url, "Contract", tasks, policy, output=output, progress=False
    )
    assert len(found["results"]) == 6
    assert all(row["stop_reason"] == "finished" for row in found["results"])
    requests = chat.requests(policy.model)
    assert len(requests) == 12
    # Connections are used again, though not more than there are episodes at once.
    assert len({request["peer"] for request in requests}) <= 8
    written = output.read_text()
    assert KEY not in written
    assert json.loads(written.partition("\n")[0])["policy"] == policy.policy_name


def test_a_group_shares_the_policy(chat, contract):
    policy = policy_of(chat, SUBMIT)
    group = asyncio.run(
        run_group(contract.base_url, "Contract", 0, policy, n=3, seed=5)
    )
    assert [episode.total_reward for episode in group] == [1.0] * 3
    seeds = {request["body"]["seed"] for request in chat.requests(policy.model)}
    assert seeds == {5, 6, 7}


def test_blocking_episodes_in_threads_and_loops_one_after_another(chat, contract):
    policy = policy_of(chat, SUBMIT)
    ends: list[str] = []

    def work() -> None:
        env = ORSEnv("contract", base_url=contract.base_url)
        ends.append(run_episode(env, policy, seed=0).stop_reason)
        env.close()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    ends += [play(contract, policy).stop_reason for _ in range(2)]
    assert ends == ["finished"] * 5
