"""The public driver: open a session for a task, step it, leave it; both forms."""

import asyncio
import contextlib
import gc
import inspect
from typing import Any

import pytest

import ors_gym
from ors_gym.env import AsyncTaskEnv, TaskEnv
from tests.support.servers.process import RunningServer

ADD = {"tool": "add", "input": {"a": 1, "b": 2}}
SPEC = {"id": "mine", "question": "six times nine?", "answer": "42"}


class Blocking:
    """Drives an `AsyncTaskEnv` as if it were a `TaskEnv`."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._runner = asyncio.Runner()
        self._env = AsyncTaskEnv(*arguments, **options)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._env, name)
        if not inspect.iscoroutinefunction(found):
            return found
        return lambda *given, **options: self._runner.run(found(*given, **options))

    def stop_loop(self) -> None:
        self._runner.close()

    @property
    def task(self) -> Any:
        return self._runner.run(self._env.get_task())


@pytest.fixture(params=[TaskEnv, Blocking], ids=["blocking", "async"])
def env(server: RunningServer, request: pytest.FixtureRequest) -> Any:
    env = request.param("Contract", server.base_url, on_error="truncate")
    yield env
    env.close()
    if isinstance(env, Blocking):
        env.stop_loop()
    played = {entry["session"] for entry in server.log("prompt")}
    for session in played:
        server.wait_for("teardown", session=session)


def test_a_task_is_an_index_or_a_spec(env):
    assert (env.session, env.session_id, env.tools) == (None, None, [])
    assert env.open(3)[0] == "3 + 3 = ?"
    assert env.task["id"] == "train-3"
    observation, info = env.open(2, split="test")
    assert (info["task_index"], info["split"]) == (2, "test")
    observation, info = env.open(("test", 1))
    assert (info["task_index"], info["split"]) == (1, "test")
    observation, info = env.open(SPEC)
    assert (observation, info["task_index"], env.task) == (SPEC["question"], -1, SPEC)
    assert env.step(ADD)[:4] == ("3", 0.5, False, False)
    assert env.outcome == (-1, 0.5)
    assert env.environment.lower() == "contract"
    for task in (True, "3", None):
        with pytest.raises(ors_gym.UnknownTaskError, match="a task is an index"):
            env.open(task)
    for split in ("dev", ""):
        with pytest.raises(ors_gym.UnknownTaskError, match=f"no split '{split}'"):
            env.open(0, split=split)


def test_it_is_left_and_used_again(env, server):
    for index in range(2):
        env.open(index)
        env.leave()
        server.wait_for("teardown", index + 1)
        with pytest.raises(ors_gym.EpisodeOverError, match="call reset"):
            env.step(ADD)
    env.open(2)
    env.leave(wait=False)
    env.close()
    env.close()
    with pytest.raises(ors_gym.SessionClosedError):
        env.open(0)


def test_a_session_that_was_opened_ahead_is_played(env, server):
    ahead = env.open_ahead(4)
    server.wait_for("prompt", 1)
    opened = {entry["session"] for entry in server.log("prompt")}
    assert env.open(ahead)[1]["task_index"] == 4
    assert {env.session_id} == opened
    assert env.step(ADD)[1] == 0.5
    assert len(server.log("construct")) == 1


def test_one_session_is_played_by_one_env(env, server):
    ahead = env.open_ahead(4)
    env.open(ahead)
    first = env.session_id
    ahead.discard()
    assert env.step(ADD)[1] == 0.5
    with contextlib.closing(type(env)("contract", server.base_url)) as other:
        assert other.open(ahead)[1]["task_index"] == 4
        assert other.session_id != first
        assert other.step(ADD)[1] == 0.5
    if isinstance(other, Blocking):
        other.stop_loop()
    assert env.step(ADD)[1] == 0.5


def test_one_that_is_discarded_or_lost_or_forgotten(env, server):
    env.open_ahead(0).discard()
    lost = env.open_ahead(1)
    server.wait_for("prompt", 2)
    session = lost._pending.result(10).session
    # As the heartbeat does when the server answers that it has no such session.
    session.state.lost = "the server no longer knows it"
    assert env.open(lost)[1]["task_index"] == 1
    forgotten = env.open_ahead(2)
    server.wait_for("prompt", 4)
    del forgotten
    gc.collect()


def test_one_of_the_parent_process_is_left_alone_and_opened_anew(env, server):
    ahead = env.open_ahead(4)
    server.wait_for("prompt", 1)
    ahead._owner = 0
    ahead.discard()
    assert env.open(ahead)[1]["task_index"] == 4
    assert len(server.log("prompt")) == 2
    assert server.log("teardown") == []


def test_an_action_space_that_is_asked_for_late_has_the_tools_of_the_session(env):
    env.open(0)
    assert env.action_space.contains(ADD)
    assert env.action_space is env.action_space


def test_the_action_space_has_the_tools_before_the_first_session(env, server):
    assert not env.action_space.contains(ADD)
    env.fetch_tools()
    assert env.action_space.contains(ADD)
    assert server.log("construct") == []


@pytest.mark.parametrize("kind", [TaskEnv, Blocking])
def test_a_person_sees_the_prompt_and_each_step(kind, server, capsys):
    env = kind("contract", server.base_url, render_mode="human")
    env.open(1)
    env.step(ADD)
    env.step("nonsense")
    with pytest.raises(ors_gym.InvalidArgumentError):
        env.step(None)
    env.close()
    if isinstance(env, Blocking):
        env.stop_loop()
    prompt, called, refused = capsys.readouterr().out.strip().split("\n> ")
    assert prompt == "1 + 1 = ?\n"
    assert called.startswith("add(a=1, b=2)\n3\n[reward 0.5]")
    assert "invalid_action" in refused


def test_the_client_of_a_user_is_not_closed(server: RunningServer) -> None:
    with ors_gym.ORSClient(server.base_url) as client:
        for index in range(2):
            with TaskEnv("contract", client=client) as env:
                env.open(index)
        assert client.list_environments()
