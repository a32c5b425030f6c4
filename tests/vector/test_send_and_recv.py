"""Actions sent without waiting, and results in the order in which they come."""

import contextlib
from typing import Any

import numpy as np
import pytest
from gymnasium.error import AlreadyPendingCallError, NoAsyncCallError

import ors_gym
from ors_gym.vector import ORSVectorEnv
from tests.support.proxy.faults import Point, Reset, Stall
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.vector.same_results import (
    ENVS,
    MARKED,
    is_marked,
    make_vector,
    open_envs,
    submit,
)

COUNT = {"tool": "count", "input": {}}


def receive(envs: ORSVectorEnv, env_id: int) -> tuple[int, Any]:
    """Receive until a result of the env is there; return its place in the results."""
    while True:
        results = envs.recv()
        ids = results[4]["env_id"].tolist()
        if env_id in ids:
            return ids.index(env_id), results


def test_no_env_waits_for_another(proxy: FaultProxy) -> None:
    with open_envs(proxy.url) as envs:
        proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
        envs.send([COUNT, MARKED, COUNT, COUNT])
        done = np.zeros(ENVS, dtype=int)
        while done[[0, 2, 3]].min() < 5:
            observations, rewards, *_, infos = envs.recv()
            ids = infos["env_id"]
            assert len(set(ids.tolist())) == len(ids) == len(observations)
            done[ids] += 1
            assert [str(done[i]) for i in ids] == list(observations)
            assert rewards.tolist() == [1.0] * len(ids)
            envs.send([COUNT] * len(ids), ids)
        assert done[1] == 0
        proxy.release()
        got: set[int] = set()
        while len(got) < ENVS:
            observations, *_, infos = envs.recv()
            got |= set(infos["env_id"].tolist())
            if 1 in infos["env_id"]:
                place = infos["env_id"].tolist().index(1)
                assert observations[place] == "7777"
        assert got == {0, 1, 2, 3}
        with pytest.raises(NoAsyncCallError):
            envs.recv()


def test_results_come_in_the_order_of_completion(proxy: FaultProxy) -> None:
    with open_envs(proxy.url) as envs:
        proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
        envs.send([MARKED, COUNT, COUNT, COUNT])
        first = envs.recv(3)[4]["env_id"].tolist()
        assert sorted(first) == [1, 2, 3]
        proxy.release()
        envs.send([COUNT], np.array([2]))
        results = envs.recv(2)
        order = results[4]["env_id"].tolist()
        assert sorted(order) == [0, 2]
        assert results[4]["env_id"].dtype == np.int64
        assert results[0][order.index(0)] == "7777"


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_an_end_is_followed_as_the_mode_says(one_server: RunningServer, mode: str):
    with open_envs(one_server.base_url, num_envs=2, autoreset_mode=mode) as envs:
        envs.send([submit(0), COUNT], [0, 1])
        place, (observations, rewards, terminations, _, infos) = receive(envs, 0)
        assert terminations[place]
        assert rewards[place] == 1.0
        shown = observations[place]
        if mode == "SameStep":
            assert infos["final_obs"][place] == "right"
            assert infos["final_info"]["tool"][place] == "submit"
        elif mode == "NextStep":
            envs.send([submit("ignored")], [0])
            place, (observations, rewards, terminations, _, _) = receive(envs, 0)
            shown = observations[place]
            assert (rewards[place], terminations[place]) == (0.0, False)
        else:
            with pytest.raises(ors_gym.EpisodeOverError):
                envs.send([COUNT], [0])
            mask = np.array([True, False])
            shown = envs.reset(options={"reset_mask": mask})[0][0]
        assert shown == "2 + 2 = ?"
        assert one_server.runs("submit") == 1


def test_misuse_is_told(proxy: FaultProxy) -> None:
    with contextlib.closing(make_vector(proxy.url)) as envs:
        with pytest.raises(NoAsyncCallError, match="send"):
            envs.recv()
        with pytest.raises(ors_gym.EpisodeOverError, match="reset"):
            envs.send([COUNT], [0])
        envs.reset(seed=0)
        proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
        envs.send([MARKED], [1])
        proxy.clear()
        with pytest.raises(AlreadyPendingCallError, match=r"\[1\]"):
            envs.send([COUNT, COUNT], [0, 1])
        with pytest.raises(AlreadyPendingCallError, match="recv"):
            envs.step([COUNT] * ENVS)
        with pytest.raises(NoAsyncCallError, match="2 envs"):
            envs.recv(2)
        with pytest.raises(NoAsyncCallError):
            envs.recv(0)
        wrong: list[Any] = [[4], [-1], [0, 0], [True, False], [0.5], ["a"], [None]]
        wrong.append([10**30])
        for ids in wrong:
            with pytest.raises(ors_gym.InvalidRequestError):
                envs.send([COUNT] * len(ids), ids)
        with pytest.raises(ors_gym.InvalidRequestError, match="1 actions for 2"):
            envs.send([COUNT], [0, 2])
        assert proxy.requests("/call") == []
        # An env that is busy gives up what it does when it is reset.
        observations, _ = envs.reset(seed=4)
        assert observations[1] == "5 + 5 = ?"
        assert envs.step([COUNT] * ENVS)[0] == ("1",) * ENVS


def test_a_masked_reset_leaves_busy_envs_alone(proxy: FaultProxy) -> None:
    with open_envs(proxy.url) as envs:
        proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
        envs.send([MARKED], [1])
        mask = np.array([True, False, False, False])
        observations, infos = envs.reset(options={"reset_mask": mask})
        assert observations == ("4 + 4 = ?", "1 + 1 = ?", "2 + 2 = ?", "3 + 3 = ?")
        assert infos["_tool"].tolist() == mask.tolist()
        proxy.release()
        assert envs.recv()[0] == ("7777",)


def test_async_reset_gives_prompts_to_recv(one_server: RunningServer) -> None:
    with contextlib.closing(make_vector(one_server.base_url)) as envs:
        envs.async_reset(seed=3)
        seen: dict[int, str] = {}
        while len(seen) < ENVS:
            observations, rewards, terminations, truncations, infos = envs.recv()
            assert not (rewards.any() or terminations.any() or truncations.any())
            seen |= zip(infos["env_id"].tolist(), observations, strict=True)
        assert seen == {i: f"{i + 3} + {i + 3} = ?" for i in range(ENVS)}


def test_an_error_of_one_env_keeps_the_results_of_the_others(proxy: FaultProxy) -> None:
    with open_envs(proxy.url, on_error="raise") as envs:
        proxy.plan("/call", [Reset(Point.BEFORE_REPLY)], when=is_marked)
        envs.send([COUNT, COUNT, MARKED, COUNT])
        got: list[int] = []
        errors: list[str] = []
        while len(got) + len(errors) < ENVS:
            try:
                got += envs.recv(ENVS - len(got) - len(errors))[4]["env_id"].tolist()
            except ors_gym.AmbiguousCallError as error:
                errors += error.__notes__
        assert sorted(got) == [0, 1, 3]
        assert errors == ["in env 2 of the vector env"]
        with pytest.raises(ors_gym.EpisodeOverError):
            envs.send([COUNT], [2])
        envs.send([COUNT] * 3, [0, 1, 3])
        assert envs.recv(3)[0] == ("2",) * 3
