"""A maze as a picture."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from random import Random
from typing import Any, Final, Literal

from ors import ImageBlock, TextBlock, ToolOutput, tool
from PIL import Image
from pydantic import BaseModel, Field

from ors_gym.server.environments._base import NumberedTasks, SplitName, over
from ors_gym.server.environments._maze_grid import (
    DIRECTIONS,
    WALL,
    Square,
    carve,
    distances_from,
)

__all__ = ["Maze", "Move"]

_START: Final[Square] = (1, 1)
_LARGEST: Final = 20
_MOVES_PER_DISTANCE: Final = 4

_PIXELS_PER_SQUARE: Final = 8
_COLOURS: Final[dict[str, tuple[int, int, int]]] = {
    "#": (40, 44, 52),
    ".": (245, 245, 240),
    "@": (214, 69, 65),
    "G": (38, 166, 91),
}


class Move(BaseModel):
    """The input of ``move``."""

    direction: Literal["up", "down", "left", "right"] = Field(
        description="Where to go from here, by one square."
    )


class Maze(NumberedTasks):
    """A maze of 4 to 6 rooms a side, as text and as a picture.

    Rewards:
        Each move pays the share of the way that it gains, and costs that share where it
        leads away; a wall pays 0.0. All moves to the goal together pay 1.0.

    Starting state:
        The top left room. The goal is 8 or 16 moves away, nearer in a small maze. The
        prompt shows the map.

    Episode end:
        It terminates at the goal, or after four times the moves of the shortest way.

    Version history:
        0.1.0: the first.
    """

    served_name = "maze"

    @classmethod
    def make_task(cls, split: SplitName, generator: Random) -> dict[str, Any]:
        """Choose a size and a distance (see `NumberedTasks.make_task`)."""
        del split
        return {
            "maze_seed": generator.getrandbits(32),
            "size": generator.randint(4, 6),
            "distance": generator.choice((8, 16)),
        }

    def read_task(self, task: Mapping[str, Any]) -> None:
        """Take what the set-up needs (see `NumberedTasks.read_task`)."""
        self._seed = int(task["maze_seed"])
        self._size = int(task["size"])
        self._distance = int(task["distance"])
        if not 2 <= self._size <= _LARGEST:
            raise ValueError(f"size must be in 2..{_LARGEST}")
        if self._distance < 1 or self._distance & (self._distance - 1):
            raise ValueError("distance must be a power of two")

    async def setup(self) -> None:
        """Make the maze; in a small one the goal may be nearer than the task says."""
        generator = Random(self._seed)  # noqa: S311 - walls, not keys
        self._grid = carve(self._size, generator)
        reachable = distances_from(_START, self._grid)
        while self._distance not in reachable.values():
            self._distance //= 2
        far = [at for at, moves in reachable.items() if moves == self._distance]
        self._goal = generator.choice(sorted(far))
        self._to_goal = distances_from(self._goal, self._grid)
        self._at = _START
        self._moves_left = _MOVES_PER_DISTANCE * self._distance

    def get_prompt(self) -> list[TextBlock | ImageBlock]:
        """Explain and show the maze."""
        return self._show(
            "Find the goal. On the map @ is you, G the goal, # a wall and . the floor."
        )

    @tool
    def move(self, params: Move) -> ToolOutput:
        """Move by one square."""
        if self.finished:
            return over()
        self._moves_left -= 1
        down, right = DIRECTIONS[params.direction]
        ahead = (self._at[0] + down, self._at[1] + right)
        if self._grid[ahead[0]][ahead[1]] == WALL:
            event, ahead = "There is a wall.", self._at
        else:
            event = f"You went {params.direction}."
        gained = self._to_goal[self._at] - self._to_goal[ahead]
        self._at = ahead
        if self._at == self._goal:
            event = "You reached the goal."
        elif self._moves_left == 0:
            event += " You have no moves left."
        self.finished = self._at == self._goal or self._moves_left == 0
        return ToolOutput(
            blocks=self._show(event),
            metadata=None,
            reward=gained / self._distance,
            finished=self.finished,
        )

    def _show(self, event: str) -> list[TextBlock | ImageBlock]:
        rows = [list(row) for row in self._grid]
        for (row, column), mark in ((self._goal, "G"), (self._at, "@")):
            rows[row][column] = mark
        lines = ["".join(row) for row in rows]
        text = (
            f"{event} You are at row {self._at[0]}, column {self._at[1]}, and have "
            f"{self._moves_left} moves left.\n\n" + "\n".join(lines)
        )
        return [TextBlock(text=text), _draw(lines)]


def _draw(rows: list[str]) -> ImageBlock:
    """Draw a map as a PNG of 8 pixels to a square."""
    height, width = len(rows), len(rows[0])
    pixels = bytes(part for row in rows for square in row for part in _COLOURS[square])
    picture = Image.frombytes("RGB", (width, height), pixels).resize(
        (width * _PIXELS_PER_SQUARE, height * _PIXELS_PER_SQUARE),
        Image.Resampling.NEAREST,
    )
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    data = base64.b64encode(buffer.getvalue()).decode("ascii")
    return ImageBlock(data=data, mimeType="image/png")
