"""Objects and arrays."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from random import Random
from typing import Any

from ors_gym.spaces._schema.enumeration import list_values
from ors_gym.spaces._schema.nodes import Body, Draw, Node, Unusable, distinct_key

__all__ = ["ArrayBody", "Extras", "ObjectBody", "Property"]

_ATTEMPTS = 50
_MAX_EXTRA = 3
_MAX_REMAINING = 1000
_MAX_LISTED = 1000
_MAX_COUNT = 10**12
_MISSING = object()


def _extra(draw: Draw, depth: int) -> int:
    """How many more items than needed; fewer the deeper, so that trees stay small."""
    if not draw.is_free(depth):
        return 0
    return max(0, _MAX_EXTRA - depth // 2)


@dataclasses.dataclass(frozen=True, slots=True)
class Property:
    """A named member of an object.

    Args:
        name: Its name.
        node: Its values.
        required: Whether it must be there.
        default: What its absence means, where the schema says so.
    """

    name: str
    node: Node
    required: bool
    default: Any = _MISSING


@dataclasses.dataclass(frozen=True, slots=True)
class Extras:
    """Members that no property names.

    Args:
        names: Their names, or None where any will do.
        values: Their values.
    """

    names: Node | None
    values: Node


class ObjectBody(Body):
    """Objects with properties, some of them optional, and maybe extra members.

    Args:
        properties: The named members.
        fewest: Least number of members.
        most: Largest number of members, or None.
        extras: What else there may be, or None for nothing else.
        path: Where in the schema, for errors.

    Raises:
        Unusable: If the numbers of members contradict each other.
    """

    def __init__(
        self,
        properties: Sequence[Property],
        fewest: int,
        most: int | None,
        extras: Extras | None,
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
        self, extras: Extras, result: dict[str, Any], draw: Draw, depth: int
    ) -> None:
        wanted = len(result) + draw.random.randint(0, _extra(draw, depth))
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

    def _name(self, extras: Extras, draw: Draw, depth: int) -> str:
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
            result = {name: value for name, value in members if value is not _MISSING}
            if self._fewest <= len(result) <= self._most:
                yield result


def _try(result: dict[str, Any], name: str, node: Node, draw: Draw, depth: int) -> None:
    """Add a member that need not be there, unless chance finds no value for it."""
    try:
        result[name] = node.draw(draw, depth + 1)
    except Unusable as reason:
        draw.give_up(reason)


def _optional_values(member: Property) -> list[Any]:
    """Values of an optional member; its absence too, unless that means one of them."""
    if not member.node.possible:
        return [_MISSING]
    values = list(member.node.body.values())
    if member.default is not _MISSING:
        default = distinct_key(member.default)
        if any(distinct_key(value) == default for value in values):
            return values
    return [_MISSING, *values]


class ArrayBody(Body):
    """Arrays: the first items by place, the rest alike.

    Args:
        places: What stands at the first places.
        rest: What stands after them, or None for nothing.
        fewest: Least number of items.
        most: Largest number of items, or None.
        path: Where in the schema, for errors.
        unique: Whether no two items may be equal.

    Raises:
        Unusable: If more items are required than allowed.
    """

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
        extra = _extra(draw, depth)
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
            if item is _MISSING:
                break
            result.append(item)
        if len(result) < self._fewest:
            raise Unusable(self._path, f"no {self._fewest} different items were found")
        return result

    def _distinct(
        self, item: Any, node: Node, seen: set[Any], draw: Draw, depth: int
    ) -> Any:
        """An item not seen before: by chance, then out of all, where they are few."""
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
        """The largest number of items, where there is one."""
        for place in range(len(self._places)):
            if self._node(place) is None:
                return place
        if self._node(len(self._places)) is None:
            return len(self._places)
        if self._most is None or self._most > _MAX_LISTED:
            raise Unusable(self._path, "there is no end to the items")
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
    """A value of a node that was not seen yet, or nothing."""
    try:
        values = list_values(node, _MAX_REMAINING)
    except Unusable:
        return _MISSING
    unseen = [value for value in values if distinct_key(value) not in seen]
    if not unseen:
        return _MISSING
    item = random.choice(unseen)
    seen.add(distinct_key(item))
    return item
