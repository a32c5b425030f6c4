"""One tool call, in any of the shapes that models and their libraries give it.

- ``{"tool", "input"}``: the canonical action
- ``{"name", "arguments"}``: Hermes and Qwen; here and below arguments may be JSON text
- ``{"id", "type": "function", "function": {"name", "arguments"}}``: OpenAI's chat API
- ``{"type": "function_call", "call_id", "name", "arguments"}``: its responses API
- ``{"type": "tool_use", "id", "name", "input"}``: Anthropic's messages API
- ``{"type": "tool_call", "id", "name", "input"}``: messages of ORS servers
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np

from ors_gym.actions.json_values import (
    STRICT_DECODER,
    describe_json_fault,
    to_plain_json,
)
from ors_gym.actions.tool_names import original_tool_name
from ors_gym.types import ToolCall, ToolSpec

__all__ = ["UnreadableError", "is_call", "name_type", "read_call", "type_of", "unwrap"]

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


class UnreadableError(Exception):
    """Raised when something is not a call; never leaves the parser.

    Args:
        reason: What is wrong.
        form: The form that it should have had, if not the canonical one.
    """

    def __init__(self, reason: str, form: str = "") -> None:
        super().__init__(reason)
        self.form = form


def unwrap(value: Any) -> Any:
    """Undo what libraries wrap around plain values: arrays without axes, models.

    Args:
        value: Anything.

    Returns:
        The item of an array without axes, the dict of an object with
        ``model_dump()``, or the value itself.

    Example:
        >>> unwrap(np.array("text"))
        'text'
    """
    if isinstance(value, str | Mapping | list | tuple):
        return value
    if isinstance(value, np.ndarray) and value.ndim == 0:
        return value.item()
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else value


def name_type(value: object) -> str:
    """Name a value's type as JSON does, or else Python.

    Args:
        value: Anything.

    Example:
        >>> name_type([1]), name_type(b"")
        ('a list', 'a bytes')
    """
    return _TYPE_NAMES.get(type(value), f"a {type(value).__name__}")


def type_of(value: Mapping[Any, Any]) -> str:
    """Return what a JSON object says of its own type, ``""`` if nothing.

    Args:
        value: The object.

    Example:
        >>> type_of({"type": "tool_use"}), type_of({"type": []})
        ('tool_use', '')
    """
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def is_call(value: Mapping[Any, Any]) -> bool:
    """Tell whether a JSON object is meant as one call, well formed or not.

    Args:
        value: The object.

    Example:
        >>> is_call({"name": "look"}), is_call({"name": "Ada", "age": 36})
        (True, False)
    """
    keys = value.keys()
    if "tool" in keys or "function" in keys or type_of(value) in _CALL_TYPES:
        return True
    return "name" in keys and (keys <= _KEYS_BESIDE or bool(keys & _ARGUMENT_KEYS))


def read_call(call: Mapping[Any, Any], tools: Sequence[ToolSpec]) -> ToolCall:
    """Return the canonical form of one call of any shape.

    Args:
        call: The call.
        tools: The session's tools, to undo the renaming of `tool_names`. A
            canonical call has the server's own name already.

    Raises:
        UnreadableError: If it is not a call of any shape.

    Example:
        >>> read_call({"type": "tool_use", "name": "look", "input": {}}, ())
        {'tool': 'look', 'input': {}}
    """
    body = unwrap(call["function"]) if "function" in call else call
    if not isinstance(body, Mapping):
        raise UnreadableError(f"the function is {name_type(body)}, not an object")
    canonical = "tool" in body
    name = body.get("tool" if canonical else "name")
    if not isinstance(name, str) or not name:
        raise UnreadableError("the call names no tool")
    name = str.__str__(name)
    as_object = canonical or type_of(body) in _INPUT_TYPES
    key = "input" if as_object else "arguments"
    arguments = unwrap(body.get(key))
    if arguments is None:
        _refuse_other_keys(body, key)
        arguments = {}
    elif isinstance(arguments, str) and not as_object:
        arguments = _decode_arguments(arguments, name)
    if not canonical:
        name = original_tool_name(name, tools)
    return {"tool": name, "input": _check_arguments(arguments, key, name)}


def _refuse_other_keys(body: Mapping[Any, Any], key: str) -> None:
    """Refuse arguments under a wrong key rather than call without any."""
    for other, value in body.items():
        if other not in _KEYS_BESIDE and other != key and value is not None:
            raise UnreadableError(
                f"unexpected key {str(other)[:40]!r}; "
                f"the arguments belong under {key!r}"
            )


def _decode_arguments(text: str, name: str) -> Any:
    """Decode arguments that came as JSON; some models send "" for none."""
    if not text or text.isspace():
        return {}
    try:
        value = STRICT_DECODER.decode(text)
    except (ValueError, RecursionError) as error:
        fault = describe_json_fault(error)
        reason = f"the JSON in the arguments of {name[:64]!r} is not valid: {fault}"
        raise UnreadableError(reason, _ARGUMENTS_FORM) from None
    return {} if value is None else value


def _check_arguments(arguments: Any, key: str, name: str) -> dict[str, Any]:
    """Return the arguments as a plain dict."""
    if not isinstance(arguments, Mapping):
        reason = f"the {key} of {name[:64]!r} is {name_type(arguments)}, not an object"
        raise UnreadableError(reason, _ARGUMENTS_FORM if key == "arguments" else "")
    try:
        plain: dict[str, Any] = to_plain_json(arguments, root=key)
    except ValueError as error:
        raise UnreadableError(str(error)) from None
    return plain
