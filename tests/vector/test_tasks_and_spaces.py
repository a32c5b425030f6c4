"""Which tasks the envs of a vector env play, and what they can be told to do."""

import contextlib
from typing import Any

import numpy as np
import pytest

from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.vector.same_results import ADD, ENVS, make_vector, open_envs, submit


def test_unseeded_vector_envs_start_apart_and_play_different_tasks(one_server):
    starts = set()
    for _ in range(8):
        with contextlib.closing(make_vector(one_server.base_url, num_envs=2)) as envs:
            first, second = envs.reset()[1]["task_index"].tolist()
            assert first != second
            starts.add(first)
    assert len(starts) > 1


def test_vector_envs_may_share_a_set_of_tasks(one_server: RunningServer) -> None:
    played: list[int] = []
    for rank in range(3):
        arguments: Any = {"task_offset": rank, "task_stride": 3}
        envs = make_vector(one_server.base_url, num_envs=2, **arguments)
        with contextlib.closing(envs):
            # Unseeded they agree on a start; seeds count on from vector env to next.
            for seed in (None, None, 2 * rank, None):
                played += envs.reset(seed=seed)[1]["task_index"].tolist()
    by_round = [
        {played[8 * r + 2 * k + i] for r in range(3) for i in range(2)}
        for k in range(4)
    ]
    assert by_round[0] | by_round[1] == set(range(12))
    assert by_round[2] == set(range(6))
    assert by_round[3] == set(range(6, 12))


@pytest.mark.parametrize(
    "actions",
    [
        (ADD,) * ENVS,
        [ADD] * ENVS,
        np.array([ADD] * ENVS, dtype=object),
        ['{"tool": "add", "input": {"a": 1, "b": 2}}'] * ENVS,
        np.array(['{"name": "add", "arguments": {"a": 1, "b": 2}}'] * ENVS),
    ],
)
def test_actions_of_any_form(one_server: RunningServer, actions: Any) -> None:
    with open_envs(one_server.base_url) as envs:
        assert envs.step(actions)[0] == ("3",) * ENVS


@pytest.mark.parametrize("mode", ["tool_call", "text"])
def test_sampled_actions_are_valid_calls(one_server: RunningServer, mode: str) -> None:
    with open_envs(one_server.base_url, env_name="ListOnly", action_mode=mode) as envs:
        actions = envs.action_space.sample()
        assert actions in envs.action_space
        *_, infos = envs.step(actions)
        assert infos["tool"].tolist() == ["submit"] * ENVS
        assert infos["error_kind"].tolist() == [""] * ENVS


@pytest.mark.parametrize("mode", ["tool_call", "text"])
def test_the_action_space_follows_each_sessions_tools(one_server, mode):
    envs = make_vector(one_server.base_url, env_name="TaskTools", action_mode=mode)
    with contextlib.closing(envs):
        space = envs.action_space
        shared = [tool["name"] for tool in envs.get_attr("tools")[0]]
        assert shared == ["submit"]
        envs.reset(seed=0)
        assert envs.action_space is space
        names = [[tool["name"] for tool in tools] for tools in envs.get_attr("tools")]
        assert [("extra" in own) for own in names] == [False, True, False, True]
        assert all("after_setup" in own for own in names)
        quote = "'" if mode == "tool_call" else '"'
        sampled = [space.sample() for _ in range(40)]
        for i in range(ENVS):
            # {"tool": "name", ...: the fourth piece is the name.
            drawn = {str(actions[i]).split(quote)[3] for actions in sampled}
            assert drawn == set(names[i])
        single: Any = envs.single_action_space
        calls = single.calls if mode == "text" else single
        assert [tool["name"] for tool in calls.tools] == shared
        for name, value in (("extra", "a"), ("after_setup", "b")):
            call = {"tool": name, "input": {"text": value}}
            observations = envs.step([call] * ENVS)[0]
            assert observations[1] == value


def test_each_env_has_its_own_step_limit(one_server: RunningServer) -> None:
    with open_envs(one_server.base_url, num_envs=2, max_episode_steps=2) as envs:
        script = ([submit(0), ADD], [ADD, ADD], [ADD, ADD], [ADD, ADD])
        truncated = [envs.step(actions)[3].tolist() for actions in script]
        assert truncated == [[0, 0], [0, 1], [0, 0], [1, 0]]


def test_sessions_opened_ahead_are_the_ones_played(proxy: FaultProxy) -> None:
    shown: list[list[Any]] = []
    for prefetch in (False, True):
        with contextlib.closing(make_vector(proxy.url, prefetch=prefetch)) as envs:
            played = [envs.reset(seed=3)]
            for _ in range(2):
                played.append(envs.step([submit(0)] * ENVS)[::4])
                played.append(envs.step([ADD] * ENVS)[::4])
            envs.call("set_tasks", range(5, 9))
            played.append(envs.reset())
            shown.append([(p[0], p[1]["task_index"].tolist()) for p in played])
    assert shown[0] == shown[1]


def test_a_split_that_is_asked_for_takes_no_place_of_the_order(one_server):
    with contextlib.closing(make_vector(one_server.base_url, num_envs=2)) as envs:
        infos = [envs.reset(seed=0)[1]]
        infos += [envs.reset(options={"split": "test"})[1] for _ in range(2)]
        infos.append(envs.reset()[1])
        played = [info["task_index"].tolist() for info in infos]
        assert played == [[0, 1], [0, 1], [2, 3], [2, 3]]
        assert infos[2]["split"].tolist() == ["test"] * 2
