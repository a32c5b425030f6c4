"""The twin of ``NativeSpaces`` behaves as a vector env of the native envs does."""

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from ors_gym.errors import InvalidArgumentError, ToolFailedError
from ors_gym.vector import ORSVectorEnv
from ors_gym.wrappers import vector
from tests.support.gymnasium_envs import Nested
from tests.support.identical import identical

COUNT = 3
NATIVE: dict[str, Any] = {
    "cartpole-v1": lambda: gym.make("CartPole-v1"),
    "blackjack-v1": lambda: gym.make("Blackjack-v1"),
    "nested": Nested,
}


class Seeded(gym.Wrapper[Any, Any, Any, Any]):
    """Resets the native env with the seed of the task that the ORS env plays then."""

    def __init__(self, env: Any, place: int) -> None:
        super().__init__(env)
        self._seed = place

    def reset(self, *, seed=None, options=None):
        del seed, options
        result = self.env.reset(seed=self._seed)
        self._seed += COUNT
        return result


def native(name: str, mode: AutoresetMode) -> Any:
    makers = [
        lambda place=place: Seeded(NATIVE[name](), place) for place in range(COUNT)
    ]
    return SyncVectorEnv(makers, autoreset_mode=mode)


def without_ors(infos: dict[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in infos.items() if key not in ("ors", "_ors")}
    if "final_info" in kept:
        kept["final_info"] = without_ors(kept["final_info"])
    # A key that is no text is not carried.
    return {key: value for key, value in kept.items() if key not in (5, "_5")}


# Each env and each mode is in one of the quick cases.
QUICK = dict(zip(NATIVE, AutoresetMode, strict=True))
CASES = [
    pytest.param(name, mode, marks=() if QUICK[name] is mode else pytest.mark.slow)
    for name in NATIVE
    for mode in AutoresetMode
]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), CASES)
def test_it_is_as_a_vector_env_of_native_envs(native_url, closing, name, mode):
    envs = ORSVectorEnv(name, native_url, COUNT, autoreset_mode=mode)
    envs, others = closing(vector.NativeSpaces(envs)), closing(native(name, mode))
    assert envs.single_observation_space == others.single_observation_space
    assert envs.action_space == others.action_space
    others.action_space.seed(1)
    ours, theirs = envs.reset(seed=0), others.reset()
    ended = 0
    for _ in range(40):
        assert identical(ours[0], theirs[0])
        assert [
            np.array_equal(a, b, equal_nan=True)
            for a, b in zip(ours[1:-1], theirs[1:-1], strict=True)
        ].count(False) == 0
        assert identical(without_ors(ours[-1]), without_ors(theirs[-1]))
        over = theirs[2] | theirs[3] if len(theirs) == 5 else np.zeros(COUNT, bool)
        ended += over.sum()
        if mode is AutoresetMode.DISABLED and over.any():
            masks = [{"reset_mask": over.copy()} for _ in range(2)]
            ours, theirs = envs.reset(options=masks[0]), others.reset(options=masks[1])
            continue
        actions = others.action_space.sample()
        ours, theirs = envs.step(actions), others.step(actions)
    assert ended >= 2


def test_results_come_as_they_are_ready(native_url, closing):
    envs = closing(vector.NativeSpaces(ORSVectorEnv("cartpole-v1", native_url, COUNT)))
    envs.reset(seed=0)
    envs.send(np.array([1, 0]), [2, 0])
    seen: dict[int, Any] = {}
    while len(seen) < 2:
        observations, rewards, *_, infos = envs.recv()
        assert observations.dtype == np.float32
        seen |= dict(zip(infos["env_id"].tolist(), observations, strict=True))
        assert rewards.tolist() == [1.0] * len(rewards)
    for place, action in ((2, 1), (0, 0)):
        other = gym.make("CartPole-v1")
        other.reset(seed=place)
        assert identical(seen[place], other.step(action)[0])


def test_what_are_no_actions_is_an_error(native_url, closing):
    envs = closing(vector.NativeSpaces(ORSVectorEnv("cartpole-v1", native_url, COUNT)))
    envs.reset(seed=0)
    for actions in (None, 1, np.array(1)):
        with pytest.raises(InvalidArgumentError, match="are not of MultiDiscrete"):
            envs.step(actions)


@pytest.mark.parametrize("mode", AutoresetMode)
def test_what_is_no_action_raises_at_the_limit_of_steps_too(native_url, closing, mode):
    limits: Any = {"max_episode_steps": 1, "autoreset_mode": mode}
    remote = ORSVectorEnv("cartpole-v1", native_url, COUNT, **limits)
    envs = closing(vector.NativeSpaces(remote))
    envs.reset(seed=0)
    with pytest.raises(InvalidArgumentError, match="7 is not in Discrete"):
        envs.step([0, 7, 0])


def test_an_env_that_raises_raises_here(native_url, closing):
    envs = closing(vector.NativeSpaces(ORSVectorEnv("step_raises", native_url, COUNT)))
    envs.reset(seed=0)
    with pytest.raises(ToolFailedError, match="step said no"):
        envs.step(np.array([0, 1, 0]))


@pytest.mark.parametrize("way", ["step", "send"])
def test_an_episode_that_ends_as_another_env_raises_is_followed_by_a_prompt(
    native_url, closing, way
):
    remote = ORSVectorEnv("step_raises", native_url, 2, on_tool_error="raise")
    envs = closing(vector.NativeSpaces(remote))
    envs.reset(seed=0)
    for _ in range(3):
        envs.step([0, 0])
    # The fourth step is the last one.
    with pytest.raises(ToolFailedError, match="step said no"):
        envs.step([1, 0])
    if way == "send":
        envs.send([0, 0])
    *_, infos = results = envs.recv(2) if way == "send" else envs.step([0, 0])
    order = np.argsort(infos.get("env_id", [0, 1]))
    assert results[1][order].tolist() == [1, 0]
    assert [infos["ors"][row]["task_index"] for row in order] == [0, 3]
    assert envs.step([0, 0])[1].tolist() == [1, 1]


def test_where_an_error_ends_the_episode_the_last_observation_is_repeated(
    native_url, closing
):
    remote = ORSVectorEnv("step_raises", native_url, COUNT, on_tool_error="truncate")
    envs = closing(vector.NativeSpaces(remote))
    first, _ = envs.reset(seed=0)
    observations, rewards, terminations, truncations, infos = envs.step([0, 1, 0])
    assert identical(observations, first)
    assert rewards.tolist() == [1, 0, 1]
    assert not terminations.any()
    assert truncations.tolist() == [False, True, False]
    assert infos["ors"][1]["error_kind"] == "tool_failed"
    with pytest.raises(InvalidArgumentError, match="is not in Discrete"):
        envs.step([99, 0, 0])
