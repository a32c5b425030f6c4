"""The contract check as a plugin of pytest."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.running import HELLO
from tests.support.processes import run


def run_pytest(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    plugins = ("-p", "ors_gym.testing.plugin", "-p", "no:cacheprovider")
    pytest = (sys.executable, "-m", "pytest", "-rA", *plugins)
    return run(*pytest, *arguments, seconds=100, cwd=folder)


def test_each_check_is_a_test(server, tmp_path):
    done = run_pytest(
        *(tmp_path, "--ors-url", server.base_url, "--ors-env", "contract"),
        *("--ors-calls", '[{"tool": "submit", "input": {"answer": "0"}}]'),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "ors: resume" in done.stdout
    assert "answer 404" in done.stdout
    assert server.runs("submit") > 0


def test_a_failure_fails_the_run(server, tmp_path):
    server_options = ("--ors-url", server.base_url, "--ors-env", "brokensetup")
    done = run_pytest(tmp_path, *server_options)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    assert "database is locked" in done.stdout


def test_without_a_server_nothing_is_added(tmp_path):
    assert run_pytest(tmp_path).returncode == 5


TEST_OF_AN_AGENT = """
import gymnasium, pytest, ors_gym

@pytest.mark.parametrize("task", [0, 1])
def test_agent(ors_cassette, task):
    url = ors_cassette("mine:Hello")
    env = gymnasium.make("ors/remote", env_name="hello", base_url=url)
    env.reset(options={"task_index": 0})
    result = env.step({"tool": "hello", "input": {}})
    env.close()
    assert result[:3] == ("Hello!", 1.0, True)

def test_that_fails(ors_cassette):
    with ors_gym.ORSClient(ors_cassette("mine:Hello")) as client:
        assert client.list_environments() == []
"""


@pytest.mark.slow
def test_a_cassette_is_recorded_once_and_played_from_then_on(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    test = tmp_path / "test_agent.py"
    test.write_text(TEST_OF_AN_AGENT)
    folder = tmp_path / "cassettes" / "test_agent"
    done = run_pytest(tmp_path, "--ors-record=once")
    assert "2 passed" in done.stdout, done.stdout + done.stderr
    assert "1 failed" in done.stdout
    # Nothing is kept of a test that failed.
    names = ["test_agent_0.jsonl", "test_agent_1.jsonl"]
    assert sorted(path.name for path in folder.iterdir()) == names
    # Without the environment, and with a changed call.
    (tmp_path / "mine.py").unlink()
    test.write_text(TEST_OF_AN_AGENT.replace('"input": {}', '"input": {"n": task}'))
    kept = (folder / names[0]).read_text()
    (folder / names[1]).write_text(kept.replace('"input":{}', '"input":{"n":1}'))
    done = run_pytest(tmp_path, "--ors-record=none")
    assert "1 passed" in done.stdout, done.stdout + done.stderr
    assert "2 failed" in done.stdout
    assert "input.n is 0, was absent" in done.stdout
    assert "there is no cassette" in done.stdout
