"""SkyRL-Gym episodes against real servers, made as SkyRL's generator makes them."""

import asyncio
import gc
import hashlib
import json
import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any

import datasets
import pytest
import skyrl_gym
from skyrl_gym.envs.registration import deregister

from ors_gym.client import AsyncORSClient
from ors_gym.errors import InvalidRequestError, ORSError, SessionLostError
from ors_gym.formats import describe_tools
from ors_gym.integrations.skyrl import ors_rows
from ors_gym.server import REFERENCE_PLAYERS
from tests.support import hermes_calls
from tests.support.servers.process import start_server

GROUP = "training"
SDK = "ors-sdk-0.1.0"


def register(**settings: Any) -> None:
    entry = "ors_gym.integrations.skyrl:ORSTextEnv"
    skyrl_gym.register("ors", entry, kwargs=settings)


@pytest.fixture(autouse=True)
def registered():
    register()
    yield
    deregister("ors")


def make(row: dict[str, Any], **extras: Any) -> Any:
    """Make an env of a dataset's row: what is no prompt and no class is extra."""
    known = {k: v for k, v in row.items() if k not in ("prompt", "env_class")}
    return skyrl_gym.make(row["env_class"], env_config={}, extras={**known, **extras})


def contract_row(server: Any, **settings: Any) -> dict[str, Any]:
    (row,) = ors_rows("Contract", server.base_url, tasks=[0], **settings)
    return row


def write(tool: str, **given: Any) -> str:
    return f"Let me see.\n{hermes_calls.write(tool, **given)}"


def start(server: Any, max_turns: int | None = None, **settings: Any) -> Any:
    row = contract_row(server, **settings)
    env = make(row, **({"max_turns": max_turns} if max_turns else {}))
    env.init(row["prompt"])
    return env


def play(env: Any, *texts: str) -> list[dict[str, Any]]:
    return [env.step(text) for text in texts]


def test_a_whole_game_is_played_from_a_dataset_of_all_tasks(bundled):
    rows = ors_rows("guess", bundled, split="test", system_prompt="Play.")
    assert [row["ors"]["task_index"] for row in rows] == list(range(len(rows)))
    env = make(rows[3], max_turns=20)
    messages, where = env.init(rows[3]["prompt"])
    assert where == {"task_index": 3, "split": "test"}
    assert [message["role"] for message in messages] == ["system", "user"]
    assert messages[0]["content"].startswith("Play.")
    assert '"name": "guess"' in messages[0]["content"]
    player = REFERENCE_PLAYERS["guess"]()
    text, rewards, done = messages[-1]["content"], [], False
    while not done:
        action = player(text, env.episode.tools)
        result = env.step(write(action["tool"], **action["input"]))
        text, done = result["observations"][-1]["content"], result["done"]
        rewards.append(result["reward"])
        assert result["observations"][-1]["role"] == "tool"
    assert result["metadata"]["stop_reason"] == "finished"
    assert sum(rewards) == env.episode.total_reward > 0
    assert env.get_metrics()["steps"] == len(rewards)
    env.close()
    env.close()


@pytest.mark.parametrize("role", ["tool", "user"])
def test_a_prompt_with_roles_keeps_them(newest, role):
    settings: Any = {"observation_role": role, "tools_in_prompt": False}
    (row,) = ors_rows("Interview", newest.base_url, tasks=[2], **settings)
    env = make(row)
    told, _ = env.init(row["prompt"])
    assert told[0]["content"] == f"{row['prompt'][0]['content']}\n\nBe brief."
    assert [one["role"] for one in told[1:]] == ["user", "assistant", role, "user"]
    said, result = told[2:4]
    call = {"name": "submit", "arguments": {"answer": "7"}}
    if role == "tool":
        assert said["tool_calls"][0]["function"] == call
        assert said["reasoning_content"] == "Let me try."
        assert result["name"] == "submit"
    else:
        written = f"<tool_call>\n{json.dumps(call)}\n</tool_call>"
        assert said == {"role": "assistant", "content": f"I try.\n{written}"}
    assert (result["content"], told[4]["content"]) == ("wrong", "2 + 2 = ?")
    assert env.step(write("submit", answer="4"))["reward"] == 1.0
    env.close()
    assert len(newest.log("prompt")) == 1


def test_the_reward_is_paid_once_whatever_reduces_it(tidy_server):
    texts = [write("add", a=1, b=2), write("echo", text="x"), write("add", a=2, b=2)]
    paid = {}
    for reduction in ("sum", "last", "mean", "max", "min"):
        env = start(tidy_server, reward_reduction=reduction)
        results = play(env, *texts, write("submit", answer="0"))
        env.close()
        assert results[-1]["done"]
        paid[reduction] = [result["reward"] for result in results]
        assert sum(paid[reduction]) == pytest.approx(env.episode.total_reward)
    assert paid["sum"] == [0.5, 0.0, 0.5, 1.0]
    assert sum(paid["last"]) == 1.0
    assert sum(paid["min"]) == 0.5


def test_the_last_step_pays_all_where_skyrl_looks_at_no_other(one_server):
    env = start(one_server, pay_at_end=True)
    texts = [write("add", a=1, b=2), write("add", a=1, b=3)]
    results = play(env, *texts, write("submit", answer="0"))
    assert [r["reward"] for r in results] == [0.0, 0.0, 2.0]
    assert [r["metadata"]["turn_reward"] for r in results] == [0.5, 0.5, 1.0]
    env.close()


def test_the_limit_of_skyrl_ends_the_episode_and_costs_what_it_should(one_server):
    env = start(one_server, nonterminal_reward=-1.0, max_turns=2)
    first, second = play(env, write("add", a=1, b=1), "I give up")
    env.close()
    assert (first["done"], second["done"]) == (False, True)
    assert first["reward"] + second["reward"] == -0.5
    assert second["metadata"]["stop_reason"] == "max_turns"
    assert "Invalid action" in second["observations"][0]["content"]


@pytest.mark.parametrize(
    ("settings", "paid"), [({}, [0.5, 0.0]), ({"pay_at_end": True}, [0.0, 0.0])]
)
def test_what_skyrl_cuts_off_is_paid_its_reward_or_nothing(settings, paid, one_server):
    env = start(one_server, nonterminal_reward=-1.0, **settings)
    texts = [write("add", a=1, b=1), write("echo", text="x")]
    results = play(env, *texts)
    env.close()
    assert [(r["reward"], r["done"]) for r in results] == [(one, False) for one in paid]


def test_a_bad_call_is_told_and_paid_and_the_episode_goes_on(one_server):
    rules = {"invalid_action_reward": -0.25, "observation_role": "user"}
    row = contract_row(one_server, **rules, tools_in_prompt=False)
    env = make(row)
    messages, _ = env.init(row["prompt"])
    assert messages[0] == row["prompt"][0]
    bad = env.step("<tool_call>{not json</tool_call>")
    unknown = env.step(write("no_such_tool"))
    env.close()
    assert [bad["reward"], unknown["reward"]] == [-0.25, -0.25]
    assert [bad["metadata"]["error_kind"], unknown["done"]] == ["invalid_action", False]
    assert {m["role"] for r in (bad, unknown) for m in r["observations"]} == {"user"}


def test_secrets_reach_the_environment_and_nothing_else(one_server):
    secret = "s3cret-of-the-task"
    deregister("ors")
    register(base_url=one_server.base_url, secrets={"TOKEN": secret})
    env = start(one_server)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert one_server.log("construct")[-1]["secrets"] == {"TOKEN": digest}
    shown = [repr(env), str(env), env.episode.to_json(), repr(vars(env._live))]
    assert not [text for text in shown if secret in text]
    env.close()
    with pytest.raises(InvalidRequestError, match="dataset's file"):
        ors_rows("Contract", one_server.base_url, secrets={"TOKEN": secret})


def test_a_configuration_with_attributes_does_as_well(one_server):
    config = {"base_url": one_server.base_url, "env_name": "Contract", "split": None}
    extras = {"ors": {"task_index": 1, "split": "test", "task": None}}
    env = skyrl_gym.make("ors", env_config=config, extras=extras)
    assert env.init([])[1] == {"task_index": 1, "split": "test"}
    env.close()


@pytest.mark.parametrize(
    ("config", "extras"),
    [
        ({}, {}),
        ({"env_name": "Contract"}, {}),
        ({"env_name": "Contract", "task_index": 0, "task": {"id": "x"}}, {}),
        ({"env_name": "Contract", "task_index": 0, "no_such_setting": 1}, {}),
        ({"env_name": "Contract", "task_index": 0, "observation_role": "dog"}, {}),
        (SimpleNamespace(env_name="Contract"), {}),
        ({"env_name": "Contract", "task_index": 0, "secrets": {"A": b"x"}}, {}),
    ],
)
def test_settings_that_cannot_be_right_are_refused(config, extras, one_server):
    deregister("ors")
    register(base_url=one_server.base_url)
    with pytest.raises(InvalidRequestError) as caught:
        skyrl_gym.make("ors", env_config=config, extras=extras)
    assert pickle.loads(pickle.dumps(caught.value)).args == caught.value.args


@pytest.mark.parametrize("attempts", [1, 2])
def test_an_outage_is_repaired_or_raised_and_never_text_or_a_reward(attempts):
    with start_server(SDK) as server:
        env = start(server, attempts=attempts)
        play(env, write("add", a=1, b=1))
        server.restart()
        server.mark()
        if attempts == 1:
            with pytest.raises(SessionLostError):
                env.step(write("add", a=1, b=2))
            assert env.episode.total_reward is None
        else:
            results = play(env, write("add", a=1, b=2), write("submit", answer="0"))
            assert results[0]["observations"][0]["content"] == "3"
            assert [result["reward"] for result in results] == [0.5, 1.0]
            assert env.episode.total_reward == 2.0
            assert [one.kind for one in env.episode.attempts] == ["session_lost"]
            # The new session saw the turn before, too.
            assert server.runs("add") == 2
        env.close()
        assert server.open_sessions() == set()


def test_a_set_up_that_fails_leaves_no_session(tidy_server):
    row = contract_row(tidy_server)
    row["ors"] |= {"task_index": None, "task": {"id": "x", "setup_error": "no disk"}}
    env = make(row)
    with pytest.raises(ORSError, match="no disk"):
        env.init(row["prompt"])
    env.close()


@pytest.mark.parametrize("system", [{}, {"content": None}, {"content": ""}])
def test_a_system_message_without_content_is_told_the_tools(system, one_server):
    env = make(contract_row(one_server))
    messages, _ = env.init([{"role": "system", **system}])
    env.close()
    assert messages[0]["role"] == "system"
    assert messages[0]["content"] == describe_tools(env.episode.tools)


def test_a_prompt_that_cannot_be_read_leaves_no_session(one_server):
    env = make(contract_row(one_server))
    with pytest.raises((TypeError, ValueError)):
        env.init(["no message"])
    assert one_server.open_sessions() == set()
    assert one_server.log("ready")


def test_a_client_of_ones_own_lists_the_tasks(one_server):
    made: list[AsyncORSClient] = []

    def client() -> AsyncORSClient:
        made.append(AsyncORSClient(one_server.base_url, api_key="s3cret-key"))
        return made[-1]

    rows = ors_rows("Contract", split="test", client_factory=client)
    assert len(made) == 1
    assert [row["ors"]["task_index"] for row in rows] == list(range(5))
    assert "s3cret" not in json.dumps(rows)
    with pytest.raises(InvalidRequestError, match="client_factory="):
        ors_rows("Contract", one_server.base_url, api_key="s3cret-key")


def test_the_documented_block_runs(documented, bundled, monkeypatch, capsys):
    monkeypatch.setenv("ORS_BASE_URL", bundled)
    deregister("ors")
    exec(documented("runs with skyrl-gym 0.4"), {})
    assert capsys.readouterr().out.strip().endswith("True")


def test_many_episodes_are_played_from_threads_at_once(tidy_server):
    def work(number: int) -> float:
        env = start(tidy_server)
        results = play(env, write("add", a=number, b=1))
        results.append(env.step(write("submit", answer="0")))
        env.close()
        assert results[0]["observations"][-1]["content"] == str(number + 1)
        return float(sum(result["reward"] for result in results))

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(work, range(16))) == [1.5] * 16


def test_it_plays_where_an_event_loop_runs_already(one_server):
    async def work() -> float:
        env = start(one_server)
        (result,) = play(env, write("submit", answer="0"))
        env.close()
        return float(result["reward"])

    assert asyncio.run(work()) == 1.0


def test_what_is_dropped_unclosed_leaves_no_session(one_server):
    env = start(one_server)
    assert len(one_server.open_sessions()) == 1
    del env
    gc.collect()
    one_server.wait_for("teardown")


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_worker_plays_episodes_of_its_own(tidy_server):
    env = start(tidy_server)
    child = os.fork()
    if child == 0:
        code = 1
        try:
            own = start(tidy_server)
            (result,) = play(own, write("submit", answer="0"))
            own.close()
            code = 0 if result["reward"] == 1.0 else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert env.step(write("submit", answer="0"))["reward"] == 1.0
    env.close()


@pytest.mark.parametrize(("how", "paid"), [("both", 1.0), ("tool", 0.0), ("text", 1.0)])
def test_a_terminal_tool_is_told_and_reached_as_chosen(newest, how, paid):
    url = newest.base_url
    (row,) = ors_rows("Essay", url, tasks=[1], terminal_tool_as=how)
    env = make(row)
    messages, _ = env.init(row["prompt"])
    told = messages[0]["content"]
    assert ('"name": "submit"' in told) == (how != "text")
    assert ("is the final answer" in told) == (how != "tool")
    assert env.step("2")["reward"] == paid
    env.close()


def test_narrowed_schemas_are_told(one_server):
    ways: Any = {"move": {"direction": {"enum": ["up", "down"]}}}
    numbers: Any = {"add": {"a": {"minimum": 1}}}
    url = one_server.base_url
    rows = ors_rows("Board", url, tasks=[0], tool_schemas=ways)
    rows += ors_rows("Contract", url, tasks=[0], tool_schemas=numbers)
    # Both have the keys of both now.
    row, other = datasets.Dataset.from_list(rows).to_list()
    assert set(row["ors"]["tool_schemas"]) == {"add", "move"}
    env = make(other)
    messages, _ = env.init(other["prompt"])
    env.close()
    assert '"minimum": 1' in messages[0]["content"]
    env = make(row)
    messages, _ = env.init(row["prompt"])
    env.close()
    assert '"enum": ["up", "down"]' in messages[0]["content"]
