"""Methods that stand for a server's tools: typed, documented, made without ``exec``.

TRL takes the public methods of an environment's class for its tools, and
`transformers.utils.get_json_schema` turns their type hints and Google docstrings into
what the model is told. What hints cannot say (bounds, patterns, members of objects) is
in the descriptions, as JSON Schema.

A name that Python or TRL reserve is replaced: each character that no identifier has by
``_``; ``reset``, ``get_reward``, ``self`` and keywords get a ``_`` behind; a name that
begins with ``_``, which TRL would hide, or with a digit gets ``tool`` or ``arg`` before
it; one that is taken gets a number. The server is told its own names.
"""

from __future__ import annotations

import inspect
import itertools
import keyword
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple, TypeAlias

from ors_gym.formats import provider_schema
from ors_gym.integrations.trl.docstrings import google_docstring, to_json
from ors_gym.integrations.trl.hints import Hint, hint_of, unite
from ors_gym.integrations.trl.references import describe, schema_text
from ors_gym.types import JSONObject, ToolSpec

__all__ = ["BoundTool", "CallTool", "merge_tools", "safe_names", "tool_methods"]

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
