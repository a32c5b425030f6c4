"""The twins for vector envs behave as a vector env of wrapped envs does."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium.vector import AsyncVectorEnv, AutoresetMode, SyncVectorEnv
from packaging.version import Version

import ors_gym
from ors_gym.vector import ORSVectorEnv
from ors_gym.wrappers import DiscreteTools, ParsedText, vector
from tests.support.slow_cases import mostly_slow

COUNT = 3
BOUNDS = r"in (\d+)\.\.(\d+), and you have (\d+)"
MODES = list(AutoresetMode)
CALLS = [
    {"tool": "submit", "input": {"answer": "0"}},
    {"tool": "extra", "input": {"text": "x"}},
    {"tool": "after_setup", "input": {"text": "y"}},
]

Wrap = Callable[[Any], Any]


def same(env: Any) -> Any:
    return env


def make_vector(
    kind: str, name: str, mode: AutoresetMode, base_url: Any = None, wrap: Wrap = same
) -> Any:
    if kind == "ors":
        return ORSVectorEnv(name, base_url, COUNT, autoreset_mode=mode)
    there: Any = {"env_name": name, "base_url": base_url, "task_stride": COUNT}

    def make_single(place: int) -> Any:
        return wrap(gym.make("ors/remote", task_offset=place, **there))

    make: Any = SyncVectorEnv if kind == "sync" else AsyncVectorEnv
    makers = [functools.partial(make_single, place) for place in range(COUNT)]
    return make(makers, autoreset_mode=mode)


def flat(infos: dict[str, Any], *keys: str) -> dict[str, Any]:
    """Give the parts of infos that the views are about, where they are filled."""
    kept: dict[str, Any] = {}
    for key in keys:
        if key not in infos:
            continue
        filled = infos[f"_{key}"]
        values = infos[key]
        if isinstance(values, dict):
            kept[key] = flat(values, "action_mask", "error_kind", "task_index")
        else:
            rows = np.flatnonzero(filled[:COUNT]).tolist()
            kept[key] = {i: np.asarray(values[i]).tolist() for i in rows}
    return kept


def play(envs: Any, actions: np.ndarray, seed: int) -> Iterator[Any]:
    """Play and give all that the views touch, resetting by mask where nobody does."""
    keys = ("action_mask", "error_kind", "task_index", "final_obs", "final_info")
    observations, infos = envs.reset(seed=seed)
    assert observations in envs.observation_space
    yield np.asarray(observations).tolist(), flat(infos, *keys)
    for row in actions:
        observations, rewards, terminated, truncated, infos = envs.step(row)
        assert observations in envs.observation_space
        over = terminated | truncated
        seen = np.asarray(observations).tolist(), rewards.tolist(), over.tolist()
        yield *seen, flat(infos, *keys)
        if envs.metadata["autoreset_mode"] is AutoresetMode.DISABLED and over.any():
            observations, infos = envs.reset(options={"reset_mask": over.copy()})
            yield np.asarray(observations).tolist(), flat(infos, *keys)


def both(env: Any) -> Any:
    return DiscreteTools(ParsedText(env, BOUNDS))


def numbered(env: Any) -> Any:
    return DiscreteTools(env, CALLS)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", ["sync", "async", "ors"])
def test_twins_are_as_wrapped_envs(kind, mode, closing):
    # Guesses come at random, and now and then one that is none.
    actions = np.random.default_rng(4).integers(0, 17, (25, COUNT))
    wrapped = closing(make_vector("sync", "guess", mode, wrap=both))
    expected = list(play(wrapped, actions, seed=5))
    has_finals = any("final_obs" in step[-1] for step in expected)
    assert has_finals is (mode is AutoresetMode.SAME_STEP)
    assert sum(sum(step[2]) for step in expected if len(step) == 4) >= 5
    for wrap in (
        lambda envs: vector.DiscreteTools(vector.ParsedText(envs, BOUNDS)),
        lambda envs: vector.ParsedText(vector.DiscreteTools(envs), BOUNDS),
    ):
        envs = wrap(make_vector(kind, "guess", mode))
        assert envs.single_action_space == gym.spaces.Discrete(16)
        assert envs.observation_space.shape == (COUNT, 3)
        played = list(play(envs, actions, seed=5))
        envs.close()
        assert played == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("kind", mostly_slow(["ors", "sync", "async"]))
def test_masks_follow_the_sessions(server, kind, mode, closing):
    actions = np.array([[2, 2, 2], [0, 1, 2], [2, 0, 1], [1, 1, 0], [0, 0, 0], [1] * 3])
    wrapped = closing(make_vector("sync", "TaskTools", mode, server.base_url, numbered))
    expected = list(play(wrapped, actions, seed=1))
    masks = [step[-1]["action_mask"] for step in expected]
    assert masks[0] == {0: [1, 1, 1], 1: [1, 0, 1], 2: [1, 1, 1]}
    assert any(mask.get(0) == [1, 0, 1] for mask in masks)
    envs = make_vector(kind, "TaskTools", mode, server.base_url)
    envs = closing(vector.DiscreteTools(envs, CALLS))
    server.mark()
    played = list(play(envs, actions, seed=1))
    assert played == expected


def test_send_and_recv_give_what_step_gives(closing):
    actions = np.random.default_rng(2).integers(0, 16, (30, COUNT))

    def make() -> Any:
        envs = make_vector("ors", "guess", AutoresetMode.NEXT_STEP)
        return vector.DiscreteTools(vector.ParsedText(envs, BOUNDS))

    envs = closing(make())
    lockstep: list[list[Any]] = [[row.tolist()] for row in envs.reset(seed=3)[0]]
    for row in actions:
        results = envs.step(row)
        for i in range(COUNT):
            lockstep[i].append((results[0][i].tolist(), results[1][i], results[2][i]))

    envs = closing(make())
    envs.async_reset(seed=3)
    queued: list[list[Any]] = [[] for _ in range(COUNT)]
    while min(len(steps) for steps in queued) <= len(actions):
        observations, rewards, terminated, _, infos = envs.recv()
        ids = infos["env_id"]
        assert infos["action_mask"].shape == (len(ids), 16)
        for row, i in enumerate(ids):
            value = observations[row].tolist()
            step = (value, rewards[row], terminated[row])
            queued[i].append(step if queued[i] else value)
        going_on = [i for i in ids if len(queued[i]) <= len(actions)]
        if going_on:
            envs.send([actions[len(queued[i]) - 1][i] for i in going_on], going_on)
    assert queued == lockstep


@pytest.mark.parametrize("default", [None, [3, 4]])
def test_an_env_that_was_never_reset_shows_the_default_or_zeros(default, closing):
    envs = make_vector("ors", "guess", AutoresetMode.DISABLED)
    envs = closing(vector.ParsedText(envs, r"in (\d+)\.\.(\d+)", default=default))
    mask = np.array([True, False, True])
    values, _ = envs.reset(seed=7, options={"reset_mask": mask})
    assert values.tolist() == [[1, 16], default or [0, 0], [1, 16]]
    assert envs.reset(seed=7)[0].tolist() == [[1, 16]] * 3


def test_send_needs_an_env_that_has_it(closing):
    envs = make_vector("sync", "blackjack", AutoresetMode.NEXT_STEP)
    envs = closing(vector.DiscreteTools(envs))
    envs.reset(seed=0)
    with pytest.raises(ors_gym.InvalidRequestError, match=r"has no send\(\)"):
        envs.send([0, 0, 0])
    with pytest.raises(ors_gym.InvalidRequestError, match=r"has no send\(\)"):
        envs.recv()


@pytest.mark.parametrize("env_ids", [[99], [-1], [True, False], ["a"]])
def test_indexes_of_no_env(env_ids, closing):
    envs = make_vector("ors", "blackjack", AutoresetMode.NEXT_STEP)
    envs = closing(vector.DiscreteTools(envs))
    envs.reset(seed=0)
    with pytest.raises(ors_gym.InvalidArgumentError, match="env"):
        envs.send([0] * len(env_ids), env_ids)


@pytest.mark.parametrize("actions", [[0, 0], 0, None, [0] * 4])
def test_actions_that_are_not_one_for_each_env(actions, closing):
    envs = make_vector("ors", "blackjack", AutoresetMode.NEXT_STEP)
    envs = closing(vector.DiscreteTools(envs))
    envs.reset(seed=0)
    with pytest.raises(ors_gym.InvalidRequestError, match="for"):
        envs.step(actions)


@pytest.mark.xfail(
    Version(gym.__version__) < Version("1.2.2"),
    raises=KeyError,
    reason="before 1.2.2 Gymnasium's DictInfoToList fails at the infos of its "
    "RecordEpisodeStatistics",
)
def test_twins_stack_with_gymnasiums_vector_wrappers(closing):
    envs = closing(gym.make_vec("ors/guess", num_envs=2))
    envs = gym.wrappers.vector.RecordEpisodeStatistics(envs)
    envs = vector.DiscreteTools(vector.ParsedText(envs, BOUNDS))
    envs = gym.wrappers.vector.TransformReward(envs, lambda rewards: 2 * rewards)
    envs = gym.wrappers.vector.DictInfoToList(envs)
    envs.reset(seed=0)
    lengths = []
    for step in range(20):
        *_, terminated, _, infos = envs.step(np.array([step % 16] * 2))
        assert [info["action_mask"].sum() for info in infos] == [16, 16]
        lengths += [infos[i]["episode"]["l"] for i in range(2) if terminated[i]]
    assert lengths
    assert max(lengths) <= 10


def test_batches_are_the_callers_own(closing):
    envs = closing(make_vector("ors", "guess", AutoresetMode.NEXT_STEP))
    envs = vector.DiscreteTools(vector.ParsedText(envs, BOUNDS))
    observations, infos = envs.reset(seed=7)
    observations[:] = 0
    infos["action_mask"][:] = 0
    observations, *_, infos = envs.step([20] * 3)
    assert observations.tolist() == [[1, 16, 10]] * 3
    assert infos["action_mask"].all()
    assert infos["error_kind"].tolist() == ["invalid_action"] * 3
