"""Every accepted form of an action, read into a tool call.

What cannot be read is an `InvalidAction`, never an exception: a model's mistake is part
of an episode. Nothing is checked against a tool's schema, since the server decides
(docs/wire.md, point 16).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from ors_gym.actions.json_values import explain_unserialisable, is_flat_json
from ors_gym.actions.reader import (
    InvalidAction,
    MessageReader,
    ParsedCall,
    TextParser,
)
from ors_gym.types import ToolCall, ToolSpec

__all__ = [
    "InvalidAction",
    "ParsedCall",
    "TextParser",
    "explain_unserialisable",
    "parse_action",
    "parse_actions",
]


def parse_action(
    action: object,
    *,
    tools: Sequence[ToolSpec] = (),
    plain_text: Literal["invalid", "submit"] = "invalid",
    terminal_tool: Mapping[str, Any] | None = None,
) -> ToolCall | InvalidAction:
    """Read one action. Never raises, whatever the action is.

    Accepted are ``{"tool", "input"}``; ``{"name", "arguments"}``; a tool call of
    OpenAI's chat or responses API or of Anthropic's, or an assistant message that
    holds exactly one; their client libraries' objects; a JSON string of any of these;
    and text that holds exactly one ``<tool_call>{...}</tool_call>``.

    Args:
        action: Anything.
        tools: The session's tools: named in messages, searched by
            ``plain_text="submit"``, and used to undo `ors_gym.formats`' renaming.
        plain_text: Whether text without a call is invalid, or goes to the one tool
            that requires exactly one property, a string.
        terminal_tool: The tool that takes plain text, if the server declares one in
            ``/tools``: its ``name``, and as ``arg`` the input's key for the text; with
            no ``arg`` the tool takes no arguments, and the text only ends the episode.

    Returns:
        A call whose input is plain JSON (the action itself if it is one already), or
        why there is none. Strings may hold lone surrogates, which `json.dumps`
        escapes as long as it writes ASCII.

    Example:
        >>> parse_action('{"name": "add", "arguments": {"a": 1}}')
        {'tool': 'add', 'input': {'a': 1}}
        >>> parse_action("42", terminal_tool={"name": "answer", "arg": "text"})
        {'tool': 'answer', 'input': {'text': '42'}}
        >>> print(parse_action("42").message)
        Invalid action: the text holds no tool call. Send one call as \
{"tool": "<name>", "input": {...}}.
    """
    if type(action) is dict and len(action) == 2:
        arguments = action.get("input")
        if (
            type(arguments) is dict
            and type(action.get("tool")) is str
            and action["tool"]
            and is_flat_json(arguments)
        ):
            return action  # type: ignore[return-value]  # just checked
    if type(action) is InvalidAction:
        return action
    reader = MessageReader(tools, plain_text, terminal_tool)
    calls = reader.read(action)
    if len(calls) == 1:
        return calls[0].action
    if calls:
        reason = f"{len(calls)} tool calls at once; send them one after another"
    else:
        reason = reader.describe_leftover()
    return reader.invalid(reason)


def parse_actions(
    message: object,
    *,
    tools: Sequence[ToolSpec] = (),
    plain_text: Literal["invalid", "submit"] = "invalid",
    terminal_tool: Mapping[str, Any] | None = None,
    parse: TextParser | None = None,
) -> list[ParsedCall]:
    """Read all calls of one assistant turn. Never raises, whatever the message is.

    Args:
        message: Anything that `parse_action` takes, a message with several calls, or
            a list of calls.
        tools: See `parse_action`.
        plain_text: See `parse_action`.
        terminal_tool: See `parse_action`.
        parse: Reads a model's own call syntax: takes the text of the message and
            returns any form above, None if the text holds no call, or the text to
            submit. Without it, JSON and ``<tool_call>`` blocks are looked for.

    Returns:
        The calls in order with their ids; empty if the message is plain text that
        goes to no tool. A call that cannot be read is in its place, with its id.

    Example:
        >>> text = 'Both: <tool_call>{"name": "a"}</tool_call><tool_call>{</tool_call>'
        >>> first, second = parse_actions(text)
        >>> first.action
        {'tool': 'a', 'input': {}}
        >>> second.action.message[:48]
        'Invalid action: the JSON inside <tool_call> is n'
    """
    return MessageReader(tools, plain_text, terminal_tool, parse).read(message)
