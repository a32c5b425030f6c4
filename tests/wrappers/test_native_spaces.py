"""A served Gymnasium env as it was: spaces, values, flags, infos, errors."""

import json
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.spaces import Discrete

from ors_gym.env import ORSEnv
from ors_gym.errors import (
    EpisodeOverError,
    InvalidArgumentError,
    InvalidRequestError,
    ProtocolError,
    ToolFailedError,
)
from ors_gym.spaces import ToolCallSpace
from ors_gym.wrappers import NativeSpaces
from ors_gym.wrappers._native_spaces import NativeView
from tests.support.gymnasium_envs import Nested
from tests.support.identical import identical
from tests.support.side_by_side import check_cleanly, play_side_by_side
from tests.support.slow_cases import mostly_slow
from tests.wrappers.test_copies import by_pickle, by_spec

NATIVE: dict[str, Any] = {
    "cartpole-v1": lambda: gym.make("CartPole-v1"),
    "frozenlake-v1": lambda: gym.make("FrozenLake-v1"),
    "blackjack-v1": lambda: gym.make("Blackjack-v1"),
    "nested": Nested,
}


@pytest.fixture
def make(native_url, closing):
    def make(name: str, **arguments: Any) -> Any:
        where = {"env_name": name, "base_url": native_url}
        return closing(NativeSpaces(gym.make("ors/remote", **where, **arguments)))

    return make


@pytest.mark.slow
@pytest.mark.parametrize("name", NATIVE)
def test_every_bit_is_that_of_the_env_itself(make, name):
    native = NATIVE[name]()
    steps = 300 if name in ("cartpole-v1", "frozenlake-v1") else 150
    assert play_side_by_side(make(name), native, steps=steps) >= 3


@pytest.mark.parametrize("name", mostly_slow(["nested", "cartpole-v1", "blackjack-v1"]))
def test_gymnasium_finds_nothing_wrong(make, name):
    check_cleanly(make(name))


def test_text_actions_and_dict_observations_make_no_difference(make):
    env = make("cartpole-v1", action_mode="text", observation_mode="dict")
    play_side_by_side(env, gym.make("CartPole-v1"), steps=20)


@pytest.mark.parametrize("copy", [by_spec, by_pickle])
def test_a_copy_plays_alike(make, closing, copy):
    env = make("cartpole-v1")
    again = closing(copy(env))
    assert identical(env.reset(seed=5)[0], again.reset(seed=5)[0])
    assert identical(env.step(1)[:4], again.step(1)[:4])


def test_beside_the_info_is_that_of_the_ors_env(make):
    env = make("frozenlake-v1")
    _, info = env.reset(seed=5)
    assert info["prob"] == 1
    assert info["ors"]["task_index"] == 5
    *_, info = env.step(0)
    assert (info["ors"]["tool"], info["ors"]["error_kind"]) == ("step", "")
    assert "terminated" in info["ors"]["metadata"]


def test_resets_without_a_seed_go_on(make):
    env, native = make("cartpole-v1"), gym.make("CartPole-v1")
    env.reset(seed=5)
    assert identical(env.reset()[0], native.reset(seed=6)[0])
    # Without any seed the first is drawn.
    assert not identical(make("cartpole-v1").reset()[0], make("cartpole-v1").reset()[0])


def test_options_reach_the_env(make):
    env, native = make("cartpole-v1"), gym.make("CartPole-v1")
    options = {"low": np.float32(0.1), "high": 0.2}
    expected = native.reset(seed=2**31, options=options)[0]
    assert identical(env.reset(seed=2**31, options=options)[0], expected)
    nested = make("nested")
    _, info = nested.reset(options={"where": (1, np.arange(3))})
    assert identical(info["options"], {"where": (1, np.arange(3))})
    assert info["seed"] is not None
    with pytest.raises(InvalidArgumentError, match="options of a reset"):
        env.reset(options={"low": object()})
    # Those of ORSEnv choose a task.
    expected = native.reset(seed=8)[0]
    assert identical(env.reset(options={"task_index": 8})[0], expected)


@pytest.mark.parametrize("prefetch", [False, True])
def test_a_reset_with_options_takes_a_place_of_the_order(make, prefetch):
    env = make("nested", prefetch=prefetch)
    options = {"low": 1}
    infos = [
        env.reset(seed=5, options=options)[1],
        env.reset()[1],
        env.reset(options=options)[1],
        env.reset(options=options)[1],
        env.reset()[1],
    ]
    assert [info["seed"] for info in infos] == [5, 6, 7, 8, 9]
    assert [info["options"] for info in infos] == [
        options,
        None,
        options,
        options,
        None,
    ]


def test_options_without_a_seed_keep_to_the_split_and_the_set_of_tasks(make):
    env = make("nested", split="test", tasks=range(3, 5))
    first, second = env.reset(options={"low": 1})[1], env.reset()[1]
    assert {first["seed"], second["seed"]} == {2**30 + 2**29 + i for i in (3, 4)}


@pytest.mark.parametrize(
    ("name", "action", "said"),
    [
        ("cartpole-v1", 2, "2 is not in Discrete"),
        ("cartpole-v1", "left", "'left' is not of Discrete"),
        ("cartpole-v1", None, "None is not of Discrete"),
        ("nested", {"box": 1}, "is not of Dict"),
    ],
)
def test_what_is_no_action_raises_and_nothing_happens(make, name, action, said):
    env, native = make(name), NATIVE[name]()
    env.reset(seed=1)
    native.reset(seed=1)
    with pytest.raises(InvalidArgumentError, match=said):
        env.step(action)
    native.action_space.seed(3)
    good = native.action_space.sample()
    assert identical(env.step(good)[0], native.step(good)[0])


@pytest.mark.parametrize("counted_by", ["Gymnasium", "the env"])
def test_what_is_no_action_raises_at_the_limit_of_steps_too(
    make, native_url, closing, counted_by
):
    if counted_by == "Gymnasium":
        env = make("cartpole-v1", max_episode_steps=1)
    else:
        inner = ORSEnv("cartpole-v1", native_url, max_episode_steps=1)
        env = closing(NativeSpaces(inner))
    env.reset(seed=1)
    with pytest.raises(InvalidArgumentError, match="7 is not in Discrete"):
        env.step(7)


def test_an_env_that_raises_raises_here(make):
    env = make("step_raises")
    env.reset(seed=0)
    with pytest.raises(ToolFailedError, match="step said no"):
        env.step(1)
    assert env.step(0)[1] == 1


def test_where_an_error_ends_the_episode_the_last_observation_is_repeated(make):
    env = make("step_raises", on_tool_error="truncate")
    first, _ = env.reset(seed=0)
    observation, reward, terminated, truncated, info = env.step(1)
    assert identical(observation, first)
    assert observation is not first
    assert (reward, terminated, truncated) == (0.0, False, True)
    assert info["ors"]["error_kind"] == "tool_failed"
    with pytest.raises(EpisodeOverError):
        env.step(0)


def test_a_limit_of_steps_truncates(make):
    env = make("frozenlake-v1", max_episode_steps=2)
    env.reset(seed=0)
    assert env.step(0)[2:4] == (False, False)
    assert env.step(0)[2:4] == (False, True)


def test_an_env_that_is_no_gymnasium_env_is_an_error():
    env = gym.make("ors/guess")
    with pytest.raises(InvalidRequestError, match="no Gymnasium environment"):
        NativeSpaces(env)
    env.close()
    with pytest.raises(InvalidRequestError, match="not tool calls"):
        NativeSpaces(gym.make("CartPole-v1"))


def view_of(described: Any) -> NativeView:
    schema = {"type": "object", "x-gymnasium": described}
    tool: Any = {"name": "step", "description": "", "input_schema": schema}
    return NativeView(ToolCallSpace([tool]))


@pytest.mark.unit
@pytest.mark.parametrize(
    "described", [{}, {"action_space": 3}, {"action_space": {"space": "Unheard"}}]
)
def test_spaces_that_cannot_be_read_are_an_error(described):
    with pytest.raises(ProtocolError, match="spaces that cannot be read"):
        view_of(described)


SPACE = {"space": "Discrete", "n": 2, "start": 0, "dtype": "<i8"}


@pytest.mark.unit
@pytest.mark.parametrize(
    "metadata",
    [
        {},
        {"observation": {"@odd": 1}, "info": {}},
        {"observation": 1, "info": 3},
        {"observation": 1},
        {"observation": 1, "info": {"@array": {}}},
    ],
    ids=json.dumps,
)
def test_a_reply_that_cannot_be_read_is_an_error(metadata):
    view = view_of({"action_space": SPACE, "observation_space": SPACE})
    info = {"error_kind": "", "metadata": metadata, "blocks": []}
    with pytest.raises(ProtocolError):
        view.stepped(info, 0, over=False)
    prompt = {**info, "blocks": [{"type": "text", "text": "", "detail": metadata}]}
    with pytest.raises(ProtocolError):
        view.begun(prompt, 0)


@pytest.mark.unit
def test_a_failed_reset_shows_nothing_of_the_space():
    view = view_of({"action_space": SPACE, "observation_space": SPACE})
    info = {"error_kind": "connection", "metadata": {}, "blocks": []}
    observation, shown = view.begun(info, view.nothing())
    assert observation in Discrete(2)
    assert list(shown) == ["ors"]


@pytest.mark.parametrize("reward", ["much", None, [1, 2]])
def test_a_reward_that_is_no_number_is_an_error(reward):
    info = {"metadata": {"terminated": True, "reward": reward}}
    with pytest.raises(ProtocolError, match="no number"):
        NativeView.judge(info, 0.0, False, False)
