"""What breaks one env leaves the others alone."""

import asyncio
import contextlib
import warnings
from typing import Any, Final

import gymnasium as gym
import numpy as np
import pytest

import ors_gym
from tests.support.proxy.faults import Answer, Point, Reset, Stall
from tests.support.proxy.proxy import FaultProxy
from tests.support.servers.process import RunningServer, start_server
from tests.vector.same_results import (
    ADD,
    ENVS,
    MARKED,
    is_marked,
    make_vector,
    open_envs,
    submit,
)


def is_of_task_5(request: Any) -> bool:
    return b'"index": 5' in request.body


@pytest.mark.parametrize("mode", ["NextStep", "SameStep", "Disabled"])
def test_a_lost_call_truncates_only_its_env(one_server, proxy, mode):
    with open_envs(proxy.url, autoreset_mode=mode) as envs:
        proxy.plan("/call", [Reset(Point.BEFORE_REPLY)], when=is_marked)
        results = envs.step([ADD, ADD, MARKED, ADD])
        observations, rewards, terminations, truncations, infos = results
        assert truncations.tolist() == [False, False, True, False]
        assert not terminations.any()
        assert rewards.tolist() == [0.5, 0.5, 0.0, 0.5]
        told = infos["final_info"] if mode == "SameStep" else infos
        assert told["error_kind"][2] == "ambiguous_call"
        if mode == "Disabled":
            mask = np.array([False, False, True, False])
            observations, infos = envs.reset(options={"reset_mask": mask})
        elif mode == "NextStep":
            observations, *_, infos = envs.step([ADD] * ENVS)
        assert observations[2] == "6 + 6 = ?"
        assert infos["error_kind"][2] == ""
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS
    assert one_server.runs("add") == (11 if mode == "NextStep" else 8)


@pytest.mark.slow
def test_all_envs_survive_a_restart_of_the_server() -> None:
    with (
        start_server("ors-sdk-0.1.0", environments=["Contract"]) as server,
        open_envs(server.base_url) as envs,
    ):
        server.restart()
        *_, truncations, infos = envs.step([ADD] * ENVS)
        assert truncations.all()
        assert set(infos["error_kind"]) <= {"session_lost", "ambiguous_call"}
        *_, truncations, infos = envs.step([ADD] * ENVS)
        assert not truncations.any()
        assert list(infos["task_index"]) == [4, 5, 6, 7]
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_a_failed_set_up_is_shown_truncated_and_tried_again(one_server, mode):
    good = {"id": "good", "question": "how?", "answer": "so"}
    bad = {"id": "bad", "setup_error": "the disk is full"}
    tasks: Any = {"tasks": [good, bad, good, good, bad], "autoreset_mode": mode}
    with contextlib.closing(make_vector(one_server.base_url, 2, **tasks)) as envs:
        with pytest.warns(UserWarning, match=r"env 1 .* not start .* disk is full"):
            observations, infos = envs.reset(seed=0)
        assert observations[0] == "how?"
        assert "the disk is full" in observations[1]
        assert infos["error_kind"].tolist() == ["", "setup_failed"]
        assert infos["error"][1] == observations[1]
        observations, rewards, terminations, truncations, infos = envs.step([ADD, ADD])
        assert truncations.tolist() == [False, True]
        assert not terminations.any()
        assert rewards.tolist() == [0.5, 0.0]
        told = infos["final_info"] if mode == "SameStep" else infos
        assert told["error_kind"][1] == "setup_failed"
        if mode == "NextStep":
            observations, *_, infos = envs.step([ADD, ADD])
        assert observations[1] == "how?"
        assert infos["error_kind"].tolist() == ["", ""]
        assert envs.step([ADD, ADD])[1].tolist() == [0.5, 0.5]
        assert envs.get_attr("failed_starts") == (0, 1)


GOOD: Final[Any] = {"id": "good", "question": "how?"}
BAD: Final[Any] = {"id": "bad", "setup_error": "no key"}


@pytest.mark.parametrize("way", ["reset", "recv"])
def test_where_no_session_starts_the_first_failure_raises(server, way):
    with contextlib.closing(make_vector(server.base_url, 3, tasks=[BAD])) as envs:
        for _ in range(2):
            with (
                pytest.raises(ors_gym.SetupFailedError, match="no key") as caught,
                warnings.catch_warnings(),
            ):
                # As each env fails, the others may yet start.
                warnings.filterwarnings("ignore", message=".*could not start")
                if way == "reset":
                    envs.reset(seed=0)
                else:
                    envs.async_reset(seed=0)
                    for _ in range(3):
                        envs.recv()
            assert "none of 3 envs" in caught.value.__notes__[-1]
        assert set(envs.reset(options={"task": GOOD})[0]) == {"how?"}


@pytest.mark.parametrize("mode", ["NextStep", "SameStep"])
def test_an_env_that_never_starts_raises_beyond_a_bound(one_server, mode):
    arguments: Any = {"tasks": [GOOD, BAD], "autoreset_mode": mode}
    arguments["max_failed_starts"] = 3
    with contextlib.closing(make_vector(one_server.base_url, 2, **arguments)) as envs:
        with pytest.warns(UserWarning, match="could not start") as warned:
            envs.reset(seed=0)
            with pytest.raises(ors_gym.SetupFailedError, match="no key") as caught:
                for _ in range(10):
                    envs.step([ADD, ADD])
        assert len(warned) == 1
        assert "the last 3 sessions" in "".join(caught.value.__notes__)
        assert "in env 1" in "".join(caught.value.__notes__)
        assert envs.get_attr("failed_starts") == (0, 3)
        envs.reset(seed=0)
        assert envs.get_attr("failed_starts") == (0, 4)


def test_a_reset_that_fails_names_its_task(proxy: FaultProxy) -> None:
    with open_envs(proxy.url) as envs:
        proxy.plan("/create", [Answer(500)], then="forever", when=is_of_task_5)
        with pytest.warns(UserWarning, match="env 2 .* could not start"):
            observations, infos = envs.reset(seed=3)
        assert infos["error_kind"].tolist() == ["", "", "setup_failed", ""]
        assert infos["task_index"].tolist() == [3, 4, 5, 6]
        assert infos["split"].tolist() == ["train"] * ENVS
        assert observations[0] == "3 + 3 = ?"
        *_, truncations, infos = envs.step([ADD] * ENVS)
        assert truncations.tolist() == [False, False, True, False]
        assert envs.step([ADD] * ENVS)[0][2] == "9 + 9 = ?"


def test_with_raise_an_outage_raises_after_the_other_calls(one_server, proxy):
    with open_envs(proxy.url, on_error="raise") as envs:
        proxy.plan("/call", [Reset(Point.BEFORE_REPLY)], when=is_marked)
        with pytest.raises(ors_gym.AmbiguousCallError) as caught:
            envs.step([ADD, MARKED, ADD, ADD])
        assert caught.value.__notes__ == ["in env 1 of the vector env"]
        assert one_server.runs("add") == ENVS
        with pytest.raises(ors_gym.EpisodeOverError):
            envs.step([ADD] * ENVS)
        assert one_server.runs("add") == ENVS
        envs.reset()
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS


def test_mistakes_of_the_program_raise_before_anything_is_sent(proxy: FaultProxy):
    with contextlib.closing(make_vector(proxy.url)) as envs:
        with pytest.raises(ors_gym.EpisodeOverError, match="not reset yet"):
            envs.step([ADD] * ENVS)
        proxy.clear()
        for options in ({"task_index": 12}, {"nonesuch": 1}, {"split": "nonesuch"}):
            with pytest.raises(ors_gym.InvalidRequestError):
                envs.reset(options=options)
        assert proxy.requests("/create_session") == []
        envs.reset(seed=0)
        proxy.clear()
        for actions in ([ADD], ADD, "text", np.array(1), 7, [ADD] * 5):
            with pytest.raises(ors_gym.InvalidArgumentError, match=r"4 envs|4 "):
                envs.step(actions)
        for seed in ([1, 2], [1] * 5):
            with pytest.raises(ors_gym.InvalidArgumentError, match="4 envs"):
                envs.reset(seed=seed)
        seeds: list[Any] = [-1, 1.5, "word", [1, 2, 3, -4], [1.5, 2, 3, 4], np.ones(4)]
        for wrong in seeds:
            with pytest.raises(ors_gym.InvalidArgumentError, match="a seed is"):
                envs.reset(seed=wrong)
        masks: list[Any] = [[True] * 4, np.ones(3, bool), np.ones(4), np.zeros(4, bool)]
        for mask in masks:
            with pytest.raises(ors_gym.InvalidArgumentError, match="reset_mask"):
                envs.reset(options={"reset_mask": mask})
        # As Gymnasium's vector envs do.
        assert issubclass(ors_gym.InvalidArgumentError, ValueError)
        assert issubclass(ors_gym.InvalidArgumentError, TypeError)
        assert proxy.requests() == []
        # What was played goes on.
        assert envs.step([ADD] * ENVS)[1].tolist() == [0.5] * ENVS


def test_in_disabled_mode_an_ended_env_has_to_be_reset(one_server: RunningServer):
    with open_envs(one_server.base_url, autoreset_mode="Disabled") as envs:
        envs.step([submit(0), ADD, ADD, ADD])
        runs = one_server.runs()
        with pytest.raises(ors_gym.EpisodeOverError, match="over"):
            envs.step([ADD] * ENVS)
        assert one_server.runs() == runs


def test_arguments_that_cannot_be_right(one_server: RunningServer) -> None:
    wrong: list[Any] = [{"num_envs": 0}, {"render_mode": "rgb"}, {"task_stride": 0}]
    wrong += [{"on_error": "ignore"}, {"max_failed_starts": 0}]
    for arguments in wrong:
        with pytest.raises(ors_gym.InvalidRequestError):
            make_vector(one_server.base_url, **arguments)
    with pytest.raises(ValueError, match="Sometimes"):
        make_vector(one_server.base_url, autoreset_mode="Sometimes")
    with pytest.raises(ors_gym.UnknownEnvironmentError):
        make_vector(one_server.base_url, env_name="nonesuch")
    with contextlib.closing(make_vector(one_server.base_url)) as envs:
        with pytest.raises(ors_gym.InvalidRequestError, match="vector env's own"):
            envs.call("step", ADD)
        with pytest.raises(ors_gym.InvalidRequestError, match="3 values"):
            envs.set_attr("note", [1, 2, 3])
        with pytest.raises(AttributeError):
            envs.get_attr("nonesuch")


def test_a_hanging_env_is_cut_off_by_its_own_time(proxy: FaultProxy) -> None:
    with open_envs(proxy.url, call_timeout=0.5) as envs:
        proxy.plan("/call", [Stall(Point.BEFORE_REPLY)], when=is_marked)
        *_, truncations, infos = envs.step([ADD, ADD, ADD, MARKED])
        assert truncations.tolist() == [False, False, False, True]
        assert infos["error_kind"][3] == "timeout"


def test_a_copy_of_one_with_a_client_plays_on_its_server(one_server, closing):
    client = ors_gym.AsyncORSClient(one_server.base_url, api_key="hunter22")
    arguments: Any = {"env_name": "contract", "client": client}
    envs = closing(gym.make_vec("ors/math", num_envs=2, **arguments))
    assert envs.spec is not None
    assert "hunter22" not in envs.spec.to_json()
    again = closing(gym.make_vec(envs.spec))
    assert again.reset(seed=3)[0] == ("3 + 3 = ?", "4 + 4 = ?")
    asyncio.run(client.aclose())


def test_no_secret_in_the_spec(one_server: RunningServer) -> None:
    mode = gym.vector.AutoresetMode.SAME_STEP
    envs = gym.make_vec(
        "ors/remote",
        num_envs=2,
        env_name="contract",
        base_url=one_server.base_url,
        api_key="hunter22",
        secrets={"KEY": "hunter22"},
        autoreset_mode=mode,
    )
    with contextlib.closing(envs):
        assert envs.spec is not None
        assert "hunter22" not in envs.spec.to_json()
        assert "hunter22" not in repr(envs) + repr(envs.spec)
        with contextlib.closing(gym.make_vec(envs.spec)) as again:
            assert again.num_envs == 2
            assert again.metadata["autoreset_mode"] is mode
