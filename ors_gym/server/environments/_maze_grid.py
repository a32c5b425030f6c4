"""Mazes as rows of text: making them, and the distances in them.

``#`` is a wall; anything else is the floor.
"""

from __future__ import annotations

from collections import deque
from random import Random
from typing import Final, TypeAlias

# A row and a column, from the top left.
Square: TypeAlias = tuple[int, int]

WALL: Final = "#"
_FLOOR: Final = "."

# What a move adds to the row and the column.
DIRECTIONS: Final[dict[str, Square]] = {
    "up": (-1, 0),
    "down": (1, 0),
    "left": (0, -1),
    "right": (0, 1),
}


def carve(size: int, generator: Random) -> list[str]:
    """Make a maze of ``size`` x ``size`` rooms with one way between any two squares.

    It has ``2 * size + 1`` rows and columns. The top left room is at row 1, column 1.
    """
    width = 2 * size + 1
    grid = [[WALL] * width for _ in range(width)]
    grid[1][1] = _FLOOR
    trail = [(1, 1)]
    while trail:
        row, column = trail[-1]
        ahead = [
            (down, right)
            for down, right in DIRECTIONS.values()
            if 0 < row + 2 * down < width
            and 0 < column + 2 * right < width
            and grid[row + 2 * down][column + 2 * right] == WALL
        ]
        if not ahead:
            trail.pop()
            continue
        down, right = generator.choice(ahead)
        grid[row + down][column + right] = _FLOOR
        grid[row + 2 * down][column + 2 * right] = _FLOOR
        trail.append((row + 2 * down, column + 2 * right))
    return ["".join(row) for row in grid]


def distances_from(start: Square, grid: list[str]) -> dict[Square, int]:
    """Give the least number of moves to each square that can be reached."""
    distances = {start: 0}
    queue = deque([start])
    while queue:
        row, column = square = queue.popleft()
        for down, right in DIRECTIONS.values():
            reached = (row + down, column + right)
            if grid[reached[0]][reached[1]] != WALL and reached not in distances:
                distances[reached] = distances[square] + 1
                queue.append(reached)
    return distances
