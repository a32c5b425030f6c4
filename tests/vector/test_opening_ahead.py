"""The next session of an env is opened once its episode is over, not at its reset."""

import gc
import subprocess
import sys

import numpy as np
import pytest

from ors_gym.client.background import _thread as background_module
from ors_gym.client.background._thread import background
from tests.support.proxy.faults import Point, Reset, Stall
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer
from tests.vector.same_results import ADD, make_vector, open_envs, submit


def test_it_is_set_up_while_nobody_steps(one_server: RunningServer) -> None:
    with open_envs(one_server.base_url, num_envs=3) as envs:
        one_server.mark()
        envs.step([submit(0), ADD, submit(0)])
        one_server.wait_for("prompt", 2)
        opened = {entry["session"] for entry in one_server.log("prompt")}
        observations, *_, infos = envs.step([ADD] * 3)
        # The two that began are those that were opened ahead, and nothing else was.
        assert infos["task_index"].tolist() == [3, 1, 5]
        assert observations[0] == "3 + 3 = ?"
        ids = envs.get_attr("session_id")
        assert {ids[0], ids[2]} == opened
        assert len(one_server.log("construct")) == 2


@pytest.mark.parametrize(
    "arguments",
    [
        {"autoreset_mode": "Disabled"},
        {"autoreset_mode": "SameStep"},
        {"open_ahead": False},
        {"tasks": lambda random, history: len(history)},
    ],
    ids=["disabled", "same step", "switched off", "curriculum"],
)
def test_no_session_is_opened_that_might_be_in_vain(one_server, arguments):
    with open_envs(one_server.base_url, num_envs=2, **arguments) as envs:
        for _ in range(2):
            envs.step([submit(0), ADD])
            if envs.metadata["autoreset_mode"].value == "Disabled":
                mask = {"reset_mask": np.array([True, False])}
                envs.reset(options=mask, seed=5)
            else:
                envs.step([ADD, ADD])
        begun = len(one_server.log("construct"))
    one_server.wait_for("teardown", begun)
    # Two at the reset, and one for each of the two episodes that ended.
    assert begun == 4


@pytest.mark.slow
@pytest.mark.parametrize("way", ["seed", "close", "collect", "set_tasks", "options"])
def test_what_is_not_played_is_deleted(one_server: RunningServer, way: str) -> None:
    envs = make_vector(one_server.base_url, num_envs=2)
    envs.reset(seed=0)
    envs.step([submit(0)] * 2)
    one_server.wait_for("prompt", 4)
    if way == "seed":
        observations, _ = envs.reset(seed=7)
        assert observations[0] == "7 + 7 = ?"
    elif way == "set_tasks":
        envs.call("set_tasks", [8, 9])
        assert envs.step([ADD] * 2)[4]["task_index"].tolist() == [8, 9]
    elif way == "options":
        # One episode outside the order; the one that was opened follows it.
        _, infos = envs.reset(options={"task_index": 11})
        assert infos["task_index"].tolist() == [11, 11]
        envs.step([submit(0)] * 2)
        assert envs.step([ADD] * 2)[4]["task_index"].tolist() == [2, 3]
    if way != "collect":
        envs.close()
    del envs
    gc.collect()
    background().delete_all()
    begun = {entry["session"] for entry in one_server.log("construct")}
    one_server.wait_for("teardown", len(begun))
    assert one_server.open_sessions() == set()
    assert len(begun) == {"seed": 6, "set_tasks": 6, "options": 6}.get(way, 4)


def test_after_an_outage_the_reset_finds_out_by_itself(one_server, proxy):
    with open_envs(proxy.url, num_envs=2) as envs:
        proxy.plan("/call", [Reset(Point.BEFORE_REPLY)])
        *_, truncations, _ = envs.step([ADD, ADD])
        assert truncations.sum() == 1
        assert len(proxy.requests("/create_session")) == 2
        assert not envs.step([ADD, ADD])[3].any()
        assert len(proxy.requests("/create_session")) == 3


def test_one_that_failed_is_opened_again_at_the_reset(one_server, proxy):
    with open_envs(proxy.url, num_envs=2) as envs:
        proxy.plan("/create", [Reset(Point.BEFORE_REPLY)])
        envs.step([submit(0), ADD])
        _, _, _, truncations, infos = envs.step([ADD, ADD])
        assert not truncations.any()
        assert infos["error_kind"].tolist() == ["", ""]
        assert infos["task_index"].tolist() == [2, 1]
        assert envs.step([ADD, ADD])[1].tolist() == [0.5, 0.5]


def test_one_that_the_server_has_lost_is_opened_again(one_server: RunningServer):
    with open_envs(one_server.base_url, num_envs=1) as envs:
        envs.step([submit(0)])
        one_server.wait_for("prompt", 2)
        ahead = envs._slots[0].env._chooser.ahead
        assert ahead is not None
        opened = ahead._pending.result(10).session.state
        # As the heartbeat does when the server answers that it has no such session.
        opened.lost = "the server no longer knows it"
        assert envs.step([ADD])[4]["task_index"].tolist() == [1]
        assert envs.step([ADD])[1].tolist() == [0.5]
        assert envs.get_attr("session_id") != (opened.session_id,)


@pytest.mark.slow
@pytest.mark.timeout(60)
def test_a_slow_create_outlives_the_helper_threads_patience(proxy, monkeypatch):
    # Before it is answered, no session is there to keep the thread at work.
    monkeypatch.setattr(background_module, "_LINGER_SECONDS", 0.1)
    monkeypatch.setattr(background_module, "_TICK_SECONDS", 0.05)
    with open_envs(proxy.url, num_envs=1) as envs:
        proxy.plan("/create", [Stall(Point.BEFORE_REPLY, 2.0)])
        envs.step([submit(0)])
        observations, *_ = envs.step([ADD])
        assert observations[0] == "1 + 1 = ?"


PROGRAM = """
import sys
from ors_gym import ORSVectorEnv
envs = ORSVectorEnv("Contract", sys.argv[1], num_envs=1)
envs.reset(seed=0)
sys.stdin.readline()
envs.step([{"tool": "submit", "input": {"answer": "0"}}])
sys.stdin.readline()
if sys.argv[2] == "close":
    envs.close()
"""


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 30.0])
@pytest.mark.parametrize("way", ["close", "leave"])
def test_a_process_that_ends_meanwhile_leaves_no_session(
    one_server: RunningServer, proxy: FaultProxy, way: str, seconds: float
) -> None:
    command = [sys.executable, "-c", PROGRAM, proxy.url, way]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        one_server.wait_for("prompt", 1)
        proxy.plan("/create", [Stall(Point.BEFORE_REPLY, seconds)])
        assert child.stdin is not None
        child.stdin.write(b"step\n")
        child.stdin.flush()
        proxy.wait_for(2, "/create")
        # Else the delete may come first, and no second session is ever made.
        one_server.wait_for("construct", 2)
        child.communicate(b"end\n", timeout=30)
    assert child.returncode == 0
    # The session of the episode, and the one after it.
    one_server.wait_for("teardown", 2)
    assert one_server.open_sessions() == set()
