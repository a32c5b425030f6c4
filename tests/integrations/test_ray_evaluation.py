"""Evaluations on a Ray cluster: the same rows, whatever becomes of the workers."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import ray

from ors_gym.errors import AuthenticationError, InvalidRequestError
from ors_gym.evaluation import Evaluation, evaluate
from ors_gym.rollout import Episode
from tests.evaluation.contract_evaluations import answer
from tests.evaluation.evaluation_process import rows_of, start, wait_for_rows
from tests.support import policy_ends
from tests.support.policy_ends import ASYNC_WAYS, WAYS, right
from tests.support.servers.process import RunningServer, start_server

GROUP = "rllib"

SDK = "ors-sdk-0.1.0"


@pytest.fixture(scope="module")
def cluster() -> Iterator[None]:
    """Start Ray on this machine, with more processors than it may have."""
    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


def play(
    server: RunningServer, policy: Any = answer, tasks: Any = range(6), **options: Any
) -> Evaluation:
    given = {"split": "train", "progress": False, "max_concurrent": 8, **options}
    given = {"engine": "ray", "actors": 2, **given}
    if given["engine"] == "local":
        del given["actors"]
    return evaluate(server.base_url, "Contract", tasks, policy, **given)


def rows(found: Evaluation) -> list[Any]:
    return [
        [row[name] for name in ("task_index", "episode", "total_reward", "success")]
        for row in found.results
    ]


def test_the_same_rows_as_here_and_the_same_resume(cluster, tidy_server, tmp_path):
    output = tmp_path / "run.jsonl"
    ended: list[int] = []
    here = play(tidy_server, engine="local", episodes_per_task=3)
    play(tidy_server, output=output, tasks=range(2), engine="local")
    tidy_server.mark()
    found = play(
        tidy_server,
        output=output,
        episodes_per_task=3,
        on_episode=lambda episode: ended.append(episode.task_index),
    )
    assert rows(found) == rows(here)
    assert found.stopped == ""
    # Two were there already.
    assert len(tidy_server.log("construct")) == len(ended) == 16
    assert rows_of(output) == {(t, n): 1 for t in range(6) for n in range(3)}
    assert Evaluation.load(output).success_rate == here.success_rate
    again = play(tidy_server, output=output, episodes_per_task=3)
    assert rows(again) == rows(here)
    assert len(tidy_server.log("construct")) == 16
    tidy_server.wait_for("teardown", 16)


def test_a_killed_worker_loses_and_doubles_no_episode(cluster, one_server, tmp_path):
    output, workers = tmp_path / "run.jsonl", tmp_path / "workers"
    workers.mkdir()
    path = str(workers)

    def policy(episode: Episode) -> dict[str, Any]:
        (Path(path) / str(os.getpid())).touch()
        return {"tool": "submit", "input": {"answer": str(2 * episode.task_index)}}

    killed: list[int] = []

    def kill_one(episode: Episode) -> None:
        playing = [int(one.name) for one in workers.iterdir()]
        if len(playing) == 2 and not killed:
            killed.append(playing[0])
            os.kill(playing[0], signal.SIGKILL)

    found = play(
        one_server, policy, episodes_per_task=20, output=output, on_episode=kill_one
    )
    assert killed
    every = {(task, number): 1 for task in range(6) for number in range(20)}
    assert rows_of(output) == every
    assert found.outcomes == 120
    assert found.success_rate == 1.0
    assert found.stopped == ""


def test_failures_are_rows(cluster, one_server):
    def policy(episode: Episode) -> dict[str, Any]:
        if episode.task_index == 2:
            raise ZeroDivisionError("by the model")
        return answer(episode)

    found = play(one_server, policy)
    assert found.results[2]["error"] == "ZeroDivisionError: by the model"
    assert found.errors == {"policy": 1}
    assert found.outcomes == 5


@pytest.mark.parametrize("name", ["system_exit", "async_own_error", "interrupt"])
def test_a_policy_that_leaves_ends_the_run(cluster, tidy_server, name):
    policy, way = getattr(policy_ends, name), WAYS[name.removeprefix("async_")]
    if way.raises is KeyboardInterrupt:
        assert play(tidy_server, policy).stopped == "interrupted"
    else:
        with pytest.raises(SystemExit, match=r"3|OwnError: mine"):
            play(tidy_server, policy)
    assert play(tidy_server, right).outcomes == 6


def test_a_policy_of_no_use_is_a_row(cluster, tidy_server):
    """In every other way that a policy can end, each for one task."""
    ways = {name: way for name, way in ASYNC_WAYS.items() if not way.leaves}
    ends = [getattr(policy_ends, f"async_{name}") for name in ways]
    ends += [getattr(policy_ends, name) for name in ways if name in WAYS]

    def policy(episode: Episode) -> Any:
        # The episode's number says which way.
        return ends[episode.number](episode)

    tasks = [policy_ends.ENDING_TASK]
    found = play(tidy_server, policy, tasks=tasks, episodes_per_task=len(ends))
    said = [*ways.values(), *(way for name, way in ways.items() if name in WAYS)]
    for way, row in zip(said, found.results, strict=True):
        assert way.said in row["error"]
        assert (row["stop_reason"] == "error") is (way.raises is not None)


@pytest.mark.slow
def test_an_episode_that_ends_its_workers_is_given_up(cluster, one_server):
    """It alone: the other, which it took with it, is played in the end."""
    policy = policy_ends.end_worker_in_company
    found = play(one_server, policy, actors=1, max_concurrent=2)
    assert found.errors == {"worker": 1}
    assert "3 workers ended" in found.results[policy_ends.ENDING_TASK]["error"]
    assert (found.outcomes, found.success_rate) == (5, 1.0)


def test_a_refused_key_ends_the_run(cluster, tidy_server):
    def policy(episode: Episode) -> dict[str, Any]:
        raise AuthenticationError("the key is refused", status=401)

    with pytest.raises(AuthenticationError, match="the key is refused"):
        play(tidy_server, policy, tasks=range(12), episodes_per_task=100)
    assert len(tidy_server.log("construct")) < 1200


def test_what_cannot_travel_is_refused(cluster, one_server):
    lock = threading.Lock()

    def policy(episode: Episode) -> None:
        lock.acquire()

    with pytest.raises(InvalidRequestError, match="policy_factory"):
        play(one_server, policy)


def test_ctrl_c_gives_what_there_is_and_leaves_no_session(tmp_path):
    output = tmp_path / "run.jsonl"
    with start_server(SDK, environments=["Contract"]) as server:
        process = start(server.base_url, "Contract", output, 12, 200, "ray")
        wait_for_rows(output, 20, process)
        process.send_signal(signal.SIGINT)
        lines = process.communicate(timeout=60)[0].splitlines()
        # Ray may tell of its workers on the same stream.
        (said,) = [json.loads(line) for line in lines if line.startswith('{"rows"')]
        assert process.returncode == 0
        assert said["stopped"] == "interrupted"
        assert 20 <= said["rows"] < 2400
        assert sum(rows_of(output).values()) == said["rows"]
        assert not server.open_sessions()
