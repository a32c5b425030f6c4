"""What a chat policy makes of servers that fail, keys, and wrong arguments."""

from __future__ import annotations

import asyncio
import gc
import importlib
import pickle
import socket
import subprocess
import sys
from typing import Any

import pytest

from ors_gym import errors
from ors_gym.evaluation import evaluate
from ors_gym.rollout import Episode, run_episode_async
from ors_gym.rollout._chat_policy import ChatPolicy
from tests.rollout.chat_server import running_chat_server

SDK = "ors-sdk-0.1.0"
KEY = "sk-very-secret"
HELLO = Episode("talk", prompt=[{"type": "text", "text": "Hello"}])
TEXT = {"text": "Hi"}
SOON = {"Retry-After": "0.01"}
COUNT = {"calls": [["c", "count", "{}"]]}


@pytest.fixture(scope="module")
def chat():
    with running_chat_server() as server:
        yield server


def failing(*failures: Any) -> dict[str, Any]:
    return {"text": "Hi", "failures": failures}


def ask(chat, *script: dict[str, Any], **options: Any) -> tuple[Any, int]:
    """Ask a policy once; return its turn or error, and how many requests it took."""
    options = {"api_key": KEY, "base_url": chat.base_url} | options
    policy = ChatPolicy(chat.script(*script), **options)
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
        (
            {"hang": True},
            {"timeout": 0.2, "max_retries": 0},
            errors.ConnectionFailedError,
            None,
        ),
        ({"raw": "<html>"}, {}, errors.ProtocolError, None),
        ({"raw": "[" * 200000}, {}, errors.ProtocolError, None),
        ({"raw": "[1]"}, {}, errors.ProtocolError, None),
        ({"raw": {"choices": []}}, {}, errors.ProtocolError, None),
        ({"raw": {"choices": [5]}}, {}, errors.ProtocolError, None),
        ({"raw": {"choices": [{"message": "x"}]}}, {}, errors.ProtocolError, None),
        ({"raw": {"error": {"message": "full"}}}, {}, errors.ProtocolError, None),
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
        raised, _ = ask(
            chat, TEXT, base_url=f"http://127.0.0.1:{port}/v1", max_retries=0
        )
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


def test_keys_come_from_the_environment_unless_one_is_given(chat, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "from-outside\n")
    sent = []
    for given in (None, "", "own"):
        policy = ChatPolicy(chat.script(TEXT), base_url=chat.base_url, api_key=given)
        asyncio.run(policy(HELLO))
        sent.append(chat.requests(policy.model)[0]["headers"]["authorization"])
    assert sent == ["Bearer from-outside", "Bearer none", "Bearer own"]
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(errors.AuthenticationError, match="OPENAI_API_KEY"):
        ChatPolicy("m")
    monkeypatch.setenv("OPENAI_BASE_URL", chat.base_url)
    turn = asyncio.run(ChatPolicy(chat.script(TEXT))(HELLO))
    assert turn is not None
    assert turn.message["content"] == "Hi"


def test_an_outage_of_the_model_is_a_row_without_an_outcome(
    chat, shared_server, tmp_path
):
    contract = shared_server(SDK)
    failures = [[500, {}, SOON]] * 2
    model = chat.script(COUNT, {**COUNT, "failures": failures})
    policy = ChatPolicy(model, base_url=chat.base_url, api_key=KEY, max_retries=1)
    output = tmp_path / "run.jsonl"

    def run() -> Any:
        return evaluate(
            contract.base_url,
            "Contract",
            [0],
            policy,
            max_turns=2,
            output=output,
            progress=False,
        )

    (row,) = run()["results"]
    assert (row["stop_reason"], row["total_reward"]) == ("error", None)
    assert row["success"] is None
    assert row["error"].startswith("ServerError: ")
    # The model never hears of it, and the episode is played again.
    (row,) = run()["results"]
    assert (row["stop_reason"], row["total_reward"]) == ("max_turns", 2.0)
    messages = repr([one["body"]["messages"] for one in chat.requests(model)])
    assert "ServerError" not in messages
    contract.wait_for("teardown")
    assert not contract.open_sessions()


def test_a_full_context_is_an_outcome_once_there_was_a_turn(chat, shared_server):
    full = [400, {"error": {"code": "context_length_exceeded", "message": "long"}}]
    contract = shared_server(SDK)
    model = chat.script(COUNT, failing(full))
    policy = ChatPolicy(model, base_url=chat.base_url)
    work = run_episode_async(contract.base_url, "Contract", 0, policy)
    episode = asyncio.run(work)
    assert (episode.stop_reason, episode.total_reward) == ("policy_stopped", 1.0)
    raised, _ = ask(chat, failing(full))
    assert isinstance(raised, errors.InvalidRequestError)


def client_of(policy: ChatPolicy) -> Any:
    return policy._service._clients[asyncio.get_running_loop()].client


def test_a_client_is_closed_with_its_loop(chat):
    policy = ChatPolicy(chat.script(TEXT), base_url=chat.base_url)

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
    policy = ChatPolicy(chat.script(TEXT), base_url=chat.base_url)

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
        policy = ChatPolicy(chat.script(TEXT), base_url=chat.base_url)
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
    policy = ChatPolicy(chat.script(TEXT), base_url=chat.base_url, temperature=0.1)

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
        {"stream": True},
        {"messages": []},
        {"n": 2},
        {"timeout": 0},
        {"max_retries": -1},
        {"base_url": "127.0.0.1:80"},
        {"base_url": "http://["},
        {"base_url": "https://"},
    ],
    ids=repr,
)
def test_wrong_arguments_are_refused_at_once(options):
    with pytest.raises(errors.InvalidRequestError):
        ChatPolicy("m", **({"base_url": "http://127.0.0.1:1"} | options))


def test_a_key_that_no_header_can_hold_is_refused():
    with pytest.raises(errors.AuthenticationError) as caught:
        ChatPolicy("m", api_key="sk\nx")
    assert "sk" not in str(caught.value)


def test_the_library_is_asked_for_when_it_is_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    with pytest.raises(errors.MissingExtraError, match=r'"ors-gym\[llm\]"'):
        ChatPolicy("m", base_url="http://127.0.0.1:1")


def test_the_library_is_not_imported_before_it_is_needed():
    assert importlib.util.find_spec("openai")
    script = "import sys, ors_gym.rollout._chat_policy; print('openai' in sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert done.stdout == "False\n"
