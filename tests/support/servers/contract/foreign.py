# mypy: disable-error-code="misc, untyped-decorator"
"""Environments as other people write them, each with a habit that clients must meet."""

from typing import Any

from pydantic import BaseModel, field_validator

from .base import Base, Shared, SubmitInput, TextBlock, ToolOutput, sdk, tool

_STEPS = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
_SIDE = 4


class MoveInput(BaseModel):
    direction: str

    @field_validator("direction")
    @classmethod
    def _is_known(cls, value: str) -> str:
        if value not in _STEPS:
            raise ValueError(f"direction must be one of {', '.join(_STEPS)}")
        return value


class JumpInput(BaseModel):
    row: int
    column: int

    @field_validator("row", "column")
    @classmethod
    def _is_on_the_board(cls, value: int) -> int:
        if not 0 <= value < _SIDE:
            raise ValueError(f"must be between 0 and {_SIDE - 1}")
        return value


class Board(Shared, Base):
    """Its constraints stand in validators, and not in its schemas."""

    place = (0, 0)

    def get_prompt(self) -> Any:
        return [TextBlock(text="Reach the corner at the lower right.")]

    @tool
    def move(self, params: MoveInput) -> ToolOutput:
        """Move by one cell."""
        self.run("move", direction=params.direction)
        row, column = _STEPS[params.direction]
        return self.go("move", self.place[0] + row, self.place[1] + column, 0.0)

    @tool
    def jump(self, params: JumpInput) -> ToolOutput:
        """Jump to a cell, which costs something."""
        self.run("jump", row=params.row, column=params.column)
        return self.go("jump", params.row, params.column, -0.1)

    def go(self, name: str, row: int, column: int, cost: float) -> Any:
        last = _SIDE - 1
        self.place = (min(max(row, 0), last), min(max(column, 0), last))
        won = self.place == (last, last)
        return self.done(name, str(self.place), reward=won + cost, finished=won)


FOREIGN: list[Any] = [Board]

if hasattr(sdk, "terminal"):

    class Essay(Shared, Base):
        """Its only tool is the terminal one, so its list of tools is empty."""

        def get_prompt(self) -> Any:
            return [TextBlock(text=str(self.spec.get("question", "?")))]

        @sdk.terminal
        @tool
        async def submit(self, params: SubmitInput) -> ToolOutput:
            """Grade the answer."""
            self.run("submit", answer=params.answer)
            right = params.answer.strip() == self.spec.get("answer")
            text = "right" if right else "wrong"
            return self.done("submit", text, reward=float(right), finished=True)

    FOREIGN.append(Essay)
