"""Bodies of one type, from the keywords of all schemas that apply at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from ors_gym.spaces._schema.conjunction import Part
from ors_gym.spaces._schema.containers import ArrayBody, Extras, ObjectBody, Property
from ors_gym.spaces._schema.nodes import Body, Node, Unusable
from ors_gym.spaces._schema.numbers import MultiplesBody, NumberRange, RealsBody
from ors_gym.spaces._schema.numbers import number_body as body_of_range
from ors_gym.spaces._schema.regex import Pattern
from ors_gym.spaces._schema.strings import JSONTextBody, StringBody

__all__ = ["NodeMaker", "array_body", "number_body", "object_body", "string_body"]

_MAX_PLACES = 10_000
# Pydantic's ByteSize: its pattern allows any word as a unit, which it then refuses.
_BYTE_SIZE = r"^\s*(\d*\.?\d+)\s*(\w+)?"
_PLAIN_BYTE_SIZE = r"^\d{1,6}$"


class NodeMaker(Protocol):
    """Makes the node of some schemas that apply at once."""

    def node(self, parts: Sequence[Part]) -> Node:
        """Return the node."""
        ...

    def made(self, schema: dict[str, Any]) -> Part:
        """Return a schema that is ours, not the server's, as a part."""
        ...


def _largest(values: list[Any]) -> Any:
    return max((value for value in values if value is not None), default=None)


def _smallest(values: list[Any]) -> Any:
    return min((value for value in values if value is not None), default=None)


def number_body(parts: Sequence[Part], *, integer: bool) -> MultiplesBody | RealsBody:
    """Return the body of numbers.

    Args:
        parts: The schemas.
        integer: Whether they must be whole.

    Raises:
        Unusable: If there is no such number, or a keyword is wrong.
    """
    steps = []
    for part in parts:
        step = part.number("multipleOf")
        if step is not None and step <= 0:
            raise part.wrong("multipleOf", "above 0")
        if step is not None and step not in steps:
            steps.append(step)
    wanted = NumberRange(
        integer=integer,
        minimum=_largest([part.number("minimum") for part in parts]),
        above=_largest([part.number("exclusiveMinimum") for part in parts]),
        maximum=_smallest([part.number("maximum") for part in parts]),
        below=_smallest([part.number("exclusiveMaximum") for part in parts]),
        steps=tuple(steps),
    )
    return body_of_range(wanted, parts[0].path)


def string_body(maker: NodeMaker, parts: Sequence[Part]) -> Body:
    """Return the body of strings.

    Args:
        maker: Makes the nodes of JSON within strings.
        parts: The schemas.

    Raises:
        Unusable: If there is no such string, or a keyword is wrong.
    """
    for part in parts:
        if (
            part.text("contentMediaType") == "application/json"
            and "contentSchema" in part.schema
        ):
            content = part.child(part.schema["contentSchema"], "contentSchema")
            return JSONTextBody(maker.node([content]))
    patterns = {}
    formats = []
    for part in parts:
        pattern = part.text("pattern")
        if pattern == _BYTE_SIZE:
            pattern = _PLAIN_BYTE_SIZE
        if pattern is not None and pattern not in patterns:
            patterns[pattern] = Pattern(pattern, f"{part.path}/pattern")
        if isinstance(part.schema.get("format"), str):
            formats.append(part.schema["format"])
    return StringBody(
        _largest([part.size("minLength") for part in parts]) or 0,
        _smallest([part.size("maxLength") for part in parts]),
        list(patterns.values()),
        formats[0] if formats else None,
        parts[0].path,
    )


def array_body(maker: NodeMaker, parts: Sequence[Part]) -> Body:
    """Return the body of arrays.

    Args:
        maker: Makes the nodes of the items.
        parts: The schemas.

    Raises:
        Unusable: If there is no such array, or a keyword is wrong.
    """
    prefixes = [part.listing("prefixItems") for part in parts]
    places = max(map(len, prefixes))
    if places > _MAX_PLACES:
        raise Unusable(
            parts[0].path, f"it has {places} places, more than {_MAX_PLACES}"
        )

    def at(place: int) -> list[Part]:
        inner = []
        for part, prefix in zip(parts, prefixes, strict=True):
            if place < len(prefix):
                inner.append(part.child(prefix[place], "prefixItems", place))
            elif "items" in part.schema:
                inner.append(part.child(part.schema["items"], "items"))
        return inner

    rest = at(places)
    closed = any(part.schema is False for part in rest)
    return ArrayBody(
        [maker.node(at(place)) for place in range(places)],
        None if closed else maker.node(rest),
        _largest([part.size("minItems") for part in parts]) or 0,
        _smallest([part.size("maxItems") for part in parts]),
        parts[0].path,
        unique=any(part.schema.get("uniqueItems") is True for part in parts),
    )


class _Members:
    """What the schemas of an object say of its members.

    Args:
        parts: The schemas.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self._parts = parts
        self._patterns = [
            [
                (Pattern(text, f"{part.path}/patternProperties"), text, schema)
                for text, schema in part.mapping("patternProperties").items()
            ]
            for part in parts
        ]
        self.required = {name for part in parts for name in part.names("required")}
        named = dict.fromkeys(n for part in parts for n in part.mapping("properties"))
        self.names = list(named | dict.fromkeys(sorted(self.required)))
        self.patterns = [entry for entries in self._patterns for entry in entries]
        self.speaks_of_names = any("propertyNames" in part.schema for part in parts)

    def named(self, name: str) -> list[Part]:
        """What a member of this name must satisfy."""
        return self._inner(
            lambda pattern, _: pattern.matches(name),
            lambda part: part.mapping("properties").get(name, _ABSENT),
            name,
        )

    def entangled(self) -> bool:
        """Whether patterns, names and the rest interact in ways not followed here."""
        with_patterns = bool(self.patterns) and (
            len(self.patterns) > 1
            or len(self._parts) > 1
            or any("additionalProperties" in part.schema for part in self._parts)
        )
        return with_patterns or (self.speaks_of_names and bool(self.names))

    def extra(self) -> list[Part]:
        """What a member without a name of its own must satisfy."""
        first = self.patterns[0][1] if self.patterns else None
        return self._inner(lambda _, text: text == first, lambda _: _ABSENT, "")

    def extra_names(self, maker: NodeMaker) -> list[Part]:
        """What the name of such a member must satisfy; nothing if any will do."""
        names = [
            part.child(part.schema["propertyNames"], "propertyNames")
            for part in self._parts
            if "propertyNames" in part.schema
        ]
        if self.patterns:
            names.append(maker.made({"pattern": self.patterns[0][1]}))
        return [*names, maker.made({"type": "string"})] if names else []

    def _inner(
        self,
        applies: Callable[[Pattern, str], bool],
        own: Callable[[Part], Any],
        name: str,
    ) -> list[Part]:
        inner = []
        for part, patterns in zip(self._parts, self._patterns, strict=True):
            found = [
                part.child(schema, "patternProperties", text)
                for pattern, text, schema in patterns
                if applies(pattern, text)
            ]
            schema = own(part)
            if schema is not _ABSENT:
                found.append(part.child(schema, "properties", name))
            if not found and "additionalProperties" in part.schema:
                schema = part.schema["additionalProperties"]
                found.append(part.child(schema, "additionalProperties"))
            inner.extend(found)
        return inner

    def default(self, name: str) -> dict[str, Any]:
        """The default of a member as a keyword argument, where there is one."""
        for part in self._parts:
            schema = part.mapping("properties").get(name)
            if isinstance(schema, dict) and "default" in schema:
                return {"default": schema["default"]}
        return {}


_ABSENT = object()


def object_body(maker: NodeMaker, parts: Sequence[Part]) -> tuple[Body, bool]:
    """Return the body of objects.

    Args:
        maker: Makes the nodes of the members.
        parts: The schemas.

    Returns:
        The body, and whether its values must be checked: where patterns and names
        interact in ways that draws do not follow.

    Raises:
        Unusable: If there is no such object, or a keyword is wrong.
    """
    members = _Members(parts)
    if len(members.names) > _MAX_PLACES:
        raise Unusable(
            parts[0].path,
            f"it has {len(members.names)} properties, more than {_MAX_PLACES}",
        )
    properties = [
        Property(
            name,
            maker.node(members.named(name)),
            name in members.required,
            **members.default(name),
        )
        for name in members.names
    ]
    fewest = _largest([part.size("minProperties") for part in parts]) or 0
    extra = members.extra()
    closed = any(part.schema is False for part in extra)
    spoken_of = bool(extra or members.patterns or members.speaks_of_names)
    extras = None
    if not closed and (spoken_of or fewest > len(properties)):
        names = members.extra_names(maker)
        extras = Extras(maker.node(names) if names else None, maker.node(extra))
    body = ObjectBody(
        properties,
        fewest,
        _smallest([part.size("maxProperties") for part in parts]),
        extras,
        parts[0].path,
    )
    return body, members.entangled()
