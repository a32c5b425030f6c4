# mypy: disable-error-code="misc, untyped-decorator"
"""Environments as other people write them, each with a habit that clients must meet."""

from typing import Any

from pydantic import BaseModel, Field, field_validator

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


class TakeInput(BaseModel):
    count: int = Field(ge=1, le=3)


class Nim(Shared, Base):
    """A game that ``get_prompt`` begins, with a scripted opponent who moves first.

    Asked twice, the game begins anew. Rewards are null up to the end, and there
    (raw + 1) / 2. The best move stands in the metadata.
    """

    games = 0
    pile = 0

    def get_prompt(self) -> Any:
        self.games += 1
        self.pile = 9
        self.note("prompt", games=self.games)
        return [TextBlock(text=f"Game {self.games}. {self.answer()}")]

    def answer(self) -> str:
        taken = self.pile % 4 or 1
        self.pile -= taken
        return f"Player 1 takes {taken}: {self.pile} are left. Who takes the last wins."

    @tool
    def take(self, params: TakeInput) -> ToolOutput:
        """Take stones from the pile."""
        self.run("take", count=params.count, games=self.games)
        expected = self.pile % 4
        metadata = {"expected": expected, "raw_reward": None}
        reward: float | None
        if params.count > self.pile:
            text, reward, over = f"Illegal move: {self.pile} are left.", -0.05, False
        else:
            self.pile -= params.count
            won = self.pile == 0
            text = "Player 0 wins." if won else self.answer()
            over = self.pile == 0
            reward = ((1 if won else -1) + 1) / 2 if over else None
        output = self.done("take", text, reward=reward, finished=over)
        output.metadata = metadata
        return output


class Debate(Shared, Base):
    """A judge that needs a key, and whose grader is down now and then: for task 1."""

    def __init__(self, task_spec: Any = None, secrets: Any = None) -> None:
        super().__init__(task_spec, secrets)
        if "openai_api_key" not in (secrets or {}):
            raise ValueError("openai_api_key required in secrets")

    def get_prompt(self) -> Any:
        self.note("prompt")
        return [TextBlock(text=f"Argue: {self.spec.get('question')}")]

    @tool
    async def argue(self, params: SubmitInput) -> ToolOutput:
        """Say something that the judge will weigh."""
        self.run("argue", answer=params.answer)
        return self.done("argue", "noted")

    @tool
    async def submit(self, params: SubmitInput) -> ToolOutput:
        """Have the judge compare your answer with the reference."""
        self.run("submit", answer=params.answer)
        reference = str(self.spec.get("answer"))
        if str(self.spec.get("id")).endswith("-1"):
            raise RuntimeError("the grader answered 503 three times")
        reward = 1.0 if params.answer == reference else 0.5
        output = self.done("submit", "judged", reward=reward, finished=True)
        output.metadata = {"reference_answer": f"reference {reference}"}
        return output


FOREIGN: list[Any] = [Board, Nim, Debate]

if hasattr(Base, "get_messages"):

    class Interview(Shared, Base):
        """Its prompt is a conversation that the policy goes on with."""

        def get_messages(self) -> Any:
            self.note("prompt")
            call = {"type": "tool_call", "id": "c1", "name": "submit"}
            asked = [TextBlock(text="Is it 7?")]
            turns: list[tuple[str, list[Any]]] = [
                ("system", [TextBlock(text="Be brief.")]),
                ("user", asked),
                (
                    "assistant",
                    [
                        {"type": "reasoning", "text": "Let me try."},
                        TextBlock(text="I try."),
                        {**call, "input": {"answer": "7"}},
                    ],
                ),
                (
                    "user",
                    [
                        {
                            "type": "tool_result",
                            "tool_call_id": "c1",
                            "blocks": [TextBlock(text="wrong")],
                            "is_error": True,
                        },
                        TextBlock(text=str(self.spec.get("question"))),
                    ],
                ),
            ]
            return [sdk.Message(role=role, blocks=blocks) for role, blocks in turns]

        @tool
        def submit(self, params: SubmitInput) -> ToolOutput:
            """Answer."""
            self.run("submit", answer=params.answer)
            right = params.answer == self.spec.get("answer")
            return self.done("submit", "ok", reward=float(right), finished=True)

    class Tutor(Interview):
        """Its author wrote a prompt beside the conversation."""

        def get_prompt(self) -> Any:
            self.note("plain prompt")
            return [TextBlock(text="The question alone.")]

    FOREIGN += [Interview, Tutor]

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
