"""Episodes through `ORSEnv` and the client, on all seven server versions."""

import hashlib
from typing import Any

import gymnasium as gym
import pytest

import ors_gym
from tests.support.proxy.faults import Answer
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer

SECRET = "hunter22-\u00e9"
DIGEST = hashlib.sha256(SECRET.encode()).hexdigest()


def make(server: RunningServer, env_name: str = "Contract", **arguments: Any) -> Any:
    arguments = {"base_url": server.base_url, **arguments}
    return gym.make("ors/remote", env_name=env_name, **arguments)


def has(server: RunningServer, env_name: str) -> bool:
    with ors_gym.ORSClient(server.base_url) as client:
        return env_name.lower() in client.list_environments()


def test_an_episode(any_server: RunningServer) -> None:
    env = make(any_server)
    observation, info = env.reset(seed=3)
    assert observation == "3 + 3 = ?"
    assert (info["task_index"], info["split"]) == (3, "train")
    observation, reward, terminated, truncated, info = env.step(
        {"tool": "submit", "input": {"answer": "6"}}
    )
    assert (observation, reward, terminated, truncated) == ("right", 1.0, True, False)
    assert info["tool"] == "submit"
    env.close()
    any_server.wait_for("teardown")
    assert any_server.runs() == 1
    assert any_server.open_sessions() == set()


@pytest.mark.parametrize("kind", ["separators", "blanks", "wide", "lines", "quotes"])
def test_text_arrives_exactly(any_server: RunningServer, kind: str) -> None:
    env = make(any_server)
    env.reset(seed=0)
    call = {"tool": "speak", "input": {"kind": kind, "size": 20_000}}
    observation = env.step(call)[0]
    env.close()
    any_server.check_spoken(observation)


def test_five_megabytes_arrive_exactly(server: RunningServer) -> None:
    env = make(server)
    env.reset(seed=0)
    call = {"tool": "speak", "input": {"kind": "wide", "size": 5_000_000}}
    observation = env.step(call)[0]
    env.close()
    assert len(observation) == 5_000_000
    server.check_spoken(observation)


def test_secrets_take_the_servers_own_channel(any_server: RunningServer) -> None:
    env = make(any_server, secrets={"TOKEN": SECRET})
    if any_server.sdk.name == "openreward-0.1.0":
        with pytest.raises(ors_gym.InvalidRequestError, match="takes no secrets"):
            env.reset(seed=0)
        env.close()
        return
    env.reset(seed=0)
    env.close()
    (entry,) = any_server.log("construct")
    assert entry["secrets"] == {"TOKEN": DIGEST}


def test_names_with_blanks_and_beyond_ascii(any_server: RunningServer) -> None:
    env = make(any_server, "SALLE \u00c0 Manger \u623f\u95f4")
    assert env.reset(seed=1)[0] == "1 + 1 = ?"
    assert env.step({"tool": "submit", "input": {"answer": "2"}})[1] == 1.0
    env.close()


def test_tools_of_a_task(any_server: RunningServer) -> None:
    env = make(any_server, "TaskTools")
    seen = []
    for index in range(2):
        env.reset(options={"task_index": index})
        seen.append({tool["name"] for tool in env.unwrapped.tools})
        assert {tool["name"] for tool in env.action_space.tools} == seen[-1]
    env.close()
    if seen[1] != {"submit"}:
        # Asked after the prompt: the tool that set-up adds is there.
        assert seen[0] == {"submit", "after_setup"} - (
            set() if "after_setup" in seen[1] else {"after_setup"}
        )
        assert "extra" in seen[1]


@pytest.mark.slow
def test_slow_set_up_is_waited_for(any_server: RunningServer) -> None:
    env = make(any_server, "SlowSetup")
    env.reset(options={"task_index": 6})
    assert any_server.log("ready")
    env.close()


def test_set_up_that_raises(any_server: RunningServer) -> None:
    env = make(any_server, "BrokenSetup")
    with pytest.raises(ors_gym.SetupFailedError) as caught:
        env.reset(seed=0)
    if any_server.sdk.name.startswith("ors-sdk") or "0.1.167" in any_server.sdk.name:
        assert "the database is locked" in str(caught.value)
    env.close()


def test_tasks_of_a_server_that_only_lists_them(any_server: RunningServer) -> None:
    env = make(any_server, "ListOnly")
    assert env.unwrapped.num_tasks == 4
    assert [env.reset(seed=seed)[1]["task_index"] for seed in (2, 5)] == [2, 1]
    assert env.unwrapped.task["id"] == "hard-1"
    env.close()


def test_a_set_of_a_billion_tasks_is_never_listed(any_server: RunningServer) -> None:
    if not has(any_server, "Vast"):
        pytest.skip("this server has no num_tasks")
    env = make(any_server, "Vast", task_order="shuffle")
    first = env.reset(seed=123_456_789)[1]["task_index"]
    second = env.reset()[1]["task_index"]
    assert env.unwrapped.num_tasks == 10**9
    assert first != second
    env.close()
    assert any_server.log("list_tasks", environment="Vast") == []


def test_no_split_is_chosen_silently(any_server: RunningServer) -> None:
    env = make(any_server, "NoTrain")
    with pytest.raises(ors_gym.UnknownTaskError, match="'validation', 'test'"):
        env.reset(seed=0)
    env.close()
    env = make(any_server, "NoTrain", split="test")
    assert env.reset(seed=0)[1]["split"] == "test"
    env.close()


def test_unknown_things_are_named(any_server: RunningServer) -> None:
    with pytest.raises(ors_gym.UnknownEnvironmentError, match="'contract'"):
        make(any_server, "nope")
    env = make(any_server)
    with pytest.raises(ors_gym.UnknownTaskError, match="'train'"):
        env.reset(options={"split": "nope"})
    with pytest.raises(ors_gym.UnknownTaskError, match="12 tasks"):
        env.reset(options={"task_index": 12})
    with pytest.raises(ors_gym.UnknownTaskError, match="no task -1"):
        env.reset(options={"task_index": -1})
    with pytest.raises(ors_gym.InvalidRequestError, match="task_index, task, split"):
        env.reset(options={"task_idx": 1})
    env.close()


def test_the_three_signals(any_server: RunningServer) -> None:
    env = make(any_server, invalid_action_reward=-0.25)
    env.reset(seed=0)
    for action in (
        {"tool": "nope", "input": {}},
        {"tool": "add", "input": {"a": "x"}},
        "no call at all",
        [{"tool": "add", "input": {}}, {"tool": "add", "input": {}}],
    ):
        observation, reward, terminated, truncated, info = env.step(action)
        assert observation
        assert info["error"] == observation
        assert info["error_kind"] == "invalid_action"
        assert (reward, terminated, truncated) == (-0.25, False, False)
    observation, reward, *_, info = env.step(
        {"tool": "fail", "input": {"message": "boo\nhoo"}}
    )
    assert "boo\nhoo" in observation
    assert (reward, info["error_kind"]) == (0.0, "tool_failed")
    assert env.step({"tool": "add", "input": {"a": 1, "b": 2}})[0] == "3"
    env.close()


@pytest.mark.parametrize(
    ("kind", "reward", "null"),
    [("nan", 0.0, True), ("null", 0.0, True), ("int", 3.0, False)],
)
def test_rewards_are_finite_numbers(any_server, kind, reward, null):
    env = make(any_server)
    env.reset(seed=0)
    _, got, *_, info = env.step({"tool": "reward", "input": {"kind": kind}})
    env.close()
    assert type(got) is float
    assert (got, info["reward_is_null"]) == (reward, null)


def test_terminal_tool_messages_and_group_scores(any_server: RunningServer) -> None:
    if not has(any_server, "Conversation"):
        with ors_gym.ORSClient(any_server.base_url) as client:
            session = client.session("contract", split="train", index=0)
            with session:
                turns = session.get_messages()
                assert [turn["role"] for turn in turns] == ["user"]
                with pytest.raises(ors_gym.InvalidRequestError, match="score groups"):
                    session.score_group([])
                session.list_tools()
                assert session.terminal_tool is None
        return
    env = make(any_server, "Conversation")
    env.reset(seed=0)
    observation, reward, terminated, *_ = env.step("forty-two")
    assert (observation, reward, terminated) == ("forty-two", 1.0, True)
    env.close()
    with (
        ors_gym.ORSClient(any_server.base_url) as client,
        client.session("conversation", split="train", index=0) as session,
    ):
        roles = [turn["role"] for turn in session.get_messages()]
        assert roles == ["system", "user"]
        answer = {"role": "assistant", "blocks": [{"type": "text", "text": "1"}]}
        candidates = [{"messages": [answer]}, {"messages": [answer]}]
        scores = session.score_group(candidates)
        assert [score["reward"] for score in scores] == [0.0, 1.0]


def test_the_published_clients_methods(any_server: RunningServer) -> None:
    client = ors_gym.ORSClient(any_server.base_url)
    tools = client.list_tools("contract")
    assert "submit" in [t["name"] for t in tools]
    task = client.list_tasks("contract", "train")[0]
    session_id = client.create_session()
    try:
        client.create_episode(session_id, "contract", task)
        prompt = client.get_prompt(session_id, "contract")
        assert prompt[0]["text"] == "0 + 0 = ?"
        result = client.call_tool(session_id, "contract", "submit", {"answer": "0"})
        assert (result["reward"], result["finished"]) == (1.0, True)
        with pytest.raises(ors_gym.ToolRejectedError) as caught:
            client.call_tool(session_id, "contract", "submit", {"answer": "0"})
        assert caught.value.reason == "episode_finished"
    finally:
        assert client.delete_episode(session_id) == {"sid": session_id}
    client.close()
    assert any_server.runs("submit") == 1


def test_tasks_by_index_only_are_listed(any_server: RunningServer) -> None:
    if not has(any_server, "Vast"):
        pytest.skip("this server has no tasks by index")
    with ors_gym.ORSClient(any_server.base_url) as client:
        tasks = client.list_tasks("vast", "test")
        assert [task["id"] for task in tasks] == ["0", "1", "2", "3", "4"]
        with pytest.raises(ors_gym.InvalidRequestError, match="1000000000 tasks"):
            client.list_tasks("vast", "train")
        with pytest.raises(ors_gym.UnknownTaskError, match="Invalid split"):
            client.list_tasks("vast", "nowhere")


@pytest.mark.parametrize(
    ("toolset", "text"),
    [("browser-of-nobody", "browser-of-nobody"), ("codex", "codex")],
)
def test_an_unknown_toolset_has_an_error_of_its_own(
    server: RunningServer, toolset: str, text: str
) -> None:
    # openreward knows the second one, and cannot bind it to an environment without a
    # sandbox; ors-sdk knows no toolsets.
    env = make(server, toolset=toolset)
    with pytest.raises(ors_gym.UnknownToolsetError, match=text):
        env.reset(seed=0)
    env.close()


def test_what_a_raised_tool_means_is_chosen_by_tool(server: RunningServer) -> None:
    choices = {"fail": "raise", "fail_like_resume": "truncate"}
    fails = {"tool": "fail", "input": {"message": "grader is down"}}
    env = make(server, on_tool_error=choices)
    env.reset(seed=0)
    with pytest.raises(ors_gym.ToolFailedError, match="grader is down"):
        env.step(fails)
    env.reset(seed=0)
    assert env.step({"tool": "fail_like_resume", "input": {}})[3] is True
    env.close()
    observed = make(server, on_tool_error={"another": "raise"})
    observed.reset(seed=0)
    assert "grader is down" in observed.step(fails)[0]
    observed.close()
    found = ors_gym.evaluate(
        server.base_url,
        "contract",
        [0],
        lambda _: fails,
        on_tool_error=choices,  # type: ignore[arg-type]
        progress=False,
    )
    # Not paid 0: it has no outcome.
    assert found.outcomes == 0
    (row,) = found["results"]
    assert "grader is down" in row["error"]


def test_a_refused_input_is_told_in_one_sentence(any_server: RunningServer) -> None:
    env = make(any_server)
    env.reset(seed=0)
    observation, *_, info = env.step({"tool": "add", "input": {"a": "x"}})
    env.close()
    assert "Tool input validation error: a: Input should be a valid" in observation
    assert "b: Field required" in observation
    assert "https://" not in observation
    assert info["error"] == observation
    assert "'type': 'int_parsing'" in info["metadata"]["original_error"]


def test_a_refused_key_is_told_from_a_missing_one(server: RunningServer) -> None:
    denied = Answer(401, body=b'{"detail": "no"}')
    with FaultProxy(server.base_url) as proxy:
        proxy.plan("", [denied], then="forever")
        for key, said in (("", "No API key was sent"), ("sk-hunter22", "refused the")):
            with pytest.raises(ors_gym.AuthenticationError, match=said) as caught:
                make(server, base_url=proxy.url, api_key=key)
            assert proxy.url in str(caught.value)
            assert "hunter22" not in str(caught.value)
