"""The command line, run as a user runs it."""

from __future__ import annotations

import pathlib
import re
import signal
import subprocess
import sys

import httpx
import pytest

import ors_gym
from tests.cli.running import HELLO


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "ors_gym", *arguments]


def test_the_demo_ignores_another_servers_address(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ORS_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "100")
    done = subprocess.run(
        command("demo", "--episodes", "2"),
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    rows = [line.split("│") for line in done.stdout.splitlines() if "│" in line]
    cells = [[cell.strip() for cell in row[1:-1]] for row in rows]
    assert [row[0] for row in cells if row[0]] == [
        f"ors/{name}" for name in ("math", "guess", "blackjack", "maze", "sql")
    ]
    reference = [row for row in cells if row[1] == "reference"]
    rates = [row[3] for row in reference]
    assert [rates[0], rates[3], rates[4]] == ["100%"] * 3
    assert "> guess(number=" in done.stdout
    assert "Next:" in done.stdout


def test_serve_an_environment_of_ones_own(tmp_path: pathlib.Path) -> None:
    (tmp_path / "mine.py").write_text(HELLO)
    process = subprocess.Popen(
        command("serve", "--port", "0", "mine:Hello"),
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        with process.stdout as lines:
            url = re.findall(r"http://\S+", lines.readline())[0]
            assert httpx.get(f"{url}/list_environments").json() == ["hello"]
            env = ors_gym.ORSEnv("hello", url)
            assert env.reset()[0] == "Say hello."
            assert env.step({"tool": "hello", "input": {}})[:3] == ("Hello!", 1.0, True)
            env.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) in (0, 130)
    finally:
        process.kill()
        process.wait()


def test_a_mistake_is_explained_without_a_traceback() -> None:
    done = subprocess.run(
        command("serve", "no_such_module:Class"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("ors-gym: ")
    assert "no_such_module" in done.stderr
