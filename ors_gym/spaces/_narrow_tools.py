"""Narrows the schemas of tools whose server accepts less than the schemas say."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping
from random import Random
from typing import Any, Final, TypeAlias

from ors_gym._shown_text import warn
from ors_gym.errors import InvalidRequestError, SchemaError
from ors_gym.formats import provider_schema
from ors_gym.formats._schemas import bundle_schema, resolve_schema
from ors_gym.spaces.json_schema import CompiledSchema
from ors_gym.types import JSONObject, ToolSpec

ToolSchemas: TypeAlias = Mapping[str, Mapping[str, Any]]
"""Schemas by tool and argument: ``{"move": {"direction": {"enum": ["up", "down"]}}}``.

Each replaces those keywords of the server's schema that it has itself."""

_UNIONS: Final = ("allOf", "anyOf", "oneOf")
_MAX_DEPTH: Final = 8
_MOST_COMPARED: Final = 200
"""Values of a narrowed argument that are looked up in the server's schema."""


def narrow_tools(
    tools: Iterable[ToolSpec], tool_schemas: ToolSchemas | None
) -> list[ToolSpec]:
    """Merge schemas of arguments into those that the server lists.

    Authors often check an argument in code, and their schema only says ``string``. A
    space of such tools samples calls that the server refuses. This is what every env
    does with its ``tool_schemas``.

    Args:
        tools: The tools as the server lists them.
        tool_schemas: Schemas by tool and argument. Tools that are not listed are
            passed over, since those of a server's sessions may differ. If a schema
            allows a value that the server's schema forbids, a warning shows the value,
            and the schema counts.

    Returns:
        The tools, with the narrowed schemas.

    Raises:
        InvalidRequestError: If a schema is none, or leaves no value.

    Example:
        >>> schema = {"type": "object", "properties": {"to": {"type": "string"}}}
        >>> move = {"name": "move", "description": "", "input_schema": schema}
        >>> (tool,) = narrow_tools([move], {"move": {"to": {"enum": ["up", "down"]}}})
        >>> tool["input_schema"]["properties"]
        {'to': {'type': 'string', 'enum': ['up', 'down']}}
    """
    listed = list(tools)
    check_tool_schemas(tool_schemas)
    if not tool_schemas:
        return listed
    narrowed: list[ToolSpec] = json.loads(
        _narrow_listing(json.dumps(listed), json.dumps(tool_schemas))
    )
    return narrowed


def check_tool_schemas(tool_schemas: Any) -> None:
    """Raise InvalidRequestError unless this is a table of JSON Schemas, or None."""
    if tool_schemas is None:
        return
    if not isinstance(tool_schemas, Mapping) or not all(
        isinstance(arguments, Mapping) for arguments in tool_schemas.values()
    ):
        raise InvalidRequestError(
            "tool_schemas is a table by tool and argument, such as "
            f'{{"move": {{"to": {{"enum": ["up"]}}}}}}, not {tool_schemas!r:.200}'
        )
    for tool, arguments in tool_schemas.items():
        for name, schema in arguments.items():
            _check_schema(f"tool_schemas: {tool}.{name}", schema)


def _check_schema(place: str, schema: Any) -> None:
    # Imported here: it takes longer than the rest of the package together.
    import jsonschema  # type: ignore[import-untyped, unused-ignore]  # noqa: PLC0415

    try:
        json.dumps(schema, allow_nan=False)
        jsonschema.Draft202012Validator.check_schema(schema)
    except (jsonschema.SchemaError, TypeError, ValueError, RecursionError) as error:
        problem = getattr(error, "message", str(error))
        raise InvalidRequestError(
            f"{place} is not a JSON Schema: {problem:.200}"
        ) from None


@functools.lru_cache(maxsize=256)
def _narrow_listing(listed: str, tool_schemas: str) -> str:
    """Narrow tools once for all the sessions and envs that list the same."""
    table = json.loads(tool_schemas)
    tools: list[ToolSpec] = json.loads(listed)
    for tool in tools:
        if table.get(tool["name"]):
            tool["input_schema"] = _narrow_tool(tool, table[tool["name"]])
    return json.dumps(tools)


def _narrow_tool(tool: ToolSpec, parts: JSONObject) -> JSONObject:
    nothing = {"type": "object", "additionalProperties": False}
    schema = bundle_schema(tool["input_schema"] or nothing)
    known = provider_schema(schema)["properties"]
    narrowed = _narrow_object(schema, schema, parts)
    for name, part in parts.items():
        place = f"{tool['name']}.{name}"
        if name not in known:
            arguments = ", ".join(known) or "none"
            _warn(
                f"{place} is not an argument that the server lists; it has {arguments}"
            )
            listed = narrowed.get("properties")
            listed = listed if isinstance(listed, Mapping) else {}
            narrowed["properties"] = {**listed, name: part}
            continue
        before = _compile_alone(name, known[name], schema, place)
        after = _compile_alone(name, _overlay(known[name], part, schema), schema, place)
        beyond = _find_value_beyond(before, after)
        if beyond is not None:
            _warn(
                f"{place} is not narrower than what the server lists, but different: "
                f"it allows {beyond[name]!r:.100}. It is used as it is"
            )
    return narrowed


def _narrow_object(
    schema: Any, root: JSONObject, parts: JSONObject, depth: int = 0
) -> JSONObject:
    """Put schemas over the arguments of an object, in each branch of its unions."""
    narrowed = resolve_schema(schema, root)
    properties = narrowed.get("properties")
    if isinstance(properties, Mapping):
        narrowed["properties"] = {
            name: _overlay(part, parts[name], root) if name in parts else part
            for name, part in properties.items()
        }
    for key in _UNIONS:
        if isinstance(narrowed.get(key), list):
            narrowed[key] = [
                _narrow_object(branch, root, parts, depth + 1)
                if isinstance(branch, Mapping) and depth < _MAX_DEPTH
                else branch
                for branch in narrowed[key]
            ]
    return narrowed


def _overlay(listed: Any, part: Any, root: JSONObject) -> Any:
    if isinstance(part, bool):
        return part
    return {**resolve_schema(listed, root), **part}


def _compile_alone(
    name: str, part: Any, root: JSONObject, place: str
) -> CompiledSchema:
    """Compile the schema of an object that has this argument and no other."""
    definitions = {key: root[key] for key in ("$defs", "definitions") if key in root}
    alone = {"properties": {name: part}, "required": [name]}
    closed = {"type": "object", "additionalProperties": False}
    return CompiledSchema({**definitions, **alone, **closed}, place)


def _find_value_beyond(before: CompiledSchema, after: CompiledSchema) -> Any:
    """Return a value that is new; None if there is none, or none that can be found."""
    try:
        before.prepare()
    except SchemaError:
        # The server's own schema is of no use: nothing can be compared with it.
        return None
    try:
        after.prepare()
    except SchemaError as error:
        raise InvalidRequestError(f"tool_schemas leaves no value: {error}") from None
    try:
        values = after.enumerate(_MOST_COMPARED)
    except SchemaError:
        random = Random(0)  # noqa: S311
        values = [after.draw(random) for _ in range(_MOST_COMPARED)]
    return next((value for value in values if not before.is_valid(value)), None)


def _warn(text: str) -> None:
    warn(f"tool_schemas: {text}")
