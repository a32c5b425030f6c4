"""The fields of a form, from the schema of a tool's input."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, Final, Literal, TypeAlias

from ors_gym.types import JSONObject, ToolSpec

__all__ = ["Field", "FieldKind", "list_fields"]

FieldKind: TypeAlias = Literal[
    "choice", "boolean", "integer", "number", "string", "json"
]

_KINDS: Final = ("boolean", "integer", "number", "string")
_MOST_REFERENCES: Final = 16
_EXACT: Final = 2**53
"""Up to which whole numbers a browser is exact."""


@dataclasses.dataclass(frozen=True)
class Field:
    """One argument of a tool.

    Args:
        name: Its name.
        schema: What it has to be, references to the tool's definitions followed.
        required: Whether it has to be given.
        kind: What it is edited as.
        choices: The values to choose from, for a ``choice``.
        bounds: The least and the greatest whole number, where both are known.
    """

    name: str
    schema: JSONObject
    required: bool
    kind: FieldKind
    choices: tuple[Any, ...] = ()
    bounds: tuple[int, int] | None = None

    @property
    def default(self) -> Any:
        """Its default, or None."""
        return self.schema.get("default")

    def read(self, text: str) -> Any:
        """Read what was written into the field.

        Args:
            text: What was written.

        Returns:
            The value.

        Raises:
            ValueError: If it is no such value; says what is expected.

        Example:
            >>> Field("n", {}, True, "integer").read("12")
            12
            >>> Field("n", {}, True, "integer").read("twelve")
            Traceback (most recent call last):
            ValueError: n: 'twelve' is not an integer
        """
        if self.kind == "string":
            return text
        try:
            value = json.loads(text)
        except ValueError as error:
            said = f"not JSON ({error})" if self.kind == "json" else self._not_one()
            raise ValueError(f"{self.name}: {text!r:.80} is {said}") from None
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if self.kind == "integer" and not (number and float(value).is_integer()):
            raise ValueError(f"{self.name}: {text!r:.80} is {self._not_one()}")
        if self.kind == "number" and not number:
            raise ValueError(f"{self.name}: {text!r:.80} is {self._not_one()}")
        return value

    def _not_one(self) -> str:
        return "not an integer" if self.kind == "integer" else f"not a {self.kind}"


def list_fields(tool: ToolSpec) -> list[Field] | None:
    """Return the fields of a tool's form.

    Args:
        tool: The tool.

    Returns:
        A field for each argument; None if the input is no object of known
        properties, and has to be written as JSON.

    Example:
        >>> schema = {"properties": {"n": {"type": "integer"}}, "required": ["n"]}
        >>> tool = {"name": "guess", "description": "", "input_schema": schema}
        >>> [(field.name, field.kind, field.required) for field in list_fields(tool)]
        [('n', 'integer', True)]
    """
    root = tool["input_schema"]
    if root is None:
        return []
    schema = _follow(root, root)
    properties = schema.get("properties")
    if not isinstance(properties, Mapping):
        empty = schema in ({}, {"type": "object"}) or properties == {}
        return [] if empty else None
    if any(key in schema for key in ("anyOf", "oneOf", "allOf")):
        return None
    required = schema.get("required")
    needed = required if isinstance(required, list) else []
    return [
        _field(str(name), part, root, required=name in needed)
        for name, part in properties.items()
    ]


def _field(name: str, part: Any, root: Any, *, required: bool) -> Field:
    schema = _follow(part, root)
    choices = schema.get("enum")
    if "const" in schema:
        choices = [schema["const"]]
    if isinstance(choices, list) and choices:
        return Field(name, schema, required, "choice", tuple(choices))
    kind = schema.get("type")
    if kind not in _KINDS:
        return Field(name, schema, required, "json")
    bounds = _bounds(schema) if kind == "integer" else None
    return Field(name, schema, required, kind, bounds=bounds)


def _bounds(schema: Mapping[str, Any]) -> tuple[int, int] | None:
    if any(
        key in schema for key in ("multipleOf", "exclusiveMinimum", "exclusiveMaximum")
    ):
        return None
    low, high = schema.get("minimum"), schema.get("maximum")
    if type(low) is int and type(high) is int and -_EXACT <= low <= high <= _EXACT:
        return low, high
    return None


def _follow(part: Any, root: Any) -> JSONObject:
    """Follow references, single choices, and choices that allow null beside one."""
    described: JSONObject = {}
    for _ in range(_MOST_REFERENCES):
        if not isinstance(part, Mapping):
            break
        described = {**part, **described}
        inner = _inner(part, root)
        if inner is None:
            break
        for key in ("$ref", "allOf", "anyOf", "oneOf"):
            described.pop(key, None)
        part = inner
    return described


def _inner(part: Mapping[str, Any], root: Any) -> Any:
    reference = part.get("$ref")
    if isinstance(reference, str):
        return _look_up(reference, root)
    for key in ("allOf", "anyOf", "oneOf"):
        ways = part.get(key)
        if isinstance(ways, list):
            real = [way for way in ways if way != {"type": "null"}]
            if len(real) == 1:
                return real[0]
    return None


def _look_up(reference: str, root: Any) -> Any:
    """Return what a reference within the schema names; None if there is nothing."""
    if not reference.startswith("#/"):
        return None
    found = root
    for step in reference[2:].split("/"):
        name = step.replace("~1", "/").replace("~0", "~")
        if not isinstance(found, Mapping) or name not in found:
            return None
        found = found[name]
    return found
