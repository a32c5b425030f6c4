"""Scripted episodes through Gymnasium's vector env and ours give the same."""

from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import pytest
from gymnasium.vector import AutoresetMode
from gymnasium.vector.utils import batch_space

from tests.support.servers.process import RunningServer
from tests.support.slow_cases import mostly_slow
from tests.vector.same_results import ENVS, assert_same, playing_both, submit

MODES = list(AutoresetMode)


def draw_action(draw: Random) -> Any:
    """Draw a call, a mistake, a tool that fails, or the end of the episode."""
    return draw.choice(
        [
            submit(2 * draw.randrange(12)),
            {"tool": "add", "input": {"a": draw.randrange(9), "b": 1}},
            {"tool": "add", "input": {"a": "no number"}},
            '{"name": "count", "arguments": {}}',
            {"tool": "image", "input": {}},
            {"tool": "metadata", "input": {}},
            {"tool": "reward", "input": {"kind": "none"}},
            {"tool": "fail", "input": {"message": "on purpose"}},
            {"tool": "nonesuch", "input": {}},
            "just text",
            "",
        ]
    )


def play_both(theirs: Any, ours: Any, draw: Random, steps: int) -> int:
    """Step both with the same actions, reset what ended, and count the ends."""
    mode = ours.metadata["autoreset_mode"]
    ends = 0
    for _ in range(steps):
        actions = tuple(draw_action(draw) for _ in range(ENVS))
        expected = theirs.step(actions)
        assert_same(expected, ours.step(actions))
        over = expected[2] | expected[3]
        ends += int(over.sum())
        if mode is AutoresetMode.DISABLED and over.any():
            again = theirs.reset(options={"reset_mask": over})
            assert_same(again, ours.reset(options={"reset_mask": over}))
    return ends


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("observation_mode", "order"),
    mostly_slow([("text", "shuffle"), ("text", "sequential"), ("dict", "random")]),
)
def test_the_same_episodes(one_server, mode, observation_mode, order):
    draw = Random(f"{mode}{observation_mode}{order}")
    arguments: Any = {"observation_mode": observation_mode, "task_order": order}
    both = playing_both(one_server, mode, max_episode_steps=5, **arguments)
    with both as (theirs, ours):
        assert_same(theirs.reset(seed=5), ours.reset(seed=5))
        ends = play_both(theirs, ours, draw, 12)
        assert ends > ENVS
        # Without a seed both go on from where they are.
        assert_same(theirs.reset(), ours.reset())
        seeds = [3, None, 11, None]
        assert_same(theirs.reset(seed=seeds), ours.reset(seed=seeds))
        play_both(theirs, ours, draw, 4)
        assert theirs.np_random_seed[0] == ours.np_random_seed[0] == 3
        assert theirs.np_random_seed[2] == ours.np_random_seed[2] == 11


@pytest.mark.parametrize("mode", MODES)
def test_the_same_metadata_and_spaces(one_server: RunningServer, mode: AutoresetMode):
    with playing_both(one_server, mode) as (theirs, ours):
        assert ours.metadata["autoreset_mode"] is mode
        for name in ("single_action_space", "single_observation_space"):
            assert getattr(ours, name) == getattr(theirs, name)
        assert ours.action_space == theirs.action_space
        assert ours.observation_space == theirs.observation_space
        single = ours.single_action_space
        assert ours.action_space == batch_space(single, ENVS)
        theirs.action_space.seed(3)
        ours.action_space.seed(3)
        assert theirs.action_space.sample() == ours.action_space.sample()
        observations, _ = ours.reset(seed=1)
        assert observations in ours.observation_space


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"task_index": 7},
        {"split": "test"},
        {"split": "test", "task_index": 2},
        {"task": {"id": "mine", "question": "mine?", "answer": "yes"}},
        {"reset_mask": np.array([False, True, True, False])},
        {"reset_mask": np.array([True, False, False, False]), "split": "validation"},
    ],
)
def test_the_same_options(one_server: RunningServer, options: dict[str, Any]) -> None:
    with playing_both(one_server, AutoresetMode.NEXT_STEP) as (theirs, ours):
        assert_same(theirs.reset(seed=0), ours.reset(seed=0))
        given = dict(options)
        assert_same(theirs.reset(options=dict(options)), ours.reset(options=given))
        assert given.keys() == options.keys()
        step = (submit(4),) * ENVS
        assert_same(theirs.step(step), ours.step(step))


@pytest.mark.parametrize("mode", MODES)
def test_the_same_attributes(one_server: RunningServer, mode: AutoresetMode) -> None:
    with playing_both(one_server, mode, render_mode="ansi") as (theirs, ours):
        assert_same(theirs.reset(seed=2), ours.reset(seed=2))
        actions = ({"tool": "count", "input": {}},) * ENVS
        assert_same(theirs.step(actions), ours.step(actions))
        for name in ("tools", "task", "num_tasks", "splits", "render_mode", "base_url"):
            assert_same(theirs.get_attr(name), ours.get_attr(name), name)
        assert theirs.render() == ours.render() == ours.call("render")
        for envs in (theirs, ours):
            envs.call("set_tasks", [9, 4])
            envs.set_attr("note", ["a", "b", "c", "d"])
        assert ours.get_attr("note") == theirs.get_attr("note") == ("a", "b", "c", "d")
        assert_same(theirs.reset(), ours.reset())
        assert_same(theirs.get_attr("num_tasks"), ours.get_attr("num_tasks"))


def test_a_curriculum_sees_the_same_history(one_server: RunningServer) -> None:
    seen: dict[str, list[Any]] = {"theirs": [], "ours": []}

    def curriculum(name: str) -> Callable[[np.random.Generator, Any], int]:
        def choose(random: np.random.Generator, history: Any) -> int:
            seen[name].append(history)
            return int(random.integers(12))

        return choose

    with playing_both(one_server, AutoresetMode.SAME_STEP) as (theirs, ours):
        theirs.call("set_tasks", curriculum("theirs"))
        ours.call("set_tasks", curriculum("ours"))
        assert_same(theirs.reset(seed=4), ours.reset(seed=4))
        for answer in (0, 8, 4, 2):
            step = (submit(answer),) * ENVS
            assert_same(theirs.step(step), ours.step(step))
    assert len(seen["ours"]) == 5 * ENVS
    assert sorted(map(repr, seen["ours"])) == sorted(map(repr, seen["theirs"]))
