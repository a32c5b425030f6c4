"""A real ORS server whose tools take the models of `pydantic_tools`.

``python -m tests.spaces.tool_server`` prints its port and serves until its standard
input ends. Besides a tool per model, ``run_many`` runs a list of inputs of one tool,
each the way a call of its own would go.
"""

from __future__ import annotations

import asyncio
import json
import socket
import sys
import threading
from typing import Any

import uvicorn
from ors import Environment, Server, Split, TextBlock, ToolOutput, tool
from ors.types import RunToolSuccess
from pydantic import BaseModel

from tests.spaces.pydantic_tools import MODELS


class Many(BaseModel):
    tool: str
    inputs: list[dict[str, Any]]


class SpacesEnv(Environment):
    """One tool per model; the tools only accept."""

    @classmethod
    def list_splits(cls) -> Any:  # type: ignore[override]
        return [Split(name="train", type="train")]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        return [{"id": split}]

    def get_prompt(self) -> Any:
        return [TextBlock(text="Call anything.")]

    @tool
    async def run_many(self, params: Many) -> ToolOutput:
        """Run one tool with many inputs; the result lists what was refused."""
        refused = []
        for value in params.inputs:
            output = (await self._call_tool(params.tool, value)).root
            if not isinstance(output, RunToolSuccess):
                refused.append([value, output.error])
        return ToolOutput(blocks=[TextBlock(text=json.dumps(refused))])

    @tool
    def no_arguments(self) -> ToolOutput:
        """Take nothing."""
        return ToolOutput(blocks=[TextBlock(text="ok")])


def _accepting(model: type[BaseModel]) -> Any:
    def accept(self: SpacesEnv, params: Any) -> ToolOutput:
        return ToolOutput(blocks=[TextBlock(text="ok")])

    accept.__annotations__ = {"params": model, "return": ToolOutput}
    return tool(accept)


for _name, _model in MODELS.items():
    setattr(SpacesEnv, _name, _accepting(_model))


async def _serve() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(
        uvicorn.Config(Server([SpacesEnv]).app, log_level="error", access_log=False)
    )
    loop = asyncio.get_running_loop()

    def watch_owner() -> None:
        sys.stdin.read()
        loop.call_soon_threadsafe(setattr, server, "should_exit", True)

    threading.Thread(target=watch_owner, daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    await server.serve(sockets=[listener])


if __name__ == "__main__":
    asyncio.run(_serve())
