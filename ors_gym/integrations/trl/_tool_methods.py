"""Google docstrings that `transformers.utils.get_json_schema` reads back as meant."""

from __future__ import annotations

import inspect
import itertools
import json
import keyword
import operator
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, Union

from ors_gym.formats import provider_schema
from ors_gym.formats._blocks import replace_surrogates
from ors_gym.formats._schemas import find_reference
from ors_gym.types import JSONObject, ToolSpec

__all__ = [
    "REMARKS",
    "BoundTool",
    "CallTool",
    "Hint",
    "describe",
    "google_docstring",
    "hint_of",
    "merge_tools",
    "one_line",
    "safe_names",
    "schema_text",
    "to_json",
    "tool_methods",
    "unite",
]

_SECTION: Final = re.compile(r"(Args|Returns|Raises|\((?i:choices)):")
"""What `get_json_schema` takes for the beginning of something, wherever it stands."""


def google_docstring(
    description: str, remark: str, arguments: Mapping[str, str]
) -> str:
    """Write a docstring.

    Args:
        description: What a server says of a tool, which may look like anything.
        remark: A paragraph of our own behind it, or ``""``.
        arguments: One line each, by name.

    Returns:
        The docstring. A space before the colon keeps headings of the server's from
        being taken for ours.

    Example:
        >>> print(google_docstring("Adds. Args: a, b", "", {"a": "A number."}))
        Adds. Args : a, b
        <BLANKLINE>
        Args:
            a: A number.
        <BLANKLINE>
        Returns:
            What the tool answers.
    """
    told = replace_surrogates(inspect.cleandoc(description)).strip()
    parts = [_SECTION.sub(r"\1 :", told), remark]
    if arguments:
        lines = [f"    {name}: {text}" for name, text in arguments.items()]
        parts.append("\n".join(["Args:", *lines]))
    parts.append("Returns:\n    What the tool answers.")
    return "\n\n".join(filter(None, parts))


def one_line(text: str) -> str:
    r"""Return text fit for one line of a docstring.

    Args:
        text: Any text of a server.

    Returns:
        The text with its white space collapsed.

    Example:
        >>> one_line("How\n  many. Returns: all")
        'How many. Returns : all'
    """
    return replace_surrogates(_SECTION.sub(r"\1 :", " ".join(text.split())))


def to_json(value: Any) -> str:
    r"""Return JSON fit for one line of a docstring.

    Args:
        value: A JSON value.

    Returns:
        One line that decodes to the value.

    Example:
        >>> to_json({"größe": "Args: none"})
        '{"größe": "Args\\u003a none"}'
    """
    text = replace_surrogates(json.dumps(value, ensure_ascii=False))
    return _SECTION.sub(lambda match: rf"{match[1]}\u003a", text)


REMARKS: Final = frozenset(
    {"$comment", "$schema", "default", "deprecated", "description", "examples"}
    | {"$defs", "definitions", "discriminator", "readOnly", "title", "writeOnly"}
)
"""Keys that allow and forbid nothing."""
_MAX_DEPTH: Final = 24
"""Schemas within schemas that are followed, since they may be recursive."""
_MAX_TEXT: Final = 2000
"""Characters of one parameter's schema; a longer one is shown with its references."""
_NAMED_PARTS: Final = frozenset({"dependentSchemas", "patternProperties", "properties"})
_LISTED_PARTS: Final = frozenset({"allOf", "anyOf", "oneOf", "prefixItems"})
_SINGLE_PARTS: Final = frozenset(
    {"additionalProperties", "contains", "else", "if", "items", "not"}
    | {"propertyNames", "then", "unevaluatedItems", "unevaluatedProperties"}
)
_LEFT_OUT: Final = frozenset({"$defs", "definitions", "discriminator", "title"})


class _NotExpandableError(Exception):
    """Raised for a schema that cannot be written without references."""


def describe(schema: Any, root: JSONObject, depth: int = 0) -> str:
    """Return what a schema says of itself, on one line.

    Args:
        schema: A JSON Schema.
        root: The schema that its references lead into.
        depth: How many references led here.

    Returns:
        Its description, or that of what it refers to, else ``""``.

    Example:
        >>> describe({"description": "How many."}, {})
        'How many.'
    """
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return ""
    if isinstance(schema.get("description"), str) and schema["description"].split():
        return one_line(schema["description"])
    if "$ref" in schema:
        return describe(find_reference(schema["$ref"], root), root, depth + 1)
    return ""


def schema_text(schema: Any, root: JSONObject) -> str | None:
    """Return a parameter's schema as JSON in which no reference is left.

    Args:
        schema: The parameter's JSON Schema.
        root: The schema that its references lead into.

    Returns:
        JSON; None if the schema is recursive, becomes long without references, or
        has others than to ``$defs``.

    Example:
        >>> root = {"$defs": {"Age": {"type": "integer", "minimum": 0, "title": "Age"}}}
        >>> schema_text({"$ref": "#/$defs/Age"}, root)
        '{"type": "integer", "minimum": 0}'
    """
    try:
        text = to_json(_expand(schema, root, 0))
    except _NotExpandableError:
        return None
    return text if len(text) <= _MAX_TEXT else None


def _expand(schema: Any, root: JSONObject, depth: int) -> Any:
    """Put what is referred to in the place of references, and leave titles out."""
    if not isinstance(schema, Mapping):
        return schema
    if depth > _MAX_DEPTH:
        raise _NotExpandableError
    if "$ref" in schema:
        return _follow(schema, root, depth)
    return {
        key: _expand_part(key, value, root, depth + 1)
        for key, value in schema.items()
        if key not in _LEFT_OUT
    }


def _follow(schema: Mapping[str, Any], root: JSONObject, depth: int) -> JSONObject:
    found = find_reference(schema["$ref"], root)
    if found is None:
        raise _NotExpandableError
    target = _expand(found, root, depth + 1)
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    rest: JSONObject = _expand(beside, root, depth + 1)
    if not rest.keys() - REMARKS and isinstance(target, dict):
        return {**target, **rest}
    return {**rest, "allOf": [target, *rest.get("allOf", ())]}


def _expand_part(key: str, value: Any, root: JSONObject, depth: int) -> Any:
    if key in _NAMED_PARTS and isinstance(value, Mapping):
        return {name: _expand(part, root, depth) for name, part in value.items()}
    if key in _LISTED_PARTS and isinstance(value, list):
        return [_expand(part, root, depth) for part in value]
    return _expand(value, root, depth) if key in _SINGLE_PARTS else value


_BASIC: Final = {
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": float,
    "string": str,
}
_MAX_HINT_DEPTH: Final = 8
"""Hints within hints: what is deeper, or recursive, may be anything."""
_SCALARS: Final = (bool, float, int, str, type(None))


class Hint(NamedTuple):
    """A type hint for the values of a schema.

    Args:
        annotation: What `transformers.utils.get_json_schema` can read; it allows every
            value that the schema allows.
        exact: Whether it allows no other value.
    """

    annotation: Any
    exact: bool


_ANYTHING: Final = Hint(Any, exact=False)


def hint_of(schema: Any, root: JSONObject, depth: int = 0) -> Hint:
    """Return a type hint for the values of a schema.

    Args:
        schema: A JSON Schema.
        root: The schema that its references lead into.
        depth: How many schemas it is a part of.

    Returns:
        The hint.

    Example:
        >>> hint_of({"anyOf": [{"type": "integer"}, {"type": "null"}]}, {}).exact
        True
        >>> hint_of({"type": "array", "items": {"enum": ["a"]}}, {}).annotation
        list[typing.Literal['a']]
        >>> hint_of({"type": "integer", "minimum": 1}, {})
        Hint(annotation=<class 'int'>, exact=False)
    """
    if schema is True or schema == {}:
        return Hint(Any, exact=True)
    if not isinstance(schema, Mapping) or depth > _MAX_HINT_DEPTH:
        return _ANYTHING
    keys = schema.keys() - REMARKS
    hint = _hint_of_keys(schema, keys, root, depth)
    return hint if hint is not None else Hint(Any, exact=not keys)


def _hint_of_keys(
    schema: Mapping[str, Any], keys: set[str], root: JSONObject, depth: int
) -> Hint | None:
    if "$ref" in keys:
        target = hint_of(find_reference(schema["$ref"], root), root, depth + 1)
        return Hint(target.annotation, target.exact and keys == {"$ref"})
    if "const" in keys:
        return _hint_of_values([schema["const"]], keys <= {"const", "type"})
    if isinstance(schema.get("enum"), list):
        return _hint_of_values(schema["enum"], keys <= {"enum", "type"})
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list) and parts and (key != "allOf" or len(parts) == 1):
            hints = [hint_of(part, root, depth + 1) for part in parts]
            # Values that fit two branches of a oneOf are refused.
            return unite(hints, exact=keys == {key} and key != "oneOf")
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        return unite(
            [hint_of({**schema, "type": one}, root, depth + 1) for one in kind]
        )
    return _hint_of_type(kind, schema, keys, root, depth)


def _hint_of_type(
    kind: Any, schema: Mapping[str, Any], keys: set[str], root: JSONObject, depth: int
) -> Hint | None:
    if isinstance(kind, str) and kind in _BASIC:
        return Hint(_BASIC[kind], keys == {"type"})
    if kind == "array":
        items = hint_of(schema.get("items", True), root, depth + 1)
        annotation: Any = list
        if items.annotation is not Any:
            annotation = list[items.annotation]  # type: ignore[name-defined]
        return Hint(annotation, items.exact and keys <= {"type", "items"})
    if kind == "object" or "properties" in keys:
        values = hint_of(schema.get("additionalProperties", True), root, depth + 1)
        exact = values.exact and keys <= {"type", "additionalProperties"}
        if values.annotation is Any or "properties" in keys:
            return Hint(dict, exact)
        return Hint(dict[str, values.annotation], exact)  # type: ignore[name-defined]
    return None


def _hint_of_values(values: list[Any], exact: bool) -> Hint:
    """Return a hint for the values of an enumeration; only scalars can be listed."""
    if not values or any(type(value) not in _SCALARS for value in values):
        return _ANYTHING
    return Hint(Literal[tuple(values)], exact)


def unite(hints: Iterable[Hint], *, exact: bool = True) -> Hint:
    """Return a hint for the values of any of several.

    Args:
        hints: At least one.
        exact: Whether the union allows only what was meant.

    Returns:
        The hint.

    Example:
        >>> unite([Hint(int, True), Hint(str, True)])
        Hint(annotation=typing.Union[int, str], exact=True)
    """
    hints = list(hints)
    annotation = operator.getitem(Union, tuple(hint.annotation for hint in hints))
    return Hint(annotation, exact and all(hint.exact for hint in hints))


CallTool: TypeAlias = Callable[[Any, str, JSONObject], Any]
"""Calls a tool: the environment, the server's name of the tool, its input."""

_OWN_METHODS: Final = frozenset({"get_reward", "reset"})
_RECEIVER: Final = "self"
_SAID_BY_A_SIGNATURE: Final = frozenset(
    {"$defs", "$schema", "additionalProperties", "definitions", "description"}
    | {"properties", "required", "title", "type"}
)


class BoundTool(NamedTuple):
    """A tool as the chosen tasks list it.

    Args:
        name: The server's name.
        description: What the server says of it.
        schemas: Its input schemas: one, unless tasks differ about it.
    """

    name: str
    description: str
    schemas: tuple[JSONObject | None, ...]


class _Parameter(NamedTuple):
    """What a method says of one argument."""

    hint: Hint
    required: bool
    default: Any
    description: str
    complete: bool
    """Whether hint and description say all of its schema."""


def merge_tools(listings: Iterable[Iterable[ToolSpec]]) -> list[BoundTool]:
    """Return the union of what several sessions list.

    Args:
        listings: The tools of each session.

    Returns:
        Each tool once, in order of appearance.

    Example:
        >>> look = {"name": "look", "description": "Look.", "input_schema": None}
        >>> [tool.name for tool in merge_tools([[look], [look]])]
        ['look']
    """
    found: dict[str, BoundTool] = {}
    for tool in itertools.chain.from_iterable(listings):
        name, schema = tool["name"], tool["input_schema"]
        known = found.setdefault(name, BoundTool(name, tool["description"], ()))
        if schema not in known.schemas:
            found[name] = known._replace(schemas=(*known.schemas, schema))
    return list(found.values())


def safe_names(
    names: Iterable[str], prefix: str, reserved: Iterable[str]
) -> dict[str, str]:
    """Give each name an identifier that is not reserved; most are their own.

    Args:
        names: Names of any kind, each once.
        prefix: Stands before what cannot begin an identifier, or is hidden.
        reserved: Identifiers that are taken.

    Returns:
        The identifiers, each once, by name and in the order of the names.

    Example:
        >>> safe_names(["files.read", "reset", "class", "_x", "7"], "tool", ["reset"])
        {'files.read': 'files_read', 'reset': 'reset_', 'class': 'class_', \
'_x': 'tool_x', '7': 'tool_7'}
    """
    names, taken = list(names), set(reserved)
    kept = {name for name in names if _is_usable(name) and name not in taken}
    # A name that can stay stays, whatever stands before it in the list.
    taken |= kept
    result = {}
    for name in names:
        if name in kept:
            result[name] = name
            continue
        safe = "".join(c if _is_usable(f"x{c}") else "_" for c in name)
        if not _is_usable(f"{safe}_"):
            safe = f"{prefix}_{safe.strip('_')}".rstrip("_")
        candidates = (safe, f"{safe}_", *(f"{safe}_{n}" for n in range(2, 1000)))
        usable = (one for one in candidates if _is_usable(one) and one not in taken)
        result[name] = next(usable)
        taken.add(result[name])
    return result


def _is_usable(name: str) -> bool:
    # Transformers finds arguments in a docstring by \w+, which is narrower.
    is_identifier = name.isidentifier() and re.fullmatch(r"\w+", name)
    return bool(is_identifier) and not keyword.iskeyword(name) and name[0] != "_"


def tool_methods(
    tools: Sequence[BoundTool], call: CallTool
) -> dict[str, Callable[..., Any]]:
    """Make a method for each tool.

    Args:
        tools: The tools.
        call: Called with the environment, the server's name of the tool and its input:
            the arguments as they were given, under the server's names.

    Returns:
        Functions for the body of a class, by their names.

    Example:
        >>> tool = BoundTool("files.look", "Look.", (None,))
        >>> methods = tool_methods([tool], lambda environment, tool, input: tool)
        >>> {name: method(None) for name, method in methods.items()}
        {'files_look': 'files.look'}
    """
    names = safe_names([tool.name for tool in tools], "tool", _OWN_METHODS)
    return {names[tool.name]: _make(names[tool.name], tool, call) for tool in tools}


def _make(name: str, tool: BoundTool, call: CallTool) -> Callable[..., Any]:
    schemas = [provider_schema(schema) for schema in tool.schemas]
    listed = dict.fromkeys(name for one in schemas for name in _property_names(one))
    safe = safe_names(listed, "arg", [_RECEIVER])
    real = {one: listed_name for listed_name, one in safe.items()}

    # Takes whatever a model gives, since the server decides what is valid.
    def method(environment: Any, /, **arguments: Any) -> Any:
        given = {real.get(key, key): value for key, value in arguments.items()}
        return call(environment, tool.name, given)

    parameters = {safe[name]: _parameter(name, schemas) for name in listed}
    method.__name__ = method.__qualname__ = name
    method.__annotations__ = {
        name: parameter.hint.annotation for name, parameter in parameters.items()
    }
    method.__signature__ = _signature(parameters)  # type: ignore[attr-defined]
    complete = all(parameter.complete for parameter in parameters.values())
    remark = ""
    if not complete or len(schemas) > 1 or not all(map(_is_plain, tool.schemas)):
        shown = " or ".join(to_json(schema or {}) for schema in tool.schemas)
        remark = f"JSON Schema of the arguments: {shown}"
    method.__doc__ = google_docstring(
        tool.description if tool.description.split() else f"The tool {name}.",
        remark,
        {name: parameter.description for name, parameter in parameters.items()},
    )
    return method


def _property_names(schema: JSONObject) -> list[str]:
    required = [name for name in schema.get("required", ()) if isinstance(name, str)]
    return [*schema["properties"], *required]


def _is_plain(schema: JSONObject | None) -> bool:
    """Say whether an input schema says nothing but what a signature can say."""
    if not schema:
        return True
    extra = schema.get("additionalProperties", False)
    return schema.keys() <= _SAID_BY_A_SIGNATURE and extra is False


def _parameter(name: str, schemas: Sequence[JSONObject]) -> _Parameter:
    using = [schema for schema in schemas if name in _property_names(schema)]
    described = [(one["properties"].get(name, True), one) for one in using]
    hints = [hint_of(part, root) for part, root in described]
    part, root = described[0]
    says = [describe(part, root) or name]
    default = part.get("default") if isinstance(part, Mapping) else None
    complete = hints[0].exact
    if default is not None:
        says.append(f"Defaults to {to_json(default)}.")
    if not complete and len(schemas) == 1:
        text = schema_text(_without_remarks(part), root)
        complete = text is not None
        says += [f"JSON Schema: {text}"] if complete else []
    required = all(name in schema.get("required", ()) for schema in schemas)
    return _Parameter(unite(hints), required, default, " ".join(says), complete)


def _without_remarks(part: Any) -> Any:
    """Leave out what is said in words already."""
    if not isinstance(part, Mapping):
        return part
    said = ("default", "description")
    return {key: value for key, value in part.items() if key not in said}


def _signature(parameters: Mapping[str, _Parameter]) -> inspect.Signature:
    receiver = inspect.Parameter(_RECEIVER, inspect.Parameter.POSITIONAL_ONLY)
    # By keyword only, so that required ones may stand behind optional ones.
    arguments = [
        inspect.Parameter(
            name,
            inspect.Parameter.KEYWORD_ONLY,
            annotation=parameter.hint.annotation,
            default=inspect.Parameter.empty
            if parameter.required
            else parameter.default,
        )
        for name, parameter in parameters.items()
    ]
    return inspect.Signature([receiver, *arguments])
