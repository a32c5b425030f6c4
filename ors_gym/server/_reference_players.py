"""A scripted reference player for each bundled environment.

Each episode has its own player. The player is called with the latest observation
(first the prompt) and the tools, and answers with a tool call. It plays from the text
alone, as a model would, and never sees the task.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Final, TypeAlias

from ors_gym.server.environments._maze_grid import DIRECTIONS, distances_from
from ors_gym.server.environments._questions import (
    REPAIR,
    REPAIR_SQL,
    find_questions,
    solve_problem,
)
from ors_gym.types import ToolCall, ToolSpec

Player: TypeAlias = Callable[[str, Sequence[ToolSpec]], ToolCall]
"""Chooses the next call from an observation and the tools."""


def play_math(observation: str, _: Sequence[ToolSpec]) -> ToolCall:
    return {"tool": "submit", "input": {"answer": str(solve_problem(observation))}}


def play_guess(observation: str, _: Sequence[ToolSpec]) -> ToolCall:
    """Bisect the interval that the observation names."""
    low, high = re.findall(r"(\d+)\.\.(\d+)", observation)[0]
    return {"tool": "guess", "input": {"number": (int(low) + int(high)) // 2}}


def play_blackjack(observation: str, _: Sequence[ToolSpec]) -> ToolCall:
    """Hit or stand by the basic strategy, from the totals in the observation."""
    soft, total = re.findall(r"\((soft )?(\d+)\)", observation)[0]
    shown = re.findall(r"dealer shows (ace|\d+)", observation)[0]
    dealer = 1 if shown == "ace" else int(shown)
    if soft:
        enough = 19 if dealer in (9, 10) else 18
    elif 4 <= dealer <= 6:
        enough = 12
    elif 2 <= dealer <= 3:
        enough = 13
    else:
        enough = 17
    return {"tool": "stand" if int(total) >= enough else "hit", "input": {}}


def play_maze(observation: str, _: Sequence[ToolSpec]) -> ToolCall:
    """Take the first step of a shortest way over the map in the observation."""
    grid = [line for line in observation.splitlines() if line.startswith("#")]
    squares = {
        mark: (row, line.index(mark))
        for row, line in enumerate(grid)
        for mark in "@G"
        if mark in line
    }
    (row, column), to_goal = squares["@"], distances_from(squares["G"], grid)
    direction = min(
        DIRECTIONS,
        key=lambda name: to_goal.get(
            (row + DIRECTIONS[name][0], column + DIRECTIONS[name][1]), len(to_goal)
        ),
    )
    return {"tool": "move", "input": {"direction": direction}}


class SqlPlayer:
    """Lists the tables, fixes the data if asked, then answers each question."""

    def __init__(self) -> None:
        self._plan: list[ToolCall] | None = None
        self._answers: list[str] = []
        self._last_tool = ""

    def __call__(self, observation: str, _: Sequence[ToolSpec]) -> ToolCall:
        if self._plan is None:
            self._plan = _plan_sql(observation)
        if self._last_tool == "query":
            value = observation.splitlines()[1]
            self._answers.append("none" if value == "(0 rows)" else value)
        answer = "; ".join(self._answers)
        call: ToolCall = (
            self._plan.pop(0)
            if self._plan
            else {"tool": "submit", "input": {"answer": answer}}
        )
        self._last_tool = call["tool"]
        return call


def _plan_sql(prompt: str) -> list[ToolCall]:
    calls: list[ToolCall] = [{"tool": "list_tables", "input": {}}]
    repair = REPAIR.read(prompt)
    if repair is not None:
        calls.append({"tool": "update", "input": {"sql": REPAIR_SQL.format(**repair)}})
    calls += [
        {"tool": "query", "input": {"sql": sql}} for sql in find_questions(prompt)
    ]
    return calls


REFERENCE_PLAYERS: Final[dict[str, Callable[[], Player]]] = {
    "math": lambda: play_math,
    "guess": lambda: play_guess,
    "blackjack": lambda: play_blackjack,
    "maze": lambda: play_maze,
    "sql": SqlPlayer,
}
"""What makes a player for one episode, by the name of the environment."""
