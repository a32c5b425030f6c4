"""Play in a terminal: choose a tool and give its arguments, line by line."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from ors_gym.display._game import Field, Game, list_fields
from ors_gym.display._terminal import clean, say
from ors_gym.display._transcript import Entry
from ors_gym.types import JSONObject, ToolCall, ToolSpec


def play_in_terminal(
    game: Game, task_index: int = 0, *, on_entry: Callable[[Entry], None] | None = None
) -> float:
    """Play an episode to its end, or until the player leaves; return the total reward.

    `on_entry` is called with the prompt and each step, after it was printed.
    """
    entry = game.reset(task_index)
    say(entry.text)
    while True:
        if on_entry is not None:
            on_entry(entry)
        if game.ended:
            break
        try:
            call = _ask_for_call(game.tools)
        except _LeaveError:
            say("\nleft the episode")
            break
        entry = game.step(call)
        say(f"{entry.text}\n[reward {entry.reward:g}]")
    total = game.transcript.total
    say(f"total reward: {total:g}")
    return total


class _LeaveError(Exception):
    """Raised when the player has had enough."""


def _ask_for_call(tools: Sequence[ToolSpec]) -> ToolCall:
    say()
    for number, tool in enumerate(tools, 1):
        description = (tool["description"].strip().splitlines() or [""])[0]
        say(f"  {number}. {tool['name']}  {description}".rstrip())
    by_name = {tool["name"]: tool for tool in tools}
    by_name |= {str(number): tool for number, tool in enumerate(tools, 1)}
    while True:
        chosen = _ask("tool (name or number; q to leave): ").strip()
        if chosen == "q" and chosen not in by_name:
            raise _LeaveError
        if chosen in by_name:
            tool = by_name[chosen]
            return {"tool": tool["name"], "input": _ask_for_input(tool)}
        say(
            f"there is no tool {chosen!r}; write its name or its number "
            f"(1 to {len(tools)}), or q to leave"
        )


def _ask_for_input(tool: ToolSpec) -> JSONObject:
    """Ask for each argument; an empty answer leaves out an optional one."""
    fields = list_fields(tool)
    if fields is None:
        return _ask_for_json()
    given = {}
    for field in fields:
        optional = "" if field.required else ", optional"
        text = _ask(f"  {field.name} ({_expected(field)}{optional}): ")
        if text or field.required:
            given[field.name] = _read(text, field)
    return given


def _ask_for_json() -> JSONObject:
    while True:
        text = _ask("  input (a JSON object): ")
        try:
            value = json.loads(text)
        except ValueError as error:
            say(f"  this is not JSON: {error}")
            continue
        if isinstance(value, dict):
            return value
        say("  this is not a JSON object: write {...}")


def _expected(field: Field) -> str:
    if field.kind == "choice":
        return "one of " + ", ".join(map(json.dumps, field.choices))
    return "JSON or text" if field.kind == "json" else field.kind


def _read(text: str, field: Field) -> Any:
    """Read an argument; what cannot be read is sent as text: the server decides."""
    if field.kind == "choice" and text in field.choices:
        return text
    try:
        return field.read(text)
    except ValueError:
        return text


def _ask(question: str) -> str:
    try:
        return input(clean(question)).rstrip("\r")
    except EOFError:
        raise _LeaveError from None
