"""The cost of an episode over MCP, beside the `mcp` package without us.

    python -m benchmarks.agents [--rounds 7]

The official client plays episodes, in turn, on our MCP server before the do-nothing
server and on a server of the `mcp` package that has the same tools, prompt and results
at hand. Client and server are in this process; figures are its CPU time. The exit
status is 1 if a budget is not met.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import statistics
import sys
import time
from collections.abc import AsyncIterator, Mapping
from typing import Any, Final

import httpx2
import mcp_types as types
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.lowlevel import Server

from benchmarks.loopserver import loopserver
from benchmarks.rows import Row, quartiles
from ors_gym import AsyncORSClient
from ors_gym.formats import render_text, to_mcp_content, to_mcp_tools
from ors_gym.mcp import serve_async
from ors_gym.server._web import describe_address, listen

__all__ = ["measure"]

_BUDGET: Final = 1.5
_CALLS: Final = 16
"""Tool calls of an episode."""
_EPISODES: Final = 8
"""Of a block, at once."""
_THINK: Final[Mapping[str, Any]] = {"thought": "small"}


class _Content(Server[Any]):
    """What our MCP server shows of the do-nothing server, at hand."""

    def __init__(self, prompt: str, tools: list[Any], result: list[Any]) -> None:
        super().__init__(
            "plain",
            instructions=prompt,
            on_list_tools=self._list_tools,
            on_get_prompt=self._get_prompt,
            on_call_tool=self._call_tool,
        )
        self._prompt = prompt
        self._tools = tools
        self._result = result

    async def _list_tools(self, *_: object) -> types.ListToolsResult:
        return types.ListToolsResult.model_validate({"tools": self._tools})

    async def _get_prompt(self, *_: object) -> types.GetPromptResult:
        text = types.TextContent(text=self._prompt)
        said = [types.PromptMessage(role="user", content=text)]
        return types.GetPromptResult(messages=said)

    async def _call_tool(self, *_: object) -> types.CallToolResult:
        return types.CallToolResult.model_validate({"content": self._result})


async def _play(address: str, mode: str) -> None:
    # Without TLS: reading the certificates would cost more than the whole episode.
    async with (
        httpx2.AsyncClient(verify=False) as http,
        Client(streamable_http_client(address, http_client=http), mode=mode) as agent,
    ):
        await agent.list_tools()
        await agent.get_prompt("task")
        for _ in range(_CALLS):
            result = await agent.call_tool("think", dict(_THINK))
            if result.is_error or len(result.content) != 1:
                raise RuntimeError(f"not what was measured: {result}")


async def _block(address: str, mode: str) -> float:
    """Play some episodes at once, and return the CPU time of one, in seconds."""
    began = time.process_time()
    await asyncio.gather(*(_play(address, mode) for _ in range(_EPISODES)))
    return (time.process_time() - began) / _EPISODES


@contextlib.asynccontextmanager
async def _serve_plainly(base_url: str) -> AsyncIterator[str]:
    async with (
        AsyncORSClient(base_url) as client,
        client.session("math", split="train", index=0) as session,
    ):
        prompt = render_text(await session.get_prompt())
        tools = to_mcp_tools(await session.list_tools())
        output = await session.call_tool("think", _THINK)
    server = _Content(prompt, tools, to_mcp_content(output["blocks"]))
    application = server.streamable_http_app()
    config = uvicorn.Config(
        application, log_config=None, log_level="error", lifespan="off", ws="none"
    )
    running = uvicorn.Server(config)
    with listen("127.0.0.1", 0) as listener:
        async with server.session_manager.run(), asyncio.TaskGroup() as tasks:
            tasks.create_task(running.serve(sockets=[listener]))
            yield describe_address("127.0.0.1", listener) + "/mcp"
            running.should_exit = True


async def _measure(rounds: int) -> list[Row]:
    rows = []
    with loopserver() as base_url:
        async with (
            serve_async("math", base_url) as ours,
            _serve_plainly(base_url) as plain,
        ):
            for mode in ("legacy", "2026-07-28"):
                ratios = []
                for number in range(rounds + 1):
                    # Without sessions an episode is an address.
                    named = f"{ours}/{mode}-{number}" if mode != "legacy" else ours
                    costs = [await _block(one, mode) for one in (named, plain)]
                    ratios.append(costs[0] / costs[1])
                rows.append(
                    Row(
                        f"CPU of an episode over MCP, {mode}, to the mcp package",
                        statistics.median(ratios[1:]),
                        _BUDGET,
                        spread=quartiles(ratios[1:]),
                    )
                )
    return rows


def measure(rounds: int) -> list[Row]:
    """Measure both versions of the protocol, with sessions and without."""
    return asyncio.run(_measure(rounds))


def main() -> int:
    """Measure, print the rows, and say whether the budgets are met."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agents")
    parser.add_argument("--rounds", type=int, default=7, help="default 7")
    rows = measure(parser.parse_args().rounds)
    for row in rows:
        print(f"{row.what}: {row.figure}, {row.budget}")
    return 0 if all(row.met for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
