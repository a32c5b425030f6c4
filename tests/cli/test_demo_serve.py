"""``demo`` and ``serve``, run as a user runs them."""

import re
import signal
import subprocess

import httpx

import ors_gym
from tests.cli.running import COMMAND, HELLO, run


def test_the_demo_ignores_another_servers_address(monkeypatch):
    monkeypatch.setenv("ORS_BASE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("COLUMNS", "100")
    done = run("demo", "--episodes", "2", fresh=True)
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


def test_serve_an_environment_of_ones_own(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    process = subprocess.Popen(
        [*COMMAND, "serve", "--port", "0", "mine:Hello"],
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
