"""Agents for tests: the official MCP client, and a wire that is listened to."""

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx2
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp_types import TextContent

from tests.support.virtual_environments import ROOT

T = TypeVar("T")


async def call(agent: Client, tool: str, **arguments: Any) -> tuple[bool, str]:
    """Call a tool; return whether that failed, and the text of the result."""
    result = await agent.call_tool(tool, arguments)
    texts = [c.text for c in result.content if isinstance(c, TextContent)]
    return result.is_error, "\n\n".join(texts)


def within_a_minute(work: Awaitable[T]) -> T:
    async def bounded() -> T:
        async with asyncio.timeout(60):
            return await work

    return asyncio.run(bounded())


def command(*arguments: str | Path) -> StdioServerParameters:
    """Say how an agent starts ``ors-gym mcp``."""
    return StdioServerParameters(
        command=sys.executable,
        args=["-m", "ors_gym", "mcp", *map(str, arguments)],
        env={"PYTHONPATH": str(ROOT)},
    )


@contextlib.asynccontextmanager
async def agent_at(
    url: str, mode: str = "auto", token: str = "", **given: Any
) -> AsyncIterator[Client]:
    """Connect the official client.

    Without TLS: that it reads the certificates is most of what a short test costs.
    """
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with (
        httpx2.AsyncClient(headers=headers, verify=False, timeout=60) as http,
        Client(
            streamable_http_client(url, http_client=http), mode=mode, **given
        ) as agent,
    ):
        yield agent


class Wire:
    """Carries connections to an address, and keeps what was said in both directions."""

    def __init__(self, target: str) -> None:
        host, _, rest = target.removeprefix("http://").partition("/")
        self._address, self._port = host.split(":")[0], int(host.split(":")[1])
        self._path = rest
        self.said = bytearray()
        self.cut: Callable[[bytes], bool] = lambda piece: False
        """Says of a piece of a reply whether its connection breaks before it."""
        self.cuts = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._carry, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        self.url = f"http://127.0.0.1:{port}/{self._path}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    async def _carry(self, reader: Any, writer: Any) -> None:
        to = await asyncio.open_connection(self._address, self._port)
        pumps = [self._pump(reader, to[1], False), self._pump(to[0], writer, True)]
        await asyncio.gather(*pumps)

    async def _pump(self, reader: Any, writer: Any, is_reply: bool) -> None:
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1 << 16):
                if is_reply and self.cut(piece):
                    self.cuts += 1
                    break
                self.said += piece
                writer.write(piece)
                await writer.drain()
        writer.close()
