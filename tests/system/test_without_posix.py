"""Everything imports and plays in a process without what only POSIX has.

That is simulated (`tests/support/without_posix`); the servers are real ones, and run
as everywhere. Each function `child_...` is run by such a process.
"""

import asyncio
import importlib
import os
import pkgutil
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

import ors_gym
from tests.support.processes import run_python
from tests.support.servers.process import RunningServer
from tests.support.virtual_environments import ROOT

_HOOK = ROOT / "tests/support/without_posix"


def play(child: Any, *arguments: object) -> str:
    """Run a function in a process without POSIX; return what it prints."""
    code = f"from {__name__} import {child.__name__} as child; child(*{arguments!r})"
    path = os.pathsep.join([str(_HOOK), str(ROOT)])
    ended = run_python(
        *("-W", "error", "-c", code), seconds=110, environment={"PYTHONPATH": path}
    )
    assert ended.stderr == ""
    assert ended.returncode == 0
    return ended.stdout


def answer(index: int) -> dict[str, Any]:
    return {"tool": "submit", "input": {"answer": str(2 * index)}}


def child_modules() -> None:
    import_all()
    find_refusals()
    play_embedded()


def import_all() -> None:
    for module in pkgutil.walk_packages(ors_gym.__path__, "ors_gym."):
        if module.name != "ors_gym.__main__":
            try:
                importlib.import_module(module.name)
            except ors_gym.MissingExtraError:
                # Asked for what is not installed, but for nothing of POSIX.
                sys.stdout.write(f"{module.name}\n")


def find_refusals() -> None:
    from ors_gym.client import AsyncHTTPTransport, HTTPTransport
    from ors_gym.rollout import CommandPolicy

    for transport in (HTTPTransport, AsyncHTTPTransport):
        with pytest.raises(ors_gym.InvalidRequestError, match="of httpx in its place"):
            transport()
    with pytest.raises(ors_gym.InvalidRequestError, match="use Linux, WSL or"):
        CommandPolicy("codex")
    with pytest.raises(ValueError, match="shared_memory=False"):
        gym.make_vec("ors/guess", num_envs=2, vectorization_mode="async")


def play_embedded() -> None:
    # The server's process is without POSIX too.
    env = gym.make("ors/guess")
    env.reset(seed=0)
    assert env.step({"tool": "guess", "input": {"number": 1}})[4]["error"] == ""
    env.close()
    with pytest.raises(ors_gym.InvalidRequestError, match="nothing_of_that_name"):
        ors_gym.server.serve("nothing_of_that_name:Class").__enter__()


@pytest.mark.slow
def test_every_module_imports_and_says_what_cannot_work():
    missing = play(child_modules).split()
    assert all(name.startswith("ors_gym.integrations.") for name in missing)


def child_episodes(base_url: str) -> None:
    play_env(base_url)
    play_vector_env(base_url)
    play_with_async_client(base_url)


def play_env(base_url: str) -> None:
    env = gym.make("ors/remote", env_name="Contract", base_url=base_url, prefetch=True)
    for index in range(3):
        assert env.reset(seed=index)[0] == f"{index} + {index} = ?"
        call = {"tool": "speak", "input": {"kind": "wide", "size": 200_000}}
        assert len(env.step(call)[0]) == 200_000
        assert env.step(answer(index))[1:3] == (1.0, True)
    env.close()


def play_vector_env(base_url: str) -> None:
    envs = ors_gym.ORSVectorEnv("Contract", base_url, num_envs=8)
    observations, infos = envs.reset(seed=0)
    for _ in range(3):
        calls = [answer(index) for index in infos["task_index"]]
        _, rewards, terminated, _, _ = envs.step(calls)
        assert (rewards == 1.0).all() and terminated.all()
        observations, _, _, _, infos = envs.step(calls)
    envs.close()
    assert len(observations) == 8


def play_with_async_client(base_url: str) -> None:
    async def ask(client: ors_gym.AsyncORSClient) -> float | None:
        async with client.session("Contract", split="train", index=2) as session:
            await session.get_prompt()
            called = await session.call_tool("submit", {"answer": "4"})
            return called["reward"]

    # httpx leaves the connections of a loop that ended to the collector.
    warnings.simplefilter("ignore", ResourceWarning)
    client = ors_gym.AsyncORSClient(base_url)
    # An event loop of its own for each, and both at once.
    assert asyncio.run(ask(client)) == 1.0

    async def ask_twice() -> list[Any]:
        async with client:
            return list(await asyncio.gather(ask(client), ask(client)))

    assert asyncio.run(ask_twice()) == [1.0, 1.0]


@pytest.mark.parametrize(
    "sdk",
    ["ors-sdk-0.1.0", pytest.param("openreward-0.1.167", marks=pytest.mark.slow)],
)
def test_episodes_are_played(
    shared_server: Callable[[str], RunningServer], sdk: str
) -> None:
    server = shared_server(sdk)
    play(child_episodes, server.base_url)
    assert server.rewards(tool="submit") == [1.0] * 30
    server.wait_for("teardown", 30)
    assert server.open_sessions() == set()


def child_evaluation(base_url: str, output: str) -> None:
    settings: Any = {"split": "train", "output": output, "progress": False}

    def solve(episode: Any) -> dict[str, Any]:
        with pytest.raises(ors_gym.InvalidRequestError, match="is writing"):
            ors_gym.evaluate(client, "Contract", [0], solve, **settings)
        return answer(episode.task_index)

    with ors_gym.ORSClient(base_url) as client:
        for tasks in ([0, 1], range(4)):
            result = ors_gym.evaluate(client, "Contract", tasks, solve, **settings)
            assert result["success_rate"] == 1.0
        # Over a torn row the file is written anew.
        os.truncate(output, Path(output).stat().st_size - 9)
        ors_gym.evaluate(client, "Contract", range(4), solve, **settings)


def test_an_evaluation_is_written_resumed_and_locked(
    one_server: RunningServer, tmp_path: Path
) -> None:
    output = tmp_path / "rows.jsonl"
    play(child_evaluation, one_server.base_url, str(output))
    assert one_server.runs("submit") == 5
    assert len(output.read_bytes().splitlines()) == 5
    assert [path.name for path in tmp_path.iterdir()] == ["rows.jsonl"]
