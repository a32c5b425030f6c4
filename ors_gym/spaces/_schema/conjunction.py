"""References and ``allOf`` undone: the schemas that a value must satisfy at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

from ors_gym.formats._schemas import follow_reference
from ors_gym.spaces._schema.nodes import Body, Node, Unusable

_MAX_NESTING = 100
_MAX_PARTS = 2_000

TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})

HARD = frozenset(
    {"contains", "dependentRequired", "dependentSchemas", "maxContains", "minContains"}
    | {"not", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords that draws ignore and jsonschema then checks."""

BY_TYPE = {
    "string": {"contentMediaType", "format", "maxLength", "minLength", "pattern"},
    "number": {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"}
    | {"multipleOf"},
    "object": {"additionalProperties", "maxProperties", "minProperties"}
    | {"patternProperties", "properties", "propertyNames", "required"},
    "array": {"items", "maxItems", "minItems", "prefixItems", "uniqueItems"},
}
"""The type that a keyword is about; a value of another type satisfies it."""

_ASSERTIONS = (
    HARD
    | frozenset({"anyOf", "const", "enum", "if", "oneOf", "type"})
    | frozenset[str]().union(*BY_TYPE.values())
)
"""Keywords that matter to a draw, besides references and ``allOf``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One of the schemas that a value must satisfy, and its place as a JSON pointer.

    Methods that read a keyword return None or an empty container if it is not there,
    and raise Unusable if its value is not what it must be.
    """

    schema: Any
    path: str
    done: frozenset[str] = frozenset()
    """Keywords that have been dealt with."""

    @property
    def key(self) -> tuple[int, frozenset[str]]:
        """What makes two parts the same."""
        return id(self.schema), self.done

    def has(self, keyword: str) -> bool:
        """Return whether a keyword is there and still to be dealt with."""
        return keyword in self.schema and keyword not in self.done

    def without(self, keyword: str) -> Part:
        """Return this part with one keyword more dealt with."""
        return Part(self.schema, self.path, self.done | {keyword})

    def child(self, schema: Any, *keys: str | int) -> Part:
        """Return a schema inside of this one, at these keys, as a part of its own."""
        escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
        return Part(schema, "/".join([self.path, *escaped]))

    def wrong(self, keyword: str, expected: str) -> Unusable:
        """Return the error of a keyword whose value is not what it must be."""
        return Unusable(
            f"{self.path}/{keyword}",
            f"it must be {expected}, not {self.schema[keyword]!r:.100}",
        )

    def mapping(self, keyword: str) -> dict[str, Any]:
        value = self.schema.get(keyword, {})
        if not isinstance(value, dict):
            raise self.wrong(keyword, "an object")
        return value

    def listing(self, keyword: str) -> list[Any]:
        value = self.schema.get(keyword, [])
        if not isinstance(value, list):
            raise self.wrong(keyword, "an array")
        return value

    def names(self, keyword: str) -> list[str]:
        value = self.listing(keyword)
        if not all(isinstance(name, str) for name in value):
            raise self.wrong(keyword, "an array of strings")
        return value

    def text(self, keyword: str) -> str | None:
        if keyword not in self.schema:
            return None
        value = self.schema[keyword]
        if not isinstance(value, str):
            raise self.wrong(keyword, "a string")
        return value

    def number(self, keyword: str) -> int | float | None:
        value = self.schema.get(keyword)
        if keyword not in self.schema:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(keyword, "a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(keyword, "finite")
        return value

    def size(self, keyword: str) -> int | None:
        value = self.number(keyword)
        if value is not None and (value < 0 or value != int(value)):
            raise self.wrong(keyword, "a whole number of at least 0")
        return None if value is None else int(value)


class NodeMaker(Protocol):
    """What `object_body` and `array_body` need of the compiler."""

    def node(self, parts: Sequence[Part]) -> Node: ...

    def made(self, schema: dict[str, Any]) -> Part: ...

    def checked(self, body: Body, schemas: list[Any], path: str) -> Body: ...


def largest(values: Iterable[Any]) -> Any:
    """Return the largest of the values that are there, None if there are none."""
    return max((value for value in values if value is not None), default=None)


def smallest(values: Iterable[Any]) -> Any:
    """Return the smallest of the values that are there, None if there are none."""
    return min((value for value in values if value is not None), default=None)


def type_names(part: Part) -> frozenset[str]:
    """Return the types that a schema allows; ``number`` includes ``integer``."""
    wanted = part.schema.get("type")
    if wanted is None and "type" not in part.schema:
        return TYPES
    names = wanted if isinstance(wanted, list) else [wanted]
    if not all(isinstance(name, str) and name in TYPES for name in names):
        raise part.wrong("type", f"one or more of {', '.join(sorted(TYPES))}")
    return frozenset(names) | ({"integer"} if "number" in names else frozenset())


def flatten(root: Any, parts: Iterable[Part]) -> list[Part]:
    """Return the schemas that some schemas amount to, without references and allOf.

    Each is an object that asserts something, and is there once.
    """
    flattened = _Flattened(root)
    for part in parts:
        flattened.add(part, ())
    return [part for part in flattened.parts.values() if _asserts(part)]


def _asserts(part: Part) -> bool:
    return any(key in _ASSERTIONS and key not in part.done for key in part.schema)


class _Flattened:
    def __init__(self, root: Any) -> None:
        self._root = root
        self.parts: dict[tuple[int, frozenset[str]], Part] = {}

    def add(self, part: Part, above: tuple[int, ...]) -> None:
        """Add a schema and those it refers to; ``above`` are those that led to it."""
        if part.schema is True:
            return
        self._refuse(part, above)
        undone = {"$ref", "allOf"} & part.schema.keys() - part.done
        flat = Part(part.schema, part.path, part.done | undone)
        if flat.key in self.parts:
            return
        self.parts[flat.key] = flat
        above = (*above, id(part.schema))
        reference = part.text("$ref") if "$ref" in undone else None
        if reference is not None:
            self.add(self._follow(reference, part), above)
        if "allOf" in undone:
            for index, inner in enumerate(part.listing("allOf")):
                self.add(part.child(inner, "allOf", index), above)

    def _follow(self, reference: str, part: Part) -> Part:
        try:
            target = follow_reference(reference, self._root)
        except LookupError as error:
            raise Unusable(f"{part.path}/$ref", str(error)) from None
        return Part(target, unquote(reference).rstrip("/"))

    def _refuse(self, part: Part, above: tuple[int, ...]) -> None:
        if part.schema is False:
            raise Unusable(part.path, "no value is allowed here")
        if not isinstance(part.schema, dict):
            raise Unusable(part.path, f"{part.schema!r:.100} is not a schema")
        if id(part.schema) in above:
            raise Unusable(part.path, "the schema refers to itself without end")
        if len(above) > _MAX_NESTING or len(self.parts) > _MAX_PARTS:
            raise Unusable(
                part.path, "too many schemas within each other apply at once"
            )
        for keyword in ("$dynamicRef", "$recursiveRef"):
            if keyword in part.schema:
                raise Unusable(f"{part.path}/{keyword}", f"{keyword} is not sampled")
