"""``ors-gym mcp``, as an agent starts it and as a user does."""

import asyncio
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import TextContent

from ors_gym.cli import main
from tests.cli.running import COMMAND, HELLO, run
from tests.mcp.agents import call, command, within_a_minute
from tests.mcp.secretive import ANSWER, REWARD
from tests.support.slow_cases import mostly_slow


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()[1:]]


@pytest.mark.parametrize("mode", mostly_slow(["auto", "legacy"]))
def test_an_agent_plays_over_standard_streams(contract, tmp_path, mode):
    output = tmp_path / "run.jsonl"
    started = command("Contract", "--url", contract.base_url, "--output", output)

    async def play() -> None:
        async with Client(started, mode=mode) as agent:
            prompt = (await agent.get_prompt("task")).messages[0].content
            assert isinstance(prompt, TextContent)
            assert agent.instructions == prompt.text
            assert await call(agent, "add", a=1, b=2) == (False, "3")
            assert (await call(agent, "submit", answer="0"))[0] is False
            is_error, text = await call(agent, "add", a=1, b=2)
            assert is_error
            assert "The episode is over" in text

    within_a_minute(play())
    [row] = rows(output)
    assert (row["task_index"], row["total_reward"]) == (0, 1.5)
    assert contract.runs("add") == 1
    assert contract.open_sessions() == set()


@pytest.mark.slow
def test_agents_that_start_later_play_what_has_no_row_yet(contract, tmp_path):
    output = tmp_path / "run.jsonl"
    started = command("Contract", "--url", contract.base_url, "--output", output)

    async def play(connected: asyncio.Barrier) -> None:
        async with Client(started) as agent:
            await connected.wait()
            await call(agent, "submit", answer="0")

    async def play_at_once(count: int) -> None:
        connected = asyncio.Barrier(count)
        await asyncio.gather(*(play(connected) for _ in range(count)))

    # Both begin without a row to see, and take the same task.
    within_a_minute(play_at_once(2))
    within_a_minute(play_at_once(1))
    played = [(row["task_index"], row["episode"]) for row in rows(output)]
    assert played == [(0, 0), (0, 1), (1, 0)]


def start(*arguments: str | Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [*COMMAND, "mcp", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def say(process: subprocess.Popen[bytes], method: str, **params: Any) -> None:
    assert process.stdin is not None
    request = {"jsonrpc": "2.0", "id": method, "method": method, "params": params}
    process.stdin.write(json.dumps(request).encode() + b"\n")
    process.stdin.flush()


INITIALIZE = {
    "protocolVersion": "2025-11-25",
    "capabilities": {},
    "clientInfo": {"name": "test", "version": "1"},
}


@pytest.mark.slow
def test_no_stream_tells_of_the_reward(tmp_path):
    output = tmp_path / "run.jsonl"
    arguments = ("tests.mcp.secretive:Secretive", "--output", output)
    with start(*arguments) as process:
        say(process, "initialize", **INITIALIZE)
        say(process, "tools/list")
        say(process, "prompts/get", name="task")
        for _ in range(2):
            # The same id: it is the same request.
            say(process, "tools/call", name="guess", arguments={"word": "x"})
        assert process.stdout is not None
        said = b"".join(process.stdout.readline() for _ in range(5))
        said += b"".join(process.communicate(timeout=60))
    assert process.returncode == 0
    assert said.count(b"Noted.") == 2
    for secret in (b"reward", str(REWARD)[2:].encode(), ANSWER.encode(), b"expected"):
        assert secret not in said.lower()
    [row] = rows(output)
    assert (row["total_reward"], row["steps"]) == (REWARD, 1)


@pytest.mark.parametrize("number", mostly_slow([signal.SIGTERM, signal.SIGINT]))
def test_a_signal_ends_the_episode_and_keeps_its_row(contract, tmp_path, number):
    output = tmp_path / "run.jsonl"
    arguments = ("Contract", "--url", contract.base_url, "--output", output)
    with start(*arguments) as process:
        say(process, "initialize", **INITIALIZE)
        say(process, "tools/call", name="slow", arguments={"seconds": 100})
        contract.wait_for("run", tool="slow")
        # Its standard input stays open.
        process.send_signal(number)
        assert process.wait(30) == 0
    contract.wait_for("teardown")
    [row] = rows(output)
    assert (row["stop_reason"], row["steps"]) == ("deadline", 0)


@pytest.mark.slow
def test_many_agents_play_over_http_until_ctrl_c(tmp_path):
    (tmp_path / "mine.py").write_text(HELLO)
    output = tmp_path / "run.jsonl"
    given = ("--transport", "http", "--port", "0", "--max-turns", "1")
    with subprocess.Popen(
        [*COMMAND, "mcp", "mine:Hello", *given, "--output", output],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{Path.cwd()}"},
    ) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[3].decode()

        async def play() -> None:
            async with Client(address) as agent:
                assert await call(agent, "hello") == (False, "Hello!")

        async def play_twice() -> None:
            await asyncio.gather(play(), play())

        within_a_minute(play_twice())
        process.send_signal(signal.SIGINT)
        _, told = process.communicate(timeout=30)
    assert process.returncode == 0, told
    assert [row["success"] for row in rows(output)] == [True, True]
    assert b"run.jsonl" in told


def test_a_token_comes_from_the_environment(capsys):
    with pytest.raises(SystemExit):
        main(["mcp", "math", "--token", "t-secret"])
    told = capsys.readouterr().err
    assert "name of an environment variable" in told
    assert "t-secret" not in told
    given = ("--transport", "http", "--host", "0.0.0.0")
    assert "token" in run("mcp", "math", "--url", "http://x", *given, code=1).stderr


def test_mistakes_are_explained(contract):
    url = ("--base-url", contract.base_url)
    told = run("mcp", "Contract", *url, "--task", "1000", code=1).stderr
    assert "no task 1000" in told
    assert "no environment" in run("mcp", "Nothing", *url, code=1).stderr
