"""Whatever a policy does, the run ends, and the next one in the process works.

The table is in `tests.support.policy_ends`; Ray plays it in
`tests.integrations.test_ray_evaluation`.
"""

import asyncio
import contextlib
import gc
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from ors_gym import ORSEnv
from ors_gym.evaluation import Evaluation, evaluate, parallel_evaluate
from ors_gym.rollout import _policies, run_episode, run_episode_async, run_group
from tests.support import policy_ends
from tests.support.policy_ends import ASYNC_WAYS, ENDING_TASK, WAYS, Way, right
from tests.support.servers.process import RunningServer
from tests.support.slow_cases import mostly_slow
from tests.support.virtual_environments import ROOT

CASES = [
    *(pytest.param(getattr(policy_ends, name), WAYS[name], id=name) for name in WAYS),
    *(
        pytest.param(getattr(policy_ends, f"async_{name}"), way, id=f"async-{name}")
        for name, way in ASYNC_WAYS.items()
    ),
]
every_way = pytest.mark.parametrize(("policy", "way"), CASES)


@pytest.fixture
def ending(contract: RunningServer) -> Iterator[RunningServer]:
    """Give a server on which a run leaves no session, and after which others work."""
    yield contract
    assert play(contract, right).success_rate == 1.0
    contract.wait_until_none_is_open()
    # A coroutine that was never awaited warns when it is collected.
    gc.collect()


def play(server: RunningServer, policy: Any, **options: Any) -> Evaluation:
    options = {"split": "train", "progress": False, "max_turns": 3, **options}
    tasks = options.pop("tasks", range(4))
    return evaluate(server.base_url, "Contract", tasks, policy, **options)


def expect_end(way: Way) -> contextlib.AbstractContextManager[Any]:
    if way.raises is None:
        return contextlib.nullcontext()
    return pytest.raises(way.raises, match=None if way.leaves else way.said)


def play_in_an_env(url: str, policy: Any) -> None:
    with contextlib.closing(ORSEnv("Contract", url, split="train")) as env:
        episode = run_episode(env, policy, options={"task_index": ENDING_TASK})
        assert episode.stop_reason in {"policy_stopped", "finished"}


def play_on_a_loop(url: str, policy: Any) -> None:
    episode = asyncio.run(run_episode_async(url, "Contract", ENDING_TASK, policy))
    assert episode.stop_reason in {"policy_stopped", "finished"}


def play_a_group(url: str, policy: Any) -> None:
    asyncio.run(run_group(url, "Contract", ENDING_TASK, policy, n=3))


@pytest.mark.slow
@pytest.mark.parametrize("play_one", [play_in_an_env, play_on_a_loop, play_a_group])
@every_way
def test_an_episode_ends_whatever_its_policy_does(ending, play_one, policy, way):
    with expect_end(way):
        play_one(ending.base_url, policy)


@every_way
def test_an_evaluation_ends_whatever_a_policy_does(ending, policy, way, tmp_path):
    output = tmp_path / "run.jsonl"
    options = {"output": output, "policy_name": "it"}
    if not way.leaves:
        found = play(ending, policy, **options)
        ended = found.results[ENDING_TASK]
        assert way.said in ended["error"]
        assert found.errors == ({} if way.raises is None else {"policy": 1})
        assert len(found.results) == 4
        return
    if way.raises is KeyboardInterrupt:
        # As after Ctrl-C.
        assert play(ending, policy, **options).stopped == "interrupted"
    else:
        with expect_end(way):
            play(ending, policy, **options)
    kept = {row["task_index"]: row for row in Evaluation.load(output).results}
    assert way.said in kept[ENDING_TASK]["error"]
    # The same run again plays what is missing.
    again = play(ending, right, **options)
    assert (again.outcomes, again.success_rate) == (4, 1.0)


@pytest.mark.parametrize(
    "name", ["system_exit", "async_system_exit", "async_own_error"]
)
def test_an_evaluation_on_the_callers_loop_raises_what_leaves(ending, name):
    work = (ending.base_url, "Contract", range(4), getattr(policy_ends, name))
    options: Any = {"split": "train", "progress": False}
    with pytest.raises((SystemExit, policy_ends.OwnError)):
        asyncio.run(parallel_evaluate(*work, **options))


@pytest.mark.slow
@pytest.mark.parametrize("policy", [policy_ends.never, policy_ends.async_never])
def test_a_policy_that_never_returns_is_left_at_the_deadline(
    ending, policy, monkeypatch
):
    monkeypatch.setattr(_policies, "_GIVING_UP_SECONDS", 0.05)
    found = play(ending, policy, tasks=range(3), deadline=1.0)
    assert found.stop_reasons == {"deadline": 3}
    assert found.outcomes == 3


@pytest.mark.parametrize("ends", ["success", "on_episode"])
def test_a_callback_that_cancels_its_task_ends_the_run(ending, ends):
    def cancel(_: Any) -> None:
        policy_ends.ASYNC_WAYS["cancels_itself"].end()

    with pytest.raises(Exception, match="a callback cancelled the task"):
        play(ending, right, **{ends: cancel})


@pytest.mark.parametrize("name", ["never", "async_never"])
def test_ctrl_c_ends_the_command_though_the_policy_never_returns(contract, name):
    command = evaluation_of(contract, name)
    with subprocess.Popen(command, cwd=ROOT, text=True, stdout=subprocess.PIPE) as run:
        contract.wait_for("prompt", seconds=60)
        run.send_signal(signal.SIGINT)
        said = run.communicate(timeout=60)[0]
    assert run.returncode in {1, 130}
    assert "interrupted" in said
    contract.wait_until_none_is_open()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "code"),
    mostly_slow(
        [("exhausted", 0), ("system_exit", 3), ("async_exhausted", 0)], usual=2
    ),
)
def test_the_command_ends_whatever_its_policy_does(contract, name, code):
    run = subprocess.run(
        evaluation_of(contract, name),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert run.returncode == code, run.stderr
    assert "Traceback" not in run.stderr
    contract.wait_until_none_is_open()


def evaluation_of(server: RunningServer, policy: str) -> list[str]:
    command = [sys.executable, "-m", "ors_gym", "eval", "contract", "--tasks", "4"]
    command += ["--url", server.base_url, "--split", "train"]
    return [*command, "--policy", f"tests.support.policy_ends:{policy}"]
