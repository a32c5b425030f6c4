"""``demo`` and ``serve``, run as a user runs them."""

import re
import signal
import subprocess

import httpx
import pytest

import ors_gym
from tests.cli.running import COMMAND, HELLO, run
from tests.support.terminal import Terminal

NAMES = ("math", "guess", "blackjack", "maze", "sql")


@pytest.mark.slow
def test_the_demo_ignores_another_servers_address(monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", "http://127.0.0.1:1")
    done = run("demo", "--episodes", "2")
    first, header, *lines = done.stdout.splitlines()
    assert first == (
        "Starting the bundled environments, to play 176 episodes of them ..."
    )
    assert header.split() == [
        *("environment", "player", "episodes", "success", "reward", "steps"),
        *("ms", "a", "step"),
    ]
    cells = [line.split() for line in lines[:10]]
    assert [row[:2] for row in cells] == [
        [f"ors/{name}", player] for name in NAMES for player in ("random", "reference")
    ]
    assert [row[3] for row in cells if row[1] == "reference" and row[2] == "2"] == [
        *("100%", lines[3].split()[3], "100%", "100%"),
    ]
    assert "> guess(number=" in done.stdout
    assert "Next:" in done.stdout
    assert max(map(len, [header, *lines[:10], *lines[-5:]])) <= 80


def test_the_demo_shows_a_bar_from_the_start_in_a_terminal():
    with Terminal("demo", "--episodes", "1", columns=80) as terminal:
        terminal.wait_for("Starting the bundled")
        # Before the first row, and with an estimate of the time that is left.
        terminal.wait_for("ors/math, random")
        terminal.wait_for("/88")
        terminal.wait_for("0:00:")
        terminal.wait_for("Next:")
        assert terminal.wait() == 0


@pytest.mark.slow
def test_serve_an_environment_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "mine:Hello", "gymnasium:CartPole-v1"],
        stdout=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
    )
    try:
        assert process.stdout is not None
        with process.stdout as lines:
            url = re.findall(r"http://\S+", lines.readline())[0]
            assert httpx.get(f"{url}/list_environments").json() == [
                *("hello", "cartpole-v1"),
            ]
            env = ors_gym.ORSEnv("hello", url)
            assert env.reset()[0] == "Say hello."
            assert env.step({"tool": "hello", "input": {}})[:3] == ("Hello!", 1.0, True)
            env.close()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=30) in (0, 130)
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
def test_a_server_is_recorded_and_served_from_its_cassette(contract, tmp_path):
    def play(*arguments: str) -> object:
        process = subprocess.Popen(
            [*COMMAND, *arguments], stdout=subprocess.PIPE, text=True, cwd=tmp_path
        )
        try:
            assert process.stdout is not None
            with process.stdout as lines:
                url = re.findall(r"http://\S+", lines.readline())[0]
                env = ors_gym.ORSEnv("contract", url)
                env.reset(options={"task_index": 1})
                action = {"tool": "submit", "input": {"answer": "2"}}
                result = env.step(action)[:3]
                env.close()
                process.send_signal(signal.SIGINT)
                assert process.wait(timeout=30) in (0, 130)
        finally:
            process.kill()
            process.wait()
        return result

    recorded = play("record", contract.base_url, "it.jsonl")
    contract.mark()
    assert play("serve", "--port", "0", "--cassette", "it.jsonl") == recorded
    assert contract.log() == []
    said = run("serve", "json:X", "--cassette", "it.jsonl", code=1).stderr
    assert "a cassette is served by itself" in said
    said = run("serve", "--cassette", "none.jsonl", code=1, cwd=tmp_path).stderr
    assert "none.jsonl cannot be read" in said
    said = run("record", "http://h?x=1", "it.jsonl", code=1, cwd=tmp_path).stderr
    assert "a query" in said
