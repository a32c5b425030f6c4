"""A chat model as the policy, against a server that speaks OpenAI's API."""

import asyncio
import gc
import importlib
import json
import pickle
import socket
import sys
from concurrent import futures
from typing import Any

import pytest

from ors_gym import ORSEnv, errors
from ors_gym.rollout import Episode, Turn, run_episode, run_group
from ors_gym.rollout._chat_policy import ChatPolicy
from tests.evaluation.contract_evaluations import play as evaluate_contract
from tests.rollout.chat_server import USAGE, ChatServer, running_chat_server
from tests.rollout.contract_episodes import play
from tests.rollout.scripted_env import chat_call
from tests.support.processes import run_python

KEY = "sk-very-secret"
HELLO = Episode("talk", prompt=[{"type": "text", "text": "Hello"}])
TEXT = {"text": "Hi"}
SOON = {"Retry-After": "0.01"}
COUNT = {"calls": [["c", "count", "{}"]]}
HASTY = {"timeout": 0.2, "max_retries": 0}
NO_ANSWERS: list[Any] = [
    *("<html>", "[" * 200000, "[1]", {"choices": []}, {"choices": [5]}),
    *({"choices": [{"message": "x"}]}, {"error": {"message": "full"}}),
]


@pytest.fixture(scope="module")
def chat():
    with running_chat_server() as server:
        yield server


def call(tool: str, call_id: str = "c1", **given: Any) -> list[str]:
    return [call_id, tool, json.dumps(given)]


SUBMIT = {"calls": [call("submit", "end", answer="0")]}


def policy_of(chat: ChatServer, *script: dict[str, Any], **options: Any) -> ChatPolicy:
    options = {"api_key": KEY, "base_url": chat.base_url} | options
    return ChatPolicy(chat.script(*script), **options)


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
    message: Any = {"role": "assistant", "content": "Hm.", "refusal": None}
    message["reasoning_content"] = "2 + 2 is 4"
    message["tool_calls"] = [chat_call("x", "submit", '{ "answer":"0" }')]
    logprobs = {"content": [{"token": "4", "logprob": -0.1}]}
    policy = policy_of(chat, {"message": message, "logprobs": logprobs})
    turn = play(contract, policy).turns[0]
    assert (turn.message, turn.extra["usage"]) == (message, USAGE)
    assert turn.extra["finish_reason"] == "stop"
    assert turn.extra["logprobs"] == logprobs
    assert turn.extra["model"] == f"{policy.model}-2026"
    assert turn.actions == [{"tool": "submit", "input": {"answer": "0"}}]


@pytest.mark.parametrize(
    ("base_url", "sent"),
    [
        (None, False),
        ("https://api.openai.com/v1", False),
        ("https://mine.openai.azure.com/v1", False),
        ("http://127.0.0.1:8000/v1", True),
    ],
)
def test_reasoning_of_a_prompt_is_sent_to_who_takes_it(base_url, sent, monkeypatch):
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    episode = Episode("x")
    thought = {"type": "reasoning", "text": "Hm."}
    episode.set_prompt([], [{"role": "assistant", "blocks": [thought]}])
    policy = ChatPolicy("model", base_url=base_url, api_key=KEY)
    (message,) = policy._request(episode)["messages"]
    assert ("reasoning_content" in message) == sent
    assert message["role"] == "assistant"


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
        {"tool_calls": [chat_call("a", "no tool!", "")]},
        {"tool_calls": [chat_call("a", "", "{}")]},
        {"tool_calls": [call("add", "a"), 5, None]},
        {"tool_calls": [chat_call("a", "count", "{}")] * 2},
        {"content": '<tool_call>{"name": "count"}</tool_call>'},
        {"content": [{"type": "text", "text": "parts"}], "role": "assistant"},
    ],
    ids=repr,
)
def test_odd_messages_of_models_do_not_end_the_conversation(chat, contract, message):
    # Those that leave no assistant message behind are repeated once.
    policy = policy_of(chat, {"message": {"role": "assistant"} | message}, SUBMIT)
    episode = play(contract, policy, max_turns=2)
    assert episode.stop_reason in ("finished", "max_turns")
    assert len(episode.turns) == 2
    assert len(chat.requests(policy.model)) == 2


def test_plain_text_is_nudged(chat, contract):
    policy = policy_of(chat, {"text": "It is 4."}, SUBMIT)
    assert play(contract, policy).finished
    nudge = chat.requests(policy.model)[1]["body"]["messages"][-1]
    assert nudge["role"] == "user"
    assert "no tool call" in nudge["content"]


def test_parameters_and_the_system_prompt_are_passed_on(chat, contract):
    sampling = {"temperature": 0.5, "max_tokens": 9, "top_p": None}
    options = {"system_prompt": "Be brief.", "tool_choice": "required", **sampling}
    extra = {"extra_body": {"top_k": 4}, "extra_headers": {"X-Team": "a"}}
    policy = policy_of(chat, SUBMIT, **options, **extra)
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
    policy = policy_of(chat, TEXT, tool_choice="auto")
    turn = asyncio.run(policy(HELLO))
    assert isinstance(turn, Turn)
    assert turn.message["content"] == "Hi"
    assert not {"tools", "tool_choice"} & chat.requests(policy.model)[0]["body"].keys()


def test_evaluate_plays_many_at_once_with_one_client(chat, contract, tmp_path):
    script = [{"calls": [call("add", a=1, b=2)]}, SUBMIT]
    policy = policy_of(chat, *script, temperature=0.0)
    output = tmp_path / "run.jsonl"
    found = evaluate_contract(contract, range(6), policy, output=output)
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
    work = run_group(contract.base_url, "Contract", 0, policy, n=3, seed=5)
    group = asyncio.run(work)
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

    with futures.ThreadPoolExecutor(3) as threads:
        played = [threads.submit(work) for _ in range(3)]
    assert [one.result(60) for one in played] == [None] * 3
    ends += [play(contract, policy).stop_reason for _ in range(2)]
    assert ends == ["finished"] * 5


def failing(*failures: Any) -> dict[str, Any]:
    return {"text": "Hi", "failures": failures}


def ask(chat, *script: dict[str, Any], **options: Any) -> tuple[Any, int]:
    """Ask a policy once; return its turn or error, and how many requests it took."""
    policy = policy_of(chat, *script, **options)
    answer: Any
    try:
        answer = asyncio.run(policy(HELLO))
    except errors.ORSError as error:
        answer = error
    return answer, len(chat.requests(policy.model))


def test_refusals_for_now_are_repeated_by_the_library(chat):
    failures = [429, {}, SOON], [500, {}, SOON], [503, "busy", SOON]
    turn, asked = ask(chat, failing(*failures))
    assert turn.message["content"] == "Hi"
    assert asked == 4


@pytest.mark.parametrize(
    ("reply", "options", "error", "status"),
    [
        (failing([429, {}, SOON], [429, {}, SOON]), {}, errors.ServerError, 429),
        (failing([500, "<html>", SOON], [502, {}, SOON]), {}, errors.ServerError, 502),
        (failing([401, {}]), {}, errors.AuthenticationError, 401),
        (failing([403, {}]), {}, errors.AuthenticationError, 403),
        (failing([400, {}]), {}, errors.InvalidRequestError, 400),
        ({"drop": True}, {"max_retries": 0}, errors.ConnectionFailedError, None),
        ({"hang": True}, HASTY, errors.ConnectionFailedError, None),
        *(({"raw": raw}, {}, errors.ProtocolError, None) for raw in NO_ANSWERS),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_failures_are_errors_of_ours(chat, reply, options, error, status):
    raised, _ = ask(chat, reply, **({"max_retries": 1} | options))
    assert type(raised) is error
    assert getattr(raised, "status", None) == status
    assert "127.0.0.1" in str(raised)
    assert pickle.loads(pickle.dumps(raised)).args == raised.args


def test_a_server_that_is_not_there(chat):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        url = f"http://127.0.0.1:{port}/v1"
        raised, _ = ask(chat, TEXT, base_url=url, max_retries=0)
    assert type(raised) is errors.ConnectionFailedError


def test_the_key_is_in_no_error_repr_or_pickle(chat, monkeypatch):
    raised, _ = ask(chat, failing([401, {"error": {"message": f"bad key {KEY}"}}]))
    assert KEY not in str(raised)
    assert "[key]" in str(raised)
    assert raised.__cause__ is None
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    policy = ChatPolicy("m", base_url=f"http://user:{KEY}@127.0.0.1:1/v1")
    assert KEY not in f"{policy!r} {policy.policy_name}"
    own = ChatPolicy("m", base_url="http://127.0.0.1:1/v1")
    assert KEY.encode() not in pickle.dumps(own)


@pytest.mark.parametrize("shape", ["refusal", "gateway"])
def test_no_part_of_the_key_is_left_where_an_error_is_cut(chat, shape):
    body = {"error": {"message": f"bad key {KEY * 50}"}}
    # Some gateways report a failed provider with status 200.
    reply = failing([401, body]) if shape == "refusal" else {"raw": body}
    raised, _ = ask(chat, reply)
    assert "bad key [key][key]" in str(raised)
    assert "sk-" not in str(raised)


def test_keys_come_from_the_environment_unless_one_is_given(chat, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside\n")
    sent = []
    for given in (None, "", "own"):
        policy = policy_of(chat, TEXT, api_key=given)
        asyncio.run(policy(HELLO))
        sent.append(chat.requests(policy.model)[0]["headers"]["authorization"])
    assert sent == ["Bearer from-outside", "Bearer none", "Bearer own"]
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(errors.AuthenticationError, match="OPENAI_API_KEY"):
        ChatPolicy("m")
    monkeypatch.setenv("OPENAI_BASE_URL", chat.base_url)
    turn = asyncio.run(ChatPolicy(chat.script(TEXT))(HELLO))
    assert isinstance(turn, Turn)
    assert turn.message["content"] == "Hi"


def test_an_outage_of_the_model_is_a_row_without_an_outcome(chat, contract, tmp_path):
    failures = [[500, {}, SOON]] * 2
    policy = policy_of(chat, COUNT, {**COUNT, "failures": failures}, max_retries=1)
    output = tmp_path / "run.jsonl"

    def run() -> Any:
        return evaluate_contract(contract, [0], policy, max_turns=2, output=output)

    (row,) = run()["results"]
    assert (row["stop_reason"], row["total_reward"]) == ("error", None)
    assert row["success"] is None
    assert row["error"].startswith("ServerError: ")
    # The model never hears of it, and the episode is played again.
    (row,) = run()["results"]
    assert (row["stop_reason"], row["total_reward"]) == ("max_turns", 2.0)
    messages = repr([one["body"]["messages"] for one in chat.requests(policy.model)])
    assert "ServerError" not in messages
    contract.wait_for("teardown")
    assert not contract.open_sessions()


@pytest.mark.parametrize(
    "error",
    [
        {"code": "context_length_exceeded", "message": "long"},
        {"message": "This model's maximum context length is 8192 tokens."},
        {
            "message": "The input (9000 tokens) is longer than the model's context "
            "length (8192 tokens)."
        },
        {"type": "exceed_context_size_error", "message": "long"},
    ],
    ids=["OpenAI", "vLLM", "SGLang", "llama.cpp"],
)
def test_a_full_context_is_an_outcome_once_there_was_a_turn(chat, contract, error):
    full = [400, {"error": error}]
    episode = play(contract, policy_of(chat, COUNT, failing(full)))
    assert (episode.stop_reason, episode.total_reward) == ("max_tokens", 1.0)
    raised, _ = ask(chat, failing(full))
    assert isinstance(raised, errors.InvalidRequestError)


def client_of(policy: ChatPolicy) -> Any:
    return policy._service._clients[asyncio.get_running_loop()].client


def test_a_client_is_closed_with_its_loop(chat):
    policy = policy_of(chat, TEXT)

    async def main() -> Any:
        await asyncio.gather(policy(HELLO), policy(HELLO))
        client = client_of(policy)
        await policy(HELLO)
        assert client_of(policy) is client
        return client

    first, second = asyncio.run(main()), asyncio.run(main())
    assert first.is_closed()
    assert second.is_closed()
    assert first is not second


def test_a_client_is_closed_when_asked_for(chat):
    policy = policy_of(chat, TEXT)

    async def main() -> Any:
        await policy(HELLO)
        client = client_of(policy)
        await policy.aclose()
        assert client.is_closed()
        await policy.aclose()
        return await policy(HELLO)

    assert asyncio.run(main()).message["content"] == "Hi"


def test_a_client_is_closed_with_its_policy(chat):
    closed = asyncio.Event()

    async def main() -> Any:
        policy = policy_of(chat, TEXT)
        await policy(HELLO)
        client = client_of(policy)
        close = client.close

        async def close_and_tell() -> None:
            await close()
            closed.set()

        client.close = close_and_tell
        # In a cycle, garbage is found later, and all of it at once.
        cycle: list[Any] = [policy]
        cycle.append(cycle)
        del cycle, policy
        gc.collect()
        await asyncio.wait_for(closed.wait(), 10)
        assert client.is_closed()

    asyncio.run(main())


def test_a_pickled_policy_works(chat):
    policy = policy_of(chat, TEXT, temperature=0.1)

    async def main() -> Any:
        await policy(HELLO)
        copy = pickle.loads(pickle.dumps(policy))
        assert copy.policy_name == policy.policy_name
        return await copy(HELLO)

    assert asyncio.run(main()).message["content"] == "Hi"


def test_the_name_tells_what_changes_the_answers():
    def name(**options: Any) -> str:
        return ChatPolicy("m", base_url="http://127.0.0.1:1", **options).policy_name

    assert name() == name(api_key="k", extra_headers={"a": "b"}, timeout=3) == "m"
    assert name(temperature=0.5, seed=3) == "m(seed=3, temperature=0.5)"
    assert name(system_prompt="Be brief.") != name(system_prompt="Be long.")
    assert "brief" not in name(system_prompt="Be brief.")


@pytest.mark.parametrize(
    "options",
    [
        *({"stream": True}, {"messages": []}, {"n": 2}, {"timeout": 0}),
        {"max_retries": -1},
        *({"base_url": url} for url in ("127.0.0.1:80", "http://[", "https://")),
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused_at_once(options):
    with pytest.raises(errors.InvalidRequestError):
        ChatPolicy("m", **({"base_url": "http://127.0.0.1:1"} | options))


def test_bad_keys_and_a_missing_library_are_told_at_once(monkeypatch):
    with pytest.raises(errors.AuthenticationError) as caught:
        ChatPolicy("m", api_key="sk\nx")
    assert "sk" not in str(caught.value)
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(errors.MissingExtraError, match=r'"ors-gym\[llm\]"'):
        ChatPolicy("m", base_url="http://127.0.0.1:1")


def test_the_library_is_not_imported_before_it_is_needed():
    assert importlib.util.find_spec("openai")
    script = "import sys, ors_gym.rollout._chat_policy; print('openai' in sys.modules)"
    assert run_python("-c", script).stdout == "False\n"
