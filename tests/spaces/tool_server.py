"""An ORS environment whose tools take the models of `pydantic_tools`."""

import json
from typing import Any

from ors import Environment, Split, TextBlock, ToolOutput, tool
from ors.types import RunToolSuccess
from pydantic import BaseModel

from tests.spaces.pydantic_tools import MODELS


class Many(BaseModel):
    tool: str
    inputs: list[dict[str, Any]]


class SpacesEnv(Environment):
    """One tool per model; the tools only accept.

    ``run_many`` runs a list of inputs of one tool, each as in a call of its own.
    """

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
