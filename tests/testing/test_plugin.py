"""The contract check as a plugin of pytest."""

import subprocess
import sys
from pathlib import Path

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
