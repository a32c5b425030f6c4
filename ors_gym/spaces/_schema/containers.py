"""Objects and arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from ors_gym.spaces._schema.conjunction import NodeMaker, Part, largest, smallest
from ors_gym.spaces._schema.nodes import (
    Body,
    Draw,
    Node,
    Unusable,
    distinct_key,
    list_values,
)
from ors_gym.spaces._schema.regex import Pattern

_MAX_PLACES = 10_000
_ATTEMPTS = 50
_MAX_REMAINING = 1000
_MAX_LISTED = 1000
_MAX_COUNT = 10**12
_NOTHING = object()


def object_body(maker: NodeMaker, parts: Sequence[Part]) -> Body:
    """Return the body of the objects that satisfy all of some schemas."""
    members = _Members(parts)
    if len(members.names) > _MAX_PLACES:
        raise Unusable(
            parts[0].path,
            f"it has {len(members.names)} properties, more than {_MAX_PLACES}",
        )
    properties = [
        _Property(
            name,
            maker.node(members.named(name)),
            name in members.required,
            **members.default(name),
        )
        for name in members.names
    ]
    fewest = largest(part.size("minProperties") for part in parts) or 0
    extra = members.extra()
    closed = any(part.schema is False for part in extra)
    spoken_of = bool(extra or members.patterns or members.speaks_of_names)
    extras = None
    if not closed and (spoken_of or fewest > len(properties)):
        names = members.extra_names(maker)
        extras = _Extras(maker.node(names) if names else None, maker.node(extra))
    body = _ObjectBody(
        properties,
        fewest,
        smallest(part.size("maxProperties") for part in parts),
        extras,
        parts[0].path,
    )
    if members.entangled():
        return maker.checked(body, [part.schema for part in parts], parts[0].path)
    return body


class _Members:
    """What the schemas of an object say of its members."""

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
        """Return the schemas of a member of this name."""
        return self._inner(
            lambda pattern, _: pattern.matches(name),
            lambda part: part.mapping("properties").get(name, _NOTHING),
            name,
        )

    def entangled(self) -> bool:
        """Return whether patterns and names interact beyond what draws follow."""
        with_patterns = bool(self.patterns) and (
            len(self.patterns) > 1
            or len(self._parts) > 1
            or any("additionalProperties" in part.schema for part in self._parts)
        )
        return with_patterns or (self.speaks_of_names and bool(self.names))

    def extra(self) -> list[Part]:
        """Return the schemas of a member that no property names."""
        first = self.patterns[0][1] if self.patterns else None
        return self._inner(lambda _, text: text == first, lambda _: _NOTHING, "")

    def extra_names(self, maker: NodeMaker) -> list[Part]:
        """Return the schemas of the name of such a member; none if any name will do."""
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
            if schema is not _NOTHING:
                found.append(part.child(schema, "properties", name))
            if not found and "additionalProperties" in part.schema:
                schema = part.schema["additionalProperties"]
                found.append(part.child(schema, "additionalProperties"))
            inner.extend(found)
        return inner

    def default(self, name: str) -> dict[str, Any]:
        """Return the default of a member as a keyword argument, where there is one."""
        for part in self._parts:
            schema = part.mapping("properties").get(name)
            if isinstance(schema, dict) and "default" in schema:
                return {"default": schema["default"]}
        return {}


@dataclasses.dataclass(frozen=True, slots=True)
class _Property:
    """A named member of an object."""

    name: str
    node: Node
    required: bool
    default: Any = _NOTHING
    """What its absence means, where the schema says so."""


@dataclasses.dataclass(frozen=True, slots=True)
class _Extras:
    """Members that no property names."""

    names: Node | None
    """What their names must be; None if any will do."""
    values: Node


class _ObjectBody(Body):
    """Objects with properties, some of them optional, and maybe extra members."""

    def __init__(
        self,
        properties: Sequence[_Property],
        fewest: int,
        most: int | None,
        extras: _Extras | None,
        path: str,
    ) -> None:
        self._required = [member for member in properties if member.required]
        self._optional = [member for member in properties if not member.required]
        self._fewest = fewest
        self._most = math.inf if most is None else most
        self._extras = extras
        self._path = path
        if len(self._required) > self._most or fewest > self._most:
            raise Unusable(path, f"more members are required than {most}")
        if fewest > len(properties) and extras is None:
            raise Unusable(path, f"there are no {fewest} members to choose from")

    def needs(self) -> list[tuple[int, Node]]:
        needs = [(1, member.node) for member in self._required]
        missing = self._fewest - len(self._required)
        if missing > 0 and self._extras is not None:
            # Optional members would do as well, but any of them may be impossible.
            needs.append((missing, self._extras.values))
            if self._extras.names is not None:
                needs.append((missing, self._extras.names))
        elif missing > 0:
            needs.extend((1, member.node) for member in self._optional[:missing])
        return needs

    def draw(self, draw: Draw, depth: int) -> dict[str, Any]:
        random = draw.random
        result = {m.name: m.node.draw(draw, depth + 1) for m in self._required}
        for member in self._optional:
            if len(result) >= self._most:
                break
            if random.random() < 0.5 and draw.is_free(depth) and member.node.possible:
                draw.allowance -= 1
                _try(result, member.name, member.node, draw, depth)
        if len(result) < self._fewest or (self._extras and draw.is_free(depth)):
            self._fill(result, draw, depth)
        return result

    def _fill(self, result: dict[str, Any], draw: Draw, depth: int) -> None:
        if self._extras is not None and self._extras.values.possible:
            self._add_extras(self._extras, result, draw, depth)
        else:
            for member in self._optional:
                if len(result) >= self._fewest:
                    break
                if member.name not in result and member.node.possible:
                    _try(result, member.name, member.node, draw, depth)
        if len(result) < self._fewest:
            raise Unusable(
                self._path, f"no {self._fewest} different members were found"
            )

    def _add_extras(
        self, extras: _Extras, result: dict[str, Any], draw: Draw, depth: int
    ) -> None:
        wanted = len(result) + draw.random.randint(0, draw.surplus(depth))
        wanted = int(min(max(self._fewest, wanted), self._most))
        named = {member.name for member in self._optional}
        for _ in range(_ATTEMPTS + 4 * self._fewest):
            if len(result) >= wanted:
                return
            try:
                name = self._name(extras, draw, depth)
            except Unusable as reason:
                draw.give_up(reason)
                continue
            if name not in result and name not in named:
                draw.allowance -= 1
                _try(result, name, extras.values, draw, depth)

    def _name(self, extras: _Extras, draw: Draw, depth: int) -> str:
        if extras.names is None:
            # Digits: right for a dict[int, ...] too, of which the schema says nothing.
            return str(draw.random.randrange(max(10, 4 * self._fewest)))
        return str(extras.names.draw(draw, depth + 1))

    def count(self, count: Callable[[Node], int]) -> int:
        extras = self._extras
        if extras is not None and extras.values.possible:
            raise Unusable(self._path, "it may have members of any name")
        total = 1
        for member in self._required:
            total *= count(member.node)
        for member in self._optional:
            if member.node.possible:
                total *= count(member.node) + 1
        return total

    def values(self) -> Iterator[Any]:
        names = [member.name for member in (*self._required, *self._optional)]
        choices = [list(member.node.body.values()) for member in self._required]
        choices += [_optional_values(member) for member in self._optional]
        for values in itertools.product(*choices):
            members = zip(names, values, strict=True)
            result = {name: value for name, value in members if value is not _NOTHING}
            if self._fewest <= len(result) <= self._most:
                yield result


def _try(result: dict[str, Any], name: str, node: Node, draw: Draw, depth: int) -> None:
    """Add an optional member, unless chance finds no value for it."""
    try:
        result[name] = node.draw(draw, depth + 1)
    except Unusable as reason:
        draw.give_up(reason)


def _optional_values(member: _Property) -> list[Any]:
    """List an optional member's values, and its absence unless that means a value."""
    if not member.node.possible:
        return [_NOTHING]
    values = list(member.node.body.values())
    if member.default is not _NOTHING:
        default = distinct_key(member.default)
        if any(distinct_key(value) == default for value in values):
            return values
    return [_NOTHING, *values]


def array_body(maker: NodeMaker, parts: Sequence[Part]) -> Body:
    """Return the body of the arrays that satisfy all of some schemas."""
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
    return _ArrayBody(
        [maker.node(at(place)) for place in range(places)],
        None if closed else maker.node(rest),
        largest(part.size("minItems") for part in parts) or 0,
        smallest(part.size("maxItems") for part in parts),
        parts[0].path,
        unique=any(part.schema.get("uniqueItems") is True for part in parts),
    )


class _ArrayBody(Body):
    """Arrays: the first items by place, the rest alike, or none if ``rest`` is None."""

    def __init__(
        self,
        places: Sequence[Node],
        rest: Node | None,
        fewest: int,
        most: int | None,
        path: str,
        *,
        unique: bool,
    ) -> None:
        self._places = places
        self._rest = rest
        self._fewest = fewest
        self._most = most
        self._unique = unique
        self._path = path
        if rest is None:
            self._most = len(places) if most is None else min(most, len(places))
        if self._most is not None and fewest > self._most:
            raise Unusable(path, f"{fewest} items are required, {self._most} allowed")

    def needs(self) -> list[tuple[int, Node]]:
        needs = [(1, node) for node in self._places[: self._fewest]]
        beyond = self._fewest - len(self._places)
        if beyond > 0 and self._rest is not None:
            needs.append((beyond, self._rest))
        return needs

    def _node(self, place: int) -> Node | None:
        node = self._places[place] if place < len(self._places) else self._rest
        return node if node is not None and node.possible else None

    def draw(self, draw: Draw, depth: int) -> list[Any]:
        extra = draw.surplus(depth)
        if extra:
            extra = max(extra, len(self._places) - self._fewest)
            extra = int(draw.random.random() * (extra + 1))
        length = self._fewest + extra
        if self._most is not None and length > self._most:
            length = self._most
        result: list[Any] = []
        seen: set[Any] = set()
        for place in range(length):
            node = self._node(place)
            if node is None:
                break
            draw.allowance -= 1
            try:
                item = node.draw(draw, depth + 1)
                if self._unique:
                    item = self._distinct(item, node, seen, draw, depth)
            except Unusable as reason:
                if place < self._fewest:
                    raise
                draw.give_up(reason)
                break
            if item is _NOTHING:
                break
            result.append(item)
        if len(result) < self._fewest:
            raise Unusable(self._path, f"no {self._fewest} different items were found")
        return result

    def _distinct(
        self, item: Any, node: Node, seen: set[Any], draw: Draw, depth: int
    ) -> Any:
        """Draw an item not seen before: by chance, else out of all if they are few."""
        for _ in range(_ATTEMPTS):
            key = distinct_key(item)
            if key not in seen:
                seen.add(key)
                return item
            item = node.draw(draw, depth + 1)
        return _remaining(node, seen, draw.random)

    def count(self, count: Callable[[Node], int]) -> int:
        most = self._reachable()
        total = 0
        product = 1
        for length in range(most + 1):
            if length >= self._fewest:
                total += product
            node = self._node(length)
            if length < most and node is not None:
                product *= count(node)
                if product > _MAX_COUNT:
                    return product
        return total

    def _reachable(self) -> int:
        """Return the largest number of items, or raise if there is none."""
        for place in range(len(self._places)):
            if self._node(place) is None:
                return place
        if self._node(len(self._places)) is None:
            return len(self._places)
        if self._most is None or self._most > _MAX_LISTED:
            raise Unusable(self._path, "the number of items has no bound")
        return self._most

    def values(self) -> Iterator[Any]:
        nodes = [self._node(place) for place in range(self._reachable())]
        choices = [list(node.body.values()) for node in nodes if node is not None]
        for length in range(self._fewest, len(choices) + 1):
            for values in itertools.product(*choices[:length]):
                if self._unique and len({distinct_key(v) for v in values}) < length:
                    continue
                yield list(values)


def _remaining(node: Node, seen: set[Any], random: Random) -> Any:
    """Draw a value of a node that was not seen yet; _NOTHING if there is none."""
    try:
        values = list_values(node, _MAX_REMAINING)
    except Unusable:
        return _NOTHING
    unseen = [value for value in values if distinct_key(value) not in seen]
    if not unseen:
        return _NOTHING
    item = random.choice(unseen)
    seen.add(distinct_key(item))
    return item
