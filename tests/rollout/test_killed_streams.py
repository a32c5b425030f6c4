"""Streams whose process is killed, and whose server is, again and again."""

import collections
import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.evaluation.evaluation_process import ROOT, rows_of, wait_for_rows
from tests.rollout.stream_process import TASKS
from tests.support.servers.process import RunningServer, start_server

N = 4


def start(server: RunningServer, output: Path, groups: int) -> subprocess.Popen[str]:
    arguments = (server.base_url, output, groups, N)
    module = "tests.rollout.stream_process"
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)


def kill_all_the_way(
    server: RunningServer, output: Path, groups: int, ends: int
) -> list[Any]:
    """Kill the server so often, the process twice; return what came at last."""
    both = (2 * ends // 5, 4 * ends // 5)
    process = start(server, output, groups)
    for end in range(1, ends + 1):
        wait_for_rows(output, end * groups * N // (ends + 2), process)
        if end in both:
            process.send_signal(signal.SIGKILL)
            assert process.communicate()[0] == ""
        # A killed server loses the sessions of the killed process, too.
        server.kill()
        server.mark()
        server.start()
        if end in both:
            process = start(server, output, groups)
    said = process.communicate(timeout=600)[0]
    assert process.returncode == 0
    handed_over: list[Any] = json.loads(said.splitlines()[-1])
    return handed_over


def check_paid(server: RunningServer, output: Path) -> None:
    """Check that each reward in the output is one that a session of its own paid."""
    server_log = [json.loads(line) for line in server.whole_log()]
    paid: dict[str, float] = collections.defaultdict(float)
    sessions: dict[int, str] = {}
    for entry in server_log:
        if entry["event"] == "run" and entry["tool"] == "add":
            assert entry["input"]["a"] not in sessions, "a tool ran twice"
            sessions[entry["input"]["a"]] = entry["instance"]
        if entry["event"] == "done" and entry["reward"] is not None:
            paid[entry["instance"]] += float(entry["reward"])
    rewarded = set()
    for line in output.read_text().splitlines()[1:]:
        row = json.loads(line)
        instance = sessions[row["trajectory"]["steps"][0]["input"]["a"]]
        assert row["total_reward"] == paid[instance]
        assert instance not in rewarded
        rewarded.add(instance)


def check_stream(sdk: str, output: Path, groups: int, ends: int) -> None:
    with start_server(sdk, environments=["Contract"]) as server:
        handed_over = kill_all_the_way(server, output, groups, ends)
        server.wait_until_none_is_open()
        check_paid(server, output)
    each = groups // TASKS
    whole = {(task, number): 1 for task in range(TASKS) for number in range(each * N)}
    assert rows_of(output) == whole
    assert len(handed_over) == groups
    seen = sorted((task, numbers) for task, numbers, *_ in handed_over)
    assert seen == [
        (task, list(range(first, first + N)))
        for task in range(TASKS)
        for first in range(0, each * N, N)
    ]
    for task, _, rewards, _ in handed_over:
        assert rewards == [0.5 if task % 3 == 2 else 1.5] * N
    assert any(kept for *_, kept in handed_over)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_every_group_is_there_once_whatever_is_killed(tmp_path):
    check_stream("ors-sdk-0.1.0", tmp_path / "groups.jsonl", 2 * TASKS, 5)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("sdk", ["ors-sdk-0.1.0", "openreward-0.1.167"])
def test_two_thousand_groups_killed_all_the_way(tmp_path, sdk):
    check_stream(sdk, tmp_path / "groups.jsonl", 167 * TASKS, 20)
