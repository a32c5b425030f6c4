"""Tools as model providers accept them: names, input schemas, descriptions."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ors_gym.formats._blocks import make_encodable, replace_surrogates
from ors_gym.formats._schemas import bundle_schema, find_reference, list_of
from ors_gym.types import JSONObject, ToolSpec


def to_openai_tools(tools: Iterable[ToolSpec]) -> list[JSONObject]:
    """Return tools for the ``tools`` argument of OpenAI's chat completions.

    Args:
        tools: The tools as the server lists them.

    Returns:
        ``ChatCompletionFunctionToolParam`` dicts. `provider_tool_name` replaces names
        that OpenAI refuses; `parse_action`, given the tools, puts the server's names
        back.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> to_openai_tools([look])[0]["function"]["parameters"]
        {'type': 'object', 'properties': {}}
    """
    return [
        {
            "type": "function",
            "function": {
                "name": provider_tool_name(tool["name"]),
                "description": replace_surrogates(tool["description"]),
                "parameters": make_encodable(provider_schema(tool["input_schema"])),
            },
        }
        for tool in tools_for_models(tools)
    ]


def to_anthropic_tools(tools: Iterable[ToolSpec]) -> list[JSONObject]:
    """Return tools for the ``tools`` argument of Anthropic's messages.

    Args:
        tools: The tools as the server lists them.

    Returns:
        ``ToolParam`` dicts, with names as in `to_openai_tools`.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> to_anthropic_tools([look])[0]["input_schema"]
        {'type': 'object', 'properties': {}}
    """
    return [
        {
            "name": provider_tool_name(tool["name"]),
            "description": replace_surrogates(tool["description"]),
            "input_schema": make_encodable(provider_schema(tool["input_schema"])),
        }
        for tool in tools_for_models(tools)
    ]


def to_mcp_tools(tools: Iterable[ToolSpec]) -> list[JSONObject]:
    """Return tools as MCP lists them, with names and schemas unchanged.

    Args:
        tools: The tools as the server lists them.

    Returns:
        ``Tool`` as JSON. Only what MCP requires is added: ``"type": "object"``.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> to_mcp_tools([look])[0]["inputSchema"]
        {'type': 'object'}
    """
    listed: list[JSONObject] = [
        {
            "name": tool["name"],
            "description": tool["description"],
            "inputSchema": {**(tool["input_schema"] or {}), "type": "object"},
        }
        for tool in tools
    ]
    return list(make_encodable(listed))


def tools_for_models(tools: Iterable[ToolSpec]) -> list[ToolSpec]:
    """Leave out a terminal tool that a model reaches by plain text alone."""
    return [tool for tool in tools if tool.get("terminal") != "text"]


def find_text_tool(tools: Iterable[ToolSpec]) -> ToolSpec | None:
    """Return the terminal tool that takes a message without a call, or None."""
    return next((one for one in tools if one.get("terminal", "tool") != "tool"), None)


_HERMES_FORM: Final = '<tool_call>\n{"name": "...", "arguments": {...}}\n</tool_call>'


def describe_tools(tools: Iterable[ToolSpec]) -> str:
    """Describe tools for a system message, and how they are called.

    Args:
        tools: The tools as the server lists them.

    Returns:
        Their JSON in ``<tools>`` tags, one a line, and the form of a call that
        `parse_action` reads; both as Hermes and Qwen models know them.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> describe_tools([look]).splitlines()[2][:50]
        '{"type": "function", "function": {"name": "look", '
    """
    tools = list(tools)
    listed = [json.dumps(tool) for tool in to_openai_tools(tools)]
    parts = []
    if listed:
        parts += ["These functions can be called:", "<tools>", *listed, "</tools>", ""]
        parts += [
            "To call one, write its name and its arguments as JSON in these tags:"
        ]
        parts += [_HERMES_FORM]
    terminal = find_text_tool(tools)
    if terminal is not None:
        parts += [""] if parts else []
        parts += ["A message without a function call is the final answer."]
        if terminal.get("terminal") == "text":
            parts += filter(None, [replace_surrogates(terminal["description"])])
    return "\n".join(parts)


_MAX_LENGTH: Final = 64
_DIGEST_LENGTH: Final = 10
_ACCEPTED_NAME: Final = re.compile(rf"[a-zA-Z0-9_-]{{1,{_MAX_LENGTH}}}")
_REFUSED_CHARACTER: Final = re.compile(r"[^a-zA-Z0-9_-]")
_STAND_IN: Final = re.compile(rf".*_[0-9a-f]{{{_DIGEST_LENGTH}}}")


def provider_tool_name(name: str) -> str:
    """Return a tool's name if providers accept it, else a readable stand-in.

    Args:
        name: A tool's name as the server lists it.

    Returns:
        At most 64 characters of ``a-zA-Z0-9_-``. One name always gets the same
        stand-in, and no other name gets it.

    Example:
        >>> provider_tool_name("look_up"), provider_tool_name("files.read")
        ('look_up', 'files_read_601e4eb608')
    """
    if _ACCEPTED_NAME.fullmatch(name):
        return name
    digest = hashlib.sha256(name.encode("utf-8", "surrogatepass")).hexdigest()
    readable = _REFUSED_CHARACTER.sub("_", name)[: _MAX_LENGTH - _DIGEST_LENGTH - 1]
    return f"{readable}_{digest[:_DIGEST_LENGTH]}"


def original_tool_name(name: str, tools: Sequence[ToolSpec]) -> str:
    """Undo `provider_tool_name`; a name that is no tool's stand-in stays."""
    if not _STAND_IN.fullmatch(name) or any(tool["name"] == name for tool in tools):
        return name
    for tool in tools:
        if provider_tool_name(tool["name"]) == name:
            return tool["name"]
    return name


_REFUSED_KEYWORDS: Final = frozenset(
    {"$ref", "allOf", "anyOf", "const", "discriminator", "else", "enum", "if", "not"}
    | {"oneOf", "then"}
)
"""Keywords that providers refuse in the outermost schema."""
_MAX_DEPTH: Final = 32


def provider_schema(schema: JSONObject | None) -> JSONObject:
    """Return a schema whose outermost level is a plain object.

    OpenAI refuses an outermost ``anyOf``, ``oneOf``, ``allOf``, ``enum`` or ``not``,
    and an object without ``properties`` (its function calling guide). Anthropic
    requires ``"type": "object"`` and refuses the same unions (its tool use guide).
    Pydantic writes such schemas for unions and for recursive models. Below the
    outermost level only references by ``$id``, ``$anchor`` and the like change: no
    provider follows them, so they become pointers to ``$defs``. Keywords of the
    outermost level that begin with ``x-``, such as ``x-gymnasium``, are left out.

    Args:
        schema: A tool's ``input_schema``; None means that it takes no arguments.

    Returns:
        A copy. The branches of a union are merged: the result has the properties of
        all branches, each with the schemas that the branches give it, and requires
        those that every branch requires. The server still checks the union itself.

    Example:
        >>> provider_schema(None)
        {'type': 'object', 'properties': {}}
        >>> provider_schema({"anyOf": [
        ...     {"properties": {"a": {}, "b": {}}, "required": ["a", "b"]},
        ...     {"properties": {"a": {}}, "required": ["a"]},
        ... ]})
        {'type': 'object', 'properties': {'a': {}, 'b': {}}, 'required': ['a']}
    """
    # Quicker than deepcopy, and able to copy any depth that could be read.
    result = json.loads(json.dumps(bundle_schema(schema))) if schema else {}
    result = {key: value for key, value in result.items() if not key.startswith("x-")}
    if not result.keys() & _REFUSED_KEYWORDS:
        properties = _as_object(result.get("properties"))
        return {**result, "type": "object", "properties": properties}
    properties, required = _PropertyCollector(result).collect(result)
    kept = {key: value for key, value in result.items() if key not in _REFUSED_KEYWORDS}
    # It would forbid the properties of the branches.
    kept.pop("additionalProperties", None)
    merged = {**kept, "type": "object", "properties": properties}
    if required:
        merged["required"] = [name for name in properties if name in required]
    return merged


class _PropertyCollector:
    """Finds the properties of an object that is described in several parts."""

    def __init__(self, root: JSONObject) -> None:
        self._root = root
        self._found: dict[str, tuple[dict[str, Any], set[str]]] = {}
        """What each reference leads to; nothing while it is being followed."""

    def collect(self, part: Any, depth: int = 0) -> tuple[dict[str, Any], set[str]]:
        """Return a part's properties and the names of the required ones."""
        if not isinstance(part, Mapping) or depth > _MAX_DEPTH:
            return {}, set()
        groups = [(_as_object(part.get("properties")), _names(part.get("required")))]
        if isinstance(part.get("$ref"), str):
            groups.append(self._follow(part["$ref"], depth))
        groups += [self.collect(inner, depth + 1) for inner in list_of(part, "allOf")]
        for key in ("anyOf", "oneOf"):
            branches = [self.collect(inner, depth + 1) for inner in list_of(part, key)]
            if branches:
                in_all = set.intersection(*(required for _, required in branches))
                groups.append((_merge(found for found, _ in branches), in_all))
        required = set().union(*(required for _, required in groups))
        return _merge(found for found, _ in groups), required

    def _follow(self, reference: str, depth: int) -> tuple[dict[str, Any], set[str]]:
        if reference not in self._found:
            self._found[reference] = {}, set()
            target = find_reference(reference, self._root)
            self._found[reference] = self.collect(target, depth + 1)
        return self._found[reference]


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _names(value: Any) -> set[str]:
    names = value if isinstance(value, list) else []
    return {name for name in names if isinstance(name, str)}


def _merge(groups: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge properties; one that is described in several ways may be any of them."""
    described: dict[str, list[Any]] = {}
    for properties in groups:
        for name, schema in properties.items():
            schemas = described.setdefault(name, [])
            if schema not in schemas:
                schemas.append(schema)
    return {
        name: schemas[0] if len(schemas) == 1 else {"anyOf": schemas}
        for name, schemas in described.items()
    }
