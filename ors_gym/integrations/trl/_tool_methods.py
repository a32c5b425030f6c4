"""A typed Python method for each tool of a server, as TRL wants tools.

TRL reads a method with `transformers.utils.get_json_schema`, from its type hints and
its Google docstring, and shows the result to the model. So this module writes, in this
order: the method and its signature; identifiers for names; the type hint of a
parameter; its schema as text, if a hint cannot express all of it; the docstring.
"""

from __future__ import annotations

import inspect
import itertools
import json
import keyword
import operator
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, TypeAlias, Union

from ors_gym.formats import provider_schema
from ors_gym.formats._blocks import replace_surrogates
from ors_gym.formats._drafts import LISTED_PARTS, NAMED_PARTS, SINGLE_PARTS
from ors_gym.formats._schemas import bundle_schema, find_reference
from ors_gym.formats._tools import tools_for_models
from ors_gym.types import JSONObject, ToolSpec

# Calls a tool with the environment, the server's name of the tool, and its input.
CallTool: TypeAlias = Callable[[Any, str, JSONObject], Any]

# Methods of the class itself.
_OWN_METHODS: Final = frozenset({"get_reward", "reset"})
_RECEIVER: Final = "self"

# Keywords of an input schema that the signature of a method can express.
_SIGNATURE_KEYWORDS: Final = frozenset(
    {"$defs", "$schema", "additionalProperties", "definitions", "description"}
    | {"properties", "required", "title", "type"}
)


def tool_methods(
    tools: Sequence[BoundTool], call: CallTool
) -> dict[str, Callable[..., Any]]:
    """Make the functions for the body of a class, one for each tool.

    They pass the arguments as given, under the server's names: the server decides what
    is valid.
    """
    names = safe_names([tool.name for tool in tools], "tool", _OWN_METHODS)
    return {
        names[tool.name]: _make_method(names[tool.name], tool, call) for tool in tools
    }


class BoundTool(NamedTuple):
    """A tool as the chosen tasks list it, under the server's name."""

    name: str
    description: str
    # One input schema, unless tasks differ.
    schemas: tuple[JSONObject | None, ...]


def merge_tools(listings: Iterable[Iterable[ToolSpec]]) -> list[BoundTool]:
    """Unite the tools that several sessions offer, in order of appearance."""
    found: dict[str, BoundTool] = {}
    for tool in tools_for_models(itertools.chain.from_iterable(listings)):
        name, schema = tool["name"], tool["input_schema"]
        known = found.setdefault(name, BoundTool(name, tool["description"], ()))
        if schema not in known.schemas:
            found[name] = known._replace(schemas=(*known.schemas, schema))
    return list(found.values())


def _make_method(name: str, tool: BoundTool, call: CallTool) -> Callable[..., Any]:
    bundled = list(map(bundle_schema, tool.schemas))
    schemas = list(map(provider_schema, bundled))
    listed = dict.fromkeys(name for one in schemas for name in _property_names(one))
    safe = safe_names(listed, "arg", [_RECEIVER])
    real = {one: listed_name for listed_name, one in safe.items()}

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
    if not complete or len(schemas) > 1 or not all(map(_is_plain, bundled)):
        shown = " or ".join(_to_json(schema or {}) for schema in bundled)
        remark = f"JSON Schema of the arguments: {shown}"
    method.__doc__ = _google_docstring(
        tool.description if tool.description.split() else f"The tool {name}.",
        remark,
        {name: parameter.description for name, parameter in parameters.items()},
    )
    return method


def _property_names(schema: JSONObject) -> list[str]:
    required = [name for name in schema.get("required", ()) if isinstance(name, str)]
    return [*schema["properties"], *required]


def _is_plain(schema: JSONObject | None) -> bool:
    """Say whether a signature can express all of an input schema."""
    if not schema:
        return True
    extra = schema.get("additionalProperties", False)
    return schema.keys() <= _SIGNATURE_KEYWORDS and extra is False


class _Parameter(NamedTuple):
    hint: Hint
    required: bool
    default: Any
    description: str
    # Whether hint and description express all of the schema.
    complete: bool


def _parameter(name: str, schemas: Sequence[JSONObject]) -> _Parameter:
    using = [schema for schema in schemas if name in _property_names(schema)]
    described = [(one["properties"].get(name, True), one) for one in using]
    hints = [_hint_of(part, root) for part, root in described]
    part, root = described[0]
    says = [_describe(part, root) or name]
    default = part.get("default") if isinstance(part, Mapping) else None
    complete = hints[0].exact
    if default is not None:
        says.append(f"Defaults to {_to_json(default)}.")
    if not complete and len(schemas) == 1:
        text = _schema_text(_without_repeated(part), root)
        complete = text is not None
        says += [f"JSON Schema: {text}"] if complete else []
    required = all(name in schema.get("required", ()) for schema in schemas)
    return _Parameter(_unite(hints), required, default, " ".join(says), complete)


def _without_repeated(part: Any) -> Any:
    """Leave out the keywords that the description of a parameter repeats in words."""
    if not isinstance(part, Mapping):
        return part
    repeated = ("default", "description")
    return {key: value for key, value in part.items() if key not in repeated}


def _signature(parameters: Mapping[str, _Parameter]) -> inspect.Signature:
    receiver = inspect.Parameter(_RECEIVER, inspect.Parameter.POSITIONAL_ONLY)
    # By keyword only, so that required arguments may follow optional ones.
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


def safe_names(
    names: Iterable[str], prefix: str, reserved: Iterable[str]
) -> dict[str, str]:
    """Give each name an identifier of its own that is not reserved.

    A name that is such an identifier keeps it. The prefix goes before a name that
    cannot begin an identifier, or begins with an underscore.
    """
    names, taken = list(names), set(reserved)
    kept = {name for name in names if _is_usable(name) and name not in taken}
    # Taken from the start, so that no earlier name is changed into one of these.
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
    # Transformers finds the arguments in a docstring by \w+, which matches fewer names.
    is_identifier = name.isidentifier() and re.fullmatch(r"\w+", name)
    return bool(is_identifier) and not keyword.iskeyword(name) and name[0] != "_"


# Keywords that neither allow nor forbid a value.
_REMARKS: Final = frozenset(
    {"$comment", "$schema", "default", "deprecated", "description", "examples"}
    | {"$defs", "definitions", "discriminator", "readOnly", "title", "writeOnly"}
)
_BASIC: Final = {
    "boolean": bool,
    "integer": int,
    "null": type(None),
    "number": float,
    "string": str,
}

_SCALARS: Final = (bool, float, int, str, type(None))

# A value nested deeper may be anything. References may be recursive.
_MAX_HINT_DEPTH: Final = 8


class Hint(NamedTuple):
    """A type hint for the values of a schema."""

    # `get_json_schema` can read it. It allows every value that the schema allows.
    annotation: Any
    # Whether it allows no other value.
    exact: bool


_ANYTHING: Final = Hint(Any, exact=False)


def _hint_of(schema: Any, root: JSONObject, depth: int = 0) -> Hint:
    """Return a type hint for a schema's values; its references lead into ``root``."""
    if schema is True or schema == {}:
        return Hint(Any, exact=True)
    if not isinstance(schema, Mapping) or depth > _MAX_HINT_DEPTH:
        return _ANYTHING
    keys = schema.keys() - _REMARKS
    hint = _hint_of_keys(schema, keys, root, depth)
    return hint if hint is not None else Hint(Any, exact=not keys)


def _hint_of_keys(
    schema: Mapping[str, Any], keys: set[str], root: JSONObject, depth: int
) -> Hint | None:
    if "$ref" in keys:
        target = _hint_of(find_reference(schema["$ref"], root), root, depth + 1)
        return Hint(target.annotation, target.exact and keys == {"$ref"})
    if "const" in keys:
        return _hint_of_values([schema["const"]], keys <= {"const", "type"})
    if isinstance(schema.get("enum"), list):
        return _hint_of_values(schema["enum"], keys <= {"enum", "type"})
    for key in ("anyOf", "oneOf", "allOf"):
        parts = schema.get(key)
        if isinstance(parts, list) and parts and (key != "allOf" or len(parts) == 1):
            hints = [_hint_of(part, root, depth + 1) for part in parts]
            # A oneOf refuses a value that fits two of its branches.
            return _unite(hints, exact=keys == {key} and key != "oneOf")
    kind = schema.get("type")
    if isinstance(kind, list) and kind:
        return _unite(
            [_hint_of({**schema, "type": one}, root, depth + 1) for one in kind]
        )
    return _hint_of_type(kind, schema, keys, root, depth)


def _hint_of_type(
    kind: Any, schema: Mapping[str, Any], keys: set[str], root: JSONObject, depth: int
) -> Hint | None:
    if isinstance(kind, str) and kind in _BASIC:
        return Hint(_BASIC[kind], keys == {"type"})
    if kind == "array":
        items = _hint_of(schema.get("items", True), root, depth + 1)
        annotation: Any = list
        if items.annotation is not Any:
            annotation = list[items.annotation]  # type: ignore[name-defined]
        return Hint(annotation, items.exact and keys <= {"type", "items"})
    if kind == "object" or "properties" in keys:
        values = _hint_of(schema.get("additionalProperties", True), root, depth + 1)
        exact = values.exact and keys <= {"type", "additionalProperties"}
        if values.annotation is Any or "properties" in keys:
            return Hint(dict, exact)
        return Hint(dict[str, values.annotation], exact)  # type: ignore[name-defined]
    return None


def _hint_of_values(values: list[Any], exact: bool) -> Hint:
    """Return a hint for an enumeration: a Literal can list only scalars."""
    if not values or any(type(value) not in _SCALARS for value in values):
        return _ANYTHING
    return Hint(Literal[tuple(values)], exact)


def _unite(hints: Iterable[Hint], *, exact: bool = True) -> Hint:
    """Return the union of at least one hint."""
    hints = list(hints)
    annotation = operator.getitem(Union, tuple(hint.annotation for hint in hints))
    return Hint(annotation, exact and all(hint.exact for hint in hints))


# Schemas nested deeper count as recursive.
_MAX_DEPTH: Final = 24

# Characters of one parameter's schema. A longer one is shown with its references.
_MAX_TEXT: Final = 2000

# Keywords that a schema without references does not need.
_LEFT_OUT: Final = frozenset({"$defs", "definitions", "discriminator", "title"})


class _NotExpandableError(Exception):
    """Raised for a schema that cannot be written without references."""


def _schema_text(schema: Any, root: JSONObject) -> str | None:
    """Write a parameter's schema as JSON without references.

    Return None if it is recursive, becomes too long, or has a reference that leads
    nowhere.
    """
    try:
        # A part takes at least a character of the text.
        text = _to_json(_expand(schema, root, iter(range(_MAX_TEXT)), 0))
    except _NotExpandableError:
        return None
    return text if len(text) <= _MAX_TEXT else None


def _expand(schema: Any, root: JSONObject, left: Iterator[int], depth: int) -> Any:
    """Replace references by their targets, and leave titles out.

    Take one of ``left`` for each part, and give up where none is left.
    """
    if not isinstance(schema, Mapping):
        return schema
    if depth > _MAX_DEPTH or next(left, None) is None:
        raise _NotExpandableError
    if "$ref" in schema:
        return _follow(schema, root, left, depth)
    return {
        key: _expand_part(key, value, root, left, depth + 1)
        for key, value in schema.items()
        if key not in _LEFT_OUT
    }


def _follow(
    schema: Mapping[str, Any], root: JSONObject, left: Iterator[int], depth: int
) -> JSONObject:
    found = find_reference(schema["$ref"], root)
    if found is None:
        raise _NotExpandableError
    target = _expand(found, root, left, depth + 1)
    beside = {key: value for key, value in schema.items() if key != "$ref"}
    rest: JSONObject = _expand(beside, root, left, depth + 1)
    if not rest.keys() - _REMARKS and isinstance(target, dict):
        return {**target, **rest}
    return {**rest, "allOf": [target, *rest.get("allOf", ())]}


def _expand_part(
    key: str, value: Any, root: JSONObject, left: Iterator[int], depth: int
) -> Any:
    if key in NAMED_PARTS and isinstance(value, Mapping):
        return {name: _expand(part, root, left, depth) for name, part in value.items()}
    if key in LISTED_PARTS and isinstance(value, list):
        return [_expand(part, root, left, depth) for part in value]
    return _expand(value, root, left, depth) if key in SINGLE_PARTS else value


def _describe(schema: Any, root: JSONObject, depth: int = 0) -> str:
    """Return the description of a schema, or of its reference, on one line, or ""."""
    if not isinstance(schema, Mapping) or depth > _MAX_DEPTH:
        return ""
    if isinstance(schema.get("description"), str) and schema["description"].split():
        return _one_line(schema["description"])
    if "$ref" in schema:
        return _describe(find_reference(schema["$ref"], root), root, depth + 1)
    return ""


# `get_json_schema` takes these for headings wherever they are in a docstring. A space
# before the colon keeps it from taking a server's words for our headings.
_SECTION: Final = re.compile(r"(Args|Returns|Raises|\((?i:choices)):")


def _google_docstring(
    description: str, remark: str, arguments: Mapping[str, str]
) -> str:
    """Write a docstring: the server's description, our remark, and the arguments.

    Example:
        >>> print(_google_docstring("Adds. Args: a, b", "", {"a": "A number."}))
        Adds. Args : a, b
        <BLANKLINE>
        Args:
            a: A number.
        <BLANKLINE>
        Returns:
            What the tool answers.
    """
    text = replace_surrogates(inspect.cleandoc(description)).strip()
    parts = [_SECTION.sub(r"\1 :", text), remark]
    if arguments:
        lines = [f"    {name}: {words}" for name, words in arguments.items()]
        parts.append("\n".join(["Args:", *lines]))
    parts.append("Returns:\n    What the tool answers.")
    return "\n\n".join(filter(None, parts))


def _one_line(text: str) -> str:
    """Collapse the white space of a text, for one line of a docstring."""
    return replace_surrogates(_SECTION.sub(r"\1 :", " ".join(text.split())))


def _to_json(value: Any) -> str:
    """Write JSON for one line of a docstring; it decodes to the same value."""
    text = replace_surrogates(json.dumps(value, ensure_ascii=False))
    return _SECTION.sub(lambda match: rf"{match[1]}\u003a", text)
