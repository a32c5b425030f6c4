"""Finds the tool calls in a model's message, whatever it is.

A message is one call, a list of calls, an assistant's message in the format of a
model's provider, or text; text holds JSON, ``<tool_call>`` blocks, or a plain answer.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypeAlias

from ors_gym.actions.call_shapes import (
    UnreadableError,
    is_call,
    name_type,
    read_call,
    type_of,
    unwrap,
)
from ors_gym.actions.json_values import STRICT_DECODER, describe_json_fault
from ors_gym.types import ToolCall, ToolSpec

__all__ = [
    "InvalidAction",
    "MessageReader",
    "ParsedCall",
    "TextParser",
]

_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_TEXT_TYPES: Final = frozenset({"text", "output_text"})
_BLANKS: Final = re.compile(r"\s*")
_JSON_START: Final = re.compile(r"\s*[\[{]")
_BROKEN_CALL: Final = re.compile(
    r'\s*\[?\s*\{\s*"(?:tool|name|function|tool_calls|type|id|role)"\s*:'
)
_MAX_REASON: Final = 300
_MAX_BLOCKS: Final = 256
"""A model that repeats itself is stopped here: placing each fault takes time."""
_LISTED_TOOLS: Final = 10
_CANONICAL_FORM: Final = 'Send one call as {"tool": "<name>", "input": {...}}.'
_HERMES_FORM: Final = (
    'Send one call as <tool_call>{"name": "<name>", "arguments": {...}}</tool_call>.'
)

TextParser: TypeAlias = Callable[[str], object]
"""Reads a model's own call syntax; see `ors_gym.actions.parse_actions`."""


@dataclasses.dataclass(frozen=True, slots=True)
class InvalidAction:
    """An action that cannot be read as one tool call.

    Args:
        message: What was wrong and what the right form is, for the policy to read.
    """

    message: str


@dataclasses.dataclass(frozen=True, slots=True)
class ParsedCall:
    """One call of an assistant's message.

    Args:
        id: The id that the result has to name, or ``""`` if the message has none.
        action: The call, or why it cannot be read.
    """

    id: str
    action: ToolCall | InvalidAction


class MessageReader:
    """Reads one message; holds what the session says about it.

    Args:
        tools: The session's tools.
        plain_text: ``"submit"`` sends plain text to the one tool that takes it.
        terminal_tool: The tool that takes plain text, if the server declares one.
        parse: Replaces the search for calls in text.
    """

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        plain_text: str,
        terminal_tool: Mapping[str, Any] | None,
        parse: TextParser | None = None,
    ) -> None:
        self.tools = tools
        self.plain_text = plain_text
        self.terminal_tool = terminal_tool
        self.parse = parse
        self.leftover = ""
        """Text that holds no call and goes to no tool."""

    def read(self, message: object) -> list[ParsedCall]:
        """Return the calls, with plain text sent where it belongs."""
        try:
            found = self.find(message)
            if not isinstance(found, str):
                return found
            call = self.submit(found)
        except UnreadableError as error:
            return [ParsedCall("", self.invalid(str(error), error.form))]
        except Exception as error:  # noqa: BLE001 - a stranger's object may raise anything
            reason = f"the action cannot be read ({type(error).__name__})"
            return [ParsedCall("", self.invalid(reason))]
        if call is None:
            self.leftover = found
            return []
        return [ParsedCall("", call)]

    def find(self, message: object) -> list[ParsedCall] | str:
        """Return the calls of a message, or its text if it holds none."""
        message = unwrap(message)
        if isinstance(message, str):
            return self.find_in_text(str.__str__(message))
        if isinstance(message, Mapping):
            return self.find_in_message(message)
        if isinstance(message, list | tuple):
            return self.find_in_parts(message)
        raise UnreadableError(f"{name_type(message)} is not an action")

    def find_in_message(self, message: Mapping[Any, Any]) -> list[ParsedCall] | str:
        """Look into a call, or an assistant's message."""
        if is_call(message):
            return [self.read_call(message)]
        if not _is_assistant_message(message):
            raise UnreadableError("the object is neither a tool call nor a message")
        if message.get("tool_calls"):
            return [self.read_call(call) for call in message["tool_calls"]]
        content = message.get("content")
        return "" if content is None else self.find(content)

    def find_in_parts(self, parts: Iterable[object]) -> list[ParsedCall] | str:
        """Look into the parts of a message's content, or a list of calls."""
        calls: list[ParsedCall] = []
        texts: list[str] = []
        for part in map(unwrap, parts):
            if not isinstance(part, Mapping):
                raise UnreadableError(f"{name_type(part)} is not a tool call")
            kind = type_of(part)
            if is_call(part):
                calls.append(self.read_call(part))
            elif kind == "message":
                texts.append(_join_texts(part.get("content")))
            elif kind:
                texts.append(_join_texts([part]))
            else:
                raise UnreadableError("the list holds what is not a tool call")
        return calls or self.find_in_text("\n\n".join(filter(None, texts)))

    def find_in_text(self, text: str) -> list[ParsedCall] | str:
        """Look for calls in text: the given parser's, or JSON and Hermes blocks."""
        if self.parse is not None:
            return self.find_with_parser(text, self.parse)
        if _JSON_START.match(text):
            try:
                value = STRICT_DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                if _BROKEN_CALL.match(text) and _OPEN not in text:
                    reason = f"the JSON is not valid: {describe_json_fault(error)}"
                    raise UnreadableError(reason) from None
            else:
                if _holds_call(value):
                    return self.find(value)
        return list(self.read_blocks(text)) or text

    def find_with_parser(self, text: str, parse: TextParser) -> list[ParsedCall] | str:
        """Use the caller's parser; what it leaves as text is not looked into."""
        try:
            result = parse(text)
        except Exception as error:  # noqa: BLE001 - a broken output breaks parsers in all ways
            reason = f"the text cannot be parsed: {type(error).__name__}: {error}"
            raise UnreadableError(reason[:_MAX_REASON]) from None
        if isinstance(result, str):
            return result
        if not result:
            return text
        return MessageReader(self.tools, "", None, lambda rest: rest).find(result)

    def read_blocks(self, text: str) -> Iterator[ParsedCall]:
        """Read the ``<tool_call>`` blocks of Hermes and Qwen models."""
        position = text.find(_OPEN)
        count = 0
        while position >= 0:
            count += 1
            if count > _MAX_BLOCKS:
                raise UnreadableError(f"more than {_MAX_BLOCKS} tool calls at once")
            call, stop = self.read_block(text, position + len(_OPEN))
            yield call
            # A block that is never closed is the last one.
            close = text.find(_CLOSE, stop)
            position = -1 if close < 0 else text.find(_OPEN, close)

    def read_block(self, text: str, start: int) -> tuple[ParsedCall, int]:
        """Read one block; return the call and where its JSON ends.

        The JSON's own end counts, since its strings may hold the closing tag.
        """
        start = _skip_blanks(text, start)
        try:
            value, stop = STRICT_DECODER.raw_decode(text, start)
        except (ValueError, RecursionError) as error:
            fault = describe_json_fault(error, start)
            reason = f"the JSON inside {_OPEN} is not valid: {fault}"
            return ParsedCall("", self.invalid(reason, _HERMES_FORM)), start
        stop = _skip_blanks(text, stop)
        if text.startswith(_CLOSE, stop):
            return self.read_call(value, _HERMES_FORM), stop
        reason = f"the JSON after {_OPEN} is not followed by {_CLOSE}"
        return ParsedCall("", self.invalid(reason, _HERMES_FORM)), stop

    def read_call(self, call: object, form: str = "") -> ParsedCall:
        """Read one call of any shape, with its id."""
        call = unwrap(call)
        if not isinstance(call, Mapping):
            reason = f"{name_type(call)} is not a tool call"
            return ParsedCall("", self.invalid(reason, form))
        call_id = call.get("call_id") or call.get("id")
        call_id = str.__str__(call_id) if isinstance(call_id, str) else ""
        try:
            return ParsedCall(call_id, read_call(call, self.tools))
        except UnreadableError as error:
            return ParsedCall(call_id, self.invalid(str(error), error.form or form))
        except Exception as error:  # noqa: BLE001 - as in `read`, but the id is known
            reason = f"the call cannot be read ({type(error).__name__})"
            return ParsedCall(call_id, self.invalid(reason, form))

    def submit(self, text: str) -> ToolCall | None:
        """Return the call that plain text stands for, or None."""
        if self.terminal_tool is not None:
            argument = self.terminal_tool.get("arg")
            given = {} if argument is None else {argument: text}
            return {"tool": self.terminal_tool["name"], "input": given}
        if self.plain_text != "submit":
            return None
        takers = [
            (tool["name"], required)
            for tool in self.tools
            if (required := _only_required_string(tool["input_schema"])) is not None
        ]
        if len(takers) != 1:
            return None
        name, argument = takers[0]
        return {"tool": name, "input": {argument: text}}

    def describe_leftover(self) -> str:
        """Say why the text that was found is no action."""
        text = self.leftover
        if not text or text.isspace():
            return "the action is empty"
        if _JSON_START.match(text):
            try:
                STRICT_DECODER.decode(text)
            except (ValueError, RecursionError) as error:
                return f"the JSON is not valid: {describe_json_fault(error)}"
            return "the JSON holds no tool call"
        if self.plain_text == "submit":
            return "no tool, or more than one, takes plain text"
        return "the text holds no tool call"

    def invalid(self, reason: str, form: str = "") -> InvalidAction:
        """Word the message that the policy reads."""
        message = f"Invalid action: {reason}. {form or _CANONICAL_FORM}"
        names = [tool["name"] for tool in self.tools[:_LISTED_TOOLS]]
        if names:
            more = len(self.tools) - len(names)
            rest = f" and {more} more" if more > 0 else ""
            message += f" Tools: {', '.join(names)}{rest}."
        return InvalidAction(message)


def _is_assistant_message(value: Mapping[Any, Any]) -> bool:
    has_part = "content" in value or "tool_calls" in value
    return has_part and value.get("role", "assistant") == "assistant"


def _holds_call(value: Any) -> bool:
    """Tell whether decoded JSON is meant as a call, rather than as an answer."""
    if isinstance(value, list):
        return any(isinstance(part, dict) and is_call(part) for part in value)
    return isinstance(value, dict) and (is_call(value) or _is_assistant_message(value))


def _join_texts(content: Any) -> str:
    """Join the text parts of a content, leaving out reasoning and the like."""
    if isinstance(content, str):
        return content
    texts = [
        part["text"]
        for part in map(unwrap, content or ())
        if isinstance(part, Mapping)
        and type_of(part) in _TEXT_TYPES
        and isinstance(part.get("text"), str)
    ]
    return "\n\n".join(texts)


def _only_required_string(schema: Mapping[str, Any] | None) -> str | None:
    """Return the name of the one required property if that is a string."""
    required = (schema or {}).get("required")
    properties = (schema or {}).get("properties")
    if not isinstance(required, list) or not isinstance(properties, Mapping):
        return None
    if len(required) != 1 or not isinstance(required[0], str):
        return None
    declared = properties.get(required[0])
    is_string = isinstance(declared, Mapping) and declared.get("type") == "string"
    return required[0] if is_string else None


def _skip_blanks(text: str, position: int) -> int:
    """Return where the next character that is not blank stands."""
    match = _BLANKS.match(text, position)
    return match.end() if match else position
