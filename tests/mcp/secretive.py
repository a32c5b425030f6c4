# mypy: disable-error-code="misc, override"
"""An environment whose rewards and metadata nobody but the trainer is to see."""

from typing import Any

from ors import Environment, TextBlock, ToolOutput, tool
from pydantic import BaseModel

REWARD = 0.8128437
ANSWER = "mauve-giraffe"


class GuessInput(BaseModel):
    word: str


class Secretive(Environment):
    @classmethod
    def list_splits(cls) -> Any:
        return ["train"]

    @classmethod
    def list_tasks(cls, split: str) -> Any:
        return [{"id": str(index), "answer": ANSWER} for index in range(3)]

    def get_prompt(self) -> Any:
        return [TextBlock(text="Guess the word.")]

    @tool
    def guess(self, params: GuessInput) -> ToolOutput:
        """Guess the word; this never ends."""
        if params.word == "fail":
            raise RuntimeError("no such word")
        return self._paid(finished=False)

    @tool
    def give_up(self) -> ToolOutput:
        """End the episode."""
        return self._paid(finished=True)

    def _paid(self, *, finished: bool) -> ToolOutput:
        return ToolOutput(
            blocks=[TextBlock(text="Noted.")],
            reward=REWARD,
            finished=finished,
            metadata={"expected": ANSWER, "score": REWARD},
        )
