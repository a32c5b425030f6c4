"""What Gymnasium and its users expect of an env: checks, copies, forks, mistakes."""

import asyncio
import contextlib
import json
import os
import pickle
import warnings
from collections.abc import Iterator
from functools import partial
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import ors_gym
from ors_gym.env._step_rules import Metadata
from tests.support.servers.process import RunningServer

ADD = {"tool": "add", "input": {"a": 1, "b": 2}}
SUBMIT = {"tool": "submit", "input": {"answer": "0"}}
INFO_TYPES = {
    **dict.fromkeys(("split", "tool", "error", "error_kind"), str),
    **dict.fromkeys(("reward_is_null", "observation_truncated"), bool),
    "task_index": int,
    "blocks": list,
    "metadata": Metadata,
}


@pytest.fixture
def env(server: RunningServer) -> Iterator[ors_gym.ORSEnv]:
    env = ors_gym.ORSEnv("contract", server.base_url)
    yield env
    env.close()


def make(server: RunningServer, env_name: str = "contract", **arguments: Any) -> Any:
    arguments = {"env_name": env_name, "base_url": server.base_url, **arguments}
    return gym.make("ors/remote", **arguments)


def test_check_env_finds_nothing(server: RunningServer) -> None:
    views = [{}, {"action_mode": "text"}, {"observation_mode": "dict"}]
    for modes in views:
        # Its one tool is quick whatever its arguments are.
        env = make(server, "Salle \u00e0 manger \u623f\u95f4", **modes)
        with warnings.catch_warnings():
            # Text has no bounds to warn about; the rest stays an error.
            warnings.filterwarnings("ignore", message=".*not within the observation")
            check_env(env.unwrapped, skip_render_check=True)
        env.close()


def test_info_has_the_same_keys_and_types_everywhere(env: Any) -> None:
    infos = [env.reset(seed=0)[1]]
    infos += [env.step(action)[4] for action in (ADD, "nonsense")]
    infos.append(env.step({"tool": "fail", "input": {"message": "x"}})[4])
    infos.append(env.step({"tool": "metadata", "input": {}})[4])
    for info in infos:
        assert {key: type(value) for key, value in info.items()} == INFO_TYPES
    assert infos[-1]["metadata"]
    assert not isinstance(infos[-1]["metadata"], dict)
    assert pickle.loads(pickle.dumps(infos[-1]["metadata"])) == infos[-1]["metadata"]


def test_the_task_is_never_in_what_a_policy_sees(env: Any) -> None:
    observation, info = env.reset(seed=5)
    answer = env.task["answer"]
    assert answer == "10"
    shown = repr((observation, info, env.step(ADD), env.tools, env.action_space))
    assert "answer': '10'" not in shown


def test_order_enforcement_says_what_to_do(env: Any) -> None:
    with pytest.raises(gym.error.ResetNeeded, match=r"call reset\(\)"):
        env.step(ADD)
    env.reset(seed=0)
    assert env.step(SUBMIT)[2]
    with pytest.raises(ors_gym.EpisodeOverError, match="is over"):
        env.step(ADD)
    env.close()
    env.close()
    with pytest.raises(gym.error.ResetNeeded, match="make a new env"):
        env.step(ADD)
    with pytest.raises(ors_gym.SessionClosedError, match="make a new one"):
        env.reset()


def test_a_call_after_the_end_never_reaches_the_server(env, server):
    env.reset(seed=0)
    env.step(SUBMIT)
    with pytest.raises(ors_gym.EpisodeOverError):
        env.step(SUBMIT)
    assert server.runs("submit") == 1


def test_step_limit_and_time_limit_truncate(server: RunningServer) -> None:
    own = ors_gym.ORSEnv("contract", server.base_url, max_episode_steps=2)
    for env in (own, make(server, max_episode_steps=2)):
        env.reset(seed=0)
        assert env.step(ADD)[2:4] == (False, False)
        assert env.step(ADD)[2:4] == (False, True)
        env.reset(seed=0)
        env.step(ADD)
        assert env.step(SUBMIT)[2] is True
        env.close()


@pytest.mark.parametrize("order", ["sequential", "shuffle", "random"])
@pytest.mark.parametrize("kind", ["sync", "async"])
def test_text_and_rewards_through_vector_envs(server, kind, order, closing):
    # Without the server, which cannot be pickled, as another start method asks for it.
    given = {"base_url": server.base_url, "env_name": "contract", "task_order": order}
    makers = [
        partial(gym.make, "ors/remote", **given, task_offset=i, task_stride=3)
        for i in range(3)
    ]
    vector = gym.vector.SyncVectorEnv if kind == "sync" else gym.vector.AsyncVectorEnv
    env = closing(vector(makers))
    for seed in (4, None):
        seen = []
        observations, infos = env.reset(seed=seed)
        for _ in range(4):
            indexes = infos["task_index"].tolist()
            assert observations == tuple(f"{i} + {i} = ?" for i in indexes)
            assert len(set(indexes)) == 3
            seen += indexes
            calls = [{"tool": "add", "input": {"a": i, "b": 100}} for i in range(3)]
            texts, rewards, *_ = env.step(calls)
            assert texts == ("100", "101", "102")
            assert rewards.tolist() == [0.5] * 3
            observations, infos = env.reset()
        if order != "random":
            assert sorted(seen) == list(range(12))


def test_narrowed_tasks_and_curricula(server: RunningServer) -> None:
    def make(tasks: Any) -> ors_gym.ORSEnv:
        return ors_gym.ORSEnv("contract", server.base_url, tasks=tasks)

    env = make(range(3, 6))
    assert env.num_tasks == 3
    assert [env.reset(seed=s)[1]["task_index"] for s in range(4)] == [3, 4, 5, 3]
    env.set_tasks([7, 1])
    assert env.reset(seed=1)[1]["task_index"] == 1
    env.close()

    spec = {"id": "mine", "question": "six times nine?", "answer": "42"}
    env = make([spec])
    observation, info = env.reset(seed=0)
    assert (observation, info["task_index"]) == ("six times nine?", -1)
    assert env.task == spec
    env.close()

    def harder(rng: np.random.Generator, history: Any) -> int:
        return len(history)

    env = make(harder)
    for expected in range(3):
        assert env.reset()[1]["task_index"] == expected
        env.step(SUBMIT)
    env.close()


def test_prefetch_plays_the_same_tasks(server: RunningServer) -> None:
    def play(prefetch: bool) -> list[int]:
        env = ors_gym.ORSEnv("contract", server.base_url, prefetch=prefetch)
        played = [env.reset(seed=2)[1], env.reset()[1]]
        played.append(env.reset(options={"task_index": 9})[1])
        played.append(env.reset()[1])
        env.set_tasks(range(5))
        played += [env.reset()[1], env.reset(seed=1)[1], env.reset()[1]]
        env.close()
        return [info["task_index"] for info in played]

    assert play(prefetch=True) == play(prefetch=False)
    server.wait_until_none_is_open()


ASIDE = [{"split": "test"}, {"task_index": 9}, {"split": "train"}]
"""Options of resets that are outside the order."""
PLAYED = [("train", 2), ("test", 2), ("train", 9), ("train", 2), ("train", 3)]
PLAYED += [("test", 3), ("train", 9), ("train", 3), ("train", 4)]


@pytest.mark.parametrize("prefetch", [False, True])
def test_episodes_outside_the_order_take_no_place_of_it(server, prefetch):
    given: Any = ("contract", server.base_url)
    aside: Any = [{"options": options} for options in ASIDE]
    resets = [{"seed": 2}, *aside, {}, *aside, {}]
    with contextlib.closing(ors_gym.ORSEnv(*given, prefetch=prefetch)) as env:
        infos = [env.reset(**reset)[1] for reset in resets]

    async def play() -> list[Any]:
        async with ors_gym.AsyncORSEnv(*given, prefetch=prefetch) as env:
            return [(await env.reset(**reset))[1] for reset in resets]

    for found in (infos, asyncio.run(play())):
        assert [(info["split"], info["task_index"]) for info in found] == PLAYED


def test_nothing_secret_in_spec_pickle_or_repr(server: RunningServer) -> None:
    secrets = ["KEY-hunter22", "SECRET-hunter22", "BEARER-hunter22"]
    env = make(
        server,
        api_key=secrets[0],
        secrets={"TOKEN": secrets[1]},
        headers={"Authorization": f"Bearer {secrets[2]}", "X-Deployment": "a/b"},
    )
    env.reset(seed=0)
    inner = env.unwrapped
    texts = [env.spec.to_json(), repr(env), str(inner), repr(vars(inner))]
    texts.append(pickle.dumps(inner).decode("latin-1"))
    texts.append(repr(vars(inner.client)))
    env.close()
    for text in texts:
        for secret in secrets:
            assert secret not in text
    assert json.loads(texts[0])["kwargs"]["headers"] == {"X-Deployment": "a/b"}
    copy = pickle.loads(pickle.dumps(inner))
    with pytest.raises(ors_gym.InvalidRequestError, match="do not travel in a pickle"):
        copy.reset()


def test_a_pickled_env_is_made_anew(env: Any) -> None:
    env.reset(seed=3)
    copy = pickle.loads(pickle.dumps(env))
    assert copy.session_id is None
    assert copy.reset(seed=4)[0] == "4 + 4 = ?"
    copy.close()
    assert env.step(ADD)[0] == "3"


@pytest.mark.parametrize("copy", ["pickle", "spec"])
def test_a_copy_of_an_env_with_a_client_plays_on_its_server(server, copy, closing):
    with ors_gym.ORSClient(server.base_url, api_key="KEY-hunter22") as client:
        if copy == "pickle":
            env = closing(ors_gym.ORSEnv("contract", client=client))
            written = pickle.dumps(env)
            again = closing(pickle.loads(written))
        else:
            # Its id names the embedded server.
            made = gym.make("ors/math", env_name="contract", client=client)
            spec = closing(made).spec
            assert spec is not None
            written = spec.to_json().encode()
            again = closing(gym.make(spec)).unwrapped
    assert b"hunter22" not in written
    assert again.base_url == server.base_url
    assert again.reset(seed=4)[0] == "4 + 4 = ?"


def test_a_forked_child_leaves_the_parents_session_alone(env, server):
    env.reset(seed=0)
    with warnings.catch_warnings():
        # Newer Pythons warn of a fork beside threads, which is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        code = 1
        try:
            with pytest.raises(ors_gym.EpisodeOverError, match="forked"):
                env.step(ADD)
            env.reset(seed=1)
            code = 0 if env.step(ADD)[0] == "3" else 2
            env.close()
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert env.step(ADD)[0] == "3"
    assert len(server.log("teardown")) == 1


def test_inside_a_running_event_loop(server: RunningServer) -> None:
    async def play() -> float:
        env = ors_gym.ORSEnv("contract", server.base_url)
        env.reset(seed=0)
        reward = env.step(SUBMIT)[1]
        env.close()
        return float(reward)

    assert asyncio.run(play()) == 1.0


def test_the_async_env_follows_the_same_rules(server: RunningServer) -> None:
    async def play() -> list[Any]:
        async with ors_gym.AsyncORSEnv(
            "contract", server.base_url, prefetch=True, render_mode="ansi"
        ) as env:
            with pytest.raises(ors_gym.EpisodeOverError):
                await env.step(ADD)
            seen = [(await env.reset(seed=2))[0], (await env.reset())[0]]
            assert env.action_space.contains(ADD)
            assert await env.count_tasks() == 12
            assert (await env.get_task() or {})["id"] == "train-3"
            seen += ((await env.step("nonsense"))[4]["error_kind"],)
            seen += (await env.step(ADD))[:4]
            assert "add(a=1, b=2)" in (env.render() or "")
            return seen

    played = asyncio.run(play())
    assert played[:3] == ["2 + 2 = ?", "3 + 3 = ?", "invalid_action"]
    assert played[3:] == ["3", 0.5, False, False]
    server.wait_until_none_is_open()


def test_render(server: RunningServer, capsys: pytest.CaptureFixture[str]) -> None:
    env = ors_gym.ORSEnv("contract", server.base_url, render_mode="ansi")
    env.reset(seed=1)
    env.step(ADD)
    assert env.render() == "1 + 1 = ?\n\n> add(a=1, b=2)\n3\n[reward 0.5]"
    env.close()
    env = ors_gym.ORSEnv("contract", server.base_url, render_mode="human")
    env.reset(seed=1)
    env.step(SUBMIT)
    env.close()
    printed = capsys.readouterr().out
    assert printed.startswith("1 + 1 = ?")
    assert "finished" in printed
    with pytest.raises(ors_gym.InvalidRequestError, match="render_mode"):
        ors_gym.ORSEnv("contract", server.base_url, render_mode="png")


def test_images_as_arrays(env: Any, server: RunningServer) -> None:
    seeing = ors_gym.ORSEnv("contract", server.base_url, observation_mode="dict")
    observation, _ = seeing.reset(seed=0)
    assert observation == {"images": (), "text": "0 + 0 = ?"}
    observation, *_ = seeing.step({"tool": "image", "input": {}})
    (image,) = observation["images"]
    assert (image.dtype, image.shape[2]) == (np.uint8, 3)
    assert observation in seeing.observation_space
    seeing.close()
    env.reset(seed=0)
    assert "[image: image/png, " in env.step({"tool": "image", "input": {}})[0]
