"""``guess``: find a number between 1 and 16."""

from __future__ import annotations

from collections.abc import Mapping
from random import Random
from typing import Any, Final

from ors import TextBlock, ToolOutput, tool
from pydantic import BaseModel, Field

from ors_gym.server.environments._base import NumberedTasks, SplitName, over, reply

__all__ = ["Guess", "Number"]

_LOWEST: Final = 1
_HIGHEST: Final = 16
_MOST_GUESSES: Final = 10
# A power of two, so that a sum of rewards is exact.
_PRICE: Final = 1 / 16


class Number(BaseModel):
    """The input of ``guess``."""

    number: int = Field(
        ge=_LOWEST, le=_HIGHEST, description="The number you think it is."
    )


class Guess(NumberedTasks):
    """A secret number between 1 and 16; each guess is answered with higher or lower.

    Rewards:
        1.0 for the right number, -1/16 for a wrong one. A player that bisects gets
        0.85 on average, and one that guesses at random 0.03.

    Starting state:
        The prompt says the range and how many guesses are left.

    Episode end:
        It terminates with the right guess, or with the tenth wrong one.

    Version history:
        0.1.0: the first.
    """

    served_name = "guess"

    @classmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Think of a number (see `NumberedTasks.make_task`)."""
        del split
        return {"secret": generator.randint(_LOWEST, _HIGHEST)}

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take the number (see `NumberedTasks.read_task`)."""
        self.secret = int(task["secret"])
        if not _LOWEST <= self.secret <= _HIGHEST:
            raise ValueError(f"secret must be in {_LOWEST}..{_HIGHEST}")
        self.low, self.high = _LOWEST, _HIGHEST
        self.guesses_left = _MOST_GUESSES

    def get_prompt(self) -> list[TextBlock]:
        """Say what to do."""
        return [TextBlock(text=f"I am thinking of a number. {self._state()}")]

    @tool
    def guess(self, params: Number) -> ToolOutput:
        """Guess the number; the answer says whether it is higher or lower."""
        if self.finished:
            return over()
        self.guesses_left -= 1
        if params.number == self.secret:
            self.finished = True
            return reply(f"Yes, it is {self.secret}.", reward=1.0, finished=True)
        if params.number < self.secret:
            self.low = max(self.low, params.number + 1)
            hint = f"It is higher than {params.number}."
        else:
            self.high = min(self.high, params.number - 1)
            hint = f"It is lower than {params.number}."
        self.finished = self.guesses_left == 0
        state = f"It was {self.secret}." if self.finished else self._state()
        return reply(f"{hint} {state}", reward=-_PRICE, finished=self.finished)

    def _state(self) -> str:
        return (
            f"It is in {self.low}..{self.high}, and you have {self.guesses_left} "
            f"guesses left."
        )
