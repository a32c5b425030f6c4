"""Evaluations that are killed, interrupted, or lose their server."""

import asyncio
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ors_gym import AsyncORSClient, InvalidRequestError, ORSClient
from ors_gym.evaluation import Evaluation, Options, evaluate, parallel_evaluate
from ors_gym.rollout import Episode
from ors_gym.server import serve
from tests.evaluation.contract_evaluations import answer
from tests.evaluation.evaluation_process import rows_of, run, start, wait_for_rows
from tests.support.processes import run as run_process
from tests.support.servers.process import start_server

SDK = "ors-sdk-0.1.0"


def kill_twice_and_finish(url: str, output: Path, tasks: int, episodes: int) -> None:
    total = tasks * episodes
    for share in (total // 3, 2 * total // 3):
        process = start(url, "math", output, tasks, episodes)
        wait_for_rows(output, share, process)
        process.send_signal(signal.SIGKILL)
        assert process.communicate()[0] == ""
        assert process.returncode == -signal.SIGKILL
    whole_lines = output.read_bytes().count(b"\n")
    assert total // 3 < whole_lines - 1 < total
    found = run(url, "math", output, tasks, episodes)
    every = {(task, number): 1 for task in range(tasks) for number in range(episodes)}
    assert rows_of(output) == every
    assert len(found.results) == found.planned == total
    assert [row["task_index"] for row in found.results[:2]] == [0, 1]
    assert [row["episode"] for row in found.results[:2]] == [0, 0]
    right = sum(task % 3 != 2 for task in range(tasks))
    assert found.success_rate == pytest.approx(right / tasks)
    again = Evaluation.load(output)
    assert again.success_rate == pytest.approx(found.success_rate)


@pytest.mark.slow
def test_a_run_that_is_killed_twice_has_every_episode_once(tmp_path):
    with serve() as url:
        kill_twice_and_finish(url, tmp_path / "run.jsonl", 100, 3)


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_ten_thousand_episodes_killed_twice(tmp_path):
    with serve() as url:
        kill_twice_and_finish(url, tmp_path / "run.jsonl", 1000, 10)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("unshare") is None, reason="it mounts a small disk")
def test_a_full_disk_stops_a_run_which_goes_on_once_there_is_room(tmp_path):
    module = ("-m", "tests.evaluation.evaluation_on_a_full_disk", str(tmp_path), "60")
    done = run_process("unshare", "-rm", sys.executable, *module, seconds=100)
    if not done.stdout.startswith("mounted"):
        pytest.skip(f"no file system can be mounted here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert "run.jsonl cannot be written: No space left on device" in said["stopped"]
    assert 0 < said["written"] == said["loaded"] < said["played"] < 60
    assert said["whole"]
    assert said["outcomes"] == 60
    assert said["rows"] == [1] * 60
    assert said["files"] == ["run.jsonl"]


@pytest.mark.slow
def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path):
    output = tmp_path / "run.jsonl"
    with serve() as url:
        process = start(url, "math", output, 100, 3)
        try:
            wait_for_rows(output, 5, process)
            process.send_signal(signal.SIGSTOP)
            # A row may be written until the process has really stopped.
            assert os.WIFSTOPPED(os.waitpid(process.pid, os.WUNTRACED)[1])
            size = output.stat().st_size
            with pytest.raises(InvalidRequestError, match="another evaluation is wri"):
                run(url, "math", output, 100, 3)
            assert output.stat().st_size == size
        finally:
            process.kill()
            process.communicate()
        run(url, "math", output, 100, 3)
    assert set(rows_of(output).values()) == {1}
    assert len(rows_of(output)) == 300


def test_ctrl_c_gives_what_there_is_and_leaves_no_session(tmp_path):
    output = tmp_path / "run.jsonl"
    with start_server(SDK, environments=["Contract"]) as server:
        process = start(server.base_url, "Contract", output, 12, 200)
        wait_for_rows(output, 20, process)
        process.send_signal(signal.SIGINT)
        said = json.loads(process.communicate(timeout=60)[0])
        assert process.returncode == 0
        assert 20 <= said["rows"] < 2400
        assert said["stopped"] == "interrupted"
        assert sum(rows_of(output).values()) == said["rows"]
        server.wait_for("teardown", len(server.log("construct")))
        server.wait_until_none_is_open()


def test_a_cancelled_evaluation_leaves_no_session(tmp_path):
    output = tmp_path / "run.jsonl"
    with start_server(SDK, environments=["Contract"]) as server:

        async def main() -> None:
            enough, ended = asyncio.Event(), []

            def on_episode(episode: Episode) -> None:
                ended.append(episode)
                if len(ended) == 20:
                    enough.set()

            options: Options = {"episodes_per_task": 100, "on_episode": on_episode}
            options |= {"output": output, "progress": False}
            async with AsyncORSClient(server.base_url) as client:
                tasks = range(12)
                work = parallel_evaluate(client, "Contract", tasks, answer, **options)
                task = asyncio.create_task(work)
                await enough.wait()
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task

        asyncio.run(main())
        server.wait_for("teardown", len(server.log("construct")))
        server.wait_until_none_is_open()
    assert 0 < Evaluation.load(output).outcomes < 1200


@pytest.mark.slow
def test_outages_are_no_outcomes_and_are_played_again(tmp_path):
    output = tmp_path / "run.jsonl"

    def evaluate_on(
        client: Any, on_episode: Callable[[Episode], None] | None = None
    ) -> Evaluation:
        options: Options = {"split": "train", "output": output, "progress": False}
        options |= {"episodes_per_task": 4, "on_episode": on_episode}
        options |= {"call_timeout": 5.0, "setup_timeout": 5.0}
        work = (client, "Contract", range(12), answer)
        return evaluate(*work, max_concurrent=4, **options)

    with start_server(SDK, environments=["Contract"]) as server:
        ended: list[Episode] = []

        def kill_in_the_middle(episode: Episode) -> None:
            ended.append(episode)
            if len(ended) == 20:
                server.kill()

        with ORSClient(server.base_url, timeout=0.5) as client:
            first = evaluate_on(client, kill_in_the_middle)
        lost = len(first.records) - first.outcomes
        assert first.outcomes >= 20
        assert lost >= 4
        assert sum(first.errors.values()) == lost
        # The server is gone, so most of the rest was not tried.
        assert "could not be reached" in first.stopped
        assert len(first.records) < first.planned == 48
        won = [row["success"] for row in first.results if row["success"] is not None]
        assert first.success_rate == sum(won) / len(won)
        assert all(won) is False
        assert str(lost) in str(first)
        server.start()
        server.mark()
        second = evaluate_on(server.base_url)
        assert len(server.log("construct")) == 48 - first.outcomes
    assert set(rows_of(output).values()) == {1}
    assert len(rows_of(output)) == 48
    assert second.outcomes == 48
    assert second.success_rate == pytest.approx(8 / 12)
    assert not second.stopped
