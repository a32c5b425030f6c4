"""Arrays."""

from __future__ import annotations

import itertools
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

__all__ = ["array_body"]

_MAX_PLACES = 10_000
_ATTEMPTS = 50
_MAX_REMAINING = 1000
_MAX_LISTED = 1000
_MAX_COUNT = 10**12
_NOTHING = object()


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
