"""An environment with the tools that the MCP project's conformance suite asks for."""

# mypy: disable-error-code="misc, override"
import asyncio
import base64
from typing import Any

from ors import Environment, ImageBlock, TextBlock, ToolOutput, tool
from pydantic import BaseModel

from tests.support.servers.contract.outputs import png

PICTURE = base64.b64encode(png(1, 1)).decode()


class address(BaseModel):  # noqa: N801 - the suite's name of the definition
    street: str = ""
    city: str = ""


class SchemaInput(BaseModel):
    model_config = {
        "extra": "forbid",
        "json_schema_extra": {
            "$schema": "https://json-schema.org/draft/2020-12/schema"
        },
    }

    name: str = ""
    address: address


class Everything(Environment):
    @classmethod
    def list_splits(cls) -> Any:
        return ["train"]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        return [{"id": "0"}]

    def get_prompt(self) -> Any:
        return [TextBlock(text="Call what you are asked to.")]

    @tool
    def test_simple_text(self) -> ToolOutput:
        """Return text."""
        text = "This is a simple text response for testing."
        return ToolOutput(blocks=[TextBlock(text=text)])

    @tool
    def test_image_content(self) -> ToolOutput:
        """Return an image."""
        return ToolOutput(blocks=[ImageBlock(data=PICTURE, mimeType="image/png")])

    @tool
    def test_error_handling(self) -> ToolOutput:
        """Raise."""
        raise RuntimeError("This tool intentionally returns an error for testing")

    @tool
    async def test_tool_with_progress(self) -> ToolOutput:
        """Take a while."""
        await asyncio.sleep(1)
        return ToolOutput(blocks=[TextBlock(text="done")])

    @tool
    def json_schema_2020_12_tool(self, params: SchemaInput) -> ToolOutput:
        """Take arguments that a schema with definitions describes."""
        return ToolOutput(blocks=[TextBlock(text=params.name)])
