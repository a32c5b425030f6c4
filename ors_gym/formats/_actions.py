"""Actions read into tool calls, whatever form a policy or a model gives them.

The accepted forms of one call:

- canonical: ``{"tool": name, "input": {...}}``;
- named: ``{"name": name, "arguments": {...}}``, the arguments also as JSON text;
- OpenAI's chat: ``{"type": "function", "function": {"name", "arguments"}}``;
- OpenAI's responses: ``{"type": "function_call", "name", "arguments"}``;
- Anthropic and ORS: ``{"type": "tool_use" or "tool_call", "name", "input"}``;
- JSON text of any of these;
- text with a ``<tool_call>{"name", "arguments"}</tool_call>`` block (Hermes, Qwen).

Calls may stand in an assistant message, in its content or in a list, and may be objects
of a client library. Plain text is a call where the session says which tool takes it.
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeGuard

import numpy as np

from ors_gym.errors import InvalidArgumentError
from ors_gym.formats._json import (
    decode_json,
    describe_json_fault,
    is_flat_json,
    to_plain_json,
)
from ors_gym.formats._tools import (
    find_text_tool,
    original_tool_name,
    tools_for_models,
)
from ors_gym.protocol._reply_json import STRICT_DECODER
from ors_gym.types import ToolCall, ToolSpec

TextParser: TypeAlias = Callable[[str], object]
"""Reads a model's own call syntax; see `parse_actions`."""


@dataclasses.dataclass(frozen=True, slots=True)
class InvalidAction:
    """An action that cannot be read as one tool call.

    Args:
        message: What was wrong and what the right form is, for the policy to read.
        said: The beginning of what was given, for a person.

    Example:
        >>> action = parse_action("hello")
        >>> isinstance(action, InvalidAction), action.said
        (True, 'hello')
    """

    message: str
    said: str = dataclasses.field(default="", compare=False)


class ParsedCall(NamedTuple):
    """One call of an assistant's message.

    Args:
        id: The id that the result has to name, or ``""`` if the message has none.
        action: The call, or why it cannot be read.

    Example:
        >>> ParsedCall("call_1", {"tool": "look", "input": {}}).action["tool"]
        'look'
    """

    id: str
    action: ToolCall | InvalidAction


def parse_action(
    action: object,
    *,
    tools: Sequence[ToolSpec] = (),
    plain_text: Literal["invalid", "submit"] = "invalid",
) -> ToolCall | InvalidAction:
    """Read one action. Never raises, whatever the action is.

    Accepted are ``{"tool", "input"}``; ``{"name", "arguments"}``; a tool call of
    OpenAI's chat or responses API or of Anthropic's; an assistant message that holds
    exactly one call; objects of their client libraries; JSON text of any of these; and
    text that holds exactly one ``<tool_call>{...}</tool_call>``.

    Args:
        action: Anything.
        tools: The session's tools. Error messages list them, stand-ins that
            `provider_tool_name` made become their names again, and text without a call
            goes to the terminal tool among them.
        plain_text: Without a terminal tool, ``"submit"`` sends text without a call to
            the one tool that requires exactly one property, a string; ``"invalid"``
            refuses such text.

    Returns:
        A call whose input is plain JSON (the action itself if it is one already), or
        the reason why there is none. Strings may hold lone surrogates, which
        `json.dumps` escapes as long as it writes ASCII.

    Example:
        >>> parse_action('{"name": "add", "arguments": {"a": 1}}')
        {'tool': 'add', 'input': {'a': 1}}
        >>> tool = {"name": "end", "description": "", "input_schema": None}
        >>> parse_action("I am done.", tools=[{**tool, "terminal": "both"}])
        {'tool': 'end', 'input': {}}
        >>> print(parse_action("42").message)
        Invalid action: the text holds no tool call. Send one call as \
{"tool": "<name>", "input": {...}}.
    """
    if is_canonical(action):
        return action
    if type(action) is InvalidAction:
        return action
    reader = _MessageReader(tools, plain_text)
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
    parse: TextParser | None = None,
) -> list[ParsedCall]:
    """Read all calls of one assistant turn. Never raises, whatever the message is.

    Args:
        message: Anything that `parse_action` takes, a message with several calls, or
            a list of calls.
        tools: See `parse_action`.
        plain_text: See `parse_action`.
        parse: Reads a model's own call syntax. It takes the text of the message and
            returns calls in any accepted form, None if the text holds no call, or the
            text to submit. Without it, the text is searched for JSON and
            ``<tool_call>`` blocks.

    Returns:
        The calls in order with their ids; empty if the message is plain text that no
        tool takes. A call that cannot be read keeps its place and its id.

    Example:
        >>> text = 'Both: <tool_call>{"name": "a"}</tool_call><tool_call>{</tool_call>'
        >>> first, second = parse_actions(text)
        >>> first.action
        {'tool': 'a', 'input': {}}
        >>> second.action.message[:48]
        'Invalid action: the JSON inside <tool_call> is n'
    """
    if is_canonical(message) or type(message) is InvalidAction:
        return [ParsedCall("", message)]
    return _MessageReader(tools, plain_text, parse).read(message)


def is_canonical(action: object) -> TypeGuard[ToolCall]:
    """Tell cheaply whether an action is a canonical call with plain arguments."""
    if type(action) is not dict or len(action) != 2:
        return False
    arguments, tool = action.get("input"), action.get("tool")
    return (
        type(arguments) is dict
        and type(tool) is str
        and tool != ""
        and is_flat_json(arguments)
    )


_OPEN: Final = "<tool_call>"
_CLOSE: Final = "</tool_call>"
_TEXT_TYPES: Final = frozenset({"text", "output_text"})
_BLANKS: Final = re.compile(r"\s*")
_JSON_START: Final = re.compile(r"\s*[\[{]")
_BROKEN_CALL: Final = re.compile(
    r'\s*(?:\[\s*)?\{\s*"(?:tool|name|function|tool_calls|type|id|role)"\s*:'
)
_MAX_REASON: Final = 300
_MAX_SHOWN: Final = 200
_MAX_BLOCKS: Final = 256
"""A model that repeats itself is stopped here: placing each fault takes time."""
_LISTED_TOOLS: Final = 10
_CANONICAL_FORM: Final = 'Send one call as {"tool": "<name>", "input": {...}}.'
_HERMES_FORM: Final = (
    'Send one call as <tool_call>{"name": "<name>", "arguments": {...}}</tool_call>.'
)


class _MessageReader:
    """Reads one message, with what the session says of tools and plain text."""

    def __init__(
        self,
        tools: Sequence[ToolSpec],
        plain_text: str,
        parse: TextParser | None = None,
    ) -> None:
        self.tools = tools
        self.plain_text = plain_text
        self.parse = parse
        self.leftover = ""
        """Text that holds no call and that no tool takes."""
        self._message: object = None

    def read(self, message: object) -> list[ParsedCall]:
        """Return the calls of a message, or the one that its plain text stands for."""
        self._message = message
        try:
            found = self.find(message)
            if not isinstance(found, str):
                return found
            call = self.submit(found)
        except _UnreadableError as error:
            return [ParsedCall("", self.invalid(str(error), error.form))]
        except Exception as error:  # noqa: BLE001 - a stranger's object may raise anything
            reason = f"the action cannot be read ({type(error).__name__})"
            return [ParsedCall("", self.invalid(reason))]
        if call is None:
            self.leftover = found
            return []
        return [ParsedCall("", call)]

    def find(self, message: object) -> list[ParsedCall] | str:
        """Return the calls of a message, or its text if it holds no call."""
        message = unwrap(message)
        if isinstance(message, str):
            return self.find_in_text(str.__str__(message))
        if isinstance(message, Mapping):
            return self.find_in_message(message)
        if isinstance(message, list | tuple):
            return self.find_in_parts(message)
        raise _UnreadableError(f"{name_type(message)} is not an action")

    def find_in_message(self, message: Mapping[Any, Any]) -> list[ParsedCall] | str:
        if is_call(message):
            return [self.read_call(message)]
        if not _is_assistant_message(message):
            raise _UnreadableError("the object is neither a tool call nor a message")
        if message.get("tool_calls"):
            return [self.read_call(call) for call in message["tool_calls"]]
        content = message.get("content")
        return "" if content is None else self.find(content)

    def find_in_parts(self, parts: Iterable[object]) -> list[ParsedCall] | str:
        calls: list[ParsedCall] = []
        texts: list[str] = []
        for part in map(unwrap, parts):
            if not isinstance(part, Mapping):
                raise _UnreadableError(f"{name_type(part)} is not a tool call")
            kind = _type_of(part)
            if is_call(part):
                calls.append(self.read_call(part))
            elif kind == "message":
                texts.append(_join_texts(part.get("content")))
            elif kind:
                texts.append(_join_texts([part]))
            else:
                raise _UnreadableError("an item of the list is not a tool call")
        return calls or self.find_in_text("\n\n".join(filter(None, texts)))

    def find_in_text(self, text: str) -> list[ParsedCall] | str:
        if self.parse is not None:
            return self.find_with_parser(text, self.parse)
        if _JSON_START.match(text):
            try:
                value = decode_json(text)
            except ValueError as error:
                if _BROKEN_CALL.match(text) and _OPEN not in text:
                    raise _UnreadableError(f"the JSON is not valid: {error}") from None
            else:
                if _holds_call(value):
                    return self.find(value)
        return list(self.read_blocks(text)) or text

    def find_with_parser(self, text: str, parse: TextParser) -> list[ParsedCall] | str:
        try:
            result = parse(text)
        except Exception as error:  # noqa: BLE001 - a broken output breaks parsers in all ways
            reason = f"the text cannot be parsed: {type(error).__name__}: {error}"
            raise _UnreadableError(reason[:_MAX_REASON]) from None
        if isinstance(result, str):
            return result
        if not result:
            return text
        # Text in what the parser returned is not searched for calls again.
        return _MessageReader(self.tools, "", lambda rest: rest).find(result)

    def read_blocks(self, text: str) -> Iterator[ParsedCall]:
        """Read the ``<tool_call>`` blocks of Hermes and Qwen models."""
        position = text.find(_OPEN)
        count = 0
        while position >= 0:
            count += 1
            if count > _MAX_BLOCKS:
                raise _UnreadableError(f"more than {_MAX_BLOCKS} tool calls at once")
            call, stop = self.read_block(text, position + len(_OPEN))
            yield call
            # A block that is never closed is the last one.
            close = text.find(_CLOSE, stop)
            position = -1 if close < 0 else text.find(_OPEN, close)

    def read_block(self, text: str, start: int) -> tuple[ParsedCall, int]:
        """Return the call of a block, and where its JSON ends."""
        # The end of the JSON counts, since its strings may hold the closing tag.
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
        call = unwrap(call)
        if not isinstance(call, Mapping):
            reason = f"{name_type(call)} is not a tool call"
            return ParsedCall("", self.invalid(reason, form))
        call_id = call.get("call_id") or call.get("id")
        call_id = str.__str__(call_id) if isinstance(call_id, str) else ""
        try:
            return ParsedCall(call_id, _read_call(call, self.tools))
        except _UnreadableError as error:
            return ParsedCall(call_id, self.invalid(str(error), error.form or form))
        except Exception as error:  # noqa: BLE001 - as in `read`, but the id is known
            reason = f"the call cannot be read ({type(error).__name__})"
            return ParsedCall(call_id, self.invalid(reason, form))

    def submit(self, text: str) -> ToolCall | None:
        terminal = find_text_tool(self.tools)
        if terminal is not None:
            properties = (terminal["input_schema"] or {}).get("properties")
            # Without an argument the text only says that the episode is over.
            given = {next(iter(properties)): text} if properties else {}
            return {"tool": terminal["name"], "input": given}
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
        """Say why the text that was left over is no action."""
        text = self.leftover
        if not text or text.isspace():
            return "the action is empty"
        if _JSON_START.match(text):
            try:
                decode_json(text)
            except ValueError as error:
                return f"the JSON is not valid: {error}"
            return "the JSON holds no tool call"
        if self.plain_text == "submit":
            return "no tool, or more than one, takes plain text"
        return "the text holds no tool call"

    def invalid(self, reason: str, form: str = "") -> InvalidAction:
        message = f"Invalid action: {reason}. {form or _CANONICAL_FORM}"
        return InvalidAction(message + list_tools(self.tools), _show(self._message))


def list_tools(tools: Sequence[ToolSpec]) -> str:
    """Return a sentence with the names of the tools there are; "" if there are none."""
    offered = tools_for_models(tools)
    names = [tool["name"] for tool in offered[:_LISTED_TOOLS]]
    more = len(offered) - len(names)
    rest = f" and {more} more" if more > 0 else ""
    return f" Tools: {', '.join(names)}{rest}." if names else ""


def _show(message: object) -> str:
    """Return the beginning of what a policy said: its text, or its JSON."""
    try:
        message = unwrap(message)
        if isinstance(message, Mapping) and not message.get("tool_calls"):
            message = message.get("content") or message
        if not isinstance(message, str):
            message = json.dumps(to_plain_json(message))
    except Exception:  # noqa: BLE001 - a stranger's object may raise anything
        return name_type(message)
    return str.__str__(message)[:_MAX_SHOWN]


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
        and _type_of(part) in _TEXT_TYPES
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
    match = _BLANKS.match(text, position)
    return match.end() if match else position


_CALL_TYPES: Final = frozenset({"function", "function_call", "tool_use", "tool_call"})
_INPUT_TYPES: Final = frozenset({"tool_use", "tool_call"})
_ARGUMENT_KEYS: Final = frozenset({"arguments", "input", "parameters", "args"})
_KEYS_BESIDE: Final = frozenset({"tool", "name", "id", "call_id", "type", "index"})
_ARGUMENTS_FORM: Final = "Send the arguments as one JSON object."
_TYPE_NAMES: Final = {
    type(None): "null",
    bool: "a boolean",
    str: "a string",
    int: "a number",
    float: "a number",
    list: "a list",
    tuple: "a list",
    dict: "an object",
}


class _UnreadableError(Exception):
    """Raised when something is not a call; ``form`` is the form it should have had."""

    def __init__(self, reason: str, form: str = "") -> None:
        super().__init__(reason)
        self.form = form


_AS_IT_IS: Final = frozenset({dict, list, str, tuple})


def unwrap(value: Any) -> Any:
    """Return what an array without axes or an object of a client library stands for."""
    if type(value) in _AS_IT_IS or isinstance(value, str | Mapping | list | tuple):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else value


def check_is_action(action: object, giver: str) -> None:
    """Refuse what only a mistake in code can give: a number, None, a function, ...

    A model's mistakes are part of its episode; a mistake in code repeats for ever.
    ``giver`` begins the error: "the policy returned".
    """
    if type(action) in _AS_IT_IS:
        return
    try:
        action = unwrap(action)
    except Exception:  # noqa: BLE001 - a message of a library, whatever is wrong with it
        return
    if isinstance(action, str | Mapping | list | tuple | InvalidAction):
        return
    called = " (was it called?)" if callable(action) else ""
    given = "None" if action is None else name_type(action)
    raise InvalidArgumentError(
        f"{giver} {given}, which is no action{called}. An action is "
        '{"tool": ..., "input": {...}}, a tool call of a chat API, or text with a call'
    )


def name_type(value: object) -> str:
    """Name a value's type as JSON does, or else Python: "a list", "a bytes"."""
    return _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


def _type_of(value: Mapping[Any, Any]) -> str:
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def is_call(value: Mapping[Any, Any]) -> bool:
    """Tell whether an object is meant as one call, well formed or not."""
    keys = value.keys()
    if "tool" in keys or "function" in keys or _type_of(value) in _CALL_TYPES:
        return True
    return "name" in keys and (keys <= _KEYS_BESIDE or bool(keys & _ARGUMENT_KEYS))


def _read_call(call: Mapping[Any, Any], tools: Sequence[ToolSpec]) -> ToolCall:
    """Return the canonical form of one call in any form."""
    body = unwrap(call["function"]) if "function" in call else call
    if not isinstance(body, Mapping):
        raise _UnreadableError(f"the function is {name_type(body)}, not an object")
    canonical = "tool" in body
    name = body.get("tool" if canonical else "name")
    if not isinstance(name, str) or not name:
        raise _UnreadableError("the call names no tool")
    name = str.__str__(name)
    as_object = canonical or _type_of(body) in _INPUT_TYPES
    key = "input" if as_object else "arguments"
    arguments = unwrap(body.get(key))
    if arguments is None:
        _refuse_other_keys(body, key)
        arguments = {}
    elif isinstance(arguments, str) and not as_object:
        arguments = _decode_arguments(arguments, name)
    # A canonical call has the server's own name already.
    if not canonical:
        name = original_tool_name(name, tools)
    return {"tool": name, "input": _check_arguments(arguments, key, name)}


def _refuse_other_keys(body: Mapping[Any, Any], key: str) -> None:
    """Refuse arguments under a wrong key rather than call without any."""
    for other, value in body.items():
        if other not in _KEYS_BESIDE and other != key and value is not None:
            raise _UnreadableError(
                f"unexpected key {str(other)[:40]!r}; "
                f"the arguments belong under {key!r}"
            )


def _decode_arguments(text: str, name: str) -> Any:
    """Decode arguments that came as JSON; some models send "" for none."""
    if not text or text.isspace():
        return {}
    try:
        value = decode_json(text)
    except ValueError as error:
        reason = f"the JSON in the arguments of {name[:64]!r} is not valid: {error}"
        raise _UnreadableError(reason, _ARGUMENTS_FORM) from None
    return {} if value is None else value


def _check_arguments(arguments: Any, key: str, name: str) -> dict[str, Any]:
    if not isinstance(arguments, Mapping):
        reason = f"the {key} of {name[:64]!r} is {name_type(arguments)}, not an object"
        raise _UnreadableError(reason, _ARGUMENTS_FORM if key == "arguments" else "")
    try:
        plain: dict[str, Any] = to_plain_json(arguments, root=key)
    except ValueError as error:
        raise _UnreadableError(str(error)) from None
    return plain
