"""References and ``allOf`` undone: the schemas that a value must satisfy at once."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterable
from typing import Any
from urllib.parse import unquote

from ors_gym.formats._schemas import follow_reference
from ors_gym.spaces._schema.nodes import Unusable, distinct_key

__all__ = ["ASSERTIONS", "HARD", "Part", "are_exclusive", "flatten", "type_names"]

_MAX_NESTING = 100
_MAX_PARTS = 2_000

HARD = frozenset(
    {
        "contains",
        "dependentRequired",
        "dependentSchemas",
        "maxContains",
        "minContains",
        "not",
        "unevaluatedItems",
        "unevaluatedProperties",
    }
)
"""Keywords that draws ignore and jsonschema then checks."""

BY_TYPE = {
    "string": {
        "contentMediaType",
        "format",
        "maxLength",
        "minLength",
        "pattern",
    },
    "number": {
        "exclusiveMaximum",
        "exclusiveMinimum",
        "maximum",
        "minimum",
        "multipleOf",
    },
    "object": {
        "additionalProperties",
        "maxProperties",
        "minProperties",
        "patternProperties",
        "properties",
        "propertyNames",
        "required",
    },
    "array": {"items", "maxItems", "minItems", "prefixItems", "uniqueItems"},
}
"""The type that a keyword is about; a value of another type satisfies it."""

ASSERTIONS = (
    HARD
    | frozenset({"anyOf", "const", "enum", "if", "oneOf", "type"})
    | frozenset[str]().union(*BY_TYPE.values())
)
"""Keywords that matter to a draw, besides references and ``allOf``."""


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One of the schemas that a value must satisfy.

    Args:
        schema: The schema.
        path: Where it stands, as a JSON pointer.
        done: Keywords that have been dealt with.
    """

    schema: Any
    path: str
    done: frozenset[str] = frozenset()

    @property
    def key(self) -> tuple[int, frozenset[str]]:
        """What makes two parts the same."""
        return id(self.schema), self.done

    def has(self, keyword: str) -> bool:
        """Return whether a keyword is there and still to be dealt with.

        Args:
            keyword: Its name.
        """
        return keyword in self.schema and keyword not in self.done

    def without(self, keyword: str) -> Part:
        """Return this part with one keyword more dealt with.

        Args:
            keyword: Its name.
        """
        return Part(self.schema, self.path, self.done | {keyword})

    def child(self, schema: Any, *keys: str | int) -> Part:
        """Return a schema inside of this one as a part of its own.

        Args:
            schema: The inner schema.
            *keys: The way to it.
        """
        escaped = (str(key).replace("~", "~0").replace("/", "~1") for key in keys)
        return Part(schema, "/".join([self.path, *escaped]))

    def wrong(self, keyword: str, expected: str) -> Unusable:
        """Return the error of a keyword whose value is not what it must be.

        Args:
            keyword: Its name.
            expected: What it must be.
        """
        return Unusable(
            f"{self.path}/{keyword}",
            f"it must be {expected}, not {self.schema[keyword]!r:.100}",
        )

    def mapping(self, keyword: str) -> dict[str, Any]:
        """Return a keyword's object; empty if it is not there."""
        value = self.schema.get(keyword, {})
        if not isinstance(value, dict):
            raise self.wrong(keyword, "an object")
        return value

    def listing(self, keyword: str) -> list[Any]:
        """Return a keyword's array; empty if it is not there."""
        value = self.schema.get(keyword, [])
        if not isinstance(value, list):
            raise self.wrong(keyword, "an array")
        return value

    def names(self, keyword: str) -> list[str]:
        """Return a keyword's array of strings; empty if it is not there."""
        value = self.listing(keyword)
        if not all(isinstance(name, str) for name in value):
            raise self.wrong(keyword, "an array of strings")
        return value

    def text(self, keyword: str) -> str | None:
        """Return a keyword's string; None if it is not there."""
        if keyword not in self.schema:
            return None
        value = self.schema[keyword]
        if not isinstance(value, str):
            raise self.wrong(keyword, "a string")
        return value

    def number(self, keyword: str) -> int | float | None:
        """Return a keyword's number; None if it is not there."""
        value = self.schema.get(keyword)
        if keyword not in self.schema:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise self.wrong(keyword, "a number")
        if isinstance(value, float) and not math.isfinite(value):
            raise self.wrong(keyword, "finite")
        return value

    def size(self, keyword: str) -> int | None:
        """Return a keyword's whole number of things; None if it is not there."""
        value = self.number(keyword)
        if value is not None and (value < 0 or value != int(value)):
            raise self.wrong(keyword, "a whole number of at least 0")
        return None if value is None else int(value)


def flatten(root: Any, parts: Iterable[Part]) -> list[Part]:
    """Return the schemas that some schemas amount to, without references and allOf.

    Args:
        root: The schema that references are about.
        parts: The schemas.

    Returns:
        Schemas that are objects and assert something, each once.

    Raises:
        Unusable: If one is ``false``, no schema at all, or refers to nowhere.
    """
    flattened = _Flattened(root)
    for part in parts:
        flattened.add(part, ())
    return [part for part in flattened.parts.values() if _asserts(part)]


def _asserts(part: Part) -> bool:
    return any(key in ASSERTIONS and key not in part.done for key in part.schema)


class _Flattened:
    def __init__(self, root: Any) -> None:
        self._root = root
        self.parts: dict[tuple[int, frozenset[str]], Part] = {}

    def add(self, part: Part, above: tuple[int, ...]) -> None:
        """Add a schema and what it refers to; ``above`` is what led to it."""
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


_MAX_BRANCHES = 100
_MAX_FORM_NESTING = 5
_TYPES = frozenset(
    {"array", "boolean", "integer", "null", "number", "object", "string"}
)


@dataclasses.dataclass(slots=True)
class _Form:
    """What the values of a schema have in common.

    Args:
        types: The types they may have.
        tags: For members that they must have: what these can be.
    """

    types: frozenset[str]
    tags: dict[str, frozenset[Any]]

    def excludes(self, other: _Form) -> bool:
        if not self.types & other.types:
            return True
        if self.types | other.types != {"object"}:
            return False
        shared = self.tags.keys() & other.tags.keys()
        return any(not self.tags[name] & other.tags[name] for name in shared)


def are_exclusive(root: Any, branches: list[Part], tag: str | None) -> bool:
    """Return whether no value can satisfy two branches, as far as can be told.

    Args:
        root: The schema that references are about.
        branches: The branches of a ``oneOf``.
        tag: The member that a discriminator names: every value has it.
    """
    if len(branches) > _MAX_BRANCHES:
        return False
    try:
        forms = [_form(root, branch, tag, 0) for branch in branches]
    except Unusable:
        return False
    return all(one.excludes(other) for one, other in itertools.combinations(forms, 2))


def type_names(part: Part) -> frozenset[str]:
    """Return the types that a schema allows; ``number`` includes ``integer``.

    Args:
        part: The schema.

    Raises:
        Unusable: If ``type`` is not a type or an array of types.
    """
    wanted = part.schema.get("type")
    if wanted is None and "type" not in part.schema:
        return _TYPES
    names = wanted if isinstance(wanted, list) else [wanted]
    if not all(isinstance(name, str) and name in _TYPES for name in names):
        raise part.wrong("type", f"one or more of {', '.join(sorted(_TYPES))}")
    return frozenset(names) | ({"integer"} if "number" in names else frozenset())


def _form(root: Any, branch: Part, tag: str | None, depth: int) -> _Form:
    form = _Form(_TYPES, {})
    for part in flatten(root, [branch]):
        form.types &= type_names(part)
        required = {*part.names("required"), tag}
        for name, schema in part.mapping("properties").items():
            if name in required and isinstance(schema, dict):
                values = _constants(schema)
                if values is not None:
                    form.tags[name] = form.tags.get(name, values) & values
        for keyword in ("anyOf", "oneOf"):
            if keyword in part.schema and depth < _MAX_FORM_NESTING:
                inner = [
                    _form(root, part.child(schema, keyword, index), tag, depth + 1)
                    for index, schema in enumerate(part.listing(keyword))
                ]
                _narrow(form, inner)
    return form


def _narrow(form: _Form, inner: list[_Form]) -> None:
    """Account for a union: each value has one of these forms as well."""
    if not inner:
        return
    form.types &= frozenset[str]().union(*(one.types for one in inner))
    for name in set.intersection(*(set(one.tags) for one in inner)):
        values = frozenset[Any]().union(*(one.tags[name] for one in inner))
        form.tags[name] = form.tags.get(name, values) & values


def _constants(schema: dict[str, Any]) -> frozenset[Any] | None:
    if "const" in schema:
        return frozenset([distinct_key(schema["const"])])
    if isinstance(schema.get("enum"), list):
        return frozenset(map(distinct_key, schema["enum"]))
    return None
