"""Play in a terminal: write a tool call in a line, or give its arguments one by one."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence

from ors_gym.display._game import Field, Game, list_fields
from ors_gym.display._play_prompt import LeaveError, Prompt
from ors_gym.display._play_written import UnreadError, read_call, read_value
from ors_gym.display._terminal import say
from ors_gym.display._transcript import Entry
from ors_gym.formats._json import decode_json
from ors_gym.formats._schemas import describe_tool
from ors_gym.types import JSONObject, ToolCall, ToolSpec


def play_in_terminal(
    game: Game, task_index: int = 0, *, on_entry: Callable[[Entry], None] | None = None
) -> float:
    """Play an episode to its end, or until the player leaves; return the total reward.

    `on_entry` is called with the prompt and each step, after it was printed.
    """
    entry = game.reset(task_index)
    say(entry.text)
    player = _Player(Prompt())
    while True:
        if on_entry is not None:
            on_entry(entry)
        if game.ended:
            break
        try:
            call = player.ask(game.tools)
        except LeaveError:
            say("left the episode")
            break
        entry = game.step(call)
        say(f"{entry.text}\n[reward {entry.reward:g}]")
    total = game.transcript.total
    say(f"total reward: {total:g}")
    return total


class _Player:
    """A person who is asked for one call after another."""

    def __init__(self, prompt: Prompt) -> None:
        self._prompt = prompt
        self._seen: Sequence[ToolSpec] = ()
        self._last = ""

    def ask(self, tools: Sequence[ToolSpec]) -> ToolCall | str:
        """Return a call, or the text of one in a form that models write."""
        if list(tools) != self._seen:
            self._list(tools)
        names = [tool["name"] for tool in tools]
        while True:
            line = self._prompt.ask("> ", names).strip()
            if line == "q" and line not in names:
                raise LeaveError
            if line == "?":
                self._list(tools)
                continue
            if line.startswith(("{", "<")):
                return line
            if not line and names:
                line = self._last if self._last in names else names[0]
            try:
                tool, given = read_call(line, tools)
            except UnreadError as error:
                say(str(error))
                continue
            self._last = tool["name"]
            return {"tool": tool["name"], "input": self._complete(tool, given)}

    def _list(self, tools: Sequence[ToolSpec]) -> None:
        self._seen = list(tools)
        say()
        for number, tool in enumerate(tools, 1):
            description = (tool["description"].strip().splitlines() or [""])[0]
            say(f"  {number}. {describe_tool(tool)}  {description}".rstrip())
        say("Write a tool and its arguments. Enter: the last tool; ?: tools; q: leave.")

    def _complete(self, tool: ToolSpec, given: JSONObject) -> JSONObject:
        """Ask for arguments that are missing; for optional ones if none was given."""
        fields = list_fields(tool)
        if fields is None:
            return given or self._ask_for_json()
        for field in fields:
            if field.name in given or (given and not field.required):
                continue
            text = self._ask_for(field)
            if text or field.required:
                given = {**given, field.name: read_value(text, field)}
        return given

    def _ask_for(self, field: Field) -> str:
        optional = ", optional" if not field.required else ""
        if field.kind != "choice":
            return self._prompt.ask(f"  {field.name} ({_expected(field)}{optional}): ")
        texts = [_text_of(choice) for choice in field.choices]
        keys = _keys_of(texts)
        shown = texts if not keys else [f"{key} {text}" for key, text in keys.items()]
        listed = texts if keys == dict(zip(texts, texts, strict=True)) else shown
        question = f"  {field.name} ({', '.join(listed)}{optional}): "
        return self._prompt.ask(question, texts, keys)

    def _ask_for_json(self) -> JSONObject:
        while True:
            text = self._prompt.ask("  input (a JSON object): ")
            try:
                value = decode_json(text)
            except ValueError as error:
                say(f"  this is not JSON: {error}")
                continue
            if isinstance(value, dict):
                return value
            say("  this is not a JSON object: write {...}")


def _text_of(choice: object) -> str:
    return choice if isinstance(choice, str) else json.dumps(choice)


def _keys_of(choices: Sequence[str]) -> Mapping[str, str]:
    """Return a key for each choice: itself, or its number where no digit begins one."""
    if all(len(text) == 1 for text in choices):
        return {text: text for text in choices}
    if len(choices) > 9 or any(text[:1].isdigit() for text in choices):
        return {}
    return {str(number): text for number, text in enumerate(choices, 1)}


def _expected(field: Field) -> str:
    return "JSON or text" if field.kind == "json" else field.kind
