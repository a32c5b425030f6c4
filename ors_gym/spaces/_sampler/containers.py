"""Objects and arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from ors_gym.spaces._sampler.conjunction import NodeMaker, Part, largest, smallest
from ors_gym.spaces._sampler.nodes import (
    Body,
    Draw,
    Node,
    Unusable,
    distinct_key,
    list_values,
)
from ors_gym.spaces._sampler.patterns import Pattern

_MAX_PLACES = 30_000
_ATTEMPTS = 50
_MAX_MEMBERS = 50_000
_MAX_REMAINING = 1000
_MAX_LISTED = 1000
_MAX_COUNT = 10**12
_MAX_CONTAINED_PLACES = 50
_NOTHING = object()


def object_body(maker: NodeMaker, parts: Sequence[Part]) -> Body:
    """Return the body of the objects that satisfy all of some schemas."""
    members = _Members(maker, parts)
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
        values = maker.node(extra)
        extras = _Extras(maker.node(names) if names else None, values, values)
        if names:
            both = [(1, values), (1, maker.node(names))]
            extras = dataclasses.replace(extras, both=maker.inner(_Needs(both)))
    body = _ObjectBody(
        properties,
        fewest,
        smallest(part.size("maxProperties") for part in parts),
        extras,
        dependencies=members.dependencies(),
        path=parts[0].path,
    )
    body.need_others(maker)
    if members.entangled():
        return maker.checked(body, parts, parts[0].path)
    return body


class _Members:
    """What the schemas of an object say of its members."""

    def __init__(self, maker: NodeMaker, parts: Sequence[Part]) -> None:
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
        self._dependencies = [
            (name, tuple(_names(part, name)))
            for part in parts
            for name in part.mapping("dependentRequired")
        ]
        known = sorted({name for _, names in self._dependencies for name in names})
        known = [*named, *sorted(self.required), *known]
        self.patterns = [entry for entries in self._patterns for entry in entries]
        self.speaks_of_names = any("propertyNames" in part.schema for part in parts)
        self.names = list(dict.fromkeys(known))
        if self.speaks_of_names:
            self._forbid_names(maker)

    def _forbid_names(self, maker: NodeMaker) -> None:
        """Leave out the properties whose names ``propertyNames`` forbids."""
        for part in self._parts:
            if "propertyNames" in part.schema:
                names = part.child(part.schema["propertyNames"], "propertyNames")
                allowed = set(filter(maker.test(names), self.names))
                if not self.required <= allowed:
                    name = min(self.required - allowed)
                    raise Unusable(
                        names.path, f"it forbids {name!r}, which is required"
                    )
                self.names = [name for name in self.names if name in allowed]

    def dependencies(self) -> dict[str, tuple[str, ...]]:
        """Return the names that must be there, directly or not, if a name is."""
        needed: dict[str, dict[str, None]] = {}
        for name, names in self._dependencies:
            needed.setdefault(name, {}).update(dict.fromkeys(names))
        return {name: tuple(_reached(name, needed)) for name in needed}

    def named(self, name: str) -> list[Part]:
        """Return the schemas of a member of this name."""
        return self._inner(
            lambda pattern, _: pattern.matches(name),
            lambda part: part.mapping("properties").get(name, _NOTHING),
            name,
        )

    def entangled(self) -> bool:
        """Return whether patterns and names interact beyond what draws follow."""
        return bool(self.patterns) and (
            len(self.patterns) > 1
            or len(self._parts) > 1
            or any("additionalProperties" in part.schema for part in self._parts)
        )

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

    @property
    def size(self) -> int:
        return self.node.size or 0


@dataclasses.dataclass(frozen=True, slots=True)
class _Extras:
    """Members that no property names."""

    names: Node | None
    """What their names must be; None if any will do."""
    values: Node
    both: Node
    """Possible if both a name and a value for such a member can be drawn."""


class _Needs(Body):
    """What something needs, for `measure` alone: all of it, or some."""

    def __init__(
        self, needs: list[tuple[int, Node]], enough: int | None = None
    ) -> None:
        self._needs = needs
        self.enough = enough

    def needs(self) -> list[tuple[int, Node]]:
        return self._needs

    def draw(self, draw: Draw, depth: int) -> Any:
        raise NotImplementedError


class _ObjectBody(Body):
    """Objects with properties, some of them optional, and maybe extra members."""

    def __init__(
        self,
        properties: Sequence[_Property],
        fewest: int,
        most: int | None,
        extras: _Extras | None,
        *,
        dependencies: dict[str, tuple[str, ...]],
        path: str,
    ) -> None:
        self._properties = {member.name: member for member in properties}
        required = {member.name for member in properties if member.required}
        required.update(*(dependencies.get(name, ()) for name in required))
        self._required = [one for one in properties if one.name in required]
        self._optional = [one for one in properties if one.name not in required]
        self._fewest = fewest
        self._most = math.inf if most is None else most
        self._extras = extras
        self._dependencies = dependencies
        self._path = path
        self._named = self._properties.keys() | dependencies.keys()
        self._others: list[tuple[int, Node]] = []
        self._by_size: list[_Property] | None = None
        if len(required) > len(self._required):
            raise Unusable(path, "a member is required that is not allowed")
        if len(self._required) > self._most or fewest > self._most:
            raise Unusable(path, f"more members are required than {most}")
        if fewest > len(properties) and extras is None:
            raise Unusable(path, f"there are no {fewest} members to choose from")

    def need_others(self, maker: NodeMaker) -> None:
        """Make the smallest object have enough members, whichever are possible."""
        missing = self._fewest - len(self._required)
        if missing <= 0:
            return
        others = [(1, member.node) for member in self._optional]
        if self._extras is not None:
            if not others:
                self._others = [(missing, self._extras.both)]
                return
            others += [(1, self._extras.both)] * min(missing, _MAX_MEMBERS)
        self._others = [(1, maker.inner(_Needs(others, missing)))]

    def needs(self) -> list[tuple[int, Node]]:
        return [(1, member.node) for member in self._required] + self._others

    def draw(self, draw: Draw, depth: int) -> dict[str, Any]:
        random = draw.random
        result = {m.name: m.node.draw(draw, depth + 1) for m in self._required}
        for member in self._optional:
            if len(result) >= self._most:
                break
            if random.random() < 0.5 and draw.is_free(depth):
                self._add(member, result, draw, depth)
        if len(result) < self._fewest or (self._extras and draw.is_free(depth)):
            self._fill(result, draw, depth)
        return result

    def _add(
        self, member: _Property, result: dict[str, Any], draw: Draw, depth: int
    ) -> None:
        """Add an optional member and those that it brings, if all of them are found."""
        if not member.node.possible or member.name in result:
            return
        added = {}
        for name in (member.name, *self._dependencies.get(member.name, ())):
            if name in result:
                continue
            brought = self._properties.get(name)
            if brought is None or not brought.node.possible or not draw.may_fail():
                return
            try:
                draw.allowance -= 1
                added[name] = brought.node.draw(draw, depth + 1)
            except Unusable:
                draw.failed()
                return
        if len(result) + len(added) <= self._most:
            result.update(added)

    def _fill(self, result: dict[str, Any], draw: Draw, depth: int) -> None:
        others = self._smallest_first()
        free = draw.is_free(depth)
        extras = self._extras
        if extras is not None and not extras.both.possible:
            extras = None
        # Where values may not be larger than they must be, recursion has to end.
        small = (
            not free and others and extras and others[0].size < (extras.both.size or 0)
        )
        if extras is not None and not small:
            self._add_extras(extras, result, draw, depth)
        if free and others:
            others = draw.random.sample(others, len(others))
        for member in others:
            if len(result) >= self._fewest:
                return
            self._add(member, result, draw, depth)
        if len(result) < self._fewest and extras is not None:
            self._add_extras(extras, result, draw, depth)
        if len(result) < self._fewest:
            raise Unusable(
                self._path, f"no {self._fewest} different members were found"
            )

    def _smallest_first(self) -> list[_Property]:
        """Return the optional members that are possible, once that is known."""
        if self._by_size is None:
            possible = (one for one in self._optional if one.node.possible)
            self._by_size = sorted(possible, key=lambda one: one.size)
        return self._by_size

    def _add_extras(
        self, extras: _Extras, result: dict[str, Any], draw: Draw, depth: int
    ) -> None:
        wanted = len(result) + draw.random.randint(0, draw.surplus(depth))
        wanted = int(min(max(self._fewest, wanted), self._most))
        for _ in range(_ATTEMPTS + 4 * self._fewest):
            if len(result) >= wanted or not draw.may_fail():
                return
            try:
                name = self._name(extras, draw, depth)
                if name not in result and name not in self._named:
                    draw.allowance -= 1
                    result[name] = extras.values.draw(draw, depth + 1)
            except Unusable:
                draw.failed()

    def _name(self, extras: _Extras, draw: Draw, depth: int) -> str:
        if extras.names is None:
            # Digits: right for a dict[int, ...] too, of which the schema says nothing.
            return str(draw.random.randrange(max(10, 4 * self._fewest)))
        return str(extras.names.draw(draw, depth + 1))

    def count(self, count: Callable[[Node], int]) -> int:
        extras = self._extras
        if extras is not None and extras.both.possible:
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
            if self._fewest <= len(result) <= self._most and self._complete(result):
                yield result

    def _complete(self, result: dict[str, Any]) -> bool:
        return all(
            name not in result or all(other in result for other in others)
            for name, others in self._dependencies.items()
        )


def _names(part: Part, name: str) -> list[str]:
    names = part.mapping("dependentRequired")[name]
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise part.wrong("dependentRequired", "an object of arrays of strings")
    return names


def _reached(name: str, needed: dict[str, dict[str, None]]) -> list[str]:
    """Return the names that one brings, those that these bring, and so on."""
    reached = {name: None}
    queue = [name]
    while queue:
        for other in needed.get(queue.pop(), ()):
            if other not in reached:
                reached[other] = None
                queue.append(other)
    return list(reached)[1:]


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
    most = smallest(part.size("maxItems") for part in parts)
    if closed:
        most = places if most is None else min(most, places)
    contained = [
        _Contained(
            _fewest_contained(part),
            [part.child(part.schema["contains"], "contains")],
        )
        for part in parts
        if "contains" in part.schema
    ]
    contained = [one for one in contained if one.fewest]
    if most is not None and sum(one.fewest for one in contained) > most:
        together = [schema for one in contained for schema in one.schemas]
        contained = [_Contained(max(one.fewest for one in contained), together)]
    for one in contained:
        looked_at = range(places if places <= _MAX_CONTAINED_PLACES else 0)
        one.places = [maker.node([*at(place), *one.schemas]) for place in looked_at]
        one.rest = None if closed else maker.node([*rest, *one.schemas])
    return _ArrayBody(
        [maker.node(at(place)) for place in range(places)],
        None if closed else maker.node(rest),
        largest(part.size("minItems") for part in parts) or 0,
        most,
        contained,
        path=parts[0].path,
        unique=any(part.schema.get("uniqueItems") is True for part in parts),
    )


def _fewest_contained(part: Part) -> int:
    fewest = part.size("minContains")
    return 1 if fewest is None else fewest


@dataclasses.dataclass(slots=True)
class _Contained:
    """Items that an array must have (``contains``), wherever they stand."""

    fewest: int
    schemas: list[Part]
    places: list[Node] = dataclasses.field(default_factory=list)
    """Such an item at each of the first places."""
    rest: Node | None = None

    def at(self, place: int) -> Node | None:
        node = self.places[place] if place < len(self.places) else self.rest
        return node if node is not None and node.possible else None


class _ArrayBody(Body):
    """Arrays: the first items by place, the rest alike, or none if ``rest`` is None."""

    def __init__(
        self,
        places: Sequence[Node],
        rest: Node | None,
        fewest: int,
        most: int | None,
        contained: list[_Contained],
        *,
        path: str,
        unique: bool,
    ) -> None:
        self._places = places
        self._rest = rest
        self._contained = contained
        self._fewest = max(fewest, sum(one.fewest for one in contained))
        self._most = most
        self._unique = unique
        self._path = path
        if most is not None and self._fewest > most:
            raise Unusable(path, f"{self._fewest} items are required, {most} allowed")

    def needs(self) -> list[tuple[int, Node]]:
        needs = [(1, node) for node in self._places[: self._fewest]]
        beyond = self._fewest - len(self._places)
        if beyond > 0 and self._rest is not None:
            needs.append((beyond, self._rest))
        needs += [(one.fewest, one.rest) for one in self._contained if one.rest]
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
        places = self._place_contained(length, draw)
        for place in range(length):
            node = places.get(place) or self._node(place)
            if node is None:
                break
            draw.allowance -= 1
            try:
                item = node.draw(draw, depth + 1)
                if self._unique:
                    item = self._distinct(item, node, seen, draw, depth)
            except Unusable:
                if place < max(self._fewest, *places, -1):
                    raise
                draw.failed()
                break
            if item is _NOTHING:
                break
            result.append(item)
        if len(result) < self._fewest:
            raise Unusable(self._path, f"no {self._fewest} different items were found")
        return result

    def _place_contained(self, length: int, draw: Draw) -> dict[int, Node]:
        """Choose the places of the items that must be there."""
        placed: dict[int, Node] = {}
        for one in self._contained:
            free = [
                place
                for place in range(length)
                if place not in placed and one.at(place) is not None
            ]
            for place in draw.random.sample(free, min(one.fewest, len(free))):
                node = one.at(place)
                if node is not None:
                    placed[place] = node
        return placed

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
