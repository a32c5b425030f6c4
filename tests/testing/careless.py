"""An environment with the mistakes that authors make."""

from __future__ import annotations

import random
from typing import Any

from ors import Environment, TextBlock, ToolOutput, tool
from pydantic import BaseModel


class Word(BaseModel):
    word: str = ""


class Careless(Environment):
    """Prompts vary, splits overlap, and a tool says nothing of itself."""

    @classmethod
    def list_splits(cls) -> Any:  # type: ignore[override]
        return ["train", "test"]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        return [{"id": str(index)} for index in range(3)]

    def get_prompt(self) -> Any:
        return [TextBlock(text=f"Think of {random.random()}")]

    @tool
    def say(self, params: Word) -> ToolOutput:
        return ToolOutput(
            blocks=[TextBlock(text=params.word)], reward=1.0, finished=True
        )
