"""The most likely mistakes: each is a specific error that says what to do."""

import asyncio
import contextlib
import importlib
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

import ors_gym
from tests.support.proxy import scripted
from tests.support.servers.process import RunningServer

KEY = "KEY-hunter22"


def test_nobody_listens() -> None:
    url = "http://127.0.0.1:1"
    with pytest.raises(ors_gym.ConnectionFailedError) as caught:
        ors_gym.ORSEnv("contract", url)
    said = str(caught.value)
    where = url.removeprefix("http://")
    assert said.endswith(
        f"cannot connect to {where}: Connection refused. "
        "Is the server running, and is this its port?"
    )

    async def ask() -> None:
        async with ors_gym.AsyncORSClient(url) as client:
            await client.list_environments()

    with pytest.raises(ors_gym.ConnectionFailedError) as caught:
        asyncio.run(ask())
    assert str(caught.value) == said


@pytest.mark.parametrize("make", [gymnasium.make, gymnasium.make_vec])
@pytest.mark.parametrize("arguments", [{}, {"env_name": None}])
def test_a_remote_env_without_a_name(make: Any, arguments: dict[str, Any]) -> None:
    with pytest.raises(ors_gym.InvalidRequestError, match=r"env_name=.*ors-gym list"):
        make("ors/remote", base_url="http://127.0.0.1:1", **arguments)


def test_stable_baselines3_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3.common.vec_env", None)
    monkeypatch.delitem(sys.modules, "ors_gym.integrations.sb3", raising=False)
    with pytest.raises(ors_gym.MissingExtraError, match=r'"ors-gym\[sb3\]"'):
        importlib.import_module("ors_gym.integrations.sb3")


@pytest.mark.parametrize("action", [5, None, print, b"{}", object(), {1}, np.zeros(2)])
def test_what_is_no_action_at_all(one_server: RunningServer, action: Any) -> None:
    with contextlib.closing(ors_gym.ORSEnv("Contract", one_server.base_url)) as env:
        env.reset()
        with pytest.raises(ors_gym.InvalidArgumentError, match="no action") as caught:
            env.step(action)
        assert isinstance(caught.value, ValueError) and isinstance(
            caught.value, TypeError
        )
        assert ("was it called" in str(caught.value)) is (action is print)
        # It was never taken for a step.
        assert env.step({"tool": "echo", "input": {"text": "x"}})[0] == "x"


def test_what_is_no_action_of_a_vector_env_sends_nothing(one_server: Any) -> None:
    envs = ors_gym.ORSVectorEnv("Contract", one_server.base_url, num_envs=2)
    with contextlib.closing(envs):
        envs.reset()
        with pytest.raises(ors_gym.InvalidArgumentError, match="no action"):
            envs.step([{"tool": "add", "input": {"a": 1, "b": 2}}, None])
        assert one_server.runs() == 0


def test_the_first_unreadable_action_warns_and_no_other(one_server: Any) -> None:
    envs = ors_gym.ORSVectorEnv("Contract", one_server.base_url, num_envs=2)
    with contextlib.closing(envs), pytest.warns(UserWarning) as warned:
        envs.reset()
        for _ in range(2):
            infos = envs.step(["guess 8", "guess 9"])[4]
    (said,) = [str(one.message) for one in warned]
    # Through Gymnasium's and our own code, in the name of the user's line.
    assert warned[0].filename == __file__
    assert "'guess 8'" in said
    assert '{"tool": "<name>", "input": {...}}. Tools: add, ' in said
    assert all("holds no tool call" in error for error in infos["error"])


def test_an_unknown_tools_reply_lists_the_tools(server: RunningServer) -> None:
    with contextlib.closing(ors_gym.ORSEnv("Contract", server.base_url)) as env:
        env.reset()
        observation, *_, info = env.step({"tool": "guess", "input": {}})
        assert info["error_kind"] == "invalid_action"
        assert "guess" in observation and " Tools: add, " in observation
        observation = env.step({"tool": "add", "input": {"a": "no"}})[0]
        assert "Tools:" not in observation


def test_an_unknown_tools_reply_names_it_as_it_was_called(server: RunningServer):
    with contextlib.closing(ors_gym.ORSEnv("Contract", server.base_url)) as env:
        env.reset()
        observation = env.step({"tool": "a..b", "input": {}})[0]
        assert "a..b" in observation
        assert observation.count(". Tools: add, ") == 1
        assert ".. Tools" not in observation


def test_the_host_does_not_exist() -> None:
    with pytest.raises(ors_gym.ConnectionFailedError):
        ors_gym.ORSEnv("contract", "http://no-such-host.invalid:8080")


def test_an_address_without_a_scheme() -> None:
    with pytest.raises(ors_gym.InvalidRequestError, match="with its scheme"):
        ors_gym.ORSEnv("contract", "127.0.0.1:8080")


@pytest.mark.parametrize(
    "reply",
    [
        scripted.html_reply("<html>Welcome to nginx!</html>"),
        scripted.html_reply("<html>not found</html>", 404),
        scripted.json_reply({"hello": "world"}),
        scripted.json_reply([]),
        scripted.status_reply(404),
        scripted.status_reply(405),
    ],
)
def test_the_server_is_something_else(reply: scripted.RawReply) -> None:
    with (
        scripted.ScriptedServer({"*": lambda _: reply}) as server,
        pytest.raises(ors_gym.ProtocolError, match="ORS server"),
    ):
        ors_gym.ORSEnv("contract", server.url)


@pytest.mark.parametrize("status", [401, 403])
def test_the_server_wants_a_key(status: int) -> None:
    with (
        scripted.ScriptedServer(
            {"*": lambda _: scripted.status_reply(status)}
        ) as server,
        pytest.raises(ors_gym.AuthenticationError, match="ORS_API_KEY"),
    ):
        ors_gym.ORSEnv("contract", server.url)


@pytest.mark.parametrize(
    "arguments",
    [
        {"api_key": KEY},
        {"headers": {"Authorization": f"Bearer {KEY}"}},
        {"headers": {"X-Session-Token": KEY}},
    ],
)
def test_a_key_in_the_clear_to_another_host(arguments: dict[str, Any]) -> None:
    with pytest.raises(ors_gym.InsecureTransportError, match="https") as caught:
        ors_gym.ORSClient("http://example.org", **arguments)
    assert KEY not in str(caught.value)
    ors_gym.ORSClient("https://example.org", **arguments).close()
    ors_gym.ORSClient("http://127.0.0.1:1", **arguments).close()
    ors_gym.ORSClient("http://example.org", **arguments, allow_insecure=True).close()


def test_a_header_that_breaks_out_of_its_line() -> None:
    for headers in ({"X-A": "b\r\nX-Evil: c"}, {"X-A\n": "b"}, {"Host": "evil"}):
        with pytest.raises(ors_gym.InvalidRequestError):
            ors_gym.ORSClient("http://127.0.0.1:1", headers=headers)


def test_a_task_that_is_not_named(server: RunningServer) -> None:
    unnamed: list[dict[str, Any]]
    unnamed = [{}, {"split": "train"}, {"task_spec": {}, "index": 1}]
    with ors_gym.ORSClient(server.base_url) as client:
        for task in unnamed:
            with pytest.raises(ors_gym.InvalidRequestError, match="name the task"):
                client.session("contract", **task)
        with pytest.raises(ors_gym.UnknownTaskError, match="from 0"):
            client.session("contract", split="train", index=-1)
        with (
            pytest.raises(ors_gym.UnknownTaskError, match="Invalid split"),
            client.session("contract", split="nope", index=0),
        ):
            pass
        with (
            pytest.raises(ors_gym.UnknownTaskError, match="Invalid index"),
            client.session("contract", split="train", index=10**6),
        ):
            pass
    assert server.open_sessions() == set()


def test_arguments_that_are_not_json(server: RunningServer) -> None:
    with (
        ors_gym.ORSClient(server.base_url) as client,
        client.session("contract", split="train", index=0) as session,
    ):
        for value in (float("nan"), {1, 2}, object()):
            with pytest.raises(ors_gym.InvalidRequestError, match="'add'"):
                session.call_tool("add", {"a": value, "b": 1})
        assert session.call_tool("add", {"a": 1, "b": 1})["reward"] == 0.5
    assert server.runs("add") == 1


def test_environment_variables_name_server_and_key(server, monkeypatch, closing):
    monkeypatch.setenv("ORS_BASE_URL", server.base_url)
    monkeypatch.setenv("ORS_API_KEY", KEY)
    env = closing(ors_gym.ORSEnv("contract"))
    assert env.base_url == server.base_url
    assert env.reset(seed=1)[0] == "1 + 1 = ?"
    assert KEY not in repr((env, env.client, vars(env.client), env._settings))
