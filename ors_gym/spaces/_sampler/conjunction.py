"""References and ``allOf`` undone: the schemas that a value must satisfy at once."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol, TypeAlias
from urllib.parse import unquote

from ors_gym.formats._drafts import REFERENCES, Scope, written_name
from ors_gym.spaces._sampler.nodes import Body, Node, Unusable

_MAX_NESTING = 100
_MAX_PARTS = 2_000

TYPES = frozenset({"array", "boolean", "integer", "null", "number", "object", "string"})

HARD = frozenset(
    {"contains", "dependentSchemas", "not", "unevaluatedItems"}
    | {"unevaluatedProperties"}
)
"""Keywords that draws only aim at, and that jsonschema then checks."""

BY_TYPE = {
    "string": {"contentMediaType", "format", "maxLength", "minLength", "pattern"},
    "number": {"exclusiveMaximum", "exclusiveMinimum", "maximum", "minimum"}
    | {"multipleOf"},
    "object": {"additionalProperties", "dependentRequired", "dependentSchemas"}
    | {"maxProperties", "minProperties"}
    | {"patternProperties", "properties", "propertyNames", "required"},
    "array": {
        "contains",
        "items",
        "maxItems",
        "minItems",
        "prefixItems",
        "uniqueItems",
    },
}
"""The type that a keyword is about; a value of another type satisfies it."""

ASSERTIONS = (
    HARD
    | frozenset({"anyOf", "const", "enum", "if", "oneOf", "type"})
    | frozenset[str]().union(*BY_TYPE.values())
)
"""Keywords that matter to a draw, besides references and ``allOf``."""


PartKey: TypeAlias = tuple[int, Any, frozenset[str]]


CHECKED = "if, checked"
"""Marks a part whose ``if`` draws do not aim at, but jsonschema checks."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One of the schemas that a value must satisfy, and its place as a JSON pointer.

    Methods that read a keyword return None or an empty container if it is not there,
    and raise Unusable if its value is not what it must be.
    """

    written: Any
    """The schema as it stands there, in the draft of its scope."""
    path: str
    scope: Scope
    """The scope inside of the schema."""
    done: frozenset[str] = frozenset()
    """Keywords that have been dealt with."""
    schema: Any = None
    """The schema in the keywords of Draft 2020-12."""

    @classmethod
    def at(cls, schema: Any, path: str, scope: Scope) -> Part:
        """Return a schema at a place, with the scope inside of it."""
        return cls(schema, path, scope, schema=scope.view(schema))

    @property
    def key(self) -> PartKey:
        """What makes two parts the same."""
        return id(self.written), self.scope.key, self.done

    def has(self, keyword: str) -> bool:
        """Return whether a keyword is there and still to be dealt with."""
        return keyword in self.schema and keyword not in self.done

    def without(self, *keywords: str) -> Part:
        """Return this part with some keywords more dealt with."""
        return dataclasses.replace(self, done=self.done.union(keywords))

    def child(self, schema: Any, keyword: str, *keys: str | int) -> Part:
        """Return a schema inside of this one, at these keys, as a part of its own."""
        name = written_name(self.written, self.schema, keyword)
        escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
        path = "/".join([self.path, name, *escaped])
        return Part.at(schema, path, self.scope.enter(schema))

    def children(self, keyword: str) -> list[Part]:
        """Return the schemas in the array of a keyword."""
        listed = enumerate(self.listing(keyword))
        return [self.child(schema, keyword, place) for place, schema in listed]

    def only(self, *keywords: str) -> Part:
        """Return this part with no other keywords."""
        schema = {key: self.schema[key] for key in keywords if key in self.schema}
        return dataclasses.replace(self, written=schema, schema=schema)

    def leaving_out(self, *keywords: str) -> Part:
        """Return this part without some keywords, to be tested."""
        rest = {key: self.written[key] for key in self.written if key not in keywords}
        return dataclasses.replace(self, written=rest)

    def wrong(self, keyword: str, expected: str) -> Unusable:
        """Return the error of a keyword whose value is not what it must be."""
        return Unusable(
            f"{self.path}/{written_name(self.written, self.schema, keyword)}",
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


Membership: TypeAlias = Callable[[Any, Scope], Callable[[Any], bool]]
"""From a schema and the scope inside of it to a test of whether it allows a value."""


class NodeMaker(Protocol):
    """What `object_body` and `array_body` need of the compiler."""

    def node(self, parts: Sequence[Part]) -> Node: ...

    def inner(self, body: Body) -> Node: ...

    def test(self, part: Part) -> Callable[[Any], bool]: ...

    def made(self, schema: dict[str, Any], around: Part | None = None) -> Part: ...

    def negated(self, part: Part) -> Part: ...

    def checked(self, body: Body, parts: Sequence[Part], path: str) -> Body: ...


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


def flatten(parts: Iterable[Part]) -> list[Part]:
    """Return the schemas that some schemas amount to, without references and allOf.

    Each is an object that asserts something, and is there once.
    """
    flattened = _Flattened()
    for part in parts:
        flattened.add(part, ())
    return [part for part in flattened.parts.values() if _asserts(part)]


def _asserts(part: Part) -> bool:
    return CHECKED in part.done or any(
        key in ASSERTIONS and key not in part.done for key in part.schema
    )


_UNDONE = frozenset({"allOf", *REFERENCES})


class _Flattened:
    def __init__(self) -> None:
        self.parts: dict[PartKey, Part] = {}
        self._done: dict[Any, frozenset[str]] = {}

    def add(self, part: Part, above: tuple[PartKey, ...]) -> None:
        """Add a schema and those it refers to; ``above`` are those that led to it."""
        if part.schema is True:
            return
        self._refuse(part, above)
        undone = _UNDONE & part.schema.keys() - part.done
        flat = part.without(*undone) if undone else part
        if flat.key in self.parts:
            return
        self.parts[flat.key] = flat
        again = self._done.setdefault(flat.key[:2], flat.done)
        if again != flat.done:
            # A part of a schema led back to the schema.
            part.scope.document.circular = True
        above = (*above, part.key)
        for keyword in REFERENCES:
            if keyword in undone:
                self.add(_follow(keyword, part), above)
        if "allOf" in undone:
            for inner in part.children("allOf"):
                self.add(inner, above)

    def _refuse(self, part: Part, above: tuple[PartKey, ...]) -> None:
        if part.schema is False:
            raise Unusable(part.path, "no value is allowed here")
        if not isinstance(part.schema, dict):
            raise Unusable(part.path, f"{part.schema!r:.100} is not a schema")
        if part.key in above:
            part.scope.document.circular = True
            raise Unusable(part.path, "the schema refers to itself without end")
        if len(above) > _MAX_NESTING or len(self.parts) > _MAX_PARTS:
            raise Unusable(
                part.path, "too many schemas within each other apply at once"
            )


def _follow(keyword: str, part: Part) -> Part:
    reference = part.text(keyword) or ""
    try:
        target, scope = part.scope.refer(keyword, reference)
    except LookupError as error:
        raise Unusable(f"{part.path}/{keyword}", str(error)) from None
    # Within the document the reference itself is the place.
    path = unquote(reference).rstrip("/")
    return Part.at(target, path, scope)
