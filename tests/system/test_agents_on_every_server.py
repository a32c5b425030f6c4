"""Whole episodes by the official MCP client, on every server, over both transports."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from mcp import Client
from mcp_types import ContentBlock, TextContent

from ors_gym.mcp import serve_async
from ors_gym.server import BUNDLED, REFERENCE_PLAYERS
from ors_gym.types import ToolSpec
from tests.mcp.agents import agent_at, call, command, within_a_minute
from tests.support.servers.process import RunningServer
from tests.support.slow_cases import mostly_slow

TRANSPORTS = mostly_slow(["http", "stdio"])


def text_of(content: list[ContentBlock]) -> str:
    return "\n\n".join(one.text for one in content if isinstance(one, TextContent))


async def play_by_reference(agent: Client, name: str) -> None:
    """Play to the end, from nothing but what the agent is told."""
    player = REFERENCE_PLAYERS[name]()
    tools = [
        ToolSpec(
            name=tool.name,
            description=tool.description or "",
            input_schema=tool.input_schema,
        )
        for tool in (await agent.list_tools()).tools
    ]
    said = [message.content for message in (await agent.get_prompt("task")).messages]
    for _ in range(200):
        action = player(text_of(said), tools)
        result = await agent.call_tool(action["tool"], action["input"])
        if (result.meta or {}).get("ors_gym/stop_reason") == "finished":
            late = await agent.call_tool(action["tool"], action["input"])
            assert late.is_error
            assert "The episode is over (finished)" in text_of(late.content)
            return
        assert not result.is_error
        said = result.content
    pytest.fail("the episode does not end")


def read_row(path: Path) -> Any:
    [_, row] = path.read_text().splitlines()
    return json.loads(row)


@pytest.mark.parametrize("transport", TRANSPORTS)
@pytest.mark.parametrize("name", mostly_slow(BUNDLED))
def test_a_bundled_environment_is_played_to_its_end(name, transport, tmp_path):
    output = tmp_path / "run.jsonl"

    async def over_http() -> None:
        async with (
            serve_async(name, task=3, output=output) as url,
            agent_at(url) as agent,
        ):
            await play_by_reference(agent, name)

    async def over_stdio() -> None:
        started = command(name, "--task", "3", "--output", output)
        async with Client(started) as agent:
            await play_by_reference(agent, name)

    within_a_minute(over_http() if transport == "http" else over_stdio())
    row = read_row(output)
    assert (row["task_index"], row["stop_reason"]) == (3, "finished")
    assert row["success"] or name == "blackjack"


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_an_episode_on_every_version(
    any_server: RunningServer, transport: str, tmp_path: Path
) -> None:
    output, url = tmp_path / "run.jsonl", any_server.base_url

    async def play(agent: Client) -> None:
        assert agent.instructions == "3 + 3 = ?"
        assert await call(agent, "add", a=1, b=2) == (False, "3")
        assert await call(agent, "submit", answer="6") == (False, "right")
        assert (await call(agent, "submit", answer="6"))[0]

    async def over_http() -> None:
        async with serve_async("Contract", url, task=3, output=output) as address:
            for mode in ("legacy", "2026-07-28"):
                async with agent_at(f"{address}/{mode}", mode=mode) as agent:
                    await agent.list_tools()
                    if mode == "legacy":
                        await play(agent)
                    else:
                        await call(agent, "submit", answer="6")

    async def over_stdio() -> None:
        started = command("Contract", "--url", url, "--task", "3", "--output", output)
        async with Client(started, mode="legacy") as agent:
            await play(agent)

    within_a_minute(over_http() if transport == "http" else over_stdio())
    rows = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    rewards = [1.5, 1.0] if transport == "http" else [1.5]
    assert [row["total_reward"] for row in rows] == rewards
    # Older servers would run and pay for a call after the end.
    assert any_server.runs("submit") == len(rewards)
    any_server.wait_for("teardown", len(rewards))
    assert any_server.open_sessions() == set()


@pytest.mark.slow
def test_64_agents_play_at_once_in_one_process(contract, tmp_path):
    output = tmp_path / "run.jsonl"

    async def play(url: str) -> None:
        async with agent_at(url, mode="legacy") as agent:
            for _ in range(2):
                assert await call(agent, "add", a=1, b=2) == (False, "3")
            await call(agent, "submit", answer="no")

    async def work() -> None:
        async with serve_async("Contract", contract.base_url, output=output) as url:
            await asyncio.gather(*(play(url) for _ in range(64)))

    within_a_minute(work())
    rows = [json.loads(line) for line in output.read_text().splitlines()[1:]]
    played = [(row["episode"], row["task_index"]) for row in rows]
    assert sorted(played) == sorted(divmod(number, 12) for number in range(64))
    assert {row["total_reward"] for row in rows} == {1.0}
    assert contract.runs("add") == 128
    assert contract.open_sessions() == set()
