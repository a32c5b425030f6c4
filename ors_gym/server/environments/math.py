"""``math``: one arithmetic word problem, one answer."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final

from ors import TextBlock, ToolOutput, tool
from pydantic import BaseModel, Field

from ors_gym.server.environments._base import (
    NumberedTasks,
    SplitName,
    is_same_answer,
    over,
    reply,
)
from ors_gym.server.environments._questions import PROBLEMS

__all__ = ["Answer", "Math"]

# The last digit of the first number differs between the splits, so that no question is
# in two of them.
_LAST_DIGITS: Final[dict[SplitName, tuple[int, ...]]] = {
    "train": (0, 1, 2, 3, 4, 5),
    "validation": (6, 7),
    "test": (8, 9),
}


class Answer(BaseModel):
    """The input of ``submit``."""

    answer: str = Field(description="The answer, a number written in digits.")


class Math(NumberedTasks):
    """One arithmetic word problem, one answer.

    Rewards:
        1.0 for the right number, in whatever notation; 0.0 for another answer.

    Starting state:
        The prompt is the question. No question is in two splits.

    Episode end:
        It terminates with the first `submit`.

    Version history:
        0.1.0: the first.
    """

    served_name = "math"

    @classmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Write a problem (see `NumberedTasks.make_task`)."""
        problem = generator.choice(PROBLEMS)
        first = 10 * generator.randint(0, 1) + generator.choice(_LAST_DIGITS[split])
        numbers = (first + 2, generator.randint(2, 12), generator.randint(1, 12))
        return {
            "question": problem.question(generator, numbers),
            "answer": str(problem.answer(*numbers)),
        }

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take the question and its answer (see `NumberedTasks.read_task`)."""
        self.question = str(task["question"])
        self.answer = str(task["answer"])

    def get_prompt(self) -> list[TextBlock]:
        """Ask the question."""
        return [TextBlock(text=f"{self.question}\n\nSubmit the answer as a number.")]

    @tool
    def submit(self, params: Answer) -> ToolOutput:
        """Submit the answer; this ends the episode."""
        if self.finished:
            return over()
        self.finished = True
        if is_same_answer(params.answer, self.answer):
            return reply("Correct.", reward=1.0, finished=True)
        return reply("Wrong.", finished=True)
